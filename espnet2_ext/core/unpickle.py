"""The pickles of `torch.save`, read as data: no class that one names is imported, no function of it is called.

It needs no PyTorch, unless it is given a function that makes tensors.
"""

import pickle
from collections.abc import Callable
from math import prod
from typing import Any, BinaryIO, NamedTuple

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
