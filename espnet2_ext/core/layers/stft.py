"""Short-time Fourier transform of a waveform and back, with its frame count."""

import torch
from torch import Tensor, nn


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
