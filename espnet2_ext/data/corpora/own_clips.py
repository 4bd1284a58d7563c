"""Your own sounds: a folder with a subfolder for each class, or a table of paths and labels."""

import argparse
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from espnet2_ext.audio.files import KNOWN, SUFFIXES
from espnet2_ext.data.corpora.corpus import Corpus, Step, counted, rank, write_lists
from espnet2_ext.data.tables import Clip, Label
from espnet2_ext.errors import DataError
from espnet2_ext.util.names import safe_id, unique
from espnet2_ext.util.tables import DELIMITERS, TableError, check_utf8, read_table

SETS = ("train", "valid", "test")
BACKGROUND = "background"  # class of the sounds of --background
SET_FOLDERS = {name: name for name in SETS} | {"validation": "valid", "val": "valid", "dev": "valid", "eval": "test"}


class Sound(NamedTuple):
    """A file and its classes; `set`: train, valid, test or '' (to be drawn). Sounds of one `group`
    (parts of one recording, for instance) come into one set; by itself a sound is its own group."""

    path: Path
    labels: tuple[str, ...]
    set: str
    group: str


def read_folder(folder: Path) -> list[Sound]:
    """The sounds below each subfolder of `folder`, links followed; the subfolder's name is their class.

    Where no subfolder holds sounds, those in `folder` are of one class with its name. Where all subfolders are named as
    sets (`SET_FOLDERS`), the classes are the folders in them. Where such a folder lacks a set, the sounds of `train`
    have none, so that it is drawn from them.

    Raises:
        DataError: no such folder, no sound below any subfolder, a link to a folder above it, a sound of a set that lies
            in no class, a name that is not UTF-8.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    paths, loose, others, linked = [], [], Counter(), False
    for path, linked_here in _files(folder):
        linked |= linked_here
        if not path.is_file():
            others["broken link" if path.is_symlink() else "no file"] += 1
        elif path.suffix.lower() not in SUFFIXES:
            others[path.suffix.lower() or path.name] += 1
        else:
            (loose if path.parent == folder else paths).append(path)
    if paths:
        others.update(f"{path.suffix.lower()} in no subfolder" for path in loose)
    if others:
        logging.warning("%s: left out, no sound of a known format in a folder of its class: %s", folder, dict(others))
    if not paths and not loose:
        raise DataError(f"{folder}: no sound files in its subfolders, one per class ({KNOWN})")
    if not paths:
        return [_of_class(path, folder, folder.resolve().name) for path in sorted(loose)]
    sets, sounds, first = _sets_of(folder, paths), [], {}
    for path in sorted(paths):
        check_utf8(str(path), folder)
        top, *inside = path.relative_to(folder).parts
        name = "/".join((top, *inside))
        if sets and len(inside) < 2:
            raise DataError(f"{path}: {folder} holds sets ({', '.join(sorted(sets))}), and this sound is in no class")
        label = inside[0] if sets else top
        key = os.path.realpath(path) if linked else name
        labels, group = first.setdefault(key, (set(), name))  # what links lead to twice is one sound
        if label not in labels:
            labels.add(label)
            sounds.append(Sound(path, (label,), sets.get(top, ""), group))
    return sounds


def read_background(folder: Path) -> list[Sound]:
    """All sounds below `folder`, as the class `BACKGROUND`.

    Raises:
        DataError: no such folder, none in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    paths = sorted(path for path, _ in _files(folder) if path.is_file() and path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(f"{folder}: no sound file in this folder ({KNOWN})")
    return [_of_class(path, folder, BACKGROUND) for path in paths]


def _of_class(path: Path, top: Path, label: str) -> Sound:
    check_utf8(str(path), top)
    return Sound(path, (label,), "", f"{label}/{path.relative_to(top)}")


def _files(folder: Path) -> Iterator[tuple[Path, bool]]:
    """What is below `folder` but folders and hidden files, and whether a link led there."""
    todo: list[tuple[Path, tuple, bool]] = [(folder, (), False)]
    while todo:
        here, above, linked = todo.pop()
        stat = os.stat(here)
        place = stat.st_dev, stat.st_ino
        if place in above:
            raise DataError(f"{here}: is a link to a folder that it lies in; remove it")
        with os.scandir(here) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                through = linked or entry.is_symlink()
                if entry.is_dir():
                    todo.append((here / entry.name, (*above, place), through))
                else:
                    yield here / entry.name, through


def _sets_of(folder: Path, paths: Iterable[Path]) -> dict[str, str]:
    """The set that each subfolder stands for; empty where they are classes."""
    inside = defaultdict(set)
    for path in paths:
        top, *rest = path.relative_to(folder).parts
        inside[top].add(len(rest) > 1)
    sets = {top: SET_FOLDERS[top.casefold()] for top in sorted(inside) if top.casefold() in SET_FOLDERS}
    if len(sets) < len(inside):
        if odd := [top for top in sets if inside[top] == {True}]:
            logging.warning("%s: %s is a class here, as not all folders are sets", folder, ", ".join(odd))
        return {}
    drawn = [name for name in SETS if name not in sets.values()]
    logging.info("%s: sets, with a folder for each class: %s", folder, ", ".join(f"{k} ({v})" for k, v in sets.items()))
    if drawn:
        logging.info("%s: no set %s, drawn from train", folder, ", ".join(drawn))
    return {top: "" if drawn and name == "train" else name for top, name in sets.items()}


def read_sounds(table: Path) -> list[Sound]:
    """The sounds of a `.csv` or `.tsv` whose first line names its columns.

    `path` (relative to the table), `labels` (several: with `;` between them), and if wanted `set`
    (train, valid, test) and `group`.

    Raises:
        DataError: with file and line: an unknown or missing column, a broken line, no label, an
            unknown set, a duplicated path.
    """
    table = Path(table)
    rows = read_table(table, ("path", "labels"), more=("set", "group"))
    sounds = [_sound(table, f"{table}:{number}", row) for number, row in rows]
    if twice := [path for path, n in Counter(s.path for s in sounds).items() if n > 1]:
        raise TableError(table, f"duplicated path: {twice[0]}")
    if not sounds:
        raise TableError(table, "no sound is named in it")
    return sounds


def _sound(table: Path, where: str, row: dict[str, str]) -> Sound:
    labels = tuple(dict.fromkeys(v.strip() for v in row["labels"].split(";") if v.strip()))
    if not row["path"] or not labels:
        raise TableError(where, f"no {'labels' if row['path'] else 'path'}")
    if row.get("set", "") not in ("", *SETS):
        raise TableError(where, f"set {row['set']!r} is none of {', '.join(SETS)}")
    return Sound(table.parent.resolve() / row["path"], labels, row.get("set", ""), row.get("group") or row["path"])


def split(sounds: list, shares: tuple[float, float], seed: int, what: str = "sound") -> dict[str, list]:
    """Give every sound a set. Those with a `set` keep it; of the others each class gives the shares (valid, test) of
    its groups, at least one to each set where it has three or more, chosen by a hash of group and seed: the choice for
    a class does not change when another class grows. Sounds without a label form a class of their own.

    Args:
        sounds: of `Sound`, or anything else with labels, set and group. what: to call them in messages.

    Raises:
        DataError: impossible shares, a group whose sounds name two sets, a set without a sound.
    """
    if not 0 <= min(shares) <= sum(shares) < 1:
        raise DataError(f"shares {shares} for validation and test leave none for training")
    where: dict[str, str] = {}
    for s in sounds:
        if s.set and where.setdefault(s.group, s.set) != s.set:
            both = f"{where[s.group]} and {s.set}"
            raise DataError(f"group {s.group!r}: its sounds are in two sets, {both}")
    free = defaultdict(set)
    for s in sounds:
        if s.group not in where:
            free[(s.labels or ("",))[0]].add(s.group)
    for label in sorted(free):
        groups = sorted(free[label] - where.keys(), key=lambda g: rank(g, seed))
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
    if empty := [name for name, of in sets.items() if not of]:
        raise DataError(
            f"no {what} is left for {', '.join(empty)}. A class of three {what}s or more gives some to each set;"
            " the column `set` of a table can name the sets"
        )
    return sets


def prepare(
    source: Path, datadir: Path, *, shares=(0.1, 0.1), seed: int = 0, background: Path | None = None
) -> dict[str, int]:
    """Write `labels.tsv` and `{train,valid,test}/clips.tsv` below `datadir`; clips of each set.

    Args:
        source: a folder of class folders, or a `.csv` or `.tsv`.
        shares: of the groups of each class for validation and test.
        background: a folder of sounds that are of no class of `source`, for a class of their own.

    Raises:
        DataError: see `read_folder`, `read_sounds`, `split`; fewer than two classes in a set; a label that may be a
            list of several.
    """
    source = Path(source).resolve()
    is_table = source.suffix.lower() in DELIMITERS and source.is_file()
    sounds = read_sounds(source) if is_table else read_folder(source)
    others = [] if background is None else read_background(Path(background).resolve())
    drawn = split(others, shares, seed, "background sound") if others else {}
    if not is_table:  # sets that are given are not drawn besides
        given = {s.set for s in sounds}
        shares = tuple(0.0 if name in given else share for name, share in zip(SETS[1:], shares))
    names = sorted({label for s in [*sounds, *others] for label in s.labels})
    if lists := [name for name in names if re.search(r",[^\s\d]", name)]:
        raise DataError(
            f"{source}: {lists[0]!r} is one class or several? Several labels of a sound are given in a table, with `;`"
            " between them; in the name of one class a blank follows a comma"
        )
    if len(names) < 2:
        raise DataError(
            f"{source}: {names[0]!r} is the only class; mixtures need two or more. A folder of any other sounds does: "
            "--background FOLDER"
        )
    mids = dict(zip(names, unique(re.sub(r"[\s,]", "_", name) for name in names)))
    sets = {name: [*of, *drawn.get(name, [])] for name, of in split(sounds, shares, seed).items()}
    _check_classes(source, sets)
    every = [s.path for s in [*sounds, *others]]
    ids = dict(zip(every, unique(_id(source, path) for path in every)))
    labels = [Label(i, mids[n], n) for i, n in enumerate(names)]
    clips = {
        name: [Clip(ids[s.path], tuple(mids[v] for v in s.labels), str(s.path)) for s in of]
        for name, of in sets.items()
    }
    return write_lists(datadir, labels, clips)


def _check_classes(source: Path, sets: dict[str, list[Sound]]) -> None:
    """Refuse sets of fewer than two classes, and warn of classes that a set lacks."""
    counts = {name: Counter(label for s in of for label in s.labels) for name, of in sets.items()}
    each = {label: [counts[name][label] for name in SETS] for label in sorted(set().union(*counts.values()))}
    lacking = {label: found for label, found in each.items() if not all(found)}
    words = "; ".join(f"{label} {', '.join(map(str, found))}" for label, found in lacking.items())
    if few := [name for name in SETS if len(counts[name]) < 2]:
        raise DataError(
            f"{source}: mixtures need sounds of two classes, but {few[0]} has {len(counts[few[0]])}; a class of three "
            f"sounds or more gives one to each set (sounds for {', '.join(SETS)}: {words})"
        )
    if lacking:
        logging.warning("%s: classes that a set lacks (sounds for %s): %s", source, ", ".join(SETS), words)


def _id(source: Path, path: Path) -> str:
    top = source if source.is_dir() else source.parent
    inside = path.relative_to(top) if path.is_relative_to(top) else Path(path.name)
    return safe_id(str(inside.with_suffix("")))


def _add_options(p: argparse.ArgumentParser) -> None:
    text = "folder with a subfolder for each class (or train, valid and test with such subfolders), or a .csv or .tsv"
    p.add_argument("sounds", type=Path, help=f"{text} whose columns are path, labels and optionally set and group")
    text = f"folder of sounds of none of the classes; they become the class {BACKGROUND}, and one other class is enough"
    p.add_argument("--background", type=Path, metavar="FOLDER", help=text)


def _prepare(a: argparse.Namespace) -> str:
    shares = a.valid_share, a.test_share
    return counted(prepare(a.sounds, a.data_dir, shares=shares, seed=a.seed, background=a.background))


CORPUS = Corpus(Step("Make a corpus of your own sounds.", _add_options, _prepare, ("split",)))
