"""Waveforms to the spectrum that a network sees, and back: the STFT, encoders and decoders."""

import torch
from torch import Tensor, nn

from espnet2_ext.core.layers.padding import hide_padding

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
        """`[..., T]` to `[..., L, F]`, complex; L = T // hop + 1. float64 stays so, all else becomes float32."""
        shape, dtype = wave.shape, torch.float64 if wave.dtype == torch.float64 else torch.float32
        spec = torch.stft(
            wave.reshape(-1, shape[-1]).to(dtype),
            self.n_fft,
            self.hop,
            window=self.window.to(dtype),
            pad_mode="constant",
            return_complex=True,
        )
        return spec.transpose(1, 2).reshape(*shape[:-1], spec.shape[2], spec.shape[1])

    @torch.autocast("cuda", enabled=False)
    def inverse(self, spec: Tensor, length: int) -> Tensor:
        """`[..., L, F]` to `[..., T]` with T = length.

        What `torch.istft` gives, in about half of its time on a processor and without its look at the sum of the
        windows, for which a GPU is waited for.
        """
        shape, window, half = spec.shape, self.window.to(spec.real.dtype), self.n_fft // 2
        frames = torch.fft.irfft(spec.reshape(-1, *shape[-2:]), self.n_fft) * window
        size = self.n_fft + (shape[-2] - 1) * self.hop
        end = min(half + length, size)
        wave = self._overlap(frames)[:, half:end]
        wave = wave / self._overlap(window.square().expand(1, shape[-2], -1))[:, half:end]
        return nn.functional.pad(wave, (0, half + length - end)).reshape(*shape[:-2], length)

    def _overlap(self, frames: Tensor) -> Tensor:
        """`[B, L, n_fft]`, each a hop behind the one before it, added up; behind them there may be zeros."""
        rows, length = -(-self.n_fft // self.hop), frames.shape[1]
        wave = frames.new_zeros(len(frames), length + rows - 1, self.hop)
        for row in reversed(range(rows)):  # the earliest frame first, as torch adds them
            part = frames[..., row * self.hop : (row + 1) * self.hop]
            wave[:, row : row + length, : part.shape[2]] += part
        return wave.flatten(1)


def mono(wave: Tensor) -> Tensor:
    """`[B, T]` as it is; of `[B, T, C]`, as ESPnet's loaders give it, the mean of the channels."""
    return wave.mean(-1) if wave.dim() == 3 else wave


def check_rate(own: int, fs: int | None) -> None:
    """Refuse audio at `fs` Hz for a model that works at `own` (ValueError); None: not known."""
    if fs is not None and fs != own:
        raise ValueError(f"the model works at {own} Hz, got audio at {fs} Hz: resample it first")


# ---- encoders ------------------------------------------------------------------------------------


class STFTEncoder(nn.Module):
    """Waveform to a complex spectrum.

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
        check_rate(self.sample_rate, fs)
        input = mono(input)
        return self.spectrum(hide_padding(input, ilens)), self.stft.frames(ilens)


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


class MelBandSplitEncoder(HannSTFTEncoder):
    """The STFT of a network that splits its bins into mel-scale bands, such as CaRE-SEP (see `core.layers.bands`).

    Args:
        num_bands: N, which must be the network's own.
        The rest as in `HannSTFTEncoder`.

    Raises:
        ValueError: more bands than bins.
    """

    def __init__(self, sample_rate: int = 32000, n_fft: int = 1024, hop_length: int = 320, num_bands: int = 64):
        super().__init__(n_fft, hop_length, sample_rate)
        self.num_bands = num_bands


# ---- decoders ------------------------------------------------------------------------------------


class HannSTFTDecoder(nn.Module):
    """Inverse of `HannSTFTEncoder`; the arguments must be the same."""

    window = "hann"

    def __init__(self, n_fft: int = 2048, hop_length: int = 320, sample_rate: int = 32000):
        super().__init__()
        self.n_fft, self.hop_length, self.sample_rate = n_fft, hop_length, sample_rate
        self.stft = STFT(n_fft, hop_length, self.window)

    def forward(self, input: Tensor, ilens: Tensor, fs: int | None = None) -> tuple[Tensor, Tensor]:
        """`[..., L, F]` (complex) to waveforms `[..., T]`, T = max(ilens), and `ilens`.

        Raises:
            ValueError: `fs` is not the model's rate.
        """
        check_rate(self.sample_rate, fs)
        return self.stft.inverse(input, int(ilens.max())), ilens


class SqrtHannSTFTDecoder(HannSTFTDecoder):
    """Inverse of `SqrtHannSTFTEncoder`; the arguments must be the same."""

    window = "sqrt_hann"

    def __init__(self, n_fft: int = 512, hop_length: int = 128, sample_rate: int = 16000):
        super().__init__(n_fft, hop_length, sample_rate)


class MelBandMergeDecoder(HannSTFTDecoder):
    """Inverse of `MelBandSplitEncoder`; the arguments must be the same."""

    def __init__(self, sample_rate: int = 32000, n_fft: int = 1024, hop_length: int = 320, num_bands: int = 64):
        super().__init__(n_fft, hop_length, sample_rate)
