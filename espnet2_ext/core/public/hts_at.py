"""Public HTS-AT checkpoints as weights of `core.nets.hts_at.HTSAT`.

Key names and layouts are those of the repositories RetroCirce/HTS-Audio-Transformer and
RetroCirce/Zero_Shot_Audio_Source_Separation (768 and 2048 wide). There, maps lie [frequency, time],
here [time, frequency]: what has both axes is transposed.
"""

import re
from collections.abc import Iterable, Iterator

from torch import Tensor

from espnet2_ext.core.layers.mel import LogMel
from espnet2_ext.core.public.checkpoint import LOG_MEL, check_names, log_mel_weights, unwrap

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


def convert(state: dict, sample_rate: int = 32000, low: float = 50.0, high: float = 14000.0) -> dict[str, Tensor]:
    """A public checkpoint's tensors as the state dict of an `HTSAT` of the same sizes.

    Args:
        state: what `torch.load` gives; the tensors may be wrapped, see `keys.unwrap`.
        sample_rate, low, high: Hz, with which the checkpoint's mel bands were made.

    Raises:
        DataError: missing or unknown keys, or another front end; the message names the key.
    """
    state = {
        key: value for key, value in unwrap(state, "patch_embed.proj.weight").items() if not _UNUSED.fullmatch(key)
    }
    names = dict(_names(_depths(state)))
    check_names(state, [*names, *LOG_MEL])
    mel = state["logmel_extractor.melW"]
    log_mel = LogMel(sample_rate, 2 * (len(mel) - 1), mel_bands=mel.shape[1], low=low, high=high)
    weights = {ours: _turned(ours, state[public]).contiguous() for public, ours in names.items()}
    return {**log_mel_weights(state, log_mel), **weights}


def _depths(keys: Iterable[str]) -> list[int]:
    """Blocks of each stage, as far as the names reach."""
    found = [re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", key) for key in keys]
    at = [(int(m[1]), int(m[2])) for m in found if m]
    stages = 1 + max((i for i, _ in at), default=-1)
    return [1 + max((j for i, j in at if i == stage), default=0) for stage in range(stages)]


def _names(depths: list[int]) -> Iterator[tuple[str, str]]:
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
