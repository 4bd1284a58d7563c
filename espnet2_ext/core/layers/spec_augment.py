"""SpecAugment: stripes of time and of frequency are blanked while training.

Park et al., "SpecAugment" (Interspeech 2019), without the warping; the default stripes are those
with which PANN (Kong et al., 2020) and HTS-AT (Chen et al., 2022) were trained.
"""

import torch
from torch import Tensor, nn


class SpecAugment(nn.Module):
    """Set stripes of `[B, L, N, ...]` to 0, drawn for each item; nothing outside training.

    Args:
        time_width: a stripe of time is 0 to time_width - 1 frames long, at any place.
        time_stripes: stripes of time an item; they may overlap.
        band_width, band_stripes: the same for the N bands.
    """

    def __init__(self, time_width: int = 64, time_stripes: int = 2, band_width: int = 8, band_stripes: int = 2):
        super().__init__()
        if min(time_width, band_width) < 1:
            raise ValueError(f"stripes must be at least 1 wide: {time_width}, {band_width}")
        self.time_width, self.time_stripes = time_width, time_stripes
        self.band_width, self.band_stripes = band_width, band_stripes

    def forward(self, x: Tensor) -> Tensor:
        """`[B, L, N, ...]` to the same; unchanged in evaluation mode."""
        if not self.training:
            return x
        b, length, bands = x.shape[:3]
        gone = (
            self._stripes(b, length, self.time_width, self.time_stripes)[:, :, None]
            | self._stripes(b, bands, self.band_width, self.band_stripes)[:, None]
        )
        gone = gone.to(x.device).view(b, length, bands, *(1,) * (x.dim() - 3))
        return x.masked_fill(gone, 0.0)

    @staticmethod
    def _stripes(items: int, size: int, width: int, count: int) -> Tensor:
        """`[B, size]`, true inside one of the item's stripes."""
        length = torch.randint(min(width, size + 1), (items, count, 1))
        start = (torch.rand(items, count, 1) * (size - length + 1)).long()
        at = torch.arange(size)
        return ((start <= at) & (at < start + length)).any(1)
