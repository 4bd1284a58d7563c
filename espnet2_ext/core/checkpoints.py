"""Checkpoints that a training resumes from: saved whole and finite, with the one before beside each, checked first."""

import contextlib
import errno
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from espnet2_ext.core.unpickle import Unknown
from espnet2_ext.core.weights import load, not_finite
from espnet2_ext.errors import DataError
from espnet2_ext.util.files import atomic_path
from espnet2_ext.util.locks import locked

_WRITER = re.compile("inline_container|PytorchStreamWriter")  # in what PyTorch says then
_TRAINED = ("model", "optimizers", "state_dict", "optimizer_states")  # ESPnet's and Lightning's names


def previous(path: str | os.PathLike) -> Path:
    """Where the checkpoint before that in `path` is kept: `NAME.prev.SUFFIX`."""
    path = Path(path)
    return path.with_name(f"{path.stem}.prev{path.suffix}")


def save_whole(write: Callable[[Path], Any], state: Any, path: str | os.PathLike, keep: bool | None = None) -> None:
    """Let `write` save `state` to `path`: the whole file, or the one that was there stays.

    Args:
        keep: the one that was there becomes the `previous` checkpoint (True), or is of another training, which a
            `previous` one is too (False). None: this is no checkpoint to resume from.

    Raises:
        DataError: weights or an optimiser's state that are not finite; nothing is written.
    """
    if names := _diverged(state):
        more = f" and {len(names) - 1} more hold" if names[1:] else " holds"
        raise DataError(
            f"{path}: the training has diverged: {names[0]}{more} NaN or infinity. The checkpoint before stays; try a"
            " lower learning rate"
        )
    with atomic_path(path) as tmp:
        with writing(path):
            write(tmp)
        if keep and os.path.isfile(path):
            _link(Path(path), previous(path))
        elif keep is False:
            previous(path).unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Around `torch.save`: where it cannot write, an OSError that names `path`, in place of the places in a zip."""
    try:
        yield
    except RuntimeError as e:
        if not _WRITER.search(str(e)):
            raise
        raise OSError(errno.EIO, "writing failed; is the disk full?", os.fspath(path)) from e


def check_resumable(path: str | os.PathLike) -> None:
    """Make sure that `path` holds a whole and finite checkpoint: where it does not, the previous one is put there.

    Raises:
        DataError: neither of them is one.
    """
    path = Path(path)
    with locked(path.with_name(f".lock-{path.name}")):  # each process of a training asks
        if fault := _fault(path):
            before = previous(path)
            if not before.is_file() or _fault(before):
                raise DataError(f"{fault}; there is no good one before it: remove it to train from the beginning")
            logging.warning("%s; resuming from the checkpoint before it, %s", fault, before.name)
            _link(before, path)


def read_whole(path: str | os.PathLike, otherwise: Callable[[], Any]) -> Any:
    """What `torch.save` wrote, its checksums compared, which PyTorch does not do.

    Args:
        otherwise: reads a file that holds more than tensors and plain values.

    Raises:
        DataError: a damaged file.
    """
    value = load(path)
    return value if _is_plain(value) else otherwise()


def _fault(path: Path) -> str | None:
    try:
        names = _diverged(load(path, what="checkpoint"))
    except DataError as e:
        return str(e)
    return f"{path}: {names[0]} holds NaN or infinity" if names else None


def _diverged(state: Any) -> list[str]:
    """Names of tensors that are not finite, without masks, which hold minus infinity and zero."""
    trained = {k: v for k, v in state.items() if k in _TRAINED} if isinstance(state, dict) else {}
    tensors = dict(_tensors(trained or state, ""))
    return [name for name in not_finite(tensors) if not _is_mask(tensors[name])]


def _is_mask(x: Tensor) -> bool:
    return not x.is_complex() and bool(((x == 0) | (x == -torch.inf)).all())


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict | list | tuple):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _tensors(part, f"{name}.{key}" if name else str(key))


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict | list | tuple):
        return all(map(_is_plain, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, Unknown)


def _link(path: Path, to: Path) -> None:
    """Make `to` the same file as `path`, or a copy where the file system cannot."""
    with atomic_path(to) as tmp:
        tmp.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            return os.link(path, tmp)
        shutil.copyfile(path, tmp)
