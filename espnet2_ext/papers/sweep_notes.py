"""What a sweep has finished: `sweep_NAME.json` in its folder of experiments."""

import json
from pathlib import Path
from typing import NamedTuple

from espnet2_ext.errors import DataError
from espnet2_ext.papers.measured import load_json
from espnet2_ext.papers.sweep import Run, Sweep
from espnet2_ext.util.files import locked, write_text


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
    content = load_json(path)
    try:
        runs = {
            name: Note(
                str(run["cell"]),
                int(run["seed"]),
                run["id"],
                {label: path.parent / folder for label, folder in run["folders"].items()},
                float(run["seconds"]),
            )
            for name, run in content["runs"].items()
        }
        return str(content["sweep"]), dict(content["variables"]), runs
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise DataError(f"{path}: not what a sweep noted ({e!r}); remove it") from e


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
        """Read them anew."""
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
        write_text(self.path, json.dumps(content, indent=1) + "\n")
