"""Published checkpoints: read without running anything that is in them, and what the converters share of their keys."""

import math
import os
import pickle
import re
import struct
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from espnet2_ext.core.layers.mel import LogMel
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
_SHOWN = 5  # key names in an error message


# ---- files ---------------------------------------------------------------------------------------


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


# ---- keys ----------------------------------------------------------------------------------------


def unwrap(state: dict, landmark: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint by the network's own names.

    Args:
        state: the checkpoint; the tensors may lie under `state_dict` or `model`, and their names
            may begin with what a trainer put before them (`sed_model.`, `module.`).
        landmark: a name that the network has once; what stands before it is the prefix.

    Raises:
        DataError: no such name, or several.
    """
    for key in ("state_dict", "model"):
        if isinstance(state.get(key), dict):
            state = state[key]
    found = [key for key in state if f".{key}".endswith(f".{landmark}")]
    if len(found) != 1:
        raise DataError(
            f"expected one key {landmark!r} in the checkpoint, found {len(found)}: is it another network's?"
        )
    prefix = found[0].removesuffix(landmark)
    return {key.removeprefix(prefix): value for key, value in state.items()}


def check_names(found: Iterable[str], expected: Iterable[str]) -> None:
    """Raise a DataError that names what is missing and what is unknown, if anything."""
    found, expected = set(found), set(expected)
    faults = [
        f"{len(names)} {what} ({', '.join(sorted(names)[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"
        for what, names in (("missing", expected - found), ("unknown", found - expected))
        if names
    ]
    if faults:
        raise DataError(f"the checkpoint's keys do not fit the network: {'; '.join(faults)}")


LOG_MEL = [
    "spectrogram_extractor.stft.conv_real.weight",
    "spectrogram_extractor.stft.conv_imag.weight",
    "logmel_extractor.melW",
    "bn0.weight",
    "bn0.bias",
    "bn0.running_mean",
    "bn0.running_var",
    "bn0.num_batches_tracked",
]


def log_mel_weights(state: dict[str, Tensor], log_mel: LogMel) -> dict[str, Tensor]:
    """The tensors `LOG_MEL` of a checkpoint as those of a network's `log_mel`.

    The public networks carry the windowed Fourier basis and the mel matrix; ours compute them, so
    these are compared only.

    Raises:
        DataError: a basis or matrix that is not ours: other settings were used in training.
    """
    n = log_mel.n_fft
    turns = torch.outer(torch.arange(n // 2 + 1), torch.arange(n)) % n
    angle = turns.double() * (2 * math.pi / n)
    window = log_mel.window.double()
    ours = [(angle.cos() * window)[:, None], (-angle.sin() * window)[:, None], log_mel.bank]
    for key, value in zip(LOG_MEL, ours):
        if state[key].shape != value.shape or (state[key] - value).abs().max() > 1e-3 * value.abs().max():
            raise DataError(
                f"{key} {list(state[key].shape)} is not that of the network's front "
                f"end {list(value.shape)}: other window, rate (sample_rate) or mel "
                "bands (low, high)?"
            )
    return {f"log_mel.{key}": state[key] for key in LOG_MEL if key.startswith("bn0.")}
