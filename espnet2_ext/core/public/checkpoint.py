"""Files of weights: a published checkpoint is read without running anything that is in it."""

import os
import pickle
import re
import struct

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from espnet2_ext.errors import DataError

# What `torch.load` raises on a file that is cut off, damaged or something else.
UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
)
_REASON = "WeightsUnpickler error:"  # stands behind a page of general advice
_BEGINNINGS = (b"PK", b"\x80")  # a zip, or the pickle of the format before PyTorch 1.6
_REFUSED = re.compile(r"Unsupported global: GLOBAL (\S+)")


def reason(error: Exception) -> str:
    """Why a file could not be read: the first line of `error`, or that which names the reason."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    named = [line.partition(_REASON)[2].strip() for line in lines if _REASON in line]
    return (named + lines)[0][:120]


class _Inert:
    """Stands for an object of any class that a trainer stored beside the weights."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass


def read_checkpoint(path: str | os.PathLike) -> dict:
    """What `torch.save` wrote, on the CPU.

    Tensors, plain containers, numbers and strings are read. In place of anything else, such as a
    trainer's callbacks, stands an object that does nothing: no class named in the file is imported.
    What such an object cannot take the place of, such as a `defaultdict`, is refused.

    Raises:
        OSError: the file cannot be opened.
        DataError: not a checkpoint, cut off, or one that cannot be read in this way.
    """
    with open(path, "rb") as f:
        if not f.read(2).startswith(_BEGINNINGS):
            raise DataError(f"{path}: is not a checkpoint of PyTorch")
    strangers = _strangers(path)
    while True:
        try:
            with safe_globals([(_Inert, name) for name in strangers]):
                state = torch.load(path, map_location="cpu", weights_only=True)
            break
        except UNREADABLE as e:
            refused = _REFUSED.search(str(e))
            if not refused or refused[1] in strangers:
                raise DataError(
                    f"{path}: is not a whole checkpoint of PyTorch ({reason(e)}). If it is whole "
                    "and you trust its makers, read it with torch.load(..., weights_only=False) "
                    "where it was made, and save its tensors alone"
                ) from e
            strangers.append(refused[1])
    if not isinstance(state, dict):
        raise DataError(f"{path}: holds no weights by name but a {type(state).__name__}")
    return state


def _strangers(path: str | os.PathLike) -> list[str]:
    """Names in the file that PyTorch's safe reader would refuse."""
    try:
        return get_unsafe_globals_in_checkpoint(path)
    except UNREADABLE:  # the format before PyTorch 1.6: its reader names them one by one
        return []
