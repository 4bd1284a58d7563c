"""Files that `torch.save` wrote, `.pth` and `.ckpt`: the one reader.

It makes tensors, plain containers, numbers and texts, and nothing else: no class that a file names is imported, and
none of its functions is called. Sizes are compared with the file before anything is allocated, and the checksum of
each part while it is read. PyTorch is imported where tensors are made: `tensor_sizes` does without.
"""

import io
import os
import pickle
from collections.abc import Callable, Collection
from math import prod
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from espnet2_ext.core.unpickle import KINDS, Pickle, Storage, unpickle
from espnet2_ext.errors import DataError
from espnet2_ext.util.zips import BROKEN, open_zip, read_member

if TYPE_CHECKING:
    from torch import Tensor

MOST_PICKLE = 1 << 26  # bytes of what is not numbers
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the format before PyTorch 1.6
LIGHTNING = "model."  # before the names of the model's weights in a checkpoint of Lightning
_BROKEN = (*BROKEN, pickle.UnpicklingError, LookupError, TypeError, AttributeError, AssertionError, MemoryError)


class Sizes(NamedTuple):
    """Of a file: its tensors, their numbers and bytes, and the numbers that it stores (a view has none of its own)."""

    tensors: int
    numbers: int
    size: int
    stored: int


# ---- what is read --------------------------------------------------------------------------------


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
        found = _contents(file, None, most)
        if found is None:
            return None
        counts = [prod(shape) for _, shape in found.shapes]
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


# ---- the file ------------------------------------------------------------------------------------


def _value(file: BinaryIO) -> Any:
    """The object of a file, with tensors."""
    import torch

    def numbers(kind: str, count: int) -> "Tensor":
        return torch.empty(count, dtype=getattr(torch, KINDS[kind][1]))

    found = _contents(file, numbers, MOST_PICKLE)
    if found is None:
        raise ValueError("the names in it are too many")
    return found.value


def _contents(file: BinaryIO, numbers: Callable | None, most: int) -> Pickle | None:
    """What is in a file; None with more than `most` bytes of what is not numbers.

    Args:
        numbers: (kind, count) to the tensor that takes them; None: they are not read.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(4)
    file.seek(0)
    if head == b"PK\x03\x04":
        return _of_zip(file, size, numbers, most)
    if head[:1] == b"\x80":
        return _of_old(file, size, numbers, most)
    raise ValueError("it begins with neither a zip nor a pickle")


def _of_zip(file: BinaryIO, size: int, numbers: Callable | None, most: int) -> Pickle | None:
    archive = open_zip(file)
    infos = {info.filename: info for info in archive.infolist()}
    names = [name for name in infos if name.endswith("/data.pkl")]
    if len(names) != 1 or infos[names[0]].file_size > size:
        raise ValueError("a zip without data.pkl")
    top = names[0].removesuffix("data.pkl")
    if infos[names[0]].file_size > most:
        return None
    found = unpickle(io.BytesIO(read_member(archive, names[0])), size, numbers)
    del infos[names[0]]
    for name, storage in found.storages.items():
        info = infos.pop(f"{top}data/{name}")
        if info.file_size != storage.size:
            raise ValueError(f"{info.filename} has {info.file_size} bytes for {storage.count} numbers")
        if numbers is not None:
            with archive.open(info) as f:  # its checksum is compared
                _fill(storage, f)
    for name, info in infos.items():  # versions and the order of bytes
        if info.file_size > size or (read_member(archive, name) == b"big" and name == f"{top}byteorder"):
            raise ValueError("big-endian numbers, or a part larger than the file")
    return found


def _of_old(file: BinaryIO, size: int, numbers: Callable | None, most: int) -> Pickle | None:
    head = io.BytesIO(file.read(min(most, MOST_PICKLE)))
    if unpickle(head).value != MAGIC or unpickle(head).value != PROTOCOL:
        raise ValueError("a pickle, but not one of torch.save")
    unpickle(head)  # sizes of integers where it was written
    try:
        found, order = unpickle(head, size, numbers), unpickle(head).value
    except EOFError:
        if size > most:
            return None
        raise
    at = head.tell()
    for storage in map(found.storages.__getitem__, order):
        file.seek(at)
        at += 8 + storage.size
        if at > size or int.from_bytes(file.read(8), "little") != storage.count:
            raise ValueError("numbers are missing")
        if numbers is not None:
            _fill(storage, file)
    if len(order) != len(found.storages):
        raise ValueError("numbers are missing")
    return found


def _fill(storage: Storage, file: Any) -> None:
    import torch

    view = memoryview(storage.numbers.view(torch.uint8).numpy())
    if storage.size and file.readinto(view) != storage.size:
        raise EOFError("numbers are missing")
