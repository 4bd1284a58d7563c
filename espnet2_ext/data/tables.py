"""The tables of preparation: `labels.tsv`, `clips.tsv`, `manifest.tsv`. Tab-separated, UTF-8."""

import functools
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from espnet2_ext.errors import DataError
from espnet2_ext.util.files import atomic_path

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


def read_tsv(path: str | os.PathLike, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of a table whose first line must name `columns`.

    Raises:
        DataError: no such file, another first line, a line with another number of fields.
    """
    try:
        f = open(path, encoding="utf-8", newline="\n")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    with f:
        if tuple(f.readline().rstrip("\n").split("\t")) != columns:
            raise DataError(f"{path}:1: expected the columns {', '.join(columns)}")
        for number, line in enumerate(f, 2):
            fields = line.rstrip("\n").split("\t")
            if len(fields) != len(columns):
                raise DataError(f"{path}:{number}: {len(fields)} fields where {len(columns)} are expected")
            yield number, fields


def write_tsv(path: str | os.PathLike, columns: tuple[str, ...], rows: Iterable[Iterable]) -> None:
    """Write a table whole; a field that holds a tab or a line break is refused.

    Raises:
        DataError: such a field; it is named.
    """
    with atomic_path(path) as tmp, open(tmp, "w", encoding="utf-8", newline="\n") as f:
        f.write("\t".join(columns) + "\n")
        for row in rows:
            f.write(tsv_line(row, path))


def tsv_line(row: Iterable, path: str | os.PathLike = "table") -> str:
    """One line of a table. Raises DataError where a field would break it."""
    fields = [str(v) for v in row]
    for field in fields:
        if any(c in field for c in "\t\n\r"):
            raise DataError(f"{path}: a tab or line break in {field!r}")
    return "\t".join(fields) + "\n"


def read_labels(path: str | os.PathLike) -> list[Label]:
    """Read `labels.tsv`, in order of index.

    Raises:
        DataError: with file and line: an index out of order, a mid that is there twice, a related
            index that does not exist.
    """
    labels, seen = [], set()
    for number, (index, mid, name, related) in read_tsv(path, LABELS):
        try:
            label = Label(int(index), mid, name, tuple(int(v) for v in related.split(",") if v))
        except ValueError:
            raise DataError(f"{path}:{number}: an index is not a number") from None
        if label.index != len(labels) or mid in seen or not mid:
            raise DataError(f"{path}:{number}: index {index}, mid {mid!r}: out of order or twice")
        seen.add(mid)
        labels.append(label)
    for label in labels:
        if any(not 0 <= r < len(labels) for r in label.related):
            raise DataError(f"{path}: class {label.mid} is related to an index that is not there")
    return labels


def write_labels(path: str | os.PathLike, labels: Iterable[Label]) -> None:
    """Write `labels.tsv`."""
    rows = ((v.index, v.mid, v.name, ",".join(map(str, v.related))) for v in labels)
    write_tsv(path, LABELS, rows)


def read_clips(path: str | os.PathLike) -> Iterator[Clip]:
    """Yield the rows of `clips.tsv`.

    Raises:
        DataError: with file and line: a broken line, an id that is there twice.
    """
    seen = set()
    for number, (id_, labels, source) in read_tsv(path, CLIPS):
        if not id_ or id_ in seen or any(c.isspace() for c in id_):
            raise DataError(f"{path}:{number}: id {id_!r} is empty, has a blank, or is there twice")
        seen.add(id_)
        yield Clip(id_, split_mids(labels), source)


def write_clips(path: str | os.PathLike, clips: Iterable[Clip]) -> None:
    """Write `clips.tsv`."""
    write_tsv(path, CLIPS, ((c.id, ",".join(c.labels), c.source) for c in clips))


def read_manifest(path: str | os.PathLike) -> Iterator[Entry]:
    """Yield the rows of `manifest.tsv`. Raises DataError with file and line for a broken one."""
    for number, row in read_tsv(path, MANIFEST):
        id_, status, rate, channels, samples, digest, labels, source, detail = row
        try:
            sizes = int(rate), int(channels), int(samples)
        except ValueError:
            raise DataError(f"{path}:{number}: rate, channels or samples not a number") from None
        if status not in STATUSES:
            raise DataError(f"{path}:{number}: unknown status {status!r}")
        yield Entry(id_, status, *sizes, digest, split_mids(labels), source, detail)


@functools.lru_cache(maxsize=1 << 16)  # clips share their class lists: one tuple for all of them
def split_mids(text: str) -> tuple[str, ...]:
    """Split a comma-separated field."""
    return tuple(v for v in text.split(",") if v)


def file_digest(path: str | os.PathLike) -> str:
    """blake2b-128 of a file's bytes, as hex digits."""
    with open(Path(path), "rb") as f:
        return hashlib.file_digest(f, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
