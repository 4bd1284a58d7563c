"""Models with their weights: built from a configuration, filled from a file, refused with a reason where they differ.

A model's weights are held once while it is loaded: they are read from inside the bundle without a copy of the file,
after the model's first, random ones were released.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from espnet2_ext.audio.sound import RATES
from espnet2_ext.build import build_model
from espnet2_ext.core.bounds import bounded
from espnet2_ext.core.layers.precision import lower
from espnet2_ext.core.separators import TRAINING
from espnet2_ext.core.weights import load_weights, not_finite
from espnet2_ext.data.tables import Label, read_labels
from espnet2_ext.errors import BundleError, DataError, PluginError
from espnet2_ext.infer.bundle import KINDS, OpenBundle, read_config
from espnet2_ext.infer.limits import check_config
from espnet2_ext.registry import absent
from espnet2_ext.util.files import verified_text

Found = TypeVar("Found")
SHOWN = 3  # keys of a kind that a message lists


def pick_device(name: str | torch.device) -> torch.device:
    """`auto` is the first GPU, or the CPU without one. Raises a DataError for one that is not available."""
    if isinstance(name, torch.device):
        return name
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as e:
        raise DataError(f"device {name!r} is not available: {str(e).splitlines()[0]}") from e
    return device


def at_precision(found: Found, precision: str) -> Found:
    """A `Separator`, `WeakSeparator` or `TaggerInference` that computes in `precision`, and says so; see `lower`."""
    net = found.net if hasattr(found, "net") else found.model
    found.precision = lower(net, precision, found.device)
    if found.precision != "fp32":
        logging.info("linear layers in %s", found.precision)
    return found


# ---- models --------------------------------------------------------------------------------------


def model_of_bundle(bundle: OpenBundle, task: str) -> nn.Module:
    """The model of a bundle with its weights. Raises a BundleError where they do not fit or it is for another task."""
    if bundle.info["task"] != task:
        raise BundleError(f"{bundle.path}: {KINDS[bundle.info['task']]}")
    needs = bundle.info.get("plugins")
    if needs and (missing := absent(needs)):
        raise PluginError(f"{bundle.path}: needs a plugin that is not installed: pip install {' '.join(missing)}")
    try:
        own = check_config(bundle.config, task)
        with bounded(*bundle.stored(), lay_out=own):
            model = built_model(bundle.config, task, bundle.path)
    except PluginError as e:
        text = str(e).removeprefix(f"{bundle.path}: ")
        raise PluginError(
            f"{bundle.path}: {text}" + f" (the bundle needs {', '.join(needs or [])})" * bool(needs)
        ) from e
    except BundleError:
        raise
    except DataError as e:
        raise BundleError(f"{bundle.path}: {e}") from e
    if not isinstance(model.fs, int | float) or not RATES[0] <= model.fs <= RATES[1]:
        raise BundleError(
            f"{bundle.path}: its sample rate of {model.fs!r} Hz is not one of {RATES[0]} to {RATES[1]} Hz"
        )
    fill(model, bundle.state, bundle.path)
    return model


def model_of_exp(train_config: str | Path, model_file: str | Path, task: str) -> nn.Module:
    """The model of an experiment, from its `config.yaml` and a file of weights.

    Args:
        model_file: `.pth` as ESPnet's trainer writes it, or a Lightning `.ckpt`.

    Raises:
        BundleError: a missing or broken file; a configuration that does not build; weights of another model.
    """
    model = built_model(read_config(train_config), task, str(train_config), trusted=True)
    fill(model, lambda: load_weights(model_file, error=BundleError), str(model_file))
    return model


def labels_beside(model_file: str | Path, labels: str | Path | None = None) -> list[Label]:
    """The classes in `labels`, or in the `labels.tsv` beside `model_file`; empty where there is none."""
    beside = Path(model_file).parent / "labels.tsv"
    labels = labels or (beside if beside.exists() else None)
    return [] if labels is None else read_labels(verified_text(labels))


def built_model(config: dict, task: str, where: str, trusted: bool = False) -> nn.Module:
    """The model that `config` describes; see `build_model`, whose errors become a BundleError that names `where`."""
    try:
        return build_model(config, task, trusted)
    except PluginError as e:
        raise PluginError(f"{where}: {e}") from e
    except ImportError:  # of a package that a network needs: told by the command
        raise
    except Exception as e:  # whatever the values of a configuration make of a network's constructor
        name = "tagger" if task == "tag" else f"{task} model"
        raise BundleError(f"{where}: does not build a {name}: {e}") from e


def check_classes(model: nn.Module, labels: Sequence[Label], where: str) -> bool:
    """Whether a query separator tags `labels`.

    An empty list fits every model. A frozen query network may know other classes than those that the separator was
    trained on: its tags then are none of `labels`.

    Raises:
        BundleError: a label list of another size than the tags that the model was trained on.
    """
    known = model.num_classes
    fits = known in (0, len(labels)) or not labels
    if not fits and not getattr(model, "frozen", False):
        raise BundleError(f"{where}: the label list has {len(labels)} classes, the model tags {known}")
    return known > 0 and fits


# ---- weights ------------------------------------------------------------------------------------


def fill(model: nn.Module, load: Callable[[], dict[str, Tensor]], where: str) -> None:
    """Give `model` the weights that `load` returns, every key and shape checked.

    Its own weights are released first, so that memory never holds two sets.

    Raises:
        BundleError: from `load`, or that the two do not fit.
    """
    for module in model.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            if not p.is_meta:
                setattr(module, name, nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad))
    expected = model.state_dict()
    state = {k: v for k, v in load().items() if not k.startswith(f"{TRAINING}.")}
    shapes = [
        f"{k} {list(v.shape)} in place of {list(expected[k].shape)}"
        for k, v in state.items()
        if k in expected and v.shape != expected[k].shape
    ]
    faults = [
        f"{len(keys)} {kind} ({', '.join(keys[:SHOWN])}{', ...' if keys[SHOWN:] else ''})"
        for kind, keys in (
            ("missing", [k for k in expected if k not in state]),
            ("unexpected", [k for k in state if k not in expected]),
            ("of another shape", shapes),
        )
        if keys
    ]
    if faults:
        raise BundleError(
            f"{where}: these weights are of another model than the configuration's. Keys: {'; '.join(faults)}"
        )
    if broken := not_finite(state, dict(model.named_parameters())):
        raise BundleError(
            f"{where}: holds values that are not finite, in {', '.join(broken[:SHOWN])}; did its training fail?"
        )
    model.load_state_dict({k: v.to(expected[k].dtype) for k, v in state.items()}, assign=True)
