"""Reader of ESC-50 in the layout of the original: `meta/esc50.csv` and a folder `audio`.

ESC-50 publishes no class identifiers: the category's name (`dog`, `crackling_fire`) stands as the class id. Indices are
the original's `target` where all 50 classes occur, else they are counted in that order without gaps. K. J. Piczak,
"ESC: Dataset for Environmental Sound Classification", ACM Multimedia 2015.
"""

import argparse
import os
from collections.abc import Collection
from pathlib import Path

from espnet2_ext.data.corpora.corpus import Corpus, Step, check_folds, counted, named_labels, write_lists
from espnet2_ext.data.tables import Clip
from espnet2_ext.errors import DataError
from espnet2_ext.util.tables import TableError, at, number, read_table

COLUMNS = ("filename", "fold", "target", "category")


def read_meta(root: str | os.PathLike) -> list[dict]:
    """Rows of `ROOT/meta/esc50.csv` with `fold` and `target` as numbers.

    Raises:
        DataError: with file and line: no such file, a missing column, a broken line.
    """
    path = Path(root) / "meta" / "esc50.csv"
    rows, names = [], {}
    for line, row in read_table(path, COLUMNS):
        where = f"{path}:{line}"
        if not row["filename"] or not row["category"]:
            raise TableError(where, "no filename or no category")
        with at(path, line):
            row |= {name: number(name, row[name], whole=True) for name in ("fold", "target")}
        if names.setdefault(row["target"], row["category"]) != row["category"]:
            raise TableError(where, f"target {row['target']} has two names")
        rows.append(row)
    if not rows:
        raise TableError(path, "lists no clips")
    return rows


def prepare_esc50(
    root: str | os.PathLike, data_dir: str | os.PathLike, sets: dict[str, Collection[int]]
) -> dict[str, int]:
    """Write `data_dir/labels.tsv` and for each set `data_dir/SET/clips.tsv`.

    Args:
        root: folder of ESC-50. sets: name -> folds; a fold belongs to one set.

    Returns:
        Number of clips of each set. A listed file that does not exist gets an empty source, which the scan calls
        missing.

    Raises:
        DataError: a broken list, a missing audio folder, a fold that no clip has or two sets share.
    """
    rows = read_meta(root)
    audio = Path(root) / "audio"
    if not audio.is_dir():
        raise DataError(f"{audio}: no such folder")
    here = {entry.name for entry in os.scandir(audio)}
    if empty := [name for name, folds in sets.items() if not folds]:
        raise DataError(f"set {empty[0]}: no folds")
    check_folds(sets, {row["fold"] for row in rows}, root)

    def clip(row: dict) -> Clip:
        source = str(audio / row["filename"]) if row["filename"] in here else ""
        return Clip(Path(row["filename"]).stem, (row["category"],), source)

    labels = named_labels(name for _, name in sorted({(row["target"], row["category"]) for row in rows}))
    clips = {name: [clip(row) for row in rows if row["fold"] in folds] for name, folds in sets.items()}
    return write_lists(data_dir, labels, clips)


def _add_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--esc50", required=True, help="folder with meta/esc50.csv and audio/")
    text = "a set and its folds; repeatable"
    p.add_argument("--set", nargs="+", action="append", required=True, metavar=("NAME", "FOLD"), help=text)


def _prepare(a: argparse.Namespace) -> str:
    try:
        sets = {name: [int(fold) for fold in folds] for name, *folds in a.set}
    except ValueError:
        raise DataError("--set needs a name and numbers of folds") from None
    return counted(prepare_esc50(a.esc50, a.data_dir, sets))


CORPUS = Corpus(Step("ESC-50: its folder -> data/labels.tsv, data/SET/clips.tsv", _add_options, _prepare))
