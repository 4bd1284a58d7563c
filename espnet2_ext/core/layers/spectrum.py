"""Waveforms to the spectrum that a network sees, and back: the STFT, its mel-scale bands, encoders and decoders."""

import math

import torch
from torch import Tensor, nn

# ---- transforms ----------------------------------------------------------------------------------


class STFT(nn.Module):
    """Centred STFT with a Hann window, or the square root of one.

    The signal is padded with zeros, not reflected: then a clip's frames do not depend on what it
    is batched with, and any length will do. Nothing is normalised: a bin is a plain sum.

    Args:
        n_fft: window length in samples.
        hop: samples between frames.
        window: `hann` or `sqrt_hann`.

    Raises:
        ValueError: another window, or a hop with which frames do not overlap by half or more.
    """

    window: Tensor

    def __init__(self, n_fft: int = 1024, hop: int = 320, window: str = "hann"):
        super().__init__()
        if window not in ("hann", "sqrt_hann"):
            raise ValueError(f"window must be 'hann' or 'sqrt_hann', got {window!r}")
        if not 0 < hop <= n_fft // 2:
            raise ValueError(f"hop must be in 1 to {n_fft // 2} (half of n_fft), got {hop}")
        self.n_fft, self.hop = n_fft, hop
        values = torch.hann_window(n_fft)
        values = values.sqrt() if window == "sqrt_hann" else values
        self.register_buffer("window", values, persistent=False)

    def frames(self, samples: Tensor) -> Tensor:
        """Number of frames `[B]` of so many samples `[B]`."""
        return samples // self.hop + 1

    @torch.autocast("cuda", enabled=False)
    def forward(self, wave: Tensor) -> Tensor:
        """`[..., T]` to `[..., L, F]`, complex; L = T // hop + 1."""
        shape = wave.shape
        spec = torch.stft(
            wave.reshape(-1, shape[-1]).float(),
            self.n_fft,
            self.hop,
            window=self.window,
            pad_mode="constant",
            return_complex=True,
        )
        return spec.transpose(1, 2).reshape(*shape[:-1], spec.shape[2], spec.shape[1])

    @torch.autocast("cuda", enabled=False)
    def inverse(self, spec: Tensor, length: int) -> Tensor:
        """`[..., L, F]` to `[..., T]` with T = length."""
        shape = spec.shape
        spec = spec.reshape(-1, *shape[-2:]).transpose(1, 2)
        wave = torch.istft(spec, self.n_fft, self.hop, window=self.window, length=length)
        return wave.reshape(*shape[:-2], length)


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

    After Chen et al., "Ultra dual-path compression for joint echo cancellation and noise suppression"
    (Interspeech 2023), as used in section 3.2 of the CaRE-SEP paper.
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


# ---- encoders ------------------------------------------------------------------------------------


class STFTEncoder(nn.Module):
    """Waveform to a complex spectrum; a subclass may arrange its bins (`spectrum`).

    Args:
        stft: a bin is the plain sum over its window, nothing is normalised.
        sample_rate: Hz; the rate of all audio that the model sees.
    """

    def __init__(self, stft: STFT, sample_rate: int):
        super().__init__()
        self.stft, self.hop, self.sample_rate = stft, stft.hop, sample_rate

    @property
    def output_dim(self) -> int:
        """F, bins."""
        return self.stft.n_fft // 2 + 1

    def spectrum(self, wave: Tensor) -> Tensor:
        """`[..., T]` to a complex spectrum `[..., L, F]`, L = T // hop + 1."""
        return self.stft(wave)

    def level(self, rms: Tensor) -> Tensor:
        """RMS `[B]` of a wave to the root of the mean energy of its frames `[B]`, as networks measure it.

        Parseval: a frame's one-sided energy is n_fft / 2 * sum(window^2) * mean square.
        """
        return rms * (self.stft.n_fft / 2 * self.stft.window.square().sum()).sqrt()

    def forward(self, input: Tensor, ilens: Tensor, fs: int | None = None) -> tuple[Tensor, Tensor]:
        """`[B, T]` to the spectrum of the first `ilens` `[B]` samples, and its frame counts `[B]`.

        Raises:
            ValueError: `fs` is not the model's rate (resample first).
        """
        if fs is not None and fs != self.sample_rate:
            raise ValueError(f"the model works at {self.sample_rate} Hz, got audio at {fs} Hz")
        if input.dim() == 3:  # [B, T, C] from ESPnet's loaders: the mean of the channels
            input = input.mean(-1)
        valid = torch.arange(input.shape[1], device=input.device) < ilens.to(input.device)[:, None]
        return self.spectrum(input * valid), self.stft.frames(ilens)


class HannSTFTEncoder(STFTEncoder):
    """STFT with a Hann window; `HannSTFTDecoder` is its exact inverse.

    The defaults are those of ST-SED-SEP (Chen et al., "Zero-shot audio source separation through
    query-based learning from weakly-labeled data").

    Args:
        n_fft: window length in samples.
        hop_length: samples between frames.
        sample_rate: Hz; the rate of all audio that the model sees.
    """

    window = "hann"

    def __init__(self, n_fft: int = 2048, hop_length: int = 320, sample_rate: int = 32000):
        super().__init__(STFT(n_fft, hop_length, self.window), sample_rate)
        self.n_fft, self.hop_length = n_fft, hop_length


class SqrtHannSTFTEncoder(HannSTFTEncoder):
    """STFT with the square root of a Hann window; `SqrtHannSTFTDecoder` is its exact inverse.

    A bin is the plain sum over the window, nothing is normalised: with the paper's settings the
    defaults give 32 ms windows every 8 ms (Pishdadian et al., "Finding Strength in Weakness",
    III-B; ESPnet's own `stft` has no such window). Arguments as in `HannSTFTEncoder`.
    """

    window = "sqrt_hann"

    def __init__(self, n_fft: int = 512, hop_length: int = 128, sample_rate: int = 16000):
        super().__init__(n_fft, hop_length, sample_rate)


class MelBandSplitEncoder(STFTEncoder):
    """STFT, grouped into mel-scale bands; `MelBandMergeDecoder` is its exact inverse.

    Args:
        sample_rate: Hz; the rate of all audio that the model sees.
        n_fft: window length in samples (Hann, centred).
        hop_length: samples.
        num_bands: N.
    """

    def __init__(self, sample_rate: int = 32000, n_fft: int = 1024, hop_length: int = 320, num_bands: int = 64):
        super().__init__(STFT(n_fft, hop_length), sample_rate)
        self.bands = BandSplit(n_fft, sample_rate, num_bands)

    @property
    def output_dim(self) -> int:
        """W, bins in the widest band; the number of bands is the network's own argument."""
        return self.bands.band_width

    def spectrum(self, wave: Tensor) -> Tensor:
        """`[..., T]` to a complex spectrum `[..., L, N, W]`, L = T // hop + 1."""
        return self.bands.split(self.stft(wave))


# ---- decoders ------------------------------------------------------------------------------------


class HannSTFTDecoder(nn.Module):
    """Inverse of `HannSTFTEncoder`; the arguments must be the same."""

    window = "hann"

    def __init__(self, n_fft: int = 2048, hop_length: int = 320, sample_rate: int = 32000):
        super().__init__()
        self.n_fft, self.hop_length, self.sample_rate = n_fft, hop_length, sample_rate
        self.stft = STFT(n_fft, hop_length, self.window)

    def forward(self, input: Tensor, ilens: Tensor, fs: int | None = None) -> tuple[Tensor, Tensor]:
        """`[..., L, F]` (complex) to waveforms `[..., T]`, T = max(ilens), and `ilens`."""
        return self.stft.inverse(input, int(ilens.max())), ilens


class SqrtHannSTFTDecoder(HannSTFTDecoder):
    """Inverse of `SqrtHannSTFTEncoder`; the arguments must be the same."""

    window = "sqrt_hann"

    def __init__(self, n_fft: int = 512, hop_length: int = 128, sample_rate: int = 16000):
        super().__init__(n_fft, hop_length, sample_rate)


class MelBandMergeDecoder(nn.Module):
    """Bands back to bins, then the inverse STFT. Arguments as in `MelBandSplitEncoder`."""

    def __init__(self, sample_rate: int = 32000, n_fft: int = 1024, hop_length: int = 320, num_bands: int = 64):
        super().__init__()
        self.stft = STFT(n_fft, hop_length)
        self.bands = BandSplit(n_fft, sample_rate, num_bands)

    def forward(self, input: Tensor, ilens: Tensor, fs: int | None = None) -> tuple[Tensor, Tensor]:
        """`[..., L, N, W]` (complex) to waveforms `[..., T]`, T = max(ilens), and `ilens`."""
        return self.stft.inverse(self.bands.merge(input), int(ilens.max())), ilens
