"""Files of `torch.save`, `.pth` and `.ckpt`: the one reader, and checkpoints that a training resumes from.

It makes tensors, plain containers, numbers and texts, and nothing else: no class that a file names is imported, and
none of its functions is called. Sizes are compared with the file before anything is allocated, and the checksum of
each part while it is read. PyTorch is imported where tensors are made: `tensor_sizes` does without. Checkpoints are
saved whole and finite, with the one before beside each, and checked before a training resumes.
"""

import contextlib
import errno
import logging
import math
import os
import pickle
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from espnet2_ext.core.unpickle import KINDS, MOST_PICKLE, Unknown, contents
from espnet2_ext.errors import DataError
from espnet2_ext.util.binary import BROKEN
from espnet2_ext.util.files import atomic_path
from espnet2_ext.util.locks import locked

if TYPE_CHECKING:
    from torch import Tensor

_WRITER = re.compile("inline_container|PytorchStreamWriter")  # in what PyTorch says then
_TRAINED = ("model", "optimizers", "state_dict", "optimizer_states")  # ESPnet's and Lightning's names
LIGHTNING = "model."  # before the names of the model's weights in a checkpoint of Lightning
_BROKEN = (*BROKEN, pickle.UnpicklingError, LookupError, TypeError, AttributeError, AssertionError, MemoryError)


class Sizes(NamedTuple):
    """Of a file: its tensors, their numbers and bytes, and the numbers that it stores (a view has none of its own)."""

    tensors: int
    numbers: int
    size: int
    stored: int


def load(
    source: str | os.PathLike | BinaryIO,
    where: object = None,
    error: type[DataError] = DataError,
    what: str = "file of weights",
) -> Any:
    """What `torch.save` wrote, on the CPU, with an `Unknown` in place of what is neither a tensor nor plain.

    Args:
        source: a path, or a file that can seek. where, what: what messages call it.

    Raises:
        error: no such file, not one of `torch.save`, cut off, damaged.
    """
    return _read(source, where, error, what, _value)


def load_weights(
    source: str | os.PathLike | BinaryIO, where: object = None, error: type[DataError] = DataError
) -> dict[str, "Tensor"]:
    """Weights by name; of a checkpoint of Lightning those of the model, without those of its loss.

    Raises:
        error: as `load`; a training checkpoint of ESPnet, or something else than named tensors.
    """
    state, where = load(source, where, error), where or source
    if not isinstance(state, dict):
        raise error(f"{where}: holds something else than named tensors")
    if "optimizers" in state:
        raise error(
            f"{where}: is ESPnet's training checkpoint (weights with the optimiser's state, for resuming); give the "
            "weights alone, for example valid.loss.ave.pth or 10epoch.pth"
        )
    if isinstance(state.get("state_dict"), dict):
        inner = {k: v for k, v in state["state_dict"].items() if isinstance(k, str)}
        state = {k.removeprefix(LIGHTNING): v for k, v in inner.items() if k.startswith(LIGHTNING)}
        if not state:
            raise error(f"{where}: holds no weight whose name begins with {LIGHTNING!r}")
    import torch

    if not state or not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()):
        raise error(
            f"{where}: holds something else than named tensors; give weights alone, such as valid.loss.best.pth"
        )
    return state


def tensor_sizes(
    source: BinaryIO, where: object, error: type[DataError] = DataError, most: int = MOST_PICKLE
) -> Sizes | None:
    """Sizes of a file of which no number is read; None with more than `most` bytes of names. Raises as `load`."""

    def sizes(file: BinaryIO) -> Sizes | None:
        found = contents(file, None, most)
        if found is None:
            return None
        counts = [math.prod(shape) for _, shape in found.shapes]
        size = sum(count * KINDS[kind][0] for count, (kind, _) in zip(counts, found.shapes))
        return Sizes(len(counts), sum(counts), size, sum(s.count for s in found.storages.values()))

    return _read(source, where, error, "file of weights", sizes)


def not_finite(state: dict[str, "Tensor"], bounded: Collection[str] | None = None) -> list[str]:
    """Names of the tensors with a value that is not a number, or, where they are `bounded` (None: all), infinite."""
    import torch

    found = []
    for name, value in state.items():
        value = torch.view_as_real(value) if value.is_complex() else value
        if value.is_floating_point() and value.numel():
            ends = torch.stack(torch.aminmax(value))
            if ends.isnan().any() or ((bounded is None or name in bounded) and ends.isinf().any()):
                found.append(name)
    return found


def _read(source: Any, where: object, error: type[DataError], what: str, use: Callable[[BinaryIO], Any]) -> Any:
    if not hasattr(source, "read"):
        if not os.path.isfile(source):
            raise error(f"{where or source}: {'is not a file' if os.path.exists(source) else 'no such file'}")
        with open(source, "rb") as f:
            return _read(f, where or source, error, what, use)
    try:
        return use(source)
    except _BROKEN as e:
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0][:120]
        raise error(f"{where}: is not a whole {what} ({reason})") from e


def _value(file: BinaryIO) -> Any:
    """The object of a file, with tensors."""
    import torch

    def numbers(kind: str, count: int) -> "Tensor":
        return torch.empty(count, dtype=getattr(torch, KINDS[kind][1]))

    found = contents(file, numbers, MOST_PICKLE)
    if found is None:
        raise ValueError("the names in it are too many")
    return found.value


# ---- checkpoints ---------------------------------------------------------------------------------


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


def _is_mask(x: "Tensor") -> bool:
    return not x.is_complex() and bool(((x == 0) | (x == -math.inf)).all())


def _tensors(value: Any, name: str) -> Iterator[tuple[str, "Tensor"]]:
    import torch

    if isinstance(value, torch.Tensor):
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
