"""What the configuration of a bundle may ask for: names of classes, values, and sizes.

A bundle is somebody else's. It may name our own networks, those of ESPnet's and Asteroid's that neither read, write,
download nor call what a text names (`ESPNET`, `MASKERS`), and networks of plugins that the user has installed and
allows. Values are numbers, and of texts the `WORDS`. Sizes are in proportion to the weights in the file. A user's own
YAML is free.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

import torch
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode

from espnet2_ext import registry
from espnet2_ext.build import SHARED
from espnet2_ext.errors import DataError

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
        *"share magnitude phase_sensitive complex latent probabilities".split(),
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
RATES = ("sample_rate", "default_fs", "target_fs", "fs", "sr", "low", "high")
MOST_VALUES = 2000  # in a conf
OVERLAP = 64  # frames that a sample may lie in
FEW = 1000  # layers that any model may have; others: 20 for each tensor of their weights
MOST_BESIDE = 1 << 25  # numbers of a model that are in no file: windows, filterbanks; the largest of its tensors


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
    most = MOST_RATE if where.endswith(RATES) else MOST_NUMBER
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


# ---- sizes ---------------------------------------------------------------------------------------


class TooLarge(DataError):
    """A model that is larger than the weights it comes with."""


@contextlib.contextmanager
def bounded(tensors: int, numbers: int, lay_out: bool = True) -> Iterator[None]:
    """While this lasts, modules are made in proportion to a file of so many `tensors` and `numbers`.

    What is larger is refused before it is allocated.

    Args:
        lay_out: weights that are not computed (`torch.empty`) are laid out on PyTorch's "meta" device, without
            memory, as they come from the file.

    Raises:
        TooLarge: in the constructor that asks for it.
    """
    left = {"layers": 20 * tensors + FEW, "tensors": 4 * tensors + FEW, "numbers": 2 * numbers + MOST_BESIDE}

    def take(what: str, count: int) -> None:
        left[what] -= count
        if left[what] < 0:
            raise TooLarge(
                f"it has more {what} than a model can have whose weights are {tensors} tensors of {numbers} numbers"
            )

    def taken(module: Any, name: str, tensor: torch.Tensor | None) -> None:
        take("tensors", 1)
        take("numbers", 0 if tensor is None else tensor.numel())

    handles = [
        hooks.register_module_module_registration_hook(lambda *_: take("layers", 1)),
        hooks.register_module_parameter_registration_hook(taken),
        hooks.register_module_buffer_registration_hook(taken),
    ]
    try:
        with _Watched(left, take, lay_out):
            yield
    finally:
        for handle in handles:
            handle.remove()


class _Watched(TorchFunctionMode):
    """Looks at how large a tensor will be before a function of PyTorch makes it."""

    def __init__(self, left: dict[str, int], take: Callable[[str, int], None], lay_out: bool):
        self.left, self.take, self.lay_out = left, take, lay_out

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        count = 0
        with contextlib.suppress(TypeError, ValueError, RuntimeError, LookupError, OverflowError):  # told by `func`
            count = _count(func, args, kwargs)
        if count > self.left["numbers"]:
            self.take("numbers", count)
        if self.lay_out and func is torch.empty and kwargs.get("device") is None:
            return func(*args, **kwargs | {"device": "meta"})
        if func.__name__ in FILLS and args and args[0].is_meta:  # PyTorch would import for a second to fill nothing
            return args[0]
        return func(*args, **kwargs)


def _count(func: Any, args: tuple, kwargs: dict) -> int:
    """Numbers in what a function makes of plain sizes, or of tensors element by element."""
    tensors = [a.shape for a in args if isinstance(a, torch.Tensor)]
    if func in SHAPED:
        sizes = kwargs.get("size", args)
        return prod(sizes[0] if isinstance(sizes[0], list | tuple) else sizes)
    if func in COUNTED:
        numbers = [abs(a) for a in (*args, *kwargs.values()) if isinstance(a, int | float) and not isinstance(a, bool)]
        return int(max(numbers) / (min(numbers[2], 1) if func is torch.arange and len(numbers) == 3 else 1))
    return prod(torch.broadcast_shapes(*tensors)) if len(tensors) > 1 else 0


FILLS = {"uniform_", "normal_", "zero_", "fill_", "kaiming_uniform_", "erfinv_", "mul_", "add_", "clamp_", "copy_"}
SHAPED = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}
COUNTED = {torch.arange, torch.linspace, torch.logspace, torch.randperm, torch.hann_window, torch.hamming_window}
COUNTED |= {torch.blackman_window, torch.bartlett_window, torch.kaiser_window}
