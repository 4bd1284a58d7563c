"""Mel-scale bands of a spectrum's bins, and linear maps between the bins of a band and its channels.

After Chen et al., "Ultra dual-path compression for joint echo cancellation and noise suppression" (Interspeech 2023),
as used in section 3.2 of the CaRE-SEP paper. Its bands are padded to the widest one; most are far narrower, so here
bands of like width are worked on together. The weights are those of the padded bands.
"""

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from espnet2_ext.core.layers.padding import mean_frames
from espnet2_ext.core.layers.swin import Join


def mel_band_edges(num_bins: int, fs: int, num_bands: int) -> list[int]:
    """Borders of `num_bands` bands over the F = `num_bins` bins, evenly spaced in mel.

    Band n holds the bins edges[n] to edges[n + 1] - 1. Each band has at least one bin; no bin is lost, none is shared.

    Raises:
        ValueError: more bands than bins.
    """
    if not 1 <= num_bands <= num_bins:
        raise ValueError(f"num_bands must be 1 to {num_bins}, the number of bins, not {num_bands}")
    top = math.log1p(fs / 2 / 700.0)  # HTK mel, unscaled
    hertz = [math.expm1(n / num_bands * top) * 700.0 for n in range(num_bands + 1)]
    edges = [round(f / (fs / 2) * num_bins) for f in hertz]
    for n in range(1, num_bands + 1):  # narrow low bands: push up so that each has a bin
        edges[n] = max(edges[n], edges[n - 1] + 1)
    edges[num_bands] = num_bins
    for n in range(num_bands - 1, 0, -1):  # and back down where the push overran the top
        edges[n] = min(edges[n], edges[n + 1] - 1)
    return edges


class Bands:
    """N bands of F bins, W in the widest (`width`), in groups of neighbours of like width.

    Args:
        num_bins: F. fs: Hz. num_bands: N.

    Raises:
        ValueError: more bands than bins.
    """

    def __init__(self, num_bins: int, fs: int, num_bands: int):
        self.num_bins, self.num_bands = num_bins, num_bands
        self.edges = mel_band_edges(num_bins, fs, num_bands)
        self.widths = [b - a for a, b in itertools.pairwise(self.edges)]
        self.width = max(self.widths)
        widest = itertools.accumulate(self.widths, max)
        groups = [len(list(g)) for _, g in itertools.groupby(widest, lambda w: (w - 1).bit_length())]
        self.sizes = groups  # bands of each group
        starts = [0, *itertools.accumulate(groups)]
        self.group_widths = [max(self.widths[a:b]) for a, b in itertools.pairwise(starts)]

    def places(self) -> list[tuple[int, int, int]]:
        """(band, place in it, bin) of each place of all groups in order; bin F where a place has none."""
        wide = [w for w, size in zip(self.group_widths, self.sizes) for _ in range(size)]
        return [
            (n, i, start + i if i < own else self.num_bins)
            for n, (w, start, own) in enumerate(zip(wide, self.edges, self.widths))
            for i in range(w)
        ]


class BandLinear(nn.Module):
    """One linear map a band, `in_dim` to `out_dim`: the weights of `BandProject` and `BandExpand`."""

    def __init__(self, bands: Bands, in_dim: int, out_dim: int):
        super().__init__()
        self.bands = bands
        bound = 1 / math.sqrt(in_dim)
        self.weight = nn.Parameter(torch.empty(bands.num_bands, in_dim, out_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(bands.num_bands, 1, out_dim))


class BandProject(BandLinear):
    """The bins of each band to C channels.

    Args:
        parts: P, numbers of a bin.
        out_dim: C.
        unused: P numbers that stand in the places that a padded band has and no bin fills.
    """

    index: Tensor
    padding: Tensor

    def __init__(self, bands: Bands, parts: int, out_dim: int, unused: tuple[float, ...]):
        super().__init__(bands, parts * bands.width, out_dim)
        self.parts, none = parts, parts * bands.num_bins
        rows = [
            [p * bands.num_bins + f if f < bands.num_bins else none for _, _, f in band]
            for _, places in itertools.groupby(bands.places(), lambda place: place[0])
            for band in [list(places)]
            for p in range(parts)
        ]
        self.register_buffer("index", torch.tensor(list(itertools.chain(*rows))), persistent=False)
        padding = [[[u * (i >= w) for u in unused for i in range(bands.width)]] for w in bands.widths]
        self.register_buffer("padding", torch.tensor(padding), persistent=False)  # [N, 1, P W]

    def forward(self, x: Tensor) -> Tensor:
        """`[B, P, F, L]` to `[B, N, C, L]`."""
        bias = (self.bias + self.padding @ self.weight).transpose(1, 2)  # [N, C, 1]
        x = nn.functional.pad(x.flatten(1, 2), (0, 0, 0, 1)).index_select(1, self.index)  # whole rows are copied
        sizes, widths = self.bands.sizes, self.bands.group_widths
        groups = x.split([n * self.parts * w for n, w in zip(sizes, widths)], 1)
        out = []
        for group, weight, w in zip(groups, self.weight.split(sizes), widths):
            used = weight.unflatten(1, (self.parts, -1))[:, :, :w].flatten(1, 2).transpose(1, 2)  # [n, C, P w]
            out.append(used @ group.unflatten(1, (len(weight), -1)))
        return torch.cat(out, 1) + bias


class BandExpand(BandLinear):
    """The D channels of each band to P numbers for each of its bins.

    Args:
        in_dim: D.
        parts: P.
    """

    index: Tensor

    def __init__(self, bands: Bands, in_dim: int, parts: int):
        super().__init__(bands, in_dim, parts * bands.width)
        self.parts = parts
        bins = [f for _, _, f in bands.places()]
        index = [bins.index(f) * parts + p for f in range(bands.num_bins) for p in range(parts)]
        self.register_buffer("index", torch.tensor(index), persistent=False)

    def forward(self, x: Tensor, shared: Tensor | None = None) -> Tensor:
        """Queries' maps `[B, Q, N, D', L]` and what they share, `[B, N, D - D', L]`, to `[B, Q, P F, L]`.

        Numbers of a bin follow each other. `shared`, the last of the D channels, is worked on once.
        """
        own, sizes = x.shape[3], self.bands.sizes
        groups = zip(x.split(sizes, 2), self.weight.split(sizes), self.bias.split(sizes), self.bands.group_widths)
        one_by_one = (
            x.device.type == "cpu" and not x.requires_grad
        )  # else all of `x` would be copied, which takes longer
        rest = [None] * len(sizes) if shared is None else shared.split(sizes, 1)
        out = []
        for (group, weight, bias, w), other in zip(groups, rest):
            used = weight[..., : self.parts * w].transpose(1, 2)  # [n, P w, D]
            once = bias[..., : self.parts * w].transpose(1, 2)
            if other is not None:
                once = (used[..., own:] @ other + once)[:, None]
            used = used[..., :own]
            if one_by_one:
                each = torch.stack([used @ item for item in group.flatten(0, 1)]).unflatten(0, group.shape[:2])
            else:
                each = used @ group
            out.append((each + once).flatten(2, 3))
        return torch.cat(out, 2).index_select(2, self.index)


class MaskHidden(nn.Module):
    """A layer between the masks and a query's map joined with the mixture's image; at first it adds nothing.

    Not in the paper, whose masks are a linear map of both: a loud bin counts alike wherever the query is.

    Args:
        dim: D of the map. channels: C of the image. hidden: width of the layer.
    """

    def __init__(self, dim: int, channels: int, hidden: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.inner = Join(dim + channels, hidden)
        self.outer = nn.Linear(hidden, dim)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor, image: Tensor, query: Tensor) -> Tensor:
        """Maps `[B Q, L, N, D]`, images `[B, L, N, C]`, for queries `[B Q, E]`, to `[B Q, L, N, D]`."""
        return x + self.outer(nn.functional.gelu(self.inner(x, self.norm(image), query)))


class QueryNorm(nn.BatchNorm1d):
    """Brings the numbers of query embeddings `[B, width]` to mean 0 and variance 1 over the queries of training."""

    def __init__(self, width: int):
        super().__init__(width, momentum=0.05, affine=False)


@contextlib.contextmanager
def keeping_statistics(net: nn.Module) -> Iterator[None]:
    """Inside, a network in training uses the running statistics of its normalisations and leaves them as they are."""
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) and m.training]
    try:
        for norm in norms:
            norm.eval()
        yield
    finally:
        for norm in norms:
            norm.train()


class Context(nn.Module):
    """Moves query embeddings by what the whole mixture holds, so that a target alone in it shows; at first by 0.

    Not in the paper, where a token learns of the rest of its mixture through the windows only.

    Args:
        query: width of a query, its profile included. mixture: numbers that stand for a mixture.
        hidden: width of the layers. width: E of the embedding.
    """

    def __init__(self, query: int, mixture: int, hidden: int, width: int):
        super().__init__()
        self.norm = QueryNorm(mixture)
        self.inner = Join(query + mixture, hidden)
        self.middle, self.outer = nn.Linear(hidden, hidden), nn.Linear(hidden, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, query: Tensor, mixture: Tensor) -> Tensor:
        """Queries `[B Q, ...]` and mixtures `[B, ...]` to what is added to the embeddings, `[B Q, E]`."""
        x = nn.functional.gelu(self.inner(query, self.norm(mixture), query))
        return self.outer(nn.functional.gelu(self.middle(x)))


class BandProfile(nn.Module):
    """The mean over time of a query's band image, as `QueryNorm` leaves it, shown to the tokens of a mixture's bands.

    Args:
        num_bands: N. channels: C of the image. patch_size: P, bands in a token. dim: D of the tokens.
        places: where it is shown; each has weights of its own.
    """

    def __init__(self, num_bands: int, channels: int, patch_size: int, dim: int, places: tuple[str, ...]):
        super().__init__()
        self.norm = QueryNorm(num_bands * channels)
        self.tokens = num_bands // patch_size
        self.into = nn.ModuleDict({place: nn.Linear(patch_size * channels, dim) for place in places})

    def of(self, image: Tensor, frames: Sequence[int]) -> Tensor:
        """`[B, N C]` of images `[B, L, N, C]` whose frames behind `frames` are 0."""
        return self.norm(mean_frames(image, frames).flatten(1))

    def show(self, place: str, x: Tensor, profile: Tensor) -> Tensor:
        """Tokens `[B, L, N / P, D]` with profiles `[B Q, N C]` added, `[B Q, L, N / P, D]`."""
        shown = self.into[place](profile.unflatten(1, (1, self.tokens, -1)))
        return (x[:, None] + shown.unflatten(0, (len(x), -1))).flatten(0, 1)
