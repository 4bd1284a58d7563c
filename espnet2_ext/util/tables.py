"""Text tables, read and written line by line: CSV and TSV that users bring, our own TSV, and Kaldi's `key value`.

All are UTF-8. Ours are separated by tabs, without quotes.
"""

import contextlib
import csv
import itertools
import math
import os
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from espnet2_ext.errors import DataError
from espnet2_ext.util.files import atomic_path, write_text

DELIMITERS = {".csv": ",", ".tsv": "\t"}


class TableError(DataError):
    """What is wrong with a table, and where: the file, mostly with a line."""

    def __init__(self, where: object, text: str):
        super().__init__(where, text)
        self.where, self.text = str(where), text

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


@contextlib.contextmanager
def at(path: str | os.PathLike, number: int) -> Iterator[None]:
    """A `DataError` raised inside names the file and the line."""
    try:
        yield
    except DataError as e:
        raise TableError(f"{path}:{number}", str(e)) from None


def number(name: str, text: str, least: float = -math.inf, most: float = math.inf, *, whole: bool = False) -> Any:
    """The number that a field holds: finite, and a whole one that fits 64 bits where `whole`.

    Raises:
        DataError: it is none, or outside `least` to `most`; `name` stands in the text.
    """
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text or (whole and abs(value) >= 1 << 63):
        raise DataError(f"{name} must be {'a whole' if whole else 'a finite'} number, not {text[:40]!r}")
    if not least <= value <= most:
        raise DataError(f"{name} must be {least:g}{' or more' if most == math.inf else f' to {most:g}'}, not {text}")
    return value


def check_id(id_: str, seen: Container[str]) -> None:
    """Refuse an identifier that is empty, has a blank, or is among those `seen`, with a DataError."""
    if not id_ or id_ in seen or any(c.isspace() for c in id_):
        raise DataError(f"id {id_!r} is empty, has a blank, or is duplicated")


@contextlib.contextmanager
def _opened(path: str | os.PathLike, newline: str) -> Iterator[TextIO]:
    """A table; what is not text in it is a TableError that names the file."""
    if not os.path.isfile(path):
        found = "is a folder" if os.path.isdir(path) else "is not a regular file" if os.path.exists(path) else ""
        raise TableError(path, found or "no such file")
    with open(path, encoding="utf-8-sig", newline=newline) as f:
        try:
            yield f
        except UnicodeDecodeError as e:
            raise TableError(path, f"is not UTF-8 text ({e.reason}); save it as UTF-8") from None


def _lines(f: TextIO, path: str | os.PathLike) -> Iterator[str]:
    for number, line in enumerate(f, 1):
        if "\0" in line:
            raise TableError(f"{path}:{number}", "is not text: it holds a byte of zero")
        yield line


# ---- tables of others ----------------------------------------------------------------------------


def read_lines(path: str | os.PathLike) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of the lines of somebody else's table that are not empty.

    The fields of a `.tsv` are separated by tabs, else by commas, and may be quoted.

    Raises:
        TableError: no such file, not UTF-8, a quote that is not closed.
    """
    delimiter = DELIMITERS.get(Path(path).suffix.lower(), ",")
    with _opened(path, newline="") as f:
        table = csv.reader(_lines(f, path), delimiter=delimiter, skipinitialspace=True, strict=True)
        try:
            for row in table:
                if row:
                    yield table.line_num, row
        except csv.Error as e:
            raise TableError(f"{path}:{table.line_num}", str(e)) from None


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


# ---- our tables ----------------------------------------------------------------------------------


def read_tsv(path: str | os.PathLike, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of one of our tables, whose first line must name `columns`.

    Raises:
        TableError: no such file, not UTF-8, another first line, a line with another number of fields.
    """
    with _opened(path, newline="\n") as f:
        yield from parse_tsv(_lines(f, path), path, columns)


def parse_tsv(lines: Iterable[str], where: object, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """As `read_tsv`, from the lines of a table that errors call `where`."""
    lines = iter(lines)
    if tuple(next(lines, "").rstrip("\n").split("\t")) != columns:
        raise TableError(f"{where}:1", f"expected the columns {', '.join(columns)}")
    for number, line in enumerate(lines, 2):
        fields = line.rstrip("\n").split("\t")
        if len(fields) != len(columns):
            raise TableError(f"{where}:{number}", f"{len(fields)} fields where {len(columns)} are expected")
        yield number, fields


def write_tsv(path: str | os.PathLike, columns: tuple[str, ...], rows: Iterable[Iterable], where: object = None) -> int:
    """Write a table whole, which errors call `where`; returns the number of rows.

    Raises:
        DataError: a field that `tsv_line` refuses; it is named.
    """
    number = 0
    with atomic_path(path) as tmp, open(tmp, "w", encoding="utf-8", newline="\n") as f:
        f.write("\t".join(columns) + "\n")
        for row in rows:
            f.write(tsv_line(row, where or path))
            number += 1
    return number


def tsv_line(row: Iterable, path: object = "table") -> str:
    """One line of a table. Raises DataError where a field would break it, or cannot be written as UTF-8."""
    fields = [str(v) for v in row]
    for field in fields:
        if any(c in field for c in "\t\n\r\0"):
            raise DataError(f"{path}: a tab, line break or zero in {field!r}")
        check_utf8(field, path)
    return "\t".join(fields) + "\n"


def check_utf8(text: str, path: object) -> None:
    """Refuse, with a DataError, a name from a file system that is not UTF-8."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise DataError(f"{path}: {text!r} is not UTF-8: rename the file") from None


# ---- Kaldi's tables ------------------------------------------------------------------------------


def write_scp(path: str | os.PathLike, table: Mapping[str, str | os.PathLike]) -> None:
    """Write a Kaldi-style table `key reference`."""
    for ref in table.values():
        check_utf8(os.fspath(ref), path)
    write_text(path, "".join(f"{key} {ref}\n" for key, ref in table.items()))


def read_scp(path: str | os.PathLike) -> dict[str, str]:
    """Read a Kaldi-style table `key reference`; references are left as they stand.

    Raises:
        TableError: no such file, not UTF-8; with the line: one column only, a duplicated key.
    """
    table: dict[str, str] = {}
    with _opened(path, newline="\n") as f:
        for number, line in enumerate(_lines(f, path), 1):
            fields = line.split(maxsplit=1)
            if len(fields) != 2 or fields[0] in table:
                raise TableError(f"{path}:{number}", "expected 'key reference' with a key of its own")
            table[fields[0]] = fields[1].strip()
    return table
