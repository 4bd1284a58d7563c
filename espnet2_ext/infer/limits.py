"""What the configuration of a bundle may ask for: names of classes, values, and sizes.

A bundle is somebody else's. It may name our own networks, those of ESPnet's and Asteroid's that neither read, write,
download nor call what a text names (`ESPNET`, `MASKERS`), and networks of plugins that the user has installed and
allows. Values are numbers, and of texts the `WORDS`. Sizes are in proportion to the weights in the file. A user's own
YAML is free.
"""

import sys
from collections.abc import Mapping
from typing import Any

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
RATES = ("sample_rate", "default_fs", "target_fs", "fs", "sr", "low", "high")
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
