"""Your own labelled recordings: the tables that say what sounds in them, and what is wrong with those.

Two tables, `.csv` or `.tsv`, whose first line names the columns; either or both:
    path,labels               which classes are somewhere in the recording (several: `;` between)
    path,onset,offset,label   one line for each time that a class sounds, in seconds
Paths are relative to the table. Both may have the columns `set` (train, valid, test) and `group`
(recordings of one group come into one set). A recording without any sound of a known class, which
is refused unless `allow_unlabelled`, has no labels in the first table, or one line with neither
onset, offset nor label in the second; all classes are inactive in it.
"""

import argparse
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from espnet2_ext.data.corpora.corpus import Corpus, Step, counted, table_text, write_lists
from espnet2_ext.data.corpora.own_clips import SETS, split
from espnet2_ext.data.mixtures.from_recordings import MARKS, OwnSettings, make_own_table
from espnet2_ext.data.tables import Clip, Label
from espnet2_ext.errors import DataError
from espnet2_ext.util.names import safe_id, unique
from espnet2_ext.util.tables import DELIMITERS, TableError, number, read_header, read_table, write_tsv

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
        classes: names, in the order of the labels, and no other may occur; empty: those in the tables, sorted.
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
        except TableError as e:
            problems.append(Problem(e.where, e.text))
    recordings = list(found.values())
    if not recordings and not problems:
        problems.append(Problem(", ".join(map(str, tables)), "no recording is named in it"))
    problems += _strangers(recordings, classes)
    names = list(classes) or sorted({m.label for r in recordings for m in r.marks})
    problems += [Problem("classes", f"{n!r} is named twice") for n, c in Counter(names).items() if c > 1]
    return OwnTables(recordings, names, problems)


def _open(table: Path) -> tuple[str, Iterator[tuple[int, dict[str, str]]]]:
    """Kind of a table and its lines, each with its number."""
    if table.is_file() and table.suffix.lower() not in DELIMITERS:
        raise TableError(table, f"a table's name ends in {' or '.join(DELIMITERS)}")
    header = read_header(table)
    for known, columns in COLUMNS.items():
        if set(columns) <= set(header) <= {*columns, *MORE} and len(set(header)) == len(header):
            return known, read_table(table, columns, more=MORE)
    raise TableError(
        f"{table}:1",
        f"the columns are {', '.join(header) or 'missing'}; either path and labels are needed, or"
        " path, onset, offset and label; set and group are optional",
    )


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
        raise DataError(f"{row['path']} is listed already, see {old.where}")
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
            raise DataError(f"{old.where} says that no class is in {row['path']}")
        if any(m[:3] == marks[0][:3] for m in old.marks):
            raise DataError("duplicated line")
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
    times = [number(name, row[name], 0) for name in ("onset", "offset")]
    if not times[0] < times[1]:
        raise DataError(f"onset {row['onset']} is not before offset {row['offset']}")
    yield Mark(row["label"], *times, where)


def _strangers(recordings: Iterable[Recording], classes: Sequence[str]) -> Iterator[Problem]:
    if classes:
        for mark in (m for r in recordings for m in r.marks):
            if mark.label not in classes:
                what = f"unknown class {mark.label!r}; the classes are {', '.join(classes)}"
                yield Problem(mark.where, what)


def class_problems(sets: dict[str, list[Recording]], classes: Sequence[str]) -> Iterator[Problem]:
    """Classes that cannot be learned from the training set: in none of its recordings, or, as far
    as the tables alone can tell, active all the time. For the other sets a lack is only noted."""
    for name, recordings in sets.items():
        having = Counter(label for r in recordings for label in r.labels)
        for label in classes:
            if not having[label]:
                what = f"class {label!r} never occurs in the set {name}"
                yield Problem("classes", what, fatal=name == "train")
        if name == "train" and all(r.known == "clip" for r in recordings):
            for label in classes:
                if having[label] == len(recordings):
                    yield Problem(
                        "classes",
                        f"class {label!r} is in every training recording (its"
                        " prior is 1): recordings without it are needed",
                    )


def prepare_own_sounds(
    tables: Sequence[str | os.PathLike],
    data_dir: str | os.PathLike,
    *,
    classes: Sequence[str] = (),
    allow_unlabelled: bool = False,
    shares: tuple[float, float] = (0.1, 0.1),
    seed: int = 0,
) -> dict[str, int]:
    """Write `labels.tsv` and each set's `clips.tsv` and `marks.tsv`; recordings of each set.

    `marks.tsv` holds the labels, `clip, known, class, onset, offset, where`; a line without class
    is a recording without labels. `make_own_table` makes the mixture tables of it.

    Raises:
        DataError: the first of the problems, with the number of the others.
    """
    own = read_tables(tables, classes=classes, allow_unlabelled=allow_unlabelled)
    sets = {} if own.problems else split(own.recordings, shares, seed, "recording")
    fatal = own.problems + [p for p in class_problems(sets, own.classes) if p.fatal]
    if fatal:
        more = f" (and {len(fatal) - 1} more: validate-data lists them)" if len(fatal) > 1 else ""
        raise DataError(f"{fatal[0]}{more}")
    data_dir = Path(data_dir)
    names = unique(re.sub(r"[\s,]", "_", name) for name in own.classes)
    mids = dict(zip(own.classes, names))
    ids = dict(zip((r.path for r in own.recordings), unique(r.name for r in own.recordings)))
    labels = [Label(i, mids[n], n) for i, n in enumerate(own.classes)]
    clips: dict[str, list[Clip]] = {}
    for name, of in sets.items():
        of = sorted(of, key=lambda r: ids[r.path])
        clips[name] = [Clip(ids[r.path], tuple(mids[v] for v in r.labels), str(r.path)) for r in of]
        lines = (line for r in of for line in _mark_lines(ids[r.path], r, mids))
        write_tsv(data_dir / name / "marks.tsv", MARKS, lines)
    return write_lists(data_dir, labels, clips)


def _mark_lines(id_: str, recording: Recording, mids: dict[str, str]) -> Iterator[tuple]:
    for mark in recording.marks:
        times = ("" if v is None else repr(v) for v in (mark.onset, mark.offset))
        yield id_, recording.known, mids[mark.label], *times, mark.where
    if not recording.marks:
        yield id_, recording.known, "", "", "", recording.where


def add_label_options(p: argparse.ArgumentParser) -> None:
    """Options of everything that reads such tables."""
    text = "all classes, in their order (default: those in the tables, sorted)"
    p.add_argument("--classes", nargs="+", default=[], metavar="CLASS", help=text)
    text = "accept unlabelled recordings as containing no class"
    p.add_argument("--allow_unlabelled", action="store_true", help=text)


def _add_options(p: argparse.ArgumentParser) -> None:
    text = ".csv or .tsv with the columns path, labels, or path, onset, offset, label"
    p.add_argument("tables", nargs="+", metavar="TABLE", help=text)
    add_label_options(p)


def _prepare(a: argparse.Namespace) -> str:
    how = {"classes": a.classes, "allow_unlabelled": a.allow_unlabelled, "seed": a.seed}
    counts = prepare_own_sounds(a.tables, a.data_dir, shares=(a.valid_share, a.test_share), **how)
    return counted(counts, "recordings")


def _add_table_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--seconds", type=float, default=OwnSettings.seconds, help="length of a chunk")
    p.add_argument("--whole_clips", action="store_true", help="do not cut recordings that have clip labels")


def _make_table(a: argparse.Namespace) -> str:
    settings = OwnSettings(a.seconds, a.whole_clips)
    info = make_own_table(a.data_dir, a.bank, a.out, settings=settings, n_fft=a.n_fft, hop=a.hop)
    return table_text(a.out, info)


CORPUS = Corpus(
    Step("labels.tsv, and clips.tsv and marks.tsv of each set", _add_options, _prepare, ("split",)),
    Step("the mixture table of one set", _add_table_options, _make_table, ("frames",)),
)
