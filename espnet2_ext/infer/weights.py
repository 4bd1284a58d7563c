"""Files of weights: tensors only, and refused with a reason when they do not fit."""

import pickle
from typing import BinaryIO

import torch
from torch import Tensor

from espnet2_ext.errors import BundleError

SHOWN = 3  # keys of a kind that a message lists


def load_state(file: BinaryIO, where: str) -> dict[str, Tensor]:
    """Weights by name, loaded with `weights_only`, on the CPU.

    Raises:
        BundleError: not a file of weights, cut off, ESPnet's or Lightning's training checkpoint.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as e:
        first = (str(e).strip() or type(e).__name__).splitlines()[0]
        raise BundleError(f"{where}: is not a whole file of weights ({first[:120]})") from e
    if isinstance(state, dict) and "optimizers" in state:
        raise BundleError(
            f"{where}: is ESPnet's training checkpoint (weights with the optimiser's state, for "
            "resuming); give the weights alone, for example valid.loss.ave.pth or 10epoch.pth")
    if isinstance(state, dict) and "optimizer_states" in state:
        raise BundleError(f"{where}: is a Lightning training checkpoint, not weights alone")
    if not isinstance(state, dict) or not state \
            or not all(isinstance(v, Tensor) for v in state.values()):
        raise BundleError(f"{where}: holds something else than named tensors")
    return state


def check_state(expected: dict[str, Tensor], state: dict[str, Tensor], where: str) -> None:
    """Raise a BundleError that lists missing and unexpected keys and other shapes."""
    missing = [k for k in expected if k not in state]
    unexpected = [k for k in state if k not in expected]
    shapes = [f"{k} {list(v.shape)} in place of {list(expected[k].shape)}"
              for k, v in state.items() if k in expected and v.shape != expected[k].shape]
    faults = [f"{len(keys)} {kind} ({', '.join(keys[:SHOWN])}{', ...' if keys[SHOWN:] else ''})"
              for kind, keys in (("missing", missing), ("unexpected", unexpected),
                                 ("of another shape", shapes)) if keys]
    if faults:
        raise BundleError(f"{where}: these weights are of another model than the configuration's. "
                          f"Keys: {'; '.join(faults)}")
