"""Public ST-SED-SEP checkpoints as weights of `core.nets.query_unet.QueryUNet` and of its tagger.

Key names are those of the repository RetroCirce/Zero_Shot_Audio_Source_Separation. A checkpoint of
its training holds the frozen tagger, an HTS-AT, beside the U-Net.
"""

import re
from collections.abc import Iterator

from torch import Tensor

from espnet2_ext.core.public import hts_at
from espnet2_ext.core.public.checkpoint import check_names, unwrap
from espnet2_ext.core.public.cnn14 import BATCH_NORM, LINEAR

_LANDMARK = "encoder_block1.conv_block.conv1.weight"
_TAGGER = "at_model."
_COMPUTED = re.compile(r"(stft|istft)\..*")  # Fourier bases: encoder and decoder compute them
_LEVELS = 6


def convert(state: dict) -> dict[str, Tensor]:
    """A public checkpoint's tensors as the state dict of a `QueryUNet` of the same sizes.

    Args:
        state: what `torch.load` gives; the tensors may be wrapped, see `keys.unwrap`.

    Raises:
        DataError: missing or unknown keys; the message names them.
    """
    state = {
        key: value
        for key, value in unwrap(state, _LANDMARK).items()
        if not key.startswith(_TAGGER) and not _COMPUTED.fullmatch(key)
    }
    names = dict(_names())
    check_names(state, names)
    return {ours: state[public] for public, ours in names.items()}


def convert_tagger(state: dict) -> dict[str, Tensor]:
    """The tagger of the same checkpoint as the state dict of an `HTSAT`; empty if it holds none.

    Raises:
        DataError: missing or unknown keys, or another front end; the message names the key.
    """
    state = {key: value for key, value in unwrap(state, _LANDMARK).items() if key.startswith(_TAGGER)}
    return hts_at.convert(state) if state else {}


def _names() -> Iterator[tuple[str, str]]:
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
