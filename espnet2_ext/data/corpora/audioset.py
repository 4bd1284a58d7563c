"""Reader of AudioSet: the lists as published, the audio as folders, tar shards or packed HDF5.

J. F. Gemmeke et al., "Audio Set: An ontology and human-labeled dataset for audio events", ICASSP
2017. Lists: `YTID, start_seconds, end_seconds, "mid,mid,..."` behind lines that begin with `#`.
"""

import argparse
import functools
import logging
import os
from collections import Counter, UserDict
from collections.abc import Iterator, Sequence

from espnet2_ext.audio.files import KNOWN, SUFFIXES, WITH_AV, left_out
from espnet2_ext.audio.optional import PACKED, packed_names
from espnet2_ext.audio.read import tar_members
from espnet2_ext.data.corpora.corpus import Corpus, Step, counted, write_lists
from espnet2_ext.data.tables import Clip, Label
from espnet2_ext.errors import DataError
from espnet2_ext.util.documents import check, read_json
from espnet2_ext.util.tables import TableError, check_id, number, read_lines, read_table

_SEARCHED = SUFFIXES.union(PACKED, (".tar",))


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
    for paths in sets.values():
        next(read_segments(paths, known))  # a list that is missing is reported before the audio is searched
    sources, where = find_audio(audio, hdf5_rate), ", ".join(map(str, audio))
    return write_lists(data_dir, labels, {name: _clips(paths, known, sources, where) for name, paths in sets.items()})


def _clips(paths: Sequence[str | os.PathLike], known: set[str], sources: "Sounds", where: str) -> Iterator[Clip]:
    found, total, first = 0, 0, ""
    for id_, key, mids in read_segments(paths, known):
        source = _source(sources, *key, whole=id_ == key[0])
        found, total, first = found + bool(source), total + 1, first or id_
        yield Clip(id_, mids, source)
    lists = ", ".join(map(str, paths))
    if not found:
        raise DataError(
            f"{lists}: none of its {total} clips is among the {len(sources)} sounds of {where};"
            f" the first clip is {first}, the first sound {min(sources)}"
        )
    logging.info("%s: audio for %d of %d clips", lists, found, total)


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
) -> Iterator[tuple[str, tuple[str, float, float], tuple[str, ...]]]:
    """Read segment lists: clip id, (YTID, start, end) in seconds, mids.

    The clip id is the YTID; a further segment of the same recording gets `YTID_START` (ms).

    Raises:
        DataError: naming file and line: a broken line, a class not in `known`, a segment twice; no clips.
    """
    first: dict[str, tuple[float, float]] = {}  # times of each recording's first segment
    further = set()
    for path in paths:
        for line, row in read_lines(path):
            if row[0].startswith("#"):
                continue
            try:  # not `at`: there are two million lines
                ytid, times, mids = _segment(row)
                if unknown := [m for m in mids if m not in known]:
                    raise DataError(f"unknown class {unknown[0]}")
                if first.get(ytid) == times or (ytid, times) in further:
                    raise DataError(f"{ytid} at {times[0]:g} s is listed twice")
            except DataError as e:
                raise TableError(f"{path}:{line}", str(e)) from None
            id_ = f"{ytid}_{round(times[0] * 1000)}" if ytid in first else ytid
            if first.setdefault(ytid, times) != times:
                further.add((ytid, times))
            yield id_, (ytid, *times), mids
    if not first:
        raise DataError(f"{', '.join(map(str, paths))}: no clips in the list")


def _segment(row: list[str]) -> tuple[str, tuple[float, float], tuple[str, ...]]:
    if len(row) != 4:
        raise DataError(f'expected YTID, start, end, "mid,mid", found {len(row)} fields')
    times, mids = _times(row[1], row[2]), tuple(m.strip() for m in row[3].split(","))
    if not times[0] < times[1] or not all(mids):
        raise DataError(f"no class, or an end that is not past the start: {', '.join(row[1:])}")
    check_id(row[0], ())
    return row[0], times, mids


@functools.lru_cache(maxsize=1 << 16)  # clips share them: one tuple for all
def _times(start: str, end: str) -> tuple[float, float]:
    return number("start", start, 0), number("end", end)


class Sounds(UserDict[str, str]):
    """Name -> reference; what many share before and behind the name is held once, places in files (# @) as they are."""

    def __init__(self):
        super().__init__()
        self._shared: dict = {}

    def __getitem__(self, name: str) -> str:
        return name.join(self.data[name])

    def __setitem__(self, name: str, ref: str) -> None:
        *head, tail = ref.rsplit(name, 1) if name else [ref]
        pieces = (*(self._shared.setdefault(one, one) for one in head), tail)
        self.data[name] = pieces if {"#", "@"} & {*tail} else self._shared.setdefault(pieces, pieces)


def find_audio(audio: Sequence[str | os.PathLike], hdf5_rate: int | None = None) -> Sounds:
    """Name without folder and suffix -> reference, over folders, tar files and packed files.

    Each folder is listed once. Of two files of one name the first by path is taken, of those that libsndfile reads
    where there are such. What is there is counted in the log.

    Raises:
        DataError: a missing path, no sound at all, a tar or HDF5 file that is broken.
    """
    found, late, kinds, others = Sounds(), set(), Counter(), []
    for root in audio:
        for path in _files(os.fspath(root)):
            for name, suffix, ref in _sounds(path, hdf5_rate):
                kinds[suffix] += 1
                rank = suffix in WITH_AV, ref
                if name not in found or rank < (name in late, found[name]):
                    found[name] = ref
                    (late.add if rank[0] else late.discard)(name)
            if os.path.splitext(path)[1].lower() not in _SEARCHED:
                others.append(path)
    left_out(where := ", ".join(map(str, audio)), others)
    if not found:
        raise DataError(f"{where}: no sound files in it, by their suffixes ({KNOWN})")
    logging.info("%s: %s", where, ", ".join(f"{n} {suffix}" for suffix, n in sorted(kinds.items())))
    return found


def _sounds(path: str, hdf5_rate: int | None) -> Iterator[tuple[str, str, str]]:
    """Name, suffix and reference of each sound of a file, which may be a tar or a packed file."""
    stem, suffix = os.path.splitext(os.path.basename(path))
    suffix = suffix.lower()
    if suffix == ".tar":
        for member, offset, size in tar_members(path):
            stem, suffix = os.path.splitext(os.path.basename(member))
            if suffix.lower() in SUFFIXES:
                yield stem, suffix.lower(), f"tar:{path}#{member}@{offset}+{size}"
    elif suffix in PACKED:
        names, own = packed_names(path)
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


def _source(sources: Sounds, ytid: str, start: float, end: float, whole: bool) -> str:
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
