"""What `torch.save` wrote, a pickle and numbers, as data: no class that it names is imported, none of its functions is
called.

It needs no PyTorch, unless it is given a function that makes tensors.
"""

import io
import os
import pickle
from collections.abc import Callable
from math import prod
from typing import Any, BinaryIO, NamedTuple

from espnet2_ext.util.binary import open_zip, read_member

KINDS = {  # of PyTorch's storages: bytes a number, and its type
    "Double": (8, "float64"),
    "Float": (4, "float32"),
    "Half": (2, "float16"),
    "BFloat16": (2, "bfloat16"),
    "Long": (8, "int64"),
    "Int": (4, "int32"),
    "Short": (2, "int16"),
    "Char": (1, "int8"),
    "Byte": (1, "uint8"),
    "Bool": (1, "bool"),
    "ComplexFloat": (8, "complex64"),
    "ComplexDouble": (16, "complex128"),
}
MOST_PICKLE = 1 << 26  # bytes of what is not numbers
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the format before PyTorch 1.6
_CODES = b"\x80.(N\x88\x89JKMG\x8aXU\x85\x86\x87t)]ae}sucRQbq\x81hrj"  # torch.save writes no others
_KEYS = (str, bytes, int, float, type(None))


class Storage(NamedTuple):
    """`count` numbers of a key of `KINDS`; `numbers`: the tensor of them, where they are wanted."""

    kind: str
    count: int
    numbers: Any

    @property
    def size(self) -> int:
        return self.count * KINDS[self.kind][0]


class Pickle(NamedTuple):
    value: Any
    shapes: list[tuple[str, tuple[int, ...]]]  # kind and shape of each tensor
    storages: dict[str, Storage]


class Unknown:
    """Stands for an object of any class that a trainer stored beside the weights; it does nothing."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass

    def __setitem__(self, key, value):
        pass

    def append(self, value):
        pass


def unpickle(file: BinaryIO, room: int = 0, numbers: Callable | None = None) -> Pickle:
    """One pickle, whose storages have `room` bytes together at most."""
    reader = _Unpickler(file, room, numbers)
    return Pickle(reader.load(), reader.shapes, reader.storages)


class _Mapping(dict):
    """In place of an `OrderedDict`, without the attributes that a file may give to it."""

    def __setstate__(self, state):
        pass


_Base: Any = pickle._Unpickler  # pyright: ignore  # in Python: the one in C allocates whatever an index asks for


class _Unpickler(_Base):
    """A pickle of the few codes that `torch.save` writes."""

    dispatch = {code: fn for code, fn in _Base.dispatch.items() if code in _CODES}

    def __init__(self, file: BinaryIO, room: int, numbers: Callable | None):
        super().__init__(file, encoding="utf-8")
        self.room, self.numbers = room, numbers
        self.shapes: list[tuple[str, tuple[int, ...]]] = []
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return self._mapping
        if module in ("torch", "torch.cuda") and name.removesuffix("Storage") in KINDS:
            return name.removesuffix("Storage")
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return self._tensor
        if module == "torch._utils" and name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            return lambda tensor, *rest: tensor
        return Unknown

    def persistent_load(self, pid: tuple) -> Any:
        what, kind, name, _, count, *view = pid  # at the end, before PyTorch 1.0, a part of another one
        if what != "storage" or kind not in KINDS:
            return Unknown()
        if name not in self.storages:
            if type(name) is not str or type(count) is not int or count < 0 or any(view):
                raise pickle.UnpicklingError("a storage that torch.save does not write")
            self.room -= count * KINDS[kind][0]
            if self.room < 0:
                raise pickle.UnpicklingError("more numbers are declared than the file has bytes")
            self.storages[name] = Storage(kind, count, self.numbers and self.numbers(kind, count))
        if self.storages[name][:2] != (kind, count):
            raise pickle.UnpicklingError("a storage with two sizes")
        return self.storages[name]

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *rest) -> Any:
        if not isinstance(storage, Storage):
            return Unknown()
        if len(shape) != len(strides) or len(shape) > 64:
            raise pickle.UnpicklingError("a tensor without sizes")
        if not all(type(n) is int and 0 <= n < 1 << 62 for n in (offset, *shape, *strides)):
            raise pickle.UnpicklingError("a tensor with sizes that are none")
        if prod(shape) and offset + sum((n - 1) * s for n, s in zip(shape, strides)) >= storage.count:
            raise pickle.UnpicklingError("a tensor that goes on behind its storage's end")
        self.shapes.append((storage.kind, tuple(shape)))
        return Unknown() if storage.numbers is None else storage.numbers.as_strided(shape, strides, offset)

    def _mapping(self, pairs: Any = ()) -> _Mapping:
        made = _Mapping()
        for pair in pairs:
            self._put(made, *pair)
        return made

    def _put(self, target: Any, key: Any, value: Any) -> None:
        """Set an item; keys are plain, as others may be nested so deep that their hash ends the process."""
        for part in key if isinstance(key, tuple) else (key,):
            if not isinstance(part, _KEYS) and part is not Unknown and type(part) is not Unknown:
                raise pickle.UnpicklingError("a mapping whose keys are not plain")
        target[key] = value

    def load_setitems(self) -> None:
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._put(self.stack[-1], key, value)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._put(self.stack[-1], key, value)

    dispatch |= {pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems}


# ---- the file ------------------------------------------------------------------------------------


def contents(file: BinaryIO, numbers: Callable | None, most: int) -> Pickle | None:
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
