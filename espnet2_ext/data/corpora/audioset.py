"""Reader of AudioSet: the lists as published, the audio as folders, tar shards or packed HDF5.

J. F. Gemmeke et al., "Audio Set: An ontology and human-labeled dataset for audio events", ICASSP
2017. Lists: `YTID, start_seconds, end_seconds, "mid,mid,..."` behind lines that begin with `#`.
"""

import csv
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import soundfile

from espnet2_ext.audio.read import tar_members
from espnet2_ext.data.tables import Clip, Label, write_clips, write_labels
from espnet2_ext.errors import DataError

PACKED = (".h5", ".hdf5")
_MORE_SUFFIXES = (".aif", ".oga", ".opus", ".wave")  # names that differ from libsndfile's formats
_NOT_SOUND = {".raw"}  # no header, so no rate


def prepare_audioset(
    data_dir: str | os.PathLike,
    sets: dict[str, Sequence[str | os.PathLike]],
    class_labels: str | os.PathLike,
    audio: Sequence[str | os.PathLike],
    *,
    ontology: str | os.PathLike | None = None,
    hdf5_rate: int | None = None,
) -> dict[str, int]:
    """Write `data_dir/labels.tsv` and for each set `data_dir/SET/clips.tsv`.

    Args:
        sets: name -> segment lists. class_labels: `class_labels_indices.csv`.
        audio: folders, `.tar` files and packed `.h5` files; folders are searched for all three.
        ontology: `ontology.json`; without it no class is related to another.
        hdf5_rate: rate in Hz of packed files that do not tell theirs.

    Returns:
        Number of clips of each set; a clip without audio gets an empty source (scan: missing).

    Raises:
        DataError: naming file and line: a broken line, an unknown class, a clip listed twice; no
            sound in `audio`, or none of a list.
    """
    labels = read_class_labels(class_labels, ontology)
    known = {label.mid for label in labels}
    lists = {name: read_segments(paths, known) for name, paths in sets.items()}
    sources = find_audio(audio, hdf5_rate)
    counts = {}
    for name, segments in lists.items():
        clips = [Clip(id_, mids, _source(sources, *key, whole=id_ == key[0])) for key, (id_, mids) in segments.items()]
        found = sum(bool(c.source) for c in clips)
        if not found:
            raise DataError(
                f"{', '.join(map(str, sets[name]))}: none of its {len(clips)} clips is among the"
                f" {len(sources)} sounds of {', '.join(map(str, audio))}; the first clip is"
                f" {clips[0].id}, the first sound {min(sources)}"
            )
        logging.info("%s: audio for %d of %d clips", name, found, len(clips))
        write_clips(Path(data_dir) / name / "clips.tsv", clips)
        counts[name] = len(clips)
    write_labels(Path(data_dir) / "labels.tsv", labels)
    return counts


def read_class_labels(path: str | os.PathLike, ontology: str | os.PathLike | None = None) -> list[Label]:
    """Read `class_labels_indices.csv` (columns index, mid, display_name).

    Raises:
        DataError: naming file and line.
    """
    rows: list[tuple[str, str]] = []
    for number, row in _csv_rows(path):
        if number == 1 and row != ["index", "mid", "display_name"]:
            raise DataError(f"{path}:1: expected the columns index,mid,display_name")
        if number == 1:
            continue
        if len(row) != 3 or row[0] != str(len(rows)) or not row[1]:
            raise DataError(f"{path}:{number}: expected {len(rows)},MID,NAME")
        if any(row[1] == mid for mid, _ in rows):
            raise DataError(f"{path}:{number}: {row[1]} is listed twice")
        rows.append((row[1], row[2]))
    if not rows:
        raise DataError(f"{path}: no classes in it")
    related = read_ontology(ontology, [mid for mid, _ in rows]) if ontology else [()] * len(rows)
    return [Label(i, mid, name, related[i]) for i, (mid, name) in enumerate(rows)]


def read_ontology(path: str | os.PathLike, mids: Sequence[str]) -> list[tuple[int, ...]]:
    """For each of `mids` the indices of those that are its ancestors or descendants.

    Raises:
        DataError: not a list of objects with `id` and `child_ids`.
    """
    try:
        nodes = json.loads(Path(path).read_text(encoding="utf-8"))
        children = {node["id"]: list(node["child_ids"]) for node in nodes}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (ValueError, KeyError, TypeError) as e:
        raise DataError(f"{path}: not an ontology (objects with id and child_ids): {e!r}") from e
    rows = {mid: i for i, mid in enumerate(mids)}
    related: list[set[int]] = [set() for _ in mids]
    for mid, i in rows.items():
        below, stack = set(), list(children.get(mid, ()))
        while stack:
            node = stack.pop()
            if node not in below:
                below.add(node)
                stack.extend(children.get(node, ()))
        for j in (rows[node] for node in below if node in rows and node != mid):
            related[i].add(j)
            related[j].add(i)
    return [tuple(sorted(v)) for v in related]


def read_segments(
    paths: Sequence[str | os.PathLike], known: set[str]
) -> dict[tuple[str, float, float], tuple[str, tuple[str, ...]]]:
    """Read segment lists: (YTID, start, end) in seconds -> (clip id, mids).

    The clip id is the YTID; a further segment of the same recording gets `YTID_START` (ms).

    Raises:
        DataError: naming file and line: a broken line, a class not in `known`, a segment twice.
    """
    segments: dict[tuple[str, float, float], tuple[str, tuple[str, ...]]] = {}
    recordings = set()
    for path in paths:
        for number, row in _csv_rows(path):
            if row[0].startswith("#"):
                continue
            key, mids = _segment(row, f"{path}:{number}")
            if unknown := [m for m in mids if m not in known]:
                raise DataError(f"{path}:{number}: unknown class {unknown[0]}")
            if key in segments:
                raise DataError(f"{path}:{number}: {key[0]} at {key[1]:g} s is listed twice")
            id_ = f"{key[0]}_{round(key[1] * 1000)}" if key[0] in recordings else key[0]
            recordings.add(key[0])
            segments[key] = id_, mids
    if not segments:
        raise DataError(f"{', '.join(map(str, paths))}: no clips in the list")
    return segments


def _segment(row: list[str], where: str) -> tuple[tuple[str, float, float], tuple[str, ...]]:
    try:
        ytid, start, end, mids = row
        key = ytid, float(start), float(end)
    except ValueError:
        raise DataError(f'{where}: expected YTID, start, end, "mid,mid", found {len(row)} fields: {row}') from None
    mids = tuple(m.strip() for m in mids.split(","))
    if not ytid or any(c.isspace() for c in ytid) or not 0 <= key[1] < key[2] or not all(mids):
        raise DataError(f"{where}: no id, no class, or an end that is not past the start: {row}")
    return key, mids


def _csv_rows(path: str | os.PathLike) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not empty, with their line numbers."""
    try:
        f = open(path, encoding="utf-8-sig", newline="")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    with f:
        table = csv.reader(f, skipinitialspace=True, strict=True)
        try:
            for row in table:
                if row:
                    yield table.line_num, row
        except (csv.Error, UnicodeDecodeError) as e:
            raise DataError(f"{path}:{table.line_num}: {e}") from e


def find_audio(audio: Sequence[str | os.PathLike], hdf5_rate: int | None = None) -> dict[str, str]:
    """Name without folder and suffix -> reference, over folders, tar files and packed files.

    Each folder is listed once. Of two files of one name the first by path is taken.

    Raises:
        DataError: a path that is not there, no sound at all, a tar or HDF5 file that is broken.
    """
    suffixes = {f".{name.lower()}" for name in soundfile.available_formats()}
    suffixes = (suffixes | set(_MORE_SUFFIXES)) - _NOT_SOUND
    found: dict[str, str] = {}
    for root in audio:
        for path in _files(os.fspath(root)):
            stem, suffix = os.path.splitext(os.path.basename(path))
            if suffix.lower() == ".tar":
                pairs = _in_tar(path, suffixes)
            elif suffix.lower() in PACKED:
                pairs = _in_hdf5(path, hdf5_rate)
            else:
                pairs = [(stem, path)] if suffix.lower() in suffixes else []
            for name, ref in pairs:
                if name not in found or ref < found[name]:
                    found[name] = ref
    if not found:
        raise DataError(f"{', '.join(map(str, audio))}: no sound files in it")
    return found


def _files(root: str) -> Iterator[str]:
    if not os.path.isdir(root):
        if not os.path.isfile(root):
            raise DataError(f"{root}: no such file or folder")
        yield root
        return
    stack, seen = [root], set()
    while stack:
        folder = stack.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    stack.append(entry.path)
                else:
                    yield entry.path


def _in_tar(path: str, suffixes: set[str]) -> Iterator[tuple[str, str]]:
    for member, offset, size in tar_members(path):
        stem, suffix = os.path.splitext(os.path.basename(member))
        if suffix.lower() in suffixes:
            yield stem, f"tar:{path}#{member}@{offset}+{size}"


def _in_hdf5(path: str, rate: int | None) -> Iterator[tuple[str, str]]:
    import h5py

    try:
        with h5py.File(path, "r") as f:
            names = [v.decode() if isinstance(v, bytes) else str(v) for v in f["audio_name"][:]]
            rows = len(f["waveform"])
            own = "sample_rate" in f.attrs
    except (OSError, KeyError) as e:
        raise DataError(f"{path}: not a packed file (audio_name, waveform): {e}") from e
    if rows != len(names):
        raise DataError(f"{path}: {len(names)} names for {rows} waveforms")
    if not own and not rate:
        raise DataError(f"{path}: has no attribute sample_rate: give hdf5_rate")
    tail = "" if own else f"@{rate}"
    for row, name in enumerate(names):
        yield os.path.splitext(os.path.basename(name))[0], f"hdf5:{path}#{row}{tail}"


def _source(sources: dict[str, str], ytid: str, start: float, end: float, whole: bool) -> str:
    """Reference of a segment under the names that are in use, '' where there is none.

    whole: a name without times is taken too (a second segment of a recording must be told apart).
    """
    for id_ in (ytid, f"Y{ytid}") if whole else ():
        if id_ in sources:
            return sources[id_]
    forms = ("{:.3f}", "{:g}", "{:.1f}")
    times = [(f.format(start), f.format(end)) for f in forms]
    times += [(str(round(start * 1000)), str(round(end * 1000)))]
    times += [(f"{round(start):0{n}d}", f"{round(end):0{n}d}") for n in (3, 6)]
    for id_ in (ytid, f"Y{ytid}"):
        for a, b in times:
            for name in (f"{id_}_{a}", f"{id_}_{a}_{b}", f"{id_}-{a}-{b}"):
                if name in sources:
                    return sources[name]
    return ""
