"""Text tables: those that corpora and users bring (`read_table`), and ours: `labels.tsv`, `clips.tsv`, `manifest.tsv`.

Ours are tab-separated UTF-8 without quotes.
"""

import contextlib
import csv
import functools
import itertools
import os
from collections.abc import Collection, Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from espnet2_ext.errors import DataError
from espnet2_ext.util.files import atomic_path

LABELS = ("index", "mid", "name", "related")
CLIPS = ("id", "labels", "source")
MANIFEST = ("id", "status", "rate", "channels", "samples", "hash", "labels", "source", "detail")
STATUSES = ("ok", "missing", "short", "silent", "corrupt")
DELIMITERS = {".csv": ",", ".tsv": "\t"}


class TableError(DataError):
    """What is wrong with a table, and where: the file, mostly with a line."""

    def __init__(self, where: object, text: str):
        super().__init__(where, text)
        self.where, self.text = str(where), text

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


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


@contextlib.contextmanager
def at(path: str | os.PathLike, number: int) -> Iterator[None]:
    """A `DataError` raised inside names the file and the line."""
    try:
        yield
    except DataError as e:
        raise TableError(f"{path}:{number}", str(e)) from None


def check_id(id_: str, seen: Container[str]) -> None:
    """Refuse an identifier that is empty, has a blank, or is among those `seen`, with a DataError."""
    if not id_ or id_ in seen or any(c.isspace() for c in id_):
        raise DataError(f"id {id_!r} is empty, has a blank, or is duplicated")


def read_lines(path: str | os.PathLike) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of the lines of somebody else's table that are not empty.

    UTF-8; the fields of a `.tsv` are separated by tabs, else by commas, and may be quoted.

    Raises:
        TableError: no such file, not UTF-8, a quote that is not closed.
    """
    delimiter = DELIMITERS.get(Path(path).suffix.lower(), ",")
    try:
        f = open(path, encoding="utf-8-sig", newline="")
    except FileNotFoundError:
        raise TableError(path, "no such file") from None
    with f:
        table = csv.reader(f, delimiter=delimiter, skipinitialspace=True, strict=True)
        try:
            for row in table:
                if row:
                    yield table.line_num, row
        except csv.Error as e:
            raise TableError(f"{path}:{table.line_num}", str(e)) from None
        except UnicodeDecodeError as e:
            raise TableError(path, f"not UTF-8 text ({e})") from None


def read_header(path: str | os.PathLike) -> list[str]:
    """Names of the columns of somebody else's table; empty for an empty file. Raises as `read_lines`."""
    return [name.strip() for name in next(read_lines(path), (1, []))[1]]


def read_table(
    path: str | os.PathLike, columns: Collection[str], *, more: Collection[str] | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, {column: field}) of somebody else's table, whose first line names its columns.

    Blanks around a field are removed.

    Args:
        path: as for `read_lines`.
        columns: those that it must have, in any order. more: those that it may have; None: any.

    Raises:
        TableError: as `read_lines`; a column that is missing, unknown or duplicated; a line with another number of
            fields.
    """
    header = read_header(path)
    if lacks := [name for name in columns if name not in header]:
        raise TableError(f"{path}:1", f"no column {', '.join(lacks)}; the columns are {', '.join(header) or 'missing'}")
    strange = [] if more is None else [name for name in header if name not in (*columns, *more)]
    if strange or len(set(header)) < len(header):
        allowed = ", ".join((*columns, *(more or ())))
        raise TableError(f"{path}:1", f"the columns are {', '.join(header)}; expected each once, of {allowed}")
    for number, row in itertools.islice(read_lines(path), 1, None):
        if len(row) != len(header):
            raise TableError(f"{path}:{number}", f"{len(row)} fields where {len(header)} are expected")
        yield number, dict(zip(header, map(str.strip, row)))


def read_tsv(path: str | os.PathLike, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of one of our tables, whose first line must name `columns`.

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
        DataError: with file and line: an index out of order, a duplicated mid, a related index that does not exist.
    """
    labels, seen = [], set()
    for number, (index, mid, name, related) in read_tsv(path, LABELS):
        try:
            label = Label(int(index), mid, name, tuple(int(v) for v in related.split(",") if v))
        except ValueError:
            raise DataError(f"{path}:{number}: an index is not a number") from None
        if label.index != len(labels) or mid in seen or not mid:
            raise DataError(f"{path}:{number}: index {index}, mid {mid!r}: out of order or duplicated")
        seen.add(mid)
        labels.append(label)
    for label in labels:
        if any(not 0 <= r < len(labels) for r in label.related):
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
    for number, (id_, labels, source) in read_tsv(path, CLIPS):
        try:  # not `at`: AudioSet has two million lines
            check_id(id_, seen)
        except DataError as e:
            raise TableError(f"{path}:{number}", str(e)) from None
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
