"""What a model makes of clips inside: query embeddings, and features of its separation pass."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from espnet2_ext.errors import BundleError
from espnet2_ext.infer.chunks import equal_lengths
from espnet2_ext.infer.query_separator import Separator


class Place(NamedTuple):
    """A part of a separation network: `name` in the network, its output's axis of channels."""

    name: str
    channels: int
    words: str


PLACES = (
    Place("connector", -1, "output of the connector's last block"),
    Place("centre", 1, "output of the U-Net's centre block"),
)


class Features(NamedTuple):
    """Of N clips: `queries` `[N, E]`, `separation` `[N, C]`; `where`: what the latter are."""

    queries: np.ndarray
    separation: np.ndarray
    where: str


def place_of(model: nn.Module) -> tuple[nn.Module, Place]:
    """The deepest part of a model's separation network.

    Raises:
        BundleError: a network with none of `PLACES`.
    """
    net = getattr(getattr(model, "extractor", None), "net", None)
    for place in PLACES:
        if isinstance(part := getattr(net, place.name, None), nn.Module):
            return part, place
    raise BundleError(
        f"the separation network {type(net).__name__} has none of the parts whose "
        f"output is its feature: {', '.join(place.name for place in PLACES)}"
    )


@contextmanager
def pooled_outputs(part: nn.Module, channels: int) -> Iterator[list[Tensor]]:
    """Collect the outputs `[B, ...]` of `part`, averaged over all axes but the channels: `[B, C]`.

    Clips of one length leave no padding behind the network's own, of under one frame of the map.
    """
    found: list[Tensor] = []

    def keep(module: nn.Module, args: tuple, output: Tensor) -> None:
        x = output.detach().float().movedim(channels, -1)
        found.append(x.flatten(1, -2).mean(1))

    handle = part.register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


def features_of(separator: Separator, waves: Sequence[np.ndarray], batch_size: int = 8) -> Features:
    """Query embedding and separation feature of each clip.

    The separation pass gets the clip as its mixture and the clip's own embedding as its query, so
    that both are of the same sound.

    Args:
        waves: clips `[T]` at the model's rate; one length goes through together.

    Raises:
        BundleError: a network without a known place, or features that are not finite.
    """
    part, place = place_of(separator.model)
    queries: list = [None] * len(waves)
    features: list = [None] * len(waves)
    for group in equal_lengths(waves, batch_size):
        batch = np.stack([waves[i] for i in group])
        embedding, _ = separator.embed_batch(batch)
        with pooled_outputs(part, place.channels) as found:
            separator.separate_batch(batch, embedding)
        for at, i in enumerate(group):
            queries[i], features[i] = embedding[at], found[0][at].cpu().numpy()
    made = Features(np.stack(queries), np.stack(features), place.words)
    if not (np.isfinite(made.queries).all() and np.isfinite(made.separation).all()):
        raise BundleError(
            f"{separator.info.get('path', 'the model')}: gives values that are not "
            "numbers; the training of this model may have failed"
        )
    return made
