"""The tables in which a user says what sounds in recordings, and what is wrong with them.

Two tables, `.csv` or `.tsv`, whose first line names the columns; either or both:
    path,labels               which classes are somewhere in the recording (several: `;` between)
    path,onset,offset,label   one line for each time that a class sounds, in seconds
Paths are relative to the table. Columns `set` (train, valid, test) and `group` may be there in both
(recordings of one group come into one set). A recording without any sound of a known class, which
is refused unless `allow_unlabelled`, has no labels in the first table, or one line with neither
onset, offset nor label in the second; all classes are inactive in it.
"""

import csv
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from espnet2_ext.data.corpora.own_clips import DELIMITERS, SETS
from espnet2_ext.errors import DataError
from espnet2_ext.util.names import safe_id

COLUMNS = {"clip": ("path", "labels"), "frame": ("path", "onset", "offset", "label")}
MORE = {"set", "group"}


class Problem(NamedTuple):
    """Why something is refused; `where` is a file, mostly with a line. Not `fatal`: only a note."""

    where: str
    text: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


class Mark(NamedTuple):
    """A label: the class, from when to when in seconds (None: somewhere), and where it stands."""

    label: str
    onset: float | None
    offset: float | None
    where: str


@dataclass
class Recording:
    """A sound file, what is known of it ("clip" or "frame"), and its labels."""

    path: Path
    known: str
    where: str
    set: str
    group: str
    name: str
    marks: list[Mark] = field(default_factory=list)

    @property
    def labels(self) -> tuple[str, ...]:
        """Its classes, each once."""
        return tuple(dict.fromkeys(mark.label for mark in self.marks))


@dataclass
class OwnTables:
    """What the tables say. classes: names in the order of the labels."""

    recordings: list[Recording]
    classes: list[str]
    problems: list[Problem]


def read_tables(
    tables: Sequence[str | os.PathLike], *, classes: Sequence[str] = (), allow_unlabelled: bool = False
) -> OwnTables:
    """Read tables of either kind and check what can be checked without the sounds.

    Args:
        classes: names, in the order of the labels, and no other may occur; empty: those in the
            tables, sorted.
    """
    found: dict[Path, Recording] = {}
    problems: list[Problem] = []
    for table in map(Path, tables):
        try:
            known, rows = _open(table)
            for line, fields in rows:
                try:
                    _add(found, table, known, line, fields, allow_unlabelled)
                except DataError as e:
                    problems.append(Problem(f"{table}:{line}", str(e)))
        except _Broken as e:
            problems.append(Problem(*e.args))
    recordings = list(found.values())
    if not recordings and not problems:
        problems.append(Problem(", ".join(map(str, tables)), "no recording is named in it"))
    problems += _strangers(recordings, classes)
    names = list(classes) or sorted({m.label for r in recordings for m in r.marks})
    problems += [Problem("classes", f"{n!r} is named twice") for n, c in Counter(names).items() if c > 1]
    return OwnTables(recordings, names, problems)


class _Broken(Exception):
    """A table that cannot be read further: where, and why."""


def _open(table: Path) -> tuple[str, Iterator[tuple[int, dict[str, str]]]]:
    """Kind of a table and its lines, each with its number."""
    if not table.is_file():
        raise _Broken(str(table), "no such file")
    if table.suffix.lower() not in DELIMITERS:
        raise _Broken(str(table), f"a table's name ends in {' or '.join(DELIMITERS)}")
    lines = _lines(table)
    number, header = next(lines, (1, []))
    header = [name.strip() for name in header]
    for known, columns in COLUMNS.items():
        if set(columns) <= set(header) <= {*columns, *MORE} and len(set(header)) == len(header):
            return known, _fields(table, header, lines)
    raise _Broken(
        f"{table}:{number}",
        f"the columns are {', '.join(header) or 'missing'}; either path and labels are needed, or"
        " path, onset, offset and label; set and group may be there",
    )


def _lines(table: Path) -> Iterator[tuple[int, list[str]]]:
    with open(table, encoding="utf-8-sig", newline="") as f:
        rows = csv.reader(f, delimiter=DELIMITERS[table.suffix.lower()], strict=True)
        try:
            for row in rows:
                if row:
                    yield rows.line_num, row
        except csv.Error as e:
            raise _Broken(f"{table}:{rows.line_num}", str(e)) from None
        except UnicodeDecodeError as e:
            raise _Broken(str(table), f"not UTF-8 text ({e})") from None


def _fields(table: Path, header: list[str], lines: Iterable) -> Iterator[tuple[int, dict]]:
    for number, row in lines:
        if len(row) != len(header):
            raise _Broken(f"{table}:{number}", f"{len(row)} fields where {len(header)} are expected")
        yield number, dict(zip(header, (v.strip() for v in row)))


def _add(found: dict, table: Path, known: str, line: int, row: dict, unlabelled: bool) -> None:
    """Add a line's recording or label to what was found; DataError says what is wrong with it."""
    if not row["path"]:
        raise DataError("no path")
    if row.get("set", "") not in ("", *SETS):
        raise DataError(f"set {row['set']!r} is none of {', '.join(SETS)}")
    where = f"{table}:{line}"
    marks = list(_marks(known, row, where))
    path = Path(os.path.normpath(table.parent.resolve() / row["path"]))
    new = Recording(
        path, known, where, row.get("set", ""), row.get("group") or row["path"], _name(path, table.parent.resolve())
    )
    old = found.get(path)
    if old and (known == "clip" or old.known == "clip"):
        raise DataError(f"{row['path']} is there already, see {old.where}")
    if not marks and (old or not unlabelled):
        raise DataError(
            "a line without a label for a recording that has other lines"
            if old
            else "no label; with --allow_unlabelled, all classes are inactive in it"
        )
    if old:
        if (old.set, old.group) != (new.set, new.group):
            raise DataError(f"set or group is another one than in {old.where}")
        if not old.marks:
            raise DataError(f"{old.where} says that there is nothing in {row['path']}")
        if any(m[:3] == marks[0][:3] for m in old.marks):
            raise DataError("the same line is there already")
    (old or found.setdefault(path, new)).marks.extend(marks)


def _name(path: Path, folder: Path) -> str:
    inside = path.relative_to(folder) if path.is_relative_to(folder) else Path(path.name)
    return safe_id(str(inside.with_suffix("")))


def _marks(known: str, row: dict, where: str) -> Iterator[Mark]:
    if known == "clip":
        labels = dict.fromkeys(v.strip() for v in row["labels"].split(";") if v.strip())
        yield from (Mark(label, None, None, where) for label in labels)
        return
    if not (row["onset"] or row["offset"] or row["label"]):
        return
    if not row["label"] or ";" in row["label"]:
        raise DataError(f"one label a line is expected, not {row['label']!r}")
    times = [_seconds(name, row[name]) for name in ("onset", "offset")]
    if not times[0] < times[1]:
        raise DataError(f"onset {row['onset']} is not before offset {row['offset']}")
    yield Mark(row["label"], *times, where)


def _seconds(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise DataError(f"{name} {text!r} is not a number of seconds from 0")
    return value


def _strangers(recordings: Iterable[Recording], classes: Sequence[str]) -> Iterator[Problem]:
    if classes:
        for mark in (m for r in recordings for m in r.marks):
            if mark.label not in classes:
                what = f"unknown class {mark.label!r}; the classes are {', '.join(classes)}"
                yield Problem(mark.where, what)
