"""Public checkpoints as weights of our networks: CNN14, HTS-AT, and ST-SED-SEP with its tagger."""

import math
import re
from collections.abc import Iterable, Iterator

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
                f"{key} {list(state[key].shape)} is not that of the network's front end {list(value.shape)}: other "
                "window, rate (sample_rate) or mel bands (low, high)?"
            )
    return {f"log_mel.{key}": state[key] for key in LOG_MEL if key.startswith("bn0.")}


LINEAR = ("weight", "bias")
BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_CNN10 = 4  # blocks


def convert_cnn14(state: dict, sample_rate: int = 32000, low: float = 50.0, high: float = 14000.0) -> dict[str, Tensor]:
    """A public CNN14 checkpoint's tensors as the state dict of a `core.nets.cnn14.CNN14` of the same sizes.

    Key names are those of the repository qiuqiangkong/audioset_tagging_cnn. Its Cnn14_DecisionLevelMax
    has the same names and shapes and other tags: the two cannot be distinguished.

    Args:
        state: what `torch.load` gives; the tensors may be wrapped, see `unwrap`.
        sample_rate, low, high: Hz, with which the checkpoint's mel bands were made.

    Raises:
        DataError: missing or unknown keys, or another front end; the message names the key. Or a
            Cnn10, whose last block pools.
    """
    state = unwrap(state, "conv_block1.conv1.weight")
    blocks = _blocks(state)
    if blocks == _CNN10:
        raise DataError(f"the checkpoint has {blocks} blocks of convolutions: a Cnn10, no Cnn14")
    names = dict(_cnn14_names(blocks))
    check_names(state, [*names, *LOG_MEL])
    weights = {ours: state[public] for public, ours in names.items()}
    return {**log_mel_weights(state, sample_rate, low, high), **weights}


def _blocks(keys: Iterable[str]) -> int:
    """Convolution blocks, as far as the names reach."""
    found = [re.match(r"conv_block(\d+)\.", key) for key in keys]
    return max((int(m[1]) for m in found if m), default=0)


def _cnn14_names(blocks: int) -> Iterator[tuple[str, str]]:
    """Public and our name of every parameter after the front end."""
    for i in range(blocks):
        for j in range(2):
            public, ours = f"conv_block{i + 1}", f"blocks.{i}"
            yield f"{public}.conv{j + 1}.weight", f"{ours}.convs.{j}.weight"
            for kind in BATCH_NORM:
                yield f"{public}.bn{j + 1}.{kind}", f"{ours}.norms.{j}.{kind}"
    for public, ours in (("fc1", "latent"), ("fc_audioset", "head")):
        for kind in LINEAR:
            yield f"{public}.{kind}", f"{ours}.{kind}"


_BLOCK = {
    "norm1": "norm1",
    "attn.qkv": "attn.qkv",
    "attn.proj": "attn.proj",
    "norm2": "norm2",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
}
# Computed from the map's size, and a linear layer that the token-semantic head replaced.
_UNUSED = re.compile(
    r"layers\.\d+\.blocks\.\d+\.(attn_mask|attn\.relative_position_index)"
    r"|head\.(weight|bias)"
)


def convert_hts_at(
    state: dict, sample_rate: int = 32000, low: float = 50.0, high: float = 14000.0
) -> dict[str, Tensor]:
    """A public HTS-AT checkpoint's tensors as the state dict of a `core.nets.hts_at.HTSAT` of the same sizes.

    Key names and layouts are those of the repositories RetroCirce/HTS-Audio-Transformer and
    RetroCirce/Zero_Shot_Audio_Source_Separation (768 and 2048 wide). There, maps lie [frequency, time],
    here [time, frequency]: what has both axes is transposed.

    Args:
        state: what `torch.load` gives; the tensors may be wrapped, see `unwrap`.
        sample_rate, low, high: Hz, with which the checkpoint's mel bands were made.

    Raises:
        DataError: missing or unknown keys, or another front end; the message names the key.
    """
    state = {
        key: value for key, value in unwrap(state, "patch_embed.proj.weight").items() if not _UNUSED.fullmatch(key)
    }
    names = dict(_hts_at_names(_depths(state)))
    check_names(state, [*names, *LOG_MEL])
    weights = {ours: _turned(ours, state[public]).contiguous() for public, ours in names.items()}
    return {**log_mel_weights(state, sample_rate, low, high), **weights}


def _depths(keys: Iterable[str]) -> list[int]:
    """Blocks of each stage, as far as the names reach."""
    found = [re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", key) for key in keys]
    at = [(int(m[1]), int(m[2])) for m in found if m]
    stages = 1 + max((i for i, _ in at), default=-1)
    return [1 + max((j for i, j in at if i == stage), default=0) for stage in range(stages)]


def _hts_at_names(depths: list[int]) -> Iterator[tuple[str, str]]:
    """Public and our name of every parameter after the front end."""
    layers = {
        "patch_embed.proj": "patch_embed",
        "patch_embed.norm": "patch_norm",
        "norm": "connector_norm",
        "tscam_conv": "head",
    }
    for i, depth in enumerate(depths):
        last = i == len(depths) - 1
        stage = "connector" if last else f"encoder.{i}"
        for j in range(depth):
            public, ours = f"layers.{i}.blocks.{j}", f"{stage}.blocks.{j}"
            layers |= {f"{public}.{a}": f"{ours}.{b}" for a, b in _BLOCK.items()}
            yield f"{public}.attn.relative_position_bias_table", f"{ours}.attn.relative_bias"
        if not last:
            layers[f"layers.{i}.downsample.norm"] = f"merges.{i}.norm"
            yield f"layers.{i}.downsample.reduction.weight", f"merges.{i}.reduce.weight"
    for public, ours in layers.items():
        for kind in ("weight", "bias"):
            yield f"{public}.{kind}", f"{ours}.{kind}"


def _turned(name: str, x: Tensor) -> Tensor:
    """A public tensor in the layout of our parameter `name`: time before frequency."""
    if name == "patch_embed.weight":  # [D, 1, frequency, time] of a convolution
        return x[:, 0].transpose(1, 2).flatten(1)
    if name == "head.weight":  # [K, D, frequency, time]
        return x.transpose(2, 3)
    if name.endswith("relative_bias"):  # [offset in frequency * offset in time, H]
        side = round(len(x) ** 0.5)
        return x.view(side, side, -1).transpose(0, 1).flatten(0, 1)
    if name.startswith("merges."):  # the last axis holds [time, frequency, D] of four neighbours
        return x.unflatten(-1, (2, 2, -1)).transpose(-3, -2).flatten(-3)
    return x


_LANDMARK = "encoder_block1.conv_block.conv1.weight"
_TAGGER = "at_model."
_COMPUTED = re.compile(r"(stft|istft)\..*")  # Fourier bases: encoder and decoder compute them
_LEVELS = 6


def convert_st_sed_sep(state: dict) -> dict[str, Tensor]:
    """A public ST-SED-SEP checkpoint's tensors as the state dict of a `QueryUNet` of the same sizes.

    Key names are those of the repository RetroCirce/Zero_Shot_Audio_Source_Separation. A checkpoint of
    its training holds the frozen tagger, an HTS-AT, beside the U-Net.

    Args:
        state: what `torch.load` gives; the tensors may be wrapped, see `unwrap`.

    Raises:
        DataError: missing or unknown keys; the message names them.
    """
    state = {
        key: value
        for key, value in unwrap(state, _LANDMARK).items()
        if not key.startswith(_TAGGER) and not _COMPUTED.fullmatch(key)
    }
    names = dict(_st_sed_sep_names())
    check_names(state, names)
    return {ours: state[public] for public, ours in names.items()}


def convert_tagger(state: dict) -> dict[str, Tensor]:
    """The tagger of the same checkpoint as the state dict of an `HTSAT`; empty if it holds none.

    Raises:
        DataError: missing or unknown keys, or another front end; the message names the key.
    """
    state = {key: value for key, value in unwrap(state, _LANDMARK).items() if key.startswith(_TAGGER)}
    return convert_hts_at(state) if state else {}


def _st_sed_sep_names() -> Iterator[tuple[str, str]]:
    """Public and our name of every parameter of the U-Net."""
    for kind in BATCH_NORM:
        yield f"bn0.{kind}", f"norm.{kind}"
    for kind in LINEAR:
        yield f"after_conv2.{kind}", f"last.{kind}"
    blocks = {f"conv_block{_LEVELS + 1}": "centre", "after_conv_block1": "after"}
    for i in range(_LEVELS):
        blocks[f"encoder_block{i + 1}.conv_block"] = f"down.{i}"
        blocks[f"decoder_block{i + 1}.conv_block2"] = f"up.{i}.block"
        yield from _layer(f"decoder_block{i + 1}", 1, f"up.{i}.enlarge")
    for public, ours in blocks.items():
        for j in range(2):
            yield from _layer(public, j + 1, f"{ours}.layers.{j}")


def _layer(public: str, number: int, ours: str) -> Iterator[tuple[str, str]]:
    """Names of a convolution, its batch norm and its query's linear map."""
    yield f"{public}.conv{number}.weight", f"{ours}.conv.weight"
    for kind in BATCH_NORM:
        yield f"{public}.bn{number}.{kind}", f"{ours}.norm.{kind}"
    for kind in LINEAR:
        yield f"{public}.emb{number}.{kind}", f"{ours}.query.{kind}"
