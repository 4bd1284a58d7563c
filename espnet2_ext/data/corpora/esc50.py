"""Reader of ESC-50 in the layout of the original: `meta/esc50.csv` and a folder `audio`.

ESC-50 publishes no class identifiers: the category's name (`dog`, `crackling_fire`) stands as the
class id. Indices are the original's `target` where all 50 classes are there, else they are counted
in that order without gaps. K. J. Piczak, "ESC: Dataset for Environmental Sound Classification",
ACM Multimedia 2015.
"""

import csv
import os
from collections.abc import Collection
from pathlib import Path

from espnet2_ext.data.tables import Clip, Label, write_clips, write_labels
from espnet2_ext.errors import DataError

COLUMNS = ("filename", "fold", "target", "category")


def read_meta(root: str | os.PathLike) -> list[dict]:
    """Rows of `ROOT/meta/esc50.csv` with `fold` and `target` as numbers.

    Raises:
        DataError: with file and line: no such file, a column that is not there, a broken line.
    """
    path = Path(root) / "meta" / "esc50.csv"
    if not path.is_file():
        raise DataError(f"{path}: no such file (is {root} the folder of ESC-50?)")
    rows, names = [], {}
    with open(path, encoding="utf-8", newline="") as f:
        table = csv.DictReader(f)
        if lacks := set(COLUMNS) - set(table.fieldnames or ()):
            raise DataError(f"{path}:1: no column {', '.join(sorted(lacks))}")
        for row in table:
            try:
                row = {**row, "fold": int(row["fold"]), "target": int(row["target"])}
            except (TypeError, ValueError):
                raise DataError(f"{path}:{table.line_num}: fold or target not a number") from None
            name = row["category"]
            if None in row or not row["filename"] or not name:
                raise DataError(f"{path}:{table.line_num}: fields are missing or too many")
            if names.setdefault(row["target"], name) != name:
                raise DataError(f"{path}:{table.line_num}: target {row['target']} has two names")
            rows.append(row)
    if not rows:
        raise DataError(f"{path}: lists no clips")
    return rows


def prepare_esc50(
    root: str | os.PathLike, data_dir: str | os.PathLike, sets: dict[str, Collection[int]]
) -> dict[str, int]:
    """Write `data_dir/labels.tsv` and for each set `data_dir/SET/clips.tsv`.

    Args:
        root: folder of ESC-50. sets: name -> folds; a fold belongs to one set.

    Returns:
        Number of clips of each set. A listed file that is not there gets an empty source, which the
        scan calls missing.

    Raises:
        DataError: a broken list, a missing audio folder, a fold that no clip has or two sets share.
    """
    rows = read_meta(root)
    audio = Path(root) / "audio"
    if not audio.is_dir():
        raise DataError(f"{audio}: no such folder")
    here = {entry.name for entry in os.scandir(audio)}
    _check_folds(sets, {row["fold"] for row in rows}, root)
    names = sorted({(row["target"], row["category"]) for row in rows})
    labels = [Label(i, name, name.replace("_", " ")) for i, (_, name) in enumerate(names)]
    write_labels(Path(data_dir) / "labels.tsv", labels)
    counts = {}
    for name, folds in sets.items():
        clips = [
            Clip(
                Path(row["filename"]).stem,
                (row["category"],),
                str(audio / row["filename"]) if row["filename"] in here else "",
            )
            for row in rows
            if row["fold"] in folds
        ]
        write_clips(Path(data_dir) / name / "clips.tsv", clips)
        counts[name] = len(clips)
    return counts


def _check_folds(sets: dict[str, Collection[int]], known: set[int], root) -> None:
    used: dict[int, str] = {}
    for name, folds in sets.items():
        if not folds:
            raise DataError(f"set {name}: no folds")
        for fold in folds:
            if fold not in known:
                raise DataError(f"{root}: fold {fold} of set {name} has no clips")
            if used.setdefault(fold, name) != name:
                raise DataError(f"fold {fold} is in the sets {used[fold]} and {name}")
