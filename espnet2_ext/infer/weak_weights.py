"""Weak-label models from an experiment's files, every key checked."""

from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from espnet2_ext.core.public.weight_files import UNREADABLE, reason
from espnet2_ext.errors import BundleError
from espnet2_ext.infer.bundle import build_model
from espnet2_ext.infer.weights import load_state

PREFIX = "model."  # of the model's weights in a Lightning checkpoint


def build_weak_model(train_config: str | Path, model_file: str | Path) -> nn.Module:
    """The model of an experiment, from its `config.yaml` and a file of weights.

    Args:
        model_file: `.pth` as ESPnet's trainer writes it, or a Lightning `.ckpt`.

    Raises:
        BundleError: a file that is not there or not what it should be; a configuration that does
            not build; weights of another model (missing and unexpected keys are listed).
    """
    config = read_config(train_config)
    return build_model(config, lambda: read_weights(model_file), "weak", str(model_file))


def read_config(path: str | Path) -> dict:
    """An experiment's `config.yaml`."""
    if not Path(path).is_file():
        raise BundleError(f"{path}: no such file")
    try:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise BundleError(f"{path}: is not valid YAML ({e})") from e
    if not isinstance(config, dict):
        raise BundleError(f"{path}: should hold `key: value` lines")
    return config


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Weights by name from a `.pth` or a Lightning `.ckpt`; nothing in it is executed."""
    if not Path(path).is_file():
        raise BundleError(f"{path}: no such file")
    if Path(path).suffix == ".ckpt":
        return _of_lightning(path)
    with open(path, "rb") as f:
        return load_state(f, str(path))


def _of_lightning(path: str | Path) -> dict[str, Tensor]:
    """The model's weights of a Lightning checkpoint; those of the loss are left out."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as e:
        raise BundleError(f"{path}: is not a whole checkpoint ({reason(e)})") from e
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        raise BundleError(f"{path}: is not a Lightning checkpoint (it has no state_dict)")
    found = {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}
    if not found:
        raise BundleError(f"{path}: holds no weight whose name begins with {PREFIX!r}")
    return found
