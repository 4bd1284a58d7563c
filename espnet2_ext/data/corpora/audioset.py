"""Reader of AudioSet: the lists as published, the audio as folders, tar shards or packed HDF5.

J. F. Gemmeke et al., "Audio Set: An ontology and human-labeled dataset for audio events", ICASSP
2017. Lists: `YTID, start_seconds, end_seconds, "mid,mid,..."` behind lines that begin with `#`.
"""

import argparse
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence

from espnet2_ext.audio import packed
from espnet2_ext.audio.read import tar_members
from espnet2_ext.audio.suffixes import KNOWN, SUFFIXES, WITH_AV, left_out
from espnet2_ext.data.corpora.corpus import Corpus, Step, counted, write_lists
from espnet2_ext.data.tables import Clip, Label
from espnet2_ext.errors import DataError
from espnet2_ext.util.documents import check, read_json
from espnet2_ext.util.tables import TableError, check_id, number, read_lines, read_table

_SEARCHED = SUFFIXES.union(packed.SUFFIXES, (".tar",))


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
        hdf5_rate: rate in Hz of packed files without the attribute `sample_rate`.

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
    clips = {name: _clips(segments, sources) for name, segments in lists.items()}
    for name, of in clips.items():
        found = sum(bool(c.source) for c in of)
        if not found:
            raise DataError(
                f"{', '.join(map(str, sets[name]))}: none of its {len(of)} clips is among the {len(sources)} sounds of"
                f" {', '.join(map(str, audio))}; the first clip is {of[0].id}, the first sound {min(sources)}"
            )
        logging.info("%s: audio for %d of %d clips", name, found, len(of))
    return write_lists(data_dir, labels, clips)


def _clips(segments: dict, sources: dict[str, str]) -> list[Clip]:
    return [Clip(id_, mids, _source(sources, *key, whole=id_ == key[0])) for key, (id_, mids) in segments.items()]


def read_class_labels(path: str | os.PathLike, ontology: str | os.PathLike | None = None) -> list[Label]:
    """Read `class_labels_indices.csv` (columns index, mid, display_name).

    Raises:
        DataError: naming file and line.
    """
    rows: dict[str, str] = {}
    for line, row in read_table(path, ("index", "mid", "display_name"), more=()):
        if row["index"] != str(len(rows)) or not row["mid"]:
            raise TableError(f"{path}:{line}", f"expected {len(rows)},MID,NAME")
        if row["mid"] in rows:
            raise TableError(f"{path}:{line}", f"{row['mid']} is listed twice")
        rows[row["mid"]] = row["display_name"]
    if not rows:
        raise TableError(path, "no classes in it")
    related = read_ontology(ontology, list(rows)) if ontology else [()] * len(rows)
    return [Label(i, mid, name, related[i]) for i, (mid, name) in enumerate(rows.items())]


def read_ontology(path: str | os.PathLike, mids: Sequence[str]) -> list[tuple[int, ...]]:
    """For each of `mids` the indices of those that are its ancestors or descendants.

    Raises:
        DataError: not a list of objects with `id` and `child_ids`.
    """
    nodes = check(read_json(path), [{"id": str, "child_ids": [str]}], path)
    children = {node["id"]: node["child_ids"] for node in nodes}
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
        for line, row in read_lines(path):
            if row[0].startswith("#"):
                continue
            try:  # not `at`: there are two million lines
                key, mids = _segment(row)
                if unknown := [m for m in mids if m not in known]:
                    raise DataError(f"unknown class {unknown[0]}")
                if key in segments:
                    raise DataError(f"{key[0]} at {key[1]:g} s is listed twice")
            except DataError as e:
                raise TableError(f"{path}:{line}", str(e)) from None
            id_ = f"{key[0]}_{round(key[1] * 1000)}" if key[0] in recordings else key[0]
            recordings.add(key[0])
            segments[key] = id_, mids
    if not segments:
        raise DataError(f"{', '.join(map(str, paths))}: no clips in the list")
    return segments


def _segment(row: list[str]) -> tuple[tuple[str, float, float], tuple[str, ...]]:
    if len(row) != 4:
        raise DataError(f'expected YTID, start, end, "mid,mid", found {len(row)} fields')
    ytid, mids = row[0], tuple(m.strip() for m in row[3].split(","))
    start, end = number("start", row[1], 0), number("end", row[2])
    if not start < end or not all(mids):
        raise DataError(f"no class, or an end that is not past the start: {', '.join(row[1:])}")
    check_id(ytid, ())
    return (ytid, start, end), mids


def find_audio(audio: Sequence[str | os.PathLike], hdf5_rate: int | None = None) -> dict[str, str]:
    """Name without folder and suffix -> reference, over folders, tar files and packed files.

    Each folder is listed once. Of two files of one name the first by path is taken, of those that libsndfile reads
    where there are such. What is there is counted in the log.

    Raises:
        DataError: a missing path, no sound at all, a tar or HDF5 file that is broken.
    """
    found: dict[str, tuple[bool, str]] = {}
    kinds, others = Counter(), []
    for root in audio:
        for path in _files(os.fspath(root)):
            for name, suffix, ref in _sounds(path, hdf5_rate):
                kinds[suffix] += 1
                rank = suffix in WITH_AV, ref
                if name not in found or rank < found[name]:
                    found[name] = rank
            if os.path.splitext(path)[1].lower() not in _SEARCHED:
                others.append(path)
    where = ", ".join(map(str, audio))
    left_out(where, others)
    if not found:
        raise DataError(f"{where}: no sound files in it, by their suffixes ({KNOWN})")
    logging.info("%s: %s", where, ", ".join(f"{n} {suffix}" for suffix, n in sorted(kinds.items())))
    return {name: ref for name, (_, ref) in found.items()}


def _sounds(path: str, hdf5_rate: int | None) -> Iterator[tuple[str, str, str]]:
    """Name, suffix and reference of each sound of a file, which may be a tar or a packed file."""
    stem, suffix = os.path.splitext(os.path.basename(path))
    suffix = suffix.lower()
    if suffix == ".tar":
        for member, offset, size in tar_members(path):
            stem, suffix = os.path.splitext(os.path.basename(member))
            if suffix.lower() in SUFFIXES:
                yield stem, suffix.lower(), f"tar:{path}#{member}@{offset}+{size}"
    elif suffix in packed.SUFFIXES:
        names, own = packed.packed_names(path)
        if not own and not hdf5_rate:
            raise DataError(f"{path}: has no attribute sample_rate: give hdf5_rate")
        tail = "" if own else f"@{hdf5_rate}"
        for row, name in enumerate(names):
            yield os.path.splitext(os.path.basename(name))[0], suffix, f"hdf5:{path}#{row}{tail}"
    elif suffix in SUFFIXES:
        yield stem, suffix, path


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


def _source(sources: dict[str, str], ytid: str, start: float, end: float, whole: bool) -> str:
    """Reference of a segment under the names that are in use, '' where there is none.

    whole: a name without times is taken too (a second segment of a recording needs its times).
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


def _add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--audio", nargs="+", required=True, metavar="PATH", help="folders, .tar files, packed .h5 files")
    p.add_argument("--class_labels", required=True, help="class_labels_indices.csv")
    p.add_argument("--ontology", help="ontology.json: keeps a class from its ancestors")
    text = "a set and its segment lists; repeatable"
    p.add_argument("--set", nargs="+", action="append", required=True, metavar=("NAME", "CSV"), help=text)
    p.add_argument("--hdf5_rate", type=int, help="rate in Hz of packed files that lack it")


def _prepare(a: argparse.Namespace) -> str:
    sets = {name: lists for name, *lists in a.set}
    if not all(sets.values()):
        raise DataError("--set needs a name and at least one segment list")
    more = {"ontology": a.ontology, "hdf5_rate": a.hdf5_rate}
    return counted(prepare_audioset(a.data_dir, sets, a.class_labels, a.audio, **more))


def _add_embedded_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--train_clips", type=int, default=60, help="clips per class")
    p.add_argument("--eval_clips", type=int, default=12, help="clips per class")
    p.add_argument("--clip_seconds", type=float, default=5.0, help="length of a clip")
    p.add_argument("--classes", nargs="+", default=[], metavar="CLASS", help="names or mids; none given: all")


def _make_embedded(a: argparse.Namespace) -> None:
    from espnet2_ext.data.synth.audioset import make_mini_audioset

    make_mini_audioset(**vars(a))


ABOUT = "AudioSet: lists and audio as published -> data/labels.tsv, data/SET/clips.tsv"
EMBEDDED = "Make the embedded corpus: sounds in AudioSet's layout, from a General MIDI sound font."
CORPUS = Corpus(
    Step(ABOUT, _add_options, _prepare, ("hold_out",)), embedded=Step(EMBEDDED, _add_embedded_options, _make_embedded)
)
