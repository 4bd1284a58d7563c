"""What can go wrong when PyTorch reads a file of weights, in one line."""

import pickle
import struct

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


def reason(error: Exception) -> str:
    """Why a file could not be read: the first line of `error`, or that which tells the reason."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    told = [line.partition(_REASON)[2].strip() for line in lines if _REASON in line]
    return (told + lines)[0][:120]
