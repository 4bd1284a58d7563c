"""Models with their weights: built from a configuration, filled from a file, refused with a reason where they differ.

A bundle is somebody else's. It may name our own networks, those of ESPnet's and Asteroid's that neither read, write,
download nor call what a text names (`ESPNET`, `MASKERS`), and networks of plugins that the user has installed and
allows. Values are numbers, and of texts the `WORDS`. Sizes are in proportion to the weights in the file. A user's own
YAML is free.

A model's weights are held once while it is loaded: they are read from inside the bundle without a copy of the file,
after the model's first, random ones were released.
"""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from espnet2_ext import registry
from espnet2_ext.audio.files import RATES
from espnet2_ext.build import SHARED, build_model
from espnet2_ext.core.bounds import bounded
from espnet2_ext.core.layers.precision import lower
from espnet2_ext.core.separators import TRAINING
from espnet2_ext.core.weights import load_weights, not_finite
from espnet2_ext.data.tables import Label, read_labels
from espnet2_ext.errors import BundleError, DataError, PluginError
from espnet2_ext.infer.bundle import CLASS_QUERIES, KINDS, OpenBundle, hash_of_files, read_config
from espnet2_ext.registry import absent
from espnet2_ext.util.files import read_record, verified, verified_text

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


def heard_beside(train_config: str | Path, model_file: str | Path) -> Path | None:
    """The `class_queries.npz` beside weights, unless there is none, or it was measured with other weights."""
    path = Path(model_file).parent / CLASS_QUERIES
    known = read_record(path.with_suffix(".json")).get("model")
    if not path.is_file() or known not in (None, hash_of_files(train_config, model_file)):
        return None
    return verified(path, path.with_suffix(".json"))


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


PARTS = {
    "qsep": ("encoder", "extractor", "decoder", "query_net"),
    "weak": ("encoder", "separator", "decoder", "classifier"),
}
ESPNET = {
    "encoder": ("stft", "conv", "same"),
    "decoder": ("stft", "conv", "same"),
    "extractor": ("td_speakerbeam",),
    "separator": tuple(  # all but `asteroid`, which calls a function of any name and downloads
        "bsrnn conformer dan dc_crn dccrn dpcl dpcl_e2e dprnn dptnet fasnet rnn skim svoice tcn "
        "tfgridnet tfgridnetv2 tfgridnetv3 transformer uses uses2 wpe_beamformer".split()
    ),
}
MASKERS = "TDConvNet DPRNN DPTransformer LSTMMasker SuDORMRF SuDORMRFImproved".split()  # of asteroid.masknn
WORDS = frozenset(
    [
        *MASKERS,
        *"share magnitude phase_sensitive complex latent probabilities all connector decoder".split(),
        *"max average linear_softmax attention auto".split(),
        *"hann sqrt_hann hamming blackman bartlett log exp none htk slaney".split(),
        *"rnn lstm gru blstm bgru brnn blstmp bgrup lstmp grup RNN LSTM GRU RNN_TANH RNN_RELU".split(),
        *"relu prelu leaky_relu elu gelu swish sigmoid tanh hardtanh selu softmax crelu".split(),
        *"gLN cLN cgLN fgLN bN BN GN cfLN iLN linear conv1d conv1d-linear conv2d embed".split(),
        *"abs_pos rel_pos legacy_rel_pos selfattn rel_selfattn legacy_rel_selfattn".split(),
        *"hc h c id masking mapping E C R fasnet ifasnet att tac att_tac comp swin mul add concat".split(),
        *"mask_mse spectrum spectrum_log dnn1 dnn2 mfmcwf mvdr mvdr_souden mpdr mpdr_souden wmpdr wmpdr_souden".split(),
        *"wpd wpd_souden mwf sdw_mwf r1mwf gev gev_ban lcmv lcmp wlcmp mvdr_tfs mvdr_tfs_souden".split(),
    ]
)
MOST_NUMBER, MOST_RATE = 1 << 16, 1 << 20  # of a configuration, in absolute value; those in Hz
IN_HERTZ = ("sample_rate", "default_fs", "target_fs", "fs", "sr", "low", "high")
MOST_VALUES = 2000  # in a conf
OVERLAP = 64  # frames that a sample may lie in


# ---- names and values ----------------------------------------------------------------------------


def check_config(config: Mapping[str, Any], task: str) -> bool:
    """Refuse what a bundle may not ask for; nothing is imported. Returns whether it does without plugins.

    Raises:
        DataError: names the key. PluginError: a plugin that is not installed or not allowed.
    """
    plain = True
    for kind in PARTS[task]:
        conf = config.get(f"{kind}_conf")
        if not isinstance(conf, dict | None):
            raise DataError(f"{kind}_conf: should hold `key: value` lines")
        if kind in config:
            own = _check_name(kind, config[kind])
            _check_values(f"{kind}_conf", conf or {}, WORDS if own else None)
            _check_frames(f"{kind}_conf", conf or {})
            plain = plain and own
    sizes = {k: config.get(k) for k in ("sample_rate", "residual", "query_grad", "model_conf")}
    _check_values("the configuration", sizes, None)
    names = config.get("class_names")
    if not isinstance(names, list | None) or not all(isinstance(name, str) for name in names or []):
        raise DataError("class_names: should be a list of names")
    return plain


def _check_name(kind: str, name: object) -> bool:
    """Whether `name` is of ours or of the lists; False: of a plugin that the user allows."""
    if not isinstance(name, str):
        raise DataError(f"{kind}: should be a name, not {str(name)[:40]!r}")
    if name.lower() in (*registry.TABLE[kind], *ESPNET.get(kind, ()), SHARED if kind == "query_net" else ""):
        return True
    if registry.is_path(name):
        if name.partition(":")[0].partition(".")[0] in {*sys.stdlib_module_names, "torch", "numpy", "espnet2_ext"}:
            raise DataError(f"{kind}: {name!r} is not a plugin, and a bundle may not name it")
        registry.check_plugin(kind, name)
        return False
    if registry.is_espnets(kind, name):
        known = ", ".join(sorted({*registry.TABLE[kind], *ESPNET.get(kind, ())}))
        raise DataError(f"unknown {kind} {name!r}, or one that a bundle may not name; it may name a plugin, or {known}")
    return False


def _check_frames(where: str, conf: dict) -> None:
    """Refuse frames that overlap so much that a second of sound becomes an hour's."""
    for size, hop in (("n_fft", "hop_length"), ("kernel_size", "stride")):
        if isinstance(n := conf.get(size), int) and isinstance(h := conf.get(hop, n), int) and h * OVERLAP < n:
            raise DataError(f"{where}: {hop}: {h} is too short for {size} {n}")


def _check_values(where: str, value: Any, words: frozenset | None, depth: int = 0) -> int:
    """Refuse values that are not plain, too large or too many; returns their number. words: None: any text."""
    if isinstance(value, bool | None):
        return 1
    most = MOST_RATE if where.endswith(IN_HERTZ) else MOST_NUMBER
    if isinstance(value, int | float) and -most <= value <= most:
        return 1
    if isinstance(value, str) and (words is None or value in words):
        return 1
    if isinstance(value, int | float | str):
        what = "no word that a bundle may say here" if isinstance(value, str) else f"beyond {most}"
        raise DataError(f"{where}: {str(value)[:60]!r} is {what}")
    if not isinstance(value, list | dict) or depth > 5:
        raise DataError(f"{where}: should hold numbers, words and lists")
    items = value.items() if isinstance(value, dict) else enumerate(value)
    count = 1 + sum(_check_values(f"{where}: {str(k)[:40]}", v, words, depth + 1) for k, v in items)
    if count > MOST_VALUES:
        raise DataError(f"{where}: holds more than {MOST_VALUES} values")
    return count
