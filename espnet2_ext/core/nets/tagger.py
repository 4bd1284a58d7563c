"""What every tagger gives: a query embedding and tags."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class QueryOutput(NamedTuple):
    """Embedding `[B, E]` and tagging logits: `clipwise` `[B, K]`, `framewise` `[B, L', K]`.

    The logits are None in a network without a head, `framewise` also where tags have no time.
    """

    embedding: Tensor
    clipwise: Tensor | None
    framewise: Tensor | None


class Tagger(nn.Module):
    """Interface of a tagger: waveform to embedding and tags.

    Attributes:
        sample_rate: in Hz.
        query_dim: E, width of the embedding.
        num_classes: K; 0 without a head.
    """

    sample_rate: int
    query_dim: int
    num_classes: int

    def forward(self, wave: Tensor, lengths: Tensor | None = None, mixup: Tensor | None = None) -> QueryOutput:
        """Embedding and tags of `wave` `[B, T]`, of which `lengths` `[B]` samples count (None: all).

        mixup `[B]`: weight w of each item. The features x of an item become w x + (1 - w) x', x'
        being those of the item at the mirrored place in the batch, `x.flip(0)`.
        """
        raise NotImplementedError

    def edges(self, samples: int) -> Tensor:
        """Where the framewise frames of a clip of so many samples begin and end.

        `[L' + 1]`, double, in samples: from 0 to `samples`, rising.
        """
        raise NotImplementedError


def mix_up(x: Tensor, frames: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """`w x + (1 - w) x.flip(0)`, and the frames that count in each mixed item.

    x `[B, L, ...]`, zero past an item's `frames` `[B]`; weight w `[B]`, None: nothing is mixed.
    """
    if weight is None:
        return x, frames
    weight = weight.to(x.device).view(-1, *(1,) * (x.dim() - 1))
    return weight * x + (1 - weight) * x.flip(0), torch.maximum(frames, frames.flip(0))


class TaggingModel(nn.Module):
    """A `Tagger` as a model: its weights' names begin with `net.`, as the trained ones do."""

    hop, grid = 0, 0  # takes clips whole

    def __init__(self, net: Tagger):
        super().__init__()
        self.net = net

    @property
    def fs(self) -> int:
        """Sampling rate in Hz of the sound that the network takes."""
        return self.net.sample_rate

    @property
    def query_dim(self) -> int:
        """E, width of the embedding."""
        return self.net.query_dim

    @property
    def num_classes(self) -> int:
        """K; 0 without a head."""
        return self.net.num_classes

    def embed(self, wave: Tensor, lengths: Tensor | None = None) -> QueryOutput:
        """Embedding and tags of `wave` `[B, T]`; see `Tagger`."""
        return self.net(wave, lengths)
