"""Mel filterbank, the log-mel spectrogram with batch normalisation that taggers start from, and SpecAugment."""

import math

import torch
from torch import Tensor, nn

from espnet2_ext.core.layers.padding import host_lengths, numbers, on_device, on_own
from espnet2_ext.core.nets.contracts import mix_up


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


class LogMel(nn.Module):
    """Waveform `[B, T]` to normalised log-mels `[B, L, N]` and their frames `[B]`.

    The front end of PANN's CNN14 and of HTS-AT: Kong et al., "PANNs: Large-scale pretrained audio neural
    networks" (TASLP 2020), section III, and Chen et al., "HTS-AT" (ICASSP 2022), section 2.1.

    Power spectrum (Hann, centred, reflected at both ends of each item), Slaney's mel bands of unit
    area, 10 log10 with a floor of 1e-10, then batch normalisation of each band over all frames that
    count, SpecAugment and mixup, in this order. Frames past an item's end are 0.

    Args:
        sample_rate: Hz.
        n_fft, hop_length: samples.
        mel_bands: N.
        low, high: Hz, edges of the lowest and of the highest band.
        spec_augment: arguments of `SpecAugment`; None: none.
    """

    bank: Tensor
    window: Tensor

    def __init__(
        self,
        sample_rate: int = 32000,
        n_fft: int = 1024,
        hop_length: int = 320,
        mel_bands: int = 64,
        low: float = 50.0,
        high: float = 14000.0,
        spec_augment: dict | None = None,
    ):
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        with torch.device("cpu"):  # computed, so there also where weights are laid out on "meta"
            bank = mel_filterbank(n_fft // 2 + 1, mel_bands, sample_rate, low=low, high=high, scale="slaney", norm=True)
        self.register_buffer("bank", bank, persistent=False)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.bn0 = nn.BatchNorm1d(mel_bands)
        self.spec_augment = None if spec_augment is None else SpecAugment(**spec_augment)

    def forward(
        self, wave: Tensor, lengths: Tensor | None = None, mixup: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Normalised log-mels `[B, L, N]` of the first `lengths` `[B]` samples of `wave` `[B, T]`, and frames `[B]`.

        lengths: None: all. mixup: `[B]`, as in `Tagger`.
        """
        samples = numbers(host_lengths(wave, lengths))
        own = tuple(n // self.hop_length + 1 for n in samples)
        x, frames = self.decibels(wave, on_device(samples, wave.device)), on_device(own, wave.device)
        y = on_own(self.bn0, x, own)
        if self.spec_augment is not None:
            y = self.spec_augment(y)
        return mix_up(y, frames, mixup)

    @torch.autocast("cuda", enabled=False)
    def decibels(self, wave: Tensor, lengths: Tensor) -> Tensor:
        """Log-mels `[B, L, N]` in dB, L = T // hop + 1; past an item's end they mean nothing."""
        wave = self._reflected(wave.float(), lengths)
        spec = torch.stft(
            wave, self.n_fft, self.hop_length, window=self.window, center=False, return_complex=True
        ).transpose(1, 2)
        power = spec.real.square() + spec.imag.square()
        return (power @ self.bank).clamp(min=1e-10).log10() * 10

    def _reflected(self, wave: Tensor, lengths: Tensor) -> Tensor:
        """Half a window more at both ends of each item, mirrored as often as a short one needs."""
        half = self.n_fft // 2
        at = torch.arange(-half, wave.shape[1] + half, device=wave.device)
        last = (lengths - 1)[:, None]
        period = (2 * last).clamp(min=1)
        mirrored = last - (at.remainder(period) - last).abs()
        return wave.gather(1, mirrored.clamp(min=0))


class SpecAugment(nn.Module):
    """Set stripes of `[B, L, N, ...]` to 0, drawn for each item; nothing outside training.

    Park et al., "SpecAugment" (Interspeech 2019), without the warping; the default stripes are those with which PANN
    (Kong et al., 2020) and HTS-AT (Chen et al., 2022) were trained.

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
            self._stripes(b, length, self.time_width, self.time_stripes, x.device)[:, :, None]
            | self._stripes(b, bands, self.band_width, self.band_stripes, x.device)[:, None]
        )
        return x.masked_fill(gone.view(b, length, bands, *(1,) * (x.dim() - 3)), 0.0)

    @staticmethod
    def _stripes(items: int, size: int, width: int, count: int, device: torch.device) -> Tensor:
        """`[B, size]`, true inside one of the item's stripes."""
        length = torch.randint(min(width, size + 1), (items, count, 1), device=device)
        start = (torch.rand(items, count, 1, device=device) * (size - length + 1)).long()
        at = torch.arange(size, device=device)
        return ((start <= at) & (at < start + length)).any(1)
