"""Encoders and decoders: waveforms to the spectrum that a network sees, and back."""

import torch
from torch import Tensor, nn

from espnet2_ext.core.layers.band_split import BandSplit
from espnet2_ext.core.layers.stft import STFT


class STFTEncoder(nn.Module):
    """Waveform to a complex spectrum; a subclass may arrange its bins (`spectrum`).

    Args:
        stft: a bin is the plain sum over its window, nothing is normalised.
        sample_rate: Hz; the rate of all audio that the model sees.
    """

    def __init__(self, stft: STFT, sample_rate: int):
        super().__init__()
        self.stft, self.sample_rate = stft, sample_rate

    @property
    def hop(self) -> int:
        """Samples between frames."""
        return self.stft.hop

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
