"""Which experiments there are: as sweeps noted them, as named, or by their folders' names."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from espnet2_ext.errors import DataError

_FOLDER = re.compile(r"(qsep|tag|weak)_.")  # of an experiment
_CELL = re.compile(r"(?:(?:qsep|tag|weak)_)?(.+?)(?:_seed(\d+))?$")
_WEAK = re.compile(r"weak_(.+)_(strong|frame|clip|mixed)$")
_DEPTH = 3  # exp/CORPUS/EXPERIMENT, and one to spare


class Trained(NamedTuple):
    """An experiment: the cell (or tag) that it is, its seed, label type and sweep ("": none)."""

    name: str
    seed: int
    label: str
    folder: Path
    sweep: str
    variables: dict[str, str]


def default_roots(top: Path) -> list[Path]:
    """`egs2/*/exp` of the project whose top folder is `top`."""
    return sorted(top.glob("egs2/*/exp"))


def find_trained(roots: Sequence[str | Path]) -> list[Trained]:
    """The experiments in or below `roots`, as sweeps noted them or else by their folders' names.

    Args:
        roots: folders, or `NAME=FOLDER`: the experiment FOLDER as the cell NAME.
    Raises:
        DataError: no such folder, or a broken note of a sweep.
    """
    found: list[Trained] = []
    for root in map(str, roots):
        name, sign, path = root.partition("=")
        folder = Path(path if sign else root)
        if not folder.is_dir():
            raise DataError(f"--exp_dirs {root}: no such folder")
        if sign:
            label = _WEAK.match(folder.name)
            seed = 0 if label else cell_of(folder.name)[1]
            found.append(Trained(name, seed, label[2] if label else "", folder, "", {}))
            continue
        folders = list(_folders(folder, _DEPTH))
        noted = [t for f in folders for note in sorted(f.glob("sweep_*.json"))
                 for t in _noted(note)]  # sweeps of one folder may share an experiment
        known = {t.folder for t in noted}
        found += noted + [t for f in folders if f not in known and (t := _named(f))]
    return list({(t.folder.resolve(), t.sweep, t.name): t for t in found}.values())


def _folders(root: Path, depth: int) -> Iterator[Path]:
    """`root` and the folders in it, but nothing inside experiments."""
    yield root
    if depth and not (root / "config.yaml").is_file():
        for path in sorted(root.iterdir()):
            if path.is_dir():
                yield from _folders(path, depth - 1)


def _noted(note: Path) -> Iterator[Trained]:
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        for run in content["runs"].values():
            for label, name in run["folders"].items():
                yield Trained(run["cell"], run["seed"], label, note.parent / name,
                              content["sweep"], content["variables"])
    except (ValueError, KeyError, TypeError) as e:
        raise DataError(f"{note}: not what a sweep noted ({e!r}); remove it") from e


def _named(folder: Path) -> Trained | None:
    known = ("config.yaml", "inference_*", "tagging_*")
    if "_classifier_" in folder.name or not any(any(folder.glob(k)) for k in known):
        return None
    if match := _WEAK.match(folder.name):
        return Trained(match[1], 0, match[2], folder, "", {})
    if not _FOLDER.match(folder.name):
        return None
    return Trained(*cell_of(folder.name), "", folder, "", {})


def cell_of(name: str) -> tuple[str, int]:
    """Cell and seed of an experiment or bundle: `qsep_C_seed1` and `C_seed1` are C with seed 1."""
    match = _CELL.match(name)
    return (match[1], int(match[2] or 0)) if match else (name, 0)


def find_tables_of(roots: Sequence[str | Path]) -> list[Path]:
    """Tables of mixtures, with their statistics, below `roots`; `NAME=FOLDER` holds none.

    Raises:
        DataError: no such folder.
    """
    found = []
    for root in map(Path, (r for r in map(str, roots) if "=" not in r)):
        if not root.is_dir():
            raise DataError(f"--exp_dirs {root}: no such folder")
        for path in sorted(root.glob("**/mixtures/statistics.tsv")):
            if (path.parent / "table.json").is_file():
                found.append(path.parent)
    return found
