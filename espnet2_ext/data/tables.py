"""The tables of a data folder: `labels.tsv`, `clips.tsv`, `manifest.tsv`; see `util.tables`."""

import array
import copy
import functools
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from espnet2_ext.errors import DataError
from espnet2_ext.util.documents import decode
from espnet2_ext.util.tables import TableError, at, check_id, number, parse_tsv, read_tsv, write_tsv

LABELS = ("index", "mid", "name", "related")
CLIPS = ("id", "labels", "source")
MANIFEST = ("id", "status", "rate", "channels", "samples", "hash", "labels", "source", "detail")
STATUSES = ("ok", "missing", "short", "silent", "corrupt")


@dataclass(frozen=True)
class Label:
    """A class: its row, its identifier, its name, and the rows of its ancestors and descendants."""

    index: int
    mid: str
    name: str
    related: tuple[int, ...] = ()


class Clip(NamedTuple):
    """A row of `clips.tsv`. labels: mids; source: a reference that `read_audio` takes, or ''."""

    id: str
    labels: tuple[str, ...]
    source: str


class Entry(NamedTuple):
    """A row of `manifest.tsv`. `samples` and `rate` are those of the source, 0 where unknown."""

    id: str
    status: str
    rate: int
    channels: int
    samples: int
    hash: str
    labels: tuple[str, ...]
    source: str
    detail: str


def read_labels(path: str | os.PathLike) -> list[Label]:
    """Read `labels.tsv`, in order of index.

    Raises:
        DataError: with file and line: an index out of order, a duplicated mid, a related index that does not exist.
    """
    return _labels(read_tsv(path, LABELS), path)


def parse_labels(data: bytes, where: object) -> list[Label]:
    """The content of a `labels.tsv` that errors call `where`; raises as `read_labels`."""
    return _labels(parse_tsv(io.StringIO(decode(data, where)), where, LABELS), where)


def _labels(rows: Iterable[tuple[int, list[str]]], path: object) -> list[Label]:
    labels, seen = [], set()
    for line, (index, mid, name, related) in rows:
        with at(path, line):
            if index != str(len(labels)):
                raise DataError(f"index {index!r}, where {len(labels)} is expected")
            check_id(mid, seen)
            others = (number("a related index", v, 0, whole=True) for v in related.split(",") if v)
            labels.append(Label(len(labels), mid, name, tuple(others)))
        seen.add(mid)
    for label in labels:
        if any(r >= len(labels) for r in label.related):
            raise DataError(f"{path}: class {label.mid} is related to an unknown index")
    return labels


def write_labels(path: str | os.PathLike, labels: Iterable[Label]) -> None:
    """Write `labels.tsv`."""
    rows = ((v.index, v.mid, v.name, ",".join(map(str, v.related))) for v in labels)
    write_tsv(path, LABELS, rows)


def read_clips(path: str | os.PathLike) -> Iterator[Clip]:
    """Yield the rows of `clips.tsv`.

    Raises:
        DataError: with file and line: a broken line, a duplicated id.
    """
    seen = set()
    for line, (id_, labels, source) in read_tsv(path, CLIPS):
        try:  # not `at`: AudioSet has two million lines
            check_id(id_, seen)
        except DataError as e:
            raise TableError(f"{path}:{line}", str(e)) from None
        seen.add(id_)
        yield Clip(id_, split_mids(labels), source)


class ClipRows:
    """Clips of `clips.tsv` or `manifest.tsv` in order of their ids' bytes, left in the file.

    What an object holds, and what is sent to other processes, are the places of the lines.

    Attributes:
        starts: int64 [N], where the line of each begins. first: number of the first one here among all.
    """

    def __init__(self, path: str | os.PathLike):
        self.path, self.first = os.path.abspath(path), 0
        starts, ids = array.array("q"), []
        with open(path, "rb") as f:
            at = len(f.readline())
            for line in f:
                starts.append(at)
                ids.append(line[: line.find(b"\t")])
                at += len(line)
            self._state = os.fstat(f.fileno()).st_mtime_ns
        self.starts = np.array(starts, np.int64)[sorted(range(len(ids)), key=ids.__getitem__)]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, some: slice) -> "ClipRows":
        part = copy.copy(self)
        part.starts, part.first = self.starts[some], self.first + (some.start or 0)
        return part

    def __iter__(self) -> Iterator[Clip]:
        with open(self.path, "rb") as f:
            if os.fstat(f.fileno()).st_mtime_ns != self._state:
                raise DataError(f"{self.path}: changed meanwhile; run again")
            names = f.readline().decode("utf-8-sig").rstrip("\n").split("\t")
            for start in self.starts.tolist():
                f.seek(start)
                row = dict(zip(names, f.readline().decode().rstrip("\n").split("\t")))
                yield Clip(row["id"], split_mids(row["labels"]), row["source"])


def write_clips(path: str | os.PathLike, clips: Iterable[Clip], where: object = None) -> int:
    """Write `clips.tsv`, which errors call `where`; returns the number of clips."""
    return write_tsv(path, CLIPS, ((c.id, ",".join(c.labels), c.source) for c in clips), where)


def read_manifest(path: str | os.PathLike) -> Iterator[Entry]:
    """Yield the rows of `manifest.tsv`. Raises DataError with file and line for a broken one."""
    seen = set()
    for line, (id_, status, *sizes, digest, labels, source, detail) in read_tsv(path, MANIFEST):
        try:
            check_id(id_, seen)
            rate, channels, samples = (number(k, v, 0, whole=True) for k, v in zip(MANIFEST[2:], sizes))
            if status not in STATUSES:
                raise DataError(f"unknown status {status!r}")
        except DataError as e:
            raise TableError(f"{path}:{line}", str(e)) from None
        seen.add(id_)
        yield Entry(id_, status, rate, channels, samples, digest, split_mids(labels), source, detail)


@functools.lru_cache(maxsize=1 << 16)  # clips share their class lists: one tuple for all of them
def split_mids(text: str) -> tuple[str, ...]:
    """Split a comma-separated field."""
    return tuple(v for v in text.split(",") if v)
