"""Mel filterbank for magnitude spectra."""

import math

import torch
from torch import Tensor


def hertz_to_mel(hertz: float, scale: str = "htk") -> float:
    """HTK: 2595 log10(1 + f / 700). Slaney: 3 f / 200 below 1 kHz, logarithmic above."""
    if scale == "htk":
        return 2595.0 * math.log10(1.0 + hertz / 700.0)
    return 3 * hertz / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


def mel_to_hertz(mel: float, scale: str = "htk") -> float:
    """The inverse of `hertz_to_mel`."""
    if scale == "htk":
        return 700.0 * (10 ** (mel / 2595.0) - 1.0)
    return 200 * mel / 3 if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)


def mel_filterbank(
    num_bins: int,
    num_bands: int,
    fs: int,
    *,
    low: float = 0.0,
    high: float | None = None,
    scale: str = "htk",
    norm: bool = False,
) -> Tensor:
    """Triangles evenly spaced in mel, as a matrix `[F, N]` for `magnitude @ matrix`.

    Each rises from the middle of the band below to 1 at its own and falls to 0 at that of the band
    above, linear in Hz. A band too narrow to hold a bin takes the nearest one.

    Args:
        num_bins: F, bins from 0 Hz to fs / 2.
        num_bands: N.
        fs: sampling rate in Hz.
        low, high: edges of the lowest and the highest band in Hz; high None: fs / 2.
        scale: `htk` or `slaney`.
        norm: divide each triangle by half its width in Hz, so that its area is 1.

    Raises:
        ValueError: unknown scale, no band, or edges not in order.
    """
    high = fs / 2 if high is None else high
    if scale not in ("htk", "slaney"):
        raise ValueError(f"scale must be 'htk' or 'slaney', not {scale!r}")
    if num_bands < 1 or not 0 <= low < high <= fs / 2:
        raise ValueError(
            f"expected at least one band between 0 Hz and {fs / 2:g} Hz, "
            f"got {num_bands} between {low:g} Hz and {high:g} Hz"
        )
    bottom, top = hertz_to_mel(low, scale), hertz_to_mel(high, scale)
    edges = torch.tensor(
        [mel_to_hertz(bottom + n * (top - bottom) / (num_bands + 1), scale) for n in range(num_bands + 2)],
        dtype=torch.float64,
    )
    bins = torch.linspace(0, fs / 2, num_bins, dtype=torch.float64)[:, None]
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    bank = torch.minimum((bins - left) / (middle - left), (right - bins) / (right - middle))
    bank = bank.clamp(min=0)
    empty = (bank.sum(0) == 0).nonzero()[:, 0]
    bank[(bins - middle[empty]).abs().argmin(0), empty] = 1
    if norm:
        bank = bank * 2 / (right - left)
    return bank.float()
