"""Weights of a training: ESPnet's `--init_param`, checked and reported in the log; checkpoints written whole."""

import argparse
import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from espnet2.tasks import abs_task
from espnet2.train.reporter import Reporter
from torch import Tensor, nn

from espnet2_ext.core.weights import check_resumable, load_weights, read_whole, save_whole
from espnet2_ext.core.weights import load as load_checkpoint
from espnet2_ext.errors import DataError
from espnet2_ext.util.files import TRAINED, write_record
from espnet2_ext.util.locks import locked

CHECKPOINT = "checkpoint.pth"  # ESPnet's name
SHOWN = 3  # names of a kind that an error lists


class Entry(NamedTuple):
    """`FILE:SRC:DST:EXCLUDE`: weights of a file under SRC become those of the model's part DST.

    Parts left empty: the whole. `excludes`: beginnings of names in the file that are not taken.
    """

    path: str
    src: str
    dst: str
    excludes: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Entry":
        """Raises a DataError for more than four parts."""
        path, *rest = text.split(":")
        if len(rest) > 3:
            raise DataError(f"--init_param {text}: must be FILE:SRC:DST:EXCLUDE")
        src, dst, excludes = (*rest, "", "", "")[:3]
        return cls(path, src, dst, tuple(e for e in excludes.split(",") if e))

    def reaches(self, part: str) -> bool:
        """Whether weights come into the model's `part`, at least into something of it."""
        return not self.dst or f"{self.dst}.".startswith(f"{part}.") or part.startswith(f"{self.dst}.")

    def read(self) -> dict[str, Tensor]:
        """The file's weights under SRC, named as they are there.

        Raises:
            DataError: no such file, not a file of weights, nothing under SRC.
        """
        state = read_weights(self.path)
        if self.excludes:
            state = {k: v for k, v in state.items() if not k.startswith(self.excludes)}
        if not self.src:
            return state
        found = {k.removeprefix(f"{self.src}."): v for k, v in state.items() if k.startswith(f"{self.src}.")}
        if not found:
            raise DataError(
                f"--init_param: {self.path} has no weights under {self.src!r}; available: "
                f"{', '.join(_tops(state)) or 'nothing'}"
            )
        return found


def read_weights(path: str | Path, option: str = "--init_param") -> dict[str, Tensor]:
    """Weights by name, on the CPU; see `core.weights.load_weights`, whose errors name the option."""
    return load_weights(path, f"{option} {path}")


def goes_on(args: argparse.Namespace) -> bool:
    """Whether a training is resumed, so that its weights come from its own checkpoint."""
    return bool(args.resume) and (Path(args.output_dir) / CHECKPOINT).exists()


@contextlib.contextmanager
def initial_weights(args: argparse.Namespace) -> Iterator[None]:
    """Around ESPnet's `main_worker`: its `--init_param` is checked first, and loaded by `load_all`.

    A training that goes on reads no initial weights.

    Raises:
        DataError: see `Entry.read` and `load_all`.
    """
    for text in [] if goes_on(args) else args.init_param:
        Entry.parse(text).read()

    def load_one(init_param: str, model: nn.Module, ignore_init_mismatch: bool, map_location: str = "cpu") -> None:
        if init_param == args.init_param[-1]:  # called once an entry; what is frozen needs all
            load_all(model, args)

    espnets = abs_task.load_pretrained_model
    abs_task.load_pretrained_model = load_one
    try:
        yield
    finally:
        abs_task.load_pretrained_model = espnets


def load_all(model: nn.Module, args: argparse.Namespace) -> None:
    """Give a new model what `--init_param` names, as a training begins with it.

    Raises:
        DataError: see `load` and `check_frozen`.
    """
    entries = args.init_param
    if entries and goes_on(args):
        logging.info("going on from a checkpoint: %s is not read", " ".join(entries))
        return
    came = [load(model, text, args.ignore_init_mismatch) for text in entries]
    check_frozen(model, entries, set().union(*came), args.ignore_init_mismatch)


def check_frozen(model: nn.Module, entries: Iterable[str], came: set[str], ignore_mismatch: bool = False) -> None:
    """Refuse frozen weights that no entry holds, as they would stay random.

    Args:
        entries: of `--init_param`; parts of the model that none of them reaches are not looked at.
        came: names of the tensors that they gave.

    Raises:
        DataError: weights or running statistics of frozen layers are missing.
    """
    tops = {Entry.parse(text).dst.partition(".")[0] for text in entries}
    missing = [name for name in _frozen(model) if name not in came and ("" in tops or name.partition(".")[0] in tops)]
    if missing and not ignore_mismatch:
        raise DataError(
            f"--init_param {' '.join(entries)}: tensors {_few(missing, 'frozen and not in the file')}. To go on "
            "without them: --ignore_init_mismatch true"
        )


def _frozen(model: nn.Module) -> Iterator[str]:
    """Weights that are not trained, and the running statistics of their layers."""
    for name, module in model.named_modules():
        own = dict(module.named_parameters(prefix=name, recurse=False))
        if own and not any(p.requires_grad for p in own.values()):
            yield from own
            for kind in ("running_mean", "running_var"):
                if getattr(module, kind, None) is not None:
                    yield f"{name}.{kind}"


def load(model: nn.Module, init_param: str, ignore_mismatch: bool = False) -> set[str]:
    """Load an entry of `--init_param` and log what came, part by part, and what did not.

    What the file has and the model has not is left out, as are, with `ignore_mismatch`, tensors of another shape.

    Returns:
        The names, in the model, of what the file holds.

    Raises:
        DataError: a part that the model does not have; a file none of whose weights fit; without
            `ignore_mismatch` also another shape.
    """
    entry = Entry.parse(init_param)
    given, part = entry.read(), _part(model, entry)
    own = part.state_dict()
    fits = {k: v for k, v in given.items() if k in own and v.shape == own[k].shape}
    where = f"--init_param: {entry.path}{f' ({entry.src})' if entry.src else ''} into {entry.dst or 'the model'}"
    if not fits:
        raise DataError(f"{where}: none of its tensors fit; are these the right parts?")
    shapes = [
        f"{k} {list(given[k].shape)} in the file, {list(own[k].shape)} here"
        for k in given
        if k in own and k not in fits
    ]
    if shapes and not ignore_mismatch:
        raise DataError(
            f"{where}: tensors {_few(shapes, 'of another shape')}. To go on without them: --ignore_init_mismatch true"
        )
    part.load_state_dict({**own, **fits})
    logging.info(
        "%s: %d of %d tensors initialised: %s",
        where,
        len(fits),
        len(own),
        ", ".join(f"{top} {sum(k in fits for k in names)} of {len(names)}" for top, names in _tops(own).items()),
    )
    missing, unknown = [k for k in own if k not in given], [k for k in given if k not in own]
    for what, names in (
        ("of another shape", shapes),
        ("not in the file", _in_short(missing, own)),
        ("in the file alone", _in_short(unknown, given)),
    ):
        if names:
            logging.warning("--init_param: left out, %s: %s", what, ", ".join(names))
    return {f"{entry.dst}.{k}" if entry.dst else k for k in given}


def _part(model: nn.Module, entry: Entry) -> nn.Module:
    try:
        return model.get_submodule(entry.dst)
    except AttributeError as e:
        names = [name for name, _ in model.named_children()]
        raise DataError(
            f"--init_param: the model has no part {entry.dst!r}; available: {', '.join(names)} and what is in them"
        ) from e


def _few(names: list[str], what: str) -> str:
    return f"{what}: {', '.join(names[:SHOWN])}" + f" and {len(names) - SHOWN} more" * bool(names[SHOWN:])


def _tops(names: Iterable[str]) -> dict[str, list[str]]:
    """Names by their first part."""
    tops: dict[str, list[str]] = {}
    for name in names:
        tops.setdefault(name.partition(".")[0], []).append(name)
    return tops


def _in_short(names: list[str], among: Iterable[str]) -> list[str]:
    """The names, those of a part that are all there as `PART.* (COUNT)`."""
    every, short = _tops(among), []
    for top, those in _tops(names).items():
        whole = len(those) == len(every[top]) > 1
        short += [f"{top}.* ({len(those)})"] if whole else those
    return short


@contextlib.contextmanager
def whole_checkpoints(args: argparse.Namespace) -> Iterator[None]:
    """Around ESPnet's training: what it saves is whole and finite (see `core.weights`), what it goes on from too.

    ESPnet's trainer writes `checkpoint.pth` in place; a kill in that moment would leave a part of it, from which
    nothing can be resumed. What it reads of its folder, as for averages, is compared with its checksums.

    Raises:
        DataError: see `check_resumable`.
    """
    folder, ours = Path(args.output_dir).absolute(), goes_on(args)  # ours: of this training is a checkpoint there
    if ours:
        check_resumable(folder / CHECKPOINT)
        finish_epoch(folder, args.best_model_criterion)
    save, load = torch.save, torch.load

    def save_checkpoint(obj, f, *more, **options):
        nonlocal ours
        if not isinstance(f, str | os.PathLike):
            return save(obj, f, *more, **options)

        def write(tmp: Path) -> None:
            with open(tmp, "wb") as file:  # whose errors are the file system's own
                save(obj, file, *more, **options)

        is_checkpoint = Path(f).absolute() == folder / CHECKPOINT
        save_whole(write, obj, f, ours if is_checkpoint else None)
        ours |= is_checkpoint

    def load_checked(f, *more, **options):
        if isinstance(f, str | os.PathLike) and Path(f).absolute().parent == folder:
            return read_whole(f, lambda: load(f, *more, **options))
        return load(f, *more, **options)

    torch.save, torch.load = save_checkpoint, load_checked
    try:
        yield
    finally:
        torch.save, torch.load = save, load


def finish_epoch(folder: Path, criteria: Iterable[tuple[str, str, str]]) -> None:
    """Do what was left undone where a training ended between a checkpoint and the files of its epoch.

    Args:
        criteria: (phase, value, min or max): what `PHASE.VALUE.best.pth` is chosen by.
    """
    reporter = Reporter()
    with locked(folder / f".lock-{CHECKPOINT}"):  # each process of a training asks
        saved = load_checkpoint(folder / CHECKPOINT)
        reporter.load_state_dict(saved["reporter"])
        links = {"latest.pth": reporter.get_epoch()}
        links |= {
            f"{p}.{v}.best.pth": reporter.get_best_epoch(p, v, mode) for p, v, mode in criteria if reporter.has(p, v)
        }
        if not (path := folder / f"{reporter.get_epoch()}epoch.pth").is_file():
            model = dict(saved["model"])
            save_whole(lambda tmp: torch.save(model, tmp), model, path)
        for name, epoch in links.items():
            target, link = f"{epoch}epoch.pth", folder / name
            if (folder / target).is_file() and not (link.is_symlink() and os.readlink(link) == target):
                link.unlink(missing_ok=True)
                link.symlink_to(target)


def describe(folder: str | Path) -> None:
    """Keep checksums of the texts that describe a model, once it is trained."""
    texts = [file for file in (Path(folder) / "config.yaml", Path(folder) / "labels.tsv") if file.is_file()]
    write_record(Path(folder) / TRAINED, {"version": 1}, files=texts)
