"""Mel-scale band split of a spectrum, and its exact inverse.

After Chen et al., "Ultra dual-path compression for joint echo cancellation and noise suppression"
(Interspeech 2023), as used in section 3.2 of the CaRE-SEP paper.
"""

import math

import torch
from torch import Tensor, nn


def mel_band_edges(n_fft: int, fs: int, num_bands: int) -> list[int]:
    """Borders of `num_bands` bands over the F = n_fft // 2 + 1 bins, evenly spaced in mel.

    Band n holds the bins edges[n] to edges[n + 1] - 1. Each band has at least one bin; no bin is
    lost, none is shared.

    Raises:
        ValueError: more bands than bins.
    """
    bins = n_fft // 2 + 1
    if not 1 <= num_bands <= bins:
        raise ValueError(f"num_bands must be 1 to {bins} for n_fft {n_fft}, not {num_bands}")
    top = math.log1p(fs / 2 / 700.0)  # HTK mel, unscaled
    hertz = [math.expm1(n / num_bands * top) * 700.0 for n in range(num_bands + 1)]
    edges = [round(f / (fs / 2) * bins) for f in hertz]
    for n in range(1, num_bands + 1):  # narrow low bands: push up so that each has a bin
        edges[n] = max(edges[n], edges[n - 1] + 1)
    edges[num_bands] = bins
    for n in range(num_bands - 1, 0, -1):  # and back down where the push overran the top
        edges[n] = min(edges[n], edges[n + 1] - 1)
    return edges


class BandSplit(nn.Module):
    """Group the bins of a spectrum into bands, `[..., L, F]` to `[..., L, N, W]`, and back.

    W is the width of the widest band; the unused places of narrower bands are 0. `merge(split(x))`
    is x, bit by bit.
    """

    split_index: Tensor
    merge_index: Tensor

    def __init__(self, n_fft: int, fs: int, num_bands: int):
        super().__init__()
        edges = mel_band_edges(n_fft, fs, num_bands)
        widths = [b - a for a, b in zip(edges[:-1], edges[1:])]
        self.num_bands, self.band_width, self.num_bins = num_bands, max(widths), edges[-1]
        w, none = self.band_width, self.num_bins  # the bin past the end is 0
        split = [start + i if i < width else none for start, width in zip(edges, widths) for i in range(w)]
        merge = [n * w + i for n, width in enumerate(widths) for i in range(width)]
        self.register_buffer("split_index", torch.tensor(split), persistent=False)
        self.register_buffer("merge_index", torch.tensor(merge), persistent=False)

    def split(self, x: Tensor) -> Tensor:
        """`[..., L, F]` to `[..., L, N, W]`; in memory L comes last, as `torch.stft` leaves it."""
        if x.shape[-1] != self.num_bins:
            raise ValueError(f"expected a spectrum of {self.num_bins} bins, got {x.shape[-1]}")
        x = nn.functional.pad(x.transpose(-1, -2), (0, 0, 0, 1))  # whole rows are copied from here
        x = x.index_select(-2, self.split_index).transpose(-1, -2)
        return x.unflatten(-1, (self.num_bands, self.band_width))

    def merge(self, x: Tensor) -> Tensor:
        """`[..., L, N, W]` to `[..., L, F]`."""
        x = x.movedim(-3, -1).flatten(-3, -2)  # [..., N W, L]
        return x.index_select(-2, self.merge_index).transpose(-1, -2)
