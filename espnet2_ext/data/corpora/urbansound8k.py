"""Reader of UrbanSound8K in the layout of the original.

`metadata/UrbanSound8K.csv` lists the slices, `audio/fold1/` to `audio/fold10/` hold them, at any rate and with any
number of channels. A slice's class name (`car_horn`) stands as the class id. All slices of a recording (`fsID`) lie in
one fold. J. Salamon, C. Jacoby, J. P. Bello, "A Dataset and Taxonomy for Urban Sound Research", ACM Multimedia 2014.
"""

import argparse
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from espnet2_ext.data.corpora.corpus import Corpus, Step, check_folds, named_labels, write_lists
from espnet2_ext.data.tables import Clip
from espnet2_ext.errors import DataError
from espnet2_ext.util.tables import TableError, at, number, read_table

COLUMNS = ("slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class")
CLASSES = ("car_horn", "dog_bark", "gun_shot", "jackhammer", "siren")  # the paper's
SETS = ("train:1-6", "valid:7-8", "test:9-10")  # the paper's


class Part(NamedTuple):
    """What a set takes of a fold: recordings by part `index` of `count` equal ones."""

    fold: int
    index: int = 0
    count: int = 1


def parse_sets(texts: Sequence[str]) -> dict[str, list[Part]]:
    """Read sets such as `train:1-6`, `test:9,10`, or `valid:2/1of2` and `test:2/2of2`.

    The last form takes a share of a fold: for each class, its recordings are dealt out to that
    many parts so that these have nearly equal numbers of slices. So no recording is in two sets.

    Raises:
        DataError: naming the text.
    """
    sets: dict[str, list[Part]] = {}
    for text in texts:
        name, _, folds = text.partition(":")
        try:
            parts = [part for item in folds.split(",") for part in _parts(item)]
        except ValueError:
            raise DataError(f"set {text!r}: expected NAME:FOLDS, as in train:1-6, test:9,10 or valid:2/1of2") from None
        if not name or name in sets or "/" in name:
            raise DataError(f"set {text!r}: a name is missing or duplicated")
        sets[name] = parts
    return sets


def _parts(item: str) -> list[Part]:
    folds, _, share = item.partition("/")
    first, _, last = folds.partition("-")
    index, count = (int(v) for v in share.split("of")) if share else (1, 1)
    folds = range(int(first), int(last or first) + 1)
    if not 1 <= len(folds) <= 100 or not 1 <= index <= count:
        raise ValueError(item)
    return [Part(fold, index - 1, count) for fold in folds]


def read_meta(root: str | os.PathLike) -> list[dict]:
    """Rows of `ROOT/metadata/UrbanSound8K.csv` with `fold` as a number.

    Raises:
        DataError: with file and line: no such file, a missing column, a broken line, a
            slice that is listed twice, a recording in two folds.
    """
    path = Path(root) / "metadata" / "UrbanSound8K.csv"
    rows, seen, folds = [], set(), {}
    for line, row in read_table(path, COLUMNS):
        where, name = f"{path}:{line}", row["slice_file_name"]
        if not name or not row["class"]:
            raise TableError(where, "no slice_file_name or no class")
        if name in seen:
            raise TableError(where, f"slice {name} is listed twice")
        with at(path, line):
            row["fold"] = number("fold", row["fold"], 0, whole=True)
        if folds.setdefault(row["fsID"], row["fold"]) != row["fold"]:
            raise TableError(where, f"recording {row['fsID']} is in two folds")
        seen.add(name)
        rows.append(row)
    if not rows:
        raise TableError(path, "lists no slices")
    return rows


def prepare_urbansound8k(
    root: str | os.PathLike,
    data_dir: str | os.PathLike,
    sets: dict[str, Sequence[Part]] | None = None,
    classes: Sequence[str] = CLASSES,
    background: Sequence[str] = (),
) -> dict[str, dict]:
    """Write `data_dir/labels.tsv` and for each set `data_dir/SET/clips.tsv`.

    Args:
        root: folder of UrbanSound8K. sets: see `parse_sets`; None: the paper's.
        classes: names, in the order of the labels. background: names of classes whose slices are
            listed behind them, as sound of no labelled class for `EventDrawer`.

    Returns:
        For each set "slices", "missing" (their files do not exist; the scan counts them so too) and "recordings".

    Raises:
        DataError: a broken list, an unknown class, a fold that no slice has, a part of a fold in
            two sets, a set without a slice.
    """
    rows = read_meta(root)
    sets = parse_sets(SETS) if sets is None else sets
    names = [*classes, *background]
    _check_names(names, {row["class"] for row in rows}, root)
    _check_sets(sets, {row["fold"] for row in rows}, root)
    dealt = _deal(rows, {p.fold: p.count for parts in sets.values() for p in parts})
    rows = [row for row in rows if row["class"] in names]
    here = _files(Path(root) / "audio", {row["fold"] for row in rows})
    lists, about = {}, {}
    for name, parts in sets.items():
        wanted = {(p.fold, p.index) for p in parts}
        chosen = [row for row in rows if (row["fold"], dealt.get(row["fsID"], 0)) in wanted]
        if not chosen:
            raise DataError(f"set {name}: no slice of these classes in its folds")
        lists[name] = sorted(_clip(row, here) for row in chosen)
        missing = sum(not clip.source for clip in lists[name])
        recordings = len({row["fsID"] for row in chosen})
        about[name] = {"slices": len(chosen), "missing": missing, "recordings": recordings}
    write_lists(data_dir, named_labels(names), lists)
    return about


def _clip(row: dict, here: dict[tuple[int, str], str]) -> Clip:
    source = here.get((row["fold"], row["slice_file_name"]), "")
    return Clip(Path(row["slice_file_name"]).stem, (row["class"],), source)


def _files(audio: Path, folds: set[int]) -> dict[tuple[int, str], str]:
    """Files of each fold. A fold without a folder has none."""
    if not audio.is_dir():
        raise DataError(f"{audio}: no such folder")
    found = {}
    for fold in sorted(folds):
        folder = audio / f"fold{fold}"
        if folder.is_dir():
            found |= {(fold, e.name): str(folder / e.name) for e in os.scandir(folder)}
    return found


def _deal(rows: list[dict], counts: dict[int, int]) -> dict[str, int]:
    """Recording -> index of its part of the fold, for folds cut into `counts` parts.

    Recordings with most slices first (of equals, by a hash), each to the part of its class with
    the fewest so far: what is chosen of the classes and the order of the list do not matter.
    """
    rows = [row for row in rows if counts.get(row["fold"], 1) > 1]
    sizes = Counter(row["fsID"] for row in rows)
    name = {row["fsID"]: row["class"] for row in sorted(rows, key=lambda r: r["class"])}
    fold = {row["fsID"]: row["fold"] for row in rows}

    def rank(v):
        return -sizes[v], hashlib.blake2b(v.encode(), digest_size=8).digest()

    dealt, full = {}, {}
    for v in sorted(sizes, key=rank):
        parts = full.setdefault((fold[v], name[v]), [0] * counts[fold[v]])
        dealt[v] = parts.index(min(parts))
        parts[dealt[v]] += sizes[v]
    return dealt


def _check_names(names: Sequence[str], known: set[str], root) -> None:
    for name in names:
        if name not in known:
            raise DataError(f"{root}: no slice of class {name!r}; it has {', '.join(sorted(known))}")
        if names.count(name) > 1:
            raise DataError(f"class {name} is named twice")


def _check_sets(sets: dict[str, Sequence[Part]], known: set[int], root) -> None:
    check_folds(sets, known, root)
    counts: dict[int, int] = {}
    for part in (part for parts in sets.values() for part in parts):
        if (other := counts.setdefault(part.fold, part.count)) != part.count:
            raise DataError(f"fold {part.fold} is cut into {other} and into {part.count} parts")


def _add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--urbansound8k", required=True, help="folder with metadata/ and audio/")
    text = "sets and their folds: train:1-6, test:9,10, or a share of a fold's recordings: valid:2/1of2 test:2/2of2"
    text += f" (default: the paper's, {' '.join(SETS)})"
    p.add_argument("--splits", nargs="+", default=list(SETS), metavar="NAME:FOLDS", help=text)
    text = "comma-separated, in the order of the labels"
    p.add_argument("--classes", default=",".join(CLASSES), help=text)
    p.add_argument("--background_classes", default="", help="comma-separated; sound of no labelled class (none)")


def _prepare(a: argparse.Namespace) -> str:
    classes, background = ([v for v in text.split(",") if v] for text in (a.classes, a.background_classes))
    sets = prepare_urbansound8k(a.urbansound8k, a.data_dir, parse_sets(a.splits), classes, background)
    line = "{}: {slices} slices of {recordings} recordings, {missing} without a file"
    return "\n".join(line.format(name, **about) for name, about in sets.items())


def _add_embedded_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--recordings", type=int, default=5, help="of each effect in each fold")
    p.add_argument("--background", type=int, default=0, help="of each background class in each fold")


def _make_embedded(a: argparse.Namespace) -> None:
    from espnet2_ext.data.synth.urbansound8k import make_mini_urbansound8k

    make_mini_urbansound8k(**vars(a))


ABOUT = "UrbanSound8K: its folder -> data/labels.tsv, data/SET/clips.tsv"
EMBEDDED = "Make the embedded corpus: effects in UrbanSound8K's layout, from a General MIDI sound font."
CORPUS = Corpus(Step(ABOUT, _add_options, _prepare), embedded=Step(EMBEDDED, _add_embedded_options, _make_embedded))
