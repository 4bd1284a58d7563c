"""Which experiments there are: as sweeps noted them (`sweep_NAME.json`), as named, or by their folders' names."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from espnet2_ext.errors import DataError
from espnet2_ext.papers.sweep import Run, Sweep
from espnet2_ext.papers.tables import PAPERS, load_paper
from espnet2_ext.util.documents import read_fields, write_json
from espnet2_ext.util.locks import locked

_FOLDER = re.compile(r"(qsep|tag|weak)_.")  # of an experiment
_CELL = re.compile(r"(?:(?:qsep|tag|weak)_)?(.+?)(?:_seed(\d+))?$")
_WEAK = re.compile(r"weak_(.+)_(strong|frame|clip|mixed)$")
_NOTE = {"cell": str, "seed": int, "id": str, "folders": {str: str}, "seconds": float}
_NOTES = {"sweep": str, "variables": {str: str}, "runs": {str: _NOTE}}  # what a sweep writes
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

    In a folder of sweeps only what is noted counts: all else may be incomplete or outdated.
    One that several sweeps share is there once for each.

    Args:
        roots: folders, or `NAME=FOLDER`: the experiment FOLDER as the cell NAME.
    Raises:
        DataError: no such folder, or a broken note of a sweep.
    """
    found: list[Trained] = []
    for root in map(str, roots):
        name, folder = split_root(root)
        if name:
            label = _WEAK.match(folder.name)
            seed = 0 if label else cell_of(folder.name)[1]
            found.append(Trained(name, seed, label[2] if label else "", folder, "", {}))
            continue
        folders = list(_folders(folder, _DEPTH))
        notes = [note for f in folders for note in sorted(f.glob("sweep_*.json"))]
        swept = {note.parent for note in notes}
        found += [t for note in notes for t in _noted(note)]
        found += [t for f in folders if f.parent not in swept and (t := _named(f))]
    return found


def split_root(root: str) -> tuple[str, Path]:
    """`CELL=FOLDER` as both, `FOLDER` with the name "" (DataError: no such folder)."""
    name, sign, path = root.partition("=")
    if Path(root).is_dir():
        return "", Path(root)
    if sign and Path(path).is_dir():
        return name, Path(path)
    raise DataError(f"--exp_dirs {root}: no such folder")


def check_names(roots: Sequence[str]) -> None:
    """Refuse `CELL=FOLDER` of a cell that no table has, naming those there are (DataError)."""
    tables = [table for key in PAPERS for table in load_paper(key).tables.values()]
    known = {cell for table in tables for row in table.rows for cell in table.cells(row)}
    for root in roots:
        if (name := split_root(str(root))[0]) and name not in known:
            raise DataError(f"--exp_dirs {root}: no table has a cell {name}; available: {', '.join(sorted(known))}")


def _folders(root: Path, depth: int) -> Iterator[Path]:
    """`root` and the folders in it, but nothing inside experiments."""
    yield root
    if depth and not (root / "config.yaml").is_file():
        for path in sorted(root.iterdir()):
            if path.is_dir():
                yield from _folders(path, depth - 1)


def _noted(note: Path) -> Iterator[Trained]:
    sweep, variables, runs = read_notes(note)
    for run in runs.values():
        for label, folder in run.folders.items():
            yield Trained(run.cell, run.seed, label, folder, sweep, variables)


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
    for name, root in (split_root(str(r)) for r in roots):
        for path in sorted(root.glob("**/mixtures/statistics.tsv")) if not name else ():
            if (path.parent / "table.json").is_file():
                found.append(path.parent)
    return found


# ---- what sweeps note ----------------------------------------------------------------------------


class Note(NamedTuple):
    """A run that has ended well.

    Attributes:
        id: `Sweep.identity` when it was started.
        folders: label type (empty but for weak labels) -> its experiment.
        seconds: from its start to its end.
    """

    cell: str
    seed: int
    id: str
    folders: dict[str, Path]
    seconds: float


def read_notes(path: Path) -> tuple[str, dict[str, str], dict[str, Note]]:
    """Name of the sweep, what its size sets, and run -> `Note`.

    Raises:
        DataError: a file that no sweep has written, by name.
    """
    content = read_fields(path, _NOTES, hint="remove it")
    runs = {name: Note(**{k: run[k] for k in Note._fields}) for name, run in content["runs"].items()}
    for name, run in runs.items():
        runs[name] = run._replace(folders={label: path.parent / folder for label, folder in run.folders.items()})
    return content["sweep"], content["variables"], runs


class Notes:
    """The notes of one sweep, beside which other processes may note.

    Attributes:
        runs: run -> `Note`, as they were read last.
    """

    def __init__(self, sweep: Sweep):
        self.sweep = sweep
        self.path = sweep.recipe / sweep.expdir / f"sweep_{sweep.path.stem}.json"
        self.refresh()

    def refresh(self) -> None:
        """Read them again."""
        self.runs = read_notes(self.path)[2] if self.path.is_file() else {}

    def is_done(self, run: Run) -> bool:
        """Whether the run was finished with the same command and YAMLs, and is still there."""
        note = self.runs.get(run.name)
        return (
            note is not None
            and note.id == self.sweep.identity(run)
            and all(folder.is_dir() for folder in note.folders.values())
        )

    def start(self, run: Run) -> str:
        """Forget the run and all that is built on it, which are not finished any longer.

        Returns:
            The run's identity, for `add`.
        """
        lost = {run.name} | {r.name for r in self.sweep.runs() if self.sweep.is_built_on(r, run)}
        with locked(self.path.with_suffix(".lock")):
            self.refresh()
            if lost & self.runs.keys():
                self.runs = {name: note for name, note in self.runs.items() if name not in lost}
                self._write()
        return self.sweep.identity(run)

    def add(self, run: Run, identity: str, seconds: float) -> None:
        """Note a run that has ended well."""
        folders = {k: self.path.parent / Path(v).name for k, v in self.sweep.folders(run).items()}
        with locked(self.path.with_suffix(".lock")):
            self.refresh()
            self.runs[run.name] = Note(run.cell.name, run.seed, identity, folders, round(seconds))
            self._write()

    def _write(self) -> None:
        runs = {
            name: note._asdict() | {"folders": {k: v.name for k, v in note.folders.items()}}
            for name, note in self.runs.items()
        }
        content = {
            "sweep": self.sweep.path.stem,
            "title": self.sweep.title,
            "variables": self.sweep.variables,
            "runs": runs,
        }
        write_json(self.path, content)
