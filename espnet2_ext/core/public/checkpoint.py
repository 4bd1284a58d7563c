"""Published checkpoints: what the converters share of their keys."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from espnet2_ext.core.layers.mel import LogMel
from espnet2_ext.errors import DataError

_SHOWN = 5  # key names in an error message


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
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise DataError(f"holds no weights by name but a {type(state).__name__}")
    state = {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, Tensor)}
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


def log_mel_weights(state: dict[str, Tensor], sample_rate: int, low: float, high: float) -> dict[str, Tensor]:
    """The tensors `LOG_MEL` of a checkpoint as those of a network's `log_mel`.

    The public networks carry the windowed Fourier basis and the mel matrix; ours compute them, so
    these are compared only, with bands from `low` to `high` Hz.

    Raises:
        DataError: a basis or matrix that is not ours: other settings were used in training.
    """
    mel = state["logmel_extractor.melW"]
    log_mel = LogMel(sample_rate, 2 * (len(mel) - 1), mel_bands=mel.shape[1], low=low, high=high)
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
