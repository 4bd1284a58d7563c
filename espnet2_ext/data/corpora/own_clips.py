"""A user's own sounds: a folder with a subfolder for each class, or a table of paths and labels."""

import csv
import hashlib
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from espnet2_ext.data.tables import Clip, Label, write_clips, write_labels
from espnet2_ext.errors import DataError

SETS = ("train", "valid", "test")
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64")
COLUMNS = ("path", "labels", "set", "group")
DELIMITERS = {".csv": ",", ".tsv": "\t"}


class Sound(NamedTuple):
    """A file and its classes; `set`: train, valid, test or '' (to be drawn). Sounds of one `group`
    (parts of one recording, for instance) come into one set; by itself a sound is its own group."""

    path: Path
    labels: tuple[str, ...]
    set: str
    group: str


def read_folder(folder: Path) -> list[Sound]:
    """The sounds below each subfolder of `folder`; the subfolder's name is their class.

    Raises:
        DataError: no such folder, or no sound below any subfolder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    sounds, others = [], Counter()
    for path in sorted(p for p in folder.glob("*/**/*") if p.is_file()):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") for part in parts):
            continue
        if path.suffix.lower() in SUFFIXES:
            sounds.append(Sound(path, (parts[0],), "", "/".join(parts)))
        else:
            others[path.suffix.lower() or path.name] += 1
    if others:
        logging.warning("%s: left out, no known sound format: %s", folder, dict(others))
    if not sounds:
        known = " ".join(SUFFIXES)
        raise DataError(f"{folder}: no sound files in its subfolders, one a class ({known})")
    return sounds


def read_table(table: Path) -> list[Sound]:
    """The sounds of a `.csv` or `.tsv` whose first line names its columns.

    `path` (relative to the table), `labels` (several: with `;` between them), and if wanted `set`
    (train, valid, test) and `group`.

    Raises:
        DataError: with file and line: an unknown or missing column, a broken line, no label, an
            unknown set, a path that is there twice.
    """
    table = Path(table)
    with open(table, encoding="utf-8-sig", newline="") as f:
        rows = csv.reader(f, delimiter=DELIMITERS[table.suffix.lower()], strict=True)
        try:
            header = [name.strip() for name in next(rows, [])]
            if not {"path", "labels"} <= set(header) <= set(COLUMNS):
                raise DataError(
                    f"{table}:1: the columns are {', '.join(header) or 'missing'}; "
                    "path and labels are needed, set and group may be there"
                )
            sounds = [_sound(table, rows.line_num, header, row) for row in rows if row]
        except csv.Error as e:
            raise DataError(f"{table}:{rows.line_num}: {e}") from None
        except UnicodeDecodeError as e:
            raise DataError(f"{table}: not UTF-8 text ({e})") from None
    twice = [path for path, n in Counter(s.path for s in sounds).items() if n > 1]
    if twice:
        raise DataError(f"{table}: there twice: {twice[0]}")
    if not sounds:
        raise DataError(f"{table}: no sound is named in it")
    return sounds


def _sound(table: Path, line: int, header: list[str], row: list[str]) -> Sound:
    if len(row) != len(header):
        raise DataError(f"{table}:{line}: {len(row)} fields where {len(header)} are expected")
    fields = dict(zip(header, (field.strip() for field in row)))
    labels = tuple(dict.fromkeys(v.strip() for v in fields["labels"].split(";") if v.strip()))
    if not fields["path"] or not labels:
        raise DataError(f"{table}:{line}: no {'labels' if fields['path'] else 'path'}")
    if fields.get("set", "") not in ("", *SETS):
        raise DataError(f"{table}:{line}: set {fields['set']!r} is none of {', '.join(SETS)}")
    path = table.parent.resolve() / fields["path"]
    return Sound(path, labels, fields.get("set", ""), fields.get("group") or fields["path"])


def split(sounds: list[Sound], shares: tuple[float, float], seed: int) -> dict[str, list[Sound]]:
    """Give every sound a set. Those with a `set` keep it; of the others each class gives the shares
    (valid, test) of its groups, at least one to each set where it has three or more, chosen by a
    hash of group and seed: the choice for a class does not change when another class grows.

    Raises:
        DataError: a group whose sounds name two sets.
    """
    where: dict[str, str] = {}
    for s in sounds:
        if s.set and where.setdefault(s.group, s.set) != s.set:
            both = f"{where[s.group]} and {s.set}"
            raise DataError(f"group {s.group!r}: its sounds are in two sets, {both}")
    free = defaultdict(set)
    for s in sounds:
        if s.group not in where:
            free[s.labels[0]].add(s.group)
    for label in sorted(free):
        groups = sorted(free[label] - where.keys(), key=lambda g: _rank(g, seed))
        ends = {"test": shares[1], "valid": shares[0]}
        for name, share in ends.items():
            least = 1 if share > 0 and len(free[label]) >= 3 else 0
            number = max(least, round(share * len(free[label])))
            where |= dict.fromkeys(groups[:number], name)
            groups = groups[number:]
        where |= dict.fromkeys(groups, "train")
    sets = {name: [] for name in SETS}
    for s in sounds:
        sets[where[s.group]].append(s)
    return sets


def _rank(group: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed} {group}".encode(), digest_size=8).digest()


def prepare(source: Path, datadir: Path, *, shares=(0.1, 0.1), seed: int = 0) -> dict[str, int]:
    """Write `labels.tsv` and `{train,valid,test}/clips.tsv` below `datadir`; clips of each set.

    Args:
        source: a folder of class folders, or a `.csv` or `.tsv`.
        shares: of the groups of each class for validation and test.

    Raises:
        DataError: see `read_folder`, `read_table`, `split`; fewer than two classes; an empty set.
    """
    source = Path(source).resolve()
    if not 0 <= min(shares) <= sum(shares) < 1:
        raise DataError(f"shares {shares} for validation and test leave none for training")
    is_table = source.suffix.lower() in DELIMITERS and source.is_file()
    sounds = read_table(source) if is_table else read_folder(source)
    names = sorted({label for s in sounds for label in s.labels})
    if len(names) < 2:
        raise DataError(f"{source}: {names[0]!r} is the only class; mixtures need two or more")
    mids = dict(zip(names, _unique(re.sub(r"[\s,]", "_", name) for name in names)))
    sets = split(sounds, shares, seed)
    if empty := [name for name, of in sets.items() if not of]:
        raise DataError(
            f"{source}: no sound is left for {', '.join(empty)}. A class of three sounds or more "
            "gives some to each set; a table can name the sets"
        )
    ids = dict(zip((s.path for s in sounds), _unique(_id(source, s.path) for s in sounds)))
    write_labels(datadir / "labels.tsv", (Label(i, mids[n], n) for i, n in enumerate(names)))
    for name, of in sets.items():
        clips = (Clip(ids[s.path], tuple(mids[v] for v in s.labels), str(s.path)) for s in of)
        write_clips(datadir / name / "clips.tsv", clips)
    return {name: len(of) for name, of in sets.items()}


def _id(source: Path, path: Path) -> str:
    top = source if source.is_dir() else source.parent
    inside = path.relative_to(top) if path.is_relative_to(top) else Path(path.name)
    return re.sub(r"[^\w.+]+", "-", str(inside.with_suffix(""))).strip("-") or "sound"


def _unique(names: Iterable[str]) -> list[str]:
    """The names, made different where two are equal by a number at the end."""
    taken: dict[str, None] = {}
    for name in names:
        new, number = name, 1
        while new in taken:
            number += 1
            new = f"{name}-{number}"
        taken[new] = None
    return list(taken)
