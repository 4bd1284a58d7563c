"""The tables of a data folder: `labels.tsv`, `clips.tsv`, `manifest.tsv`; see `util.tables`."""

import functools
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

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


def write_clips(path: str | os.PathLike, clips: Iterable[Clip]) -> None:
    """Write `clips.tsv`."""
    write_tsv(path, CLIPS, ((c.id, ",".join(c.labels), c.source) for c in clips))


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
