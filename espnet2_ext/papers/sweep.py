"""A sweep, `conf/sweeps/*.yaml`: cells, each the options of a recipe's run.sh, as commands.

In an option, `{name}` stands for what the size sets, a YAML of `configs`, or `{folder}`, the name
of the sweep's folder; `{exp:CELL}` for the experiment of another cell, which is then run before.
The sweep's `args` come before those of each cell: one text, or one for each task.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from espnet2_ext.errors import DataError
from espnet2_ext.papers.sweep_configs import Configs
from espnet2_ext.papers.tables import check_keys
from espnet2_ext.recipe.options import pairs, weak_tags
from espnet2_ext.util.config import read_config
from espnet2_ext.util.documents import check, dump_yaml, read_yaml

TASKS = {"separation": "qsep", "tagging": "tag", "weak": "weak"}
_VALUE = (str, int, float, bool)  # of an option
_CELL = {"name": _VALUE, "title?": str, "task?": str, "config": str, "options?": ({str: _VALUE}, None)}
_CELL |= {"args?": (str, None), "seeds?": [int]}
_SWEEP = {"title": str, "task?": str, "recipe": str, "folder?": str, "cells": [dict], "seeds?": [int]}
_SWEEP |= {"sizes?": ({str: ({str: _VALUE}, None)}, None), "tables?": ({str: [_VALUE]}, None)}
_SWEEP |= {"configs?": ({str: {"from": str, "set": {str: object}}}, None), "options?": ({str: _VALUE}, None)}
_SWEEP |= {"args?": (str, {str: (str, None)}, None)}
_NAME = re.compile(r"\{(exp:)?([\w.]+)\}")
_LABELS = "strong frame clip"  # what the recipe trains by default
_FREE = {"label_types", "stop_stage"}  # may be narrowed for all cells: they change no experiment
_HELD = {"weak": {"expdir", "weak_config", "config", "separator_args", "trials"}}  # options that a sweep sets
_HELD |= {k: {"expdir", "task", "config", f"{k}_config", f"{k}_tag", f"{k}_exp", f"{k}_args"} for k in ("qsep", "tag")}


class Cell(NamedTuple):
    """One cell. task: of `TASKS`; config: the YAML; args: further options of ESPnet's trainer."""

    name: str
    title: str
    task: str
    config: str
    options: dict[str, str]
    args: str
    seeds: tuple[int, ...]

    @property
    def kind(self) -> str:
        """What begins the names of its experiments."""
        return TASKS[self.task]

    @property
    def needs(self) -> list[str]:
        """Names of the cells whose experiments its options hold."""
        texts = " ".join([self.args, *self.options.values()])
        return list(dict.fromkeys(m[2] for m in _NAME.finditer(texts) if m[1]))


class Run(NamedTuple):
    """A cell with a seed."""

    cell: Cell
    seed: int

    @property
    def name(self) -> str:
        """Of the experiment and its log."""
        return f"{self.cell.name}_seed{self.seed}"


class Sweep:
    """A sweep as one of `conf/sweeps/*.yaml` says, in one recipe.

    Args:
        path: the YAML. recipe: the recipe's folder; None: that of the YAML, seen from the project's top folder.
        size: of its `sizes`; None: the first.
        folder: name of the folder in the recipe's exp/, behind which the size is put; None: as the YAML says.
        run_options: more options of every run.sh, as words.
    Raises:
        DataError: a file, key, name or size that is wrong, by name.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        recipe: str | Path | None = None,
        size: str | None = None,
        folder: str | None = None,
        run_options: Sequence[str] = (),
    ):
        self.path, self.run_options = Path(path), _pairs(run_options)
        content = read_yaml(self.path)
        check_keys(content, {key.removesuffix("?") for key in _SWEEP}, {"title", "recipe", "cells"}, str(path))
        check(content, _SWEEP, path)
        top = self.path.resolve().parent.parent.parent
        self.recipe = Path(recipe or os.path.relpath(top / content["recipe"]))
        if not (self.recipe / "run.sh").is_file():
            raise DataError(f"{self.recipe}: no run.sh there; --recipe takes a recipe's folder")
        sizes = content.get("sizes") or {}
        if size is not None and size not in sizes:
            there = f"available: {', '.join(sizes)}" if sizes else "this sweep has no sizes"
            raise DataError(f"--size {size}: {path}: {there}")
        self.size = size or next(iter(sizes), None)
        name = folder or content.get("folder", self.path.stem)
        name += f"_{self.size}" if self.size else ""
        if len(name.split()) != 1 or "/" in name:
            raise DataError(f"{name!r} cannot name the folder, which lies in exp/ and is one word of an option")
        self.title, self.expdir = content["title"], f"exp/{name}"
        variables = sizes.get(self.size) or {}
        self.variables = {k: str(v) for k, v in variables.items()} | {"folder": name}
        self.tables = content.get("tables") or {}
        self.configs = Configs(
            content.get("configs") or {}, self.recipe, self.expdir, self.variables, f"{path}: configs"
        )
        if not content["cells"]:
            raise DataError(f"{path}: cells: there is none")
        cells = [self._cell(c, content, f"{path}: cells[{n}]") for n, c in enumerate(content["cells"])]
        self.cells = {cell.name: cell for cell in cells}
        self._check(cells)

    def _cell(self, given: dict, content: dict, where: str) -> Cell:
        check_keys(given, {key.removesuffix("?") for key in _CELL}, {"name", "config"}, where)
        check(given, _CELL, where)
        task = given.get("task", content.get("task", "separation"))
        if task not in TASKS:
            raise DataError(f"{where}.task: {task!r} is none of {', '.join(TASKS)}")
        if not (self.recipe / f"{TASKS[task]}.sh").exists():
            raise DataError(f"{where}: {self.recipe} is no recipe of {task} (it has no {TASKS[task]}.sh)")
        config, seeds = given["config"], given.get("seeds", content.get("seeds", [0]))
        if not seeds or len(set(seeds)) < len(seeds):
            raise DataError(f"{where}.seeds: expected a list of different integers, got {seeds!r}")
        name, options = str(given["name"]), {**(content.get("options") or {}), **(given.get("options") or {})}
        if held := sorted(_HELD[TASKS[task]] & {**options, **self.run_options}.keys()):
            raise DataError(f"{where}: {', '.join(held)} cannot be an option: the sweep sets that")
        for held in sorted(options.keys() & self.run_options.keys() - _FREE):
            text = f"{name} is what it is by --{held} {options[held]}, which cannot be given for all cells"
            raise DataError(f"--run_options: {text}")
        common = content.get("args") or ""
        if isinstance(common, dict):
            check_keys(common, set(TASKS), set(), f"{self.path}: args")
            common = common.get(task)
        args = " ".join(filter(None, [common, given.get("args")]))
        options = {k: str(v) for k, v in options.items()}
        return Cell(name, str(given.get("title", name)), task, config, options, args, tuple(seeds))

    def _check(self, cells: list[Cell]) -> None:
        """Refuse names that are not known or duplicated, and cells that differ and would be one experiment."""
        known: set[str] = set()
        taken: dict[str, tuple[str, set]] = {}
        for number, cell in enumerate(cells):
            where, run = f"{self.path}: cells[{number}]", Run(cell, cell.seeds[0])
            if cell.name in known:
                raise DataError(f"{self.path}: cells: {cell.name} is duplicated")
            if unknown := [need for need in cell.needs if need not in known]:
                raise DataError(f"{where}: {{exp:{unknown[0]}}}: no such cell before {cell.name}")
            known.add(cell.name)
            for text in [cell.config, cell.args, *cell.options.values()]:
                self.fill(text, run, where)
            made = {item for item in (self.options(run) | self.run_options).items() if item[0] not in _FREE}
            for folder in self.folders(run).values():
                other, theirs = taken.setdefault(folder, (cell.name, made))
                if theirs != made:
                    differ = ", ".join(f"--{k} {v}" for k, v in sorted(made ^ theirs))
                    raise DataError(
                        f"{self.path}: {other} and {cell.name} would both be the experiment {folder}: {differ}"
                    )

    # ---- runs --------------------------------------------------------------------------------

    def runs(self, only: Sequence[str] = (), max_seeds: int | None = None) -> list[Run]:
        """The first seed of all cells, then the second and so on; what a run needs comes before it.

        Args:
            only: these cells and what they need. max_seeds: of each cell at most so many, but for what the others need.
        Raises:
            DataError: a name in `only` that is no cell; max_seeds below 1.
        """
        if max_seeds is not None and max_seeds < 1:
            raise DataError(f"--max_seeds {max_seeds}: 1 is the least")
        if unknown := sorted(set(only) - self.cells.keys()):
            known = ", ".join(self.cells)
            raise DataError(f"--only {', '.join(unknown)}: no such cell; {self.path} has the cells {known}")
        wanted = set(only) or set(self.cells)
        for cell in reversed(self.cells.values()):  # needs stand before
            wanted |= set(cell.needs) if cell.name in wanted else set()
        cells = [cell for cell in self.cells.values() if cell.name in wanted]
        rounds = min(max(len(cell.seeds) for cell in cells), max_seeds or 2**31)
        chosen = [Run(c, c.seeds[n]) for n in range(rounds) for c in cells if n < len(c.seeds)]
        return list({one.name: one for run in chosen for one in [*self._below(run), run]}.values())

    def _below(self, run: Run) -> Iterator[Run]:
        """The runs that `run` is built on, the first ones first."""
        for name in run.cell.needs:
            yield from self._below(need := self.needed(run, name))
            yield need

    def needed(self, run: Run, name: str) -> Run:
        """The run of cell `name` that `run` is built on: of the same seed, or else its first."""
        cell = self.cells[name]
        return Run(cell, run.seed if run.seed in cell.seeds else cell.seeds[0])

    def is_built_on(self, run: Run, other: Run) -> bool:
        """Whether `run` needs `other`, or something that does."""
        return other.name in [one.name for one in self._below(run)]

    def fill(self, text: str, run: Run, where: str = "") -> str:
        """`text` with all names in braces replaced."""

        def replace(match: re.Match) -> str:
            is_experiment, name = match.groups()
            if is_experiment:
                folders = list(self.folders(self.needed(run, name)).values())
                if len(folders) > 1:
                    several = "has several experiments, one a label type; it cannot stand for one of them"
                    raise DataError(f"{where or self.path}: {match[0]} {several}")
                return folders[0]
            if name in self.configs:
                return self.configs.path(name)
            if name not in self.variables:
                known = ", ".join([*self.variables, *self.configs])
                raise DataError(f"{where or self.path}: {match[0]} is not known; available: {known}")
            return self.variables[name]

        return _NAME.sub(replace, text)

    def options(self, run: Run) -> dict[str, str]:
        """The options of run.sh, filled in."""
        cell, kind = run.cell, run.cell.kind
        options = {k: self.fill(v, run) for k, v in cell.options.items()}
        args = " ".join(filter(None, [self.fill(cell.args, run).strip(), f"--seed {run.seed}"]))
        config = self.fill(cell.config, run)
        if kind == "weak":  # experiments named by the recipe, so that they share classifiers
            return {"weak_config": config, "strategy": "fixed", **options, "separator_args": args}
        task = {"task": cell.task} if cell.task != "separation" else {}
        return {**task, f"{kind}_config": config, f"{kind}_tag": run.name, **options, f"{kind}_args": args}

    def command(self, run: Run) -> list[str]:
        """What is started in the recipe's folder."""
        options = [*self.options(run).items(), *self.run_options.items()]
        return ["./run.sh", "--expdir", self.expdir, *(word for k, v in options for word in (f"--{k}", v))]

    def folders(self, run: Run) -> dict[str, str]:
        """Label type (empty but for weak labels) -> experiment, seen from the recipe's folder."""
        if run.cell.kind != "weak":
            return {"": f"{self.expdir}/{run.cell.kind}_{run.name}"}
        options = self.options(run) | self.run_options
        labels = options.get("label_types", _LABELS).split()
        return {label: f"{self.expdir}/weak_{_weak_tag(options)}_{label}" for label in labels}

    def identity(self, run: Run) -> str:
        """A digest of what a run is made of: its command, the YAMLs in it, and what it needs."""
        command = self.command(run)
        digest = hashlib.blake2b("\0".join(command).encode(), digest_size=16)
        made = {self.configs.path(name): name for name in self.configs}
        for word in " ".join(command).split():
            if word in made:
                digest.update(self.configs.text(made[word]).encode())
            elif word.endswith(".yaml") and (self.recipe / word).is_file():
                digest.update(dump_yaml(read_config(self.recipe / word), sort_keys=True, allow_unicode=False).encode())
        for name in run.cell.needs:
            digest.update(self.identity(self.needed(run, name)).encode())
        return digest.hexdigest()


def _pairs(words: Sequence[str]) -> dict[str, str]:
    """`--a-b 1 --c=2` as {a_b: 1, c: 2}, as run.sh reads it (DataError: anything else)."""
    found = {}
    for given, name, value in pairs(words):
        if not name or value is None:
            raise DataError(f'--run_options: expected --name value, got {given}; write --run_options="--ngpu 4"')
        found[name] = value
    return found


def _weak_tag(options: dict[str, str]) -> str:
    """Name of the separators of a recipe's options."""
    names = ("weak_tag", "weak_args", "classifier_args", "separator_args", "trainer", "strategy")
    return weak_tags(options["weak_config"], **{name: options[name] for name in names if name in options}).separator
