"""Public CNN14 checkpoints as weights of `core.nets.cnn14.CNN14`.

Key names are those of the repository qiuqiangkong/audioset_tagging_cnn. Its Cnn14_DecisionLevelMax
has the same names and shapes and other tags: the two cannot be distinguished.
"""

import re
from collections.abc import Iterable, Iterator

from torch import Tensor

from espnet2_ext.core.layers.mel import LogMel
from espnet2_ext.core.public.checkpoint import LOG_MEL, check_names, log_mel_weights, unwrap
from espnet2_ext.errors import DataError

LINEAR = ("weight", "bias")
BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_CNN10 = 4  # blocks


def convert(state: dict, sample_rate: int = 32000, low: float = 50.0, high: float = 14000.0) -> dict[str, Tensor]:
    """A public checkpoint's tensors as the state dict of a `CNN14` of the same sizes.

    Args:
        state: what `torch.load` gives; the tensors may be wrapped, see `keys.unwrap`.
        sample_rate, low, high: Hz, with which the checkpoint's mel bands were made.

    Raises:
        DataError: missing or unknown keys, or another front end; the message names the key. Or a
            Cnn10, whose last block pools.
    """
    state = unwrap(state, "conv_block1.conv1.weight")
    blocks = _blocks(state)
    if blocks == _CNN10:
        raise DataError(f"the checkpoint has {blocks} blocks of convolutions: a Cnn10, no Cnn14")
    names = dict(_names(blocks))
    check_names(state, [*names, *LOG_MEL])
    mel = state["logmel_extractor.melW"]
    log_mel = LogMel(sample_rate, 2 * (len(mel) - 1), mel_bands=mel.shape[1], low=low, high=high)
    return {**log_mel_weights(state, log_mel), **{ours: state[public] for public, ours in names.items()}}


def _blocks(keys: Iterable[str]) -> int:
    """Convolution blocks, as far as the names reach."""
    found = [re.match(r"conv_block(\d+)\.", key) for key in keys]
    return max((int(m[1]) for m in found if m), default=0)


def _names(blocks: int) -> Iterator[tuple[str, str]]:
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
