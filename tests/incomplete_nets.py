"""Networks that lack something, for the tests of the registry."""

import torch
from torch import Tensor, nn

from espnet2_ext.core.layers.swin import valid_mask
from espnet2_ext.core.nets.contracts import QueryOutput, Tagger


class Whole(nn.Module):
    """A masker that embeds: the least that is enough.

    Args:
        num_bins: F, from the encoder.
        num_classes: K.
        query_dim: E.
    """

    grid_frames = 4
    embed_only = ("norm", "head")

    def __init__(self, num_bins: int, num_classes: int = 3, query_dim: int = 4):
        super().__init__()
        self.query_dim, self.num_classes = query_dim, num_classes
        self.see = nn.Linear(num_bins, query_dim)
        self.norm, self.head = nn.LayerNorm(query_dim), nn.Linear(query_dim, num_classes)
        self.show = nn.Linear(query_dim, num_bins)

    def features(self, spec: Tensor, frames: Tensor) -> Tensor:
        return self.see((spec.abs() + 1e-3).log()) * valid_mask(frames.to(spec.device), spec.shape[1])[..., 0, :]

    def embed(self, spec: Tensor, frames: Tensor) -> QueryOutput:
        embedding = self.norm(self.features(spec, frames).sum(1) / frames[:, None])
        return QueryOutput(embedding, self.head(embedding), None)

    def mask(self, spec: Tensor, frames: Tensor, query: Tensor, level: Tensor | None = None) -> Tensor:
        x = self.features(spec, frames)
        x = nn.functional.pad(x, (0, 0, 0, -x.shape[1] % 4)).unflatten(1, (-1, 4))
        x = (x + x.mean(2, keepdim=True)).flatten(1, 2)[:, : spec.shape[1]]  # frames in groups of four
        return self.show(x[:, None] + query[:, :, None]).sigmoid()


class NoGrid(Whole):
    @property
    def grid_frames(self):
        raise AttributeError


class NoEmbedOnly(Whole):
    @property
    def embed_only(self):
        raise AttributeError


class EmbedOnlyForgets(Whole):
    embed_only = ("head",)


class EmbedOnlyOfNothing(Whole):
    embed_only = ("heads",)


class WrongGrid(Whole):
    grid_frames = 1


class WrongWidth(Whole):
    def __init__(self, num_bins: int, num_classes: int = 3):
        super().__init__(num_bins, num_classes)
        self.num_classes = num_classes + 1


class MaskWithoutLevel(Whole):
    def mask(self, spec, frames, query):
        return super().mask(spec, frames, query)


class NoOutputs(nn.Module):
    """A class masker that declares nothing."""

    def __init__(self, num_bins: int, num_outputs: int):
        super().__init__()
        self.out = nn.Linear(num_bins, num_bins * num_outputs)

    def forward(self, spec, lengths):
        return self.out(spec.abs()).unflatten(-1, (-1, spec.shape[-1])).transpose(1, 2).sigmoid()


class NoPool(nn.Module):
    """A classifier without `pool`."""

    time_pool = 1

    def __init__(self, num_bins: int, num_classes: int, fs: int):
        super().__init__()
        self.num_classes = num_classes

    def forward(self, mag, lengths=None): ...

    def frames(self, lengths): ...

    def shrink(self, labels): ...


class NoEdges(nn.Module):
    """A tagger that cannot tell where its frames are."""

    sample_rate, query_dim, num_classes = 32000, 4, 3

    def forward(self, wave, lengths=None, mixup=None): ...


class Unreached(Tagger):
    """A tagger with a parameter that nothing goes through."""

    def __init__(self, num_classes: int = 3):
        super().__init__()
        self.sample_rate, self.query_dim, self.num_classes = 32000, 4, num_classes
        self.see, self.head, self.spare = nn.Linear(400, 4), nn.Linear(4, num_classes), nn.Linear(1, 1)

    def forward(self, wave, lengths=None, mixup=None):
        x = self.see(nn.functional.pad(wave, (0, -wave.shape[1] % 400)).unflatten(1, (-1, 400))).mean(1)
        return QueryOutput(x, self.head(x), None)

    def edges(self, samples):
        return torch.tensor([0.0, samples])
