"""ESPnet encoder `sqrt_hann_stft`."""

import torch
from espnet2.enh.encoder.abs_encoder import AbsEncoder
from torch import Tensor

from espnet2_ext.core.nets.stft import STFT


class SqrtHannSTFTEncoder(AbsEncoder):
    """STFT with the square root of a Hann window; `SqrtHannSTFTDecoder` is its exact inverse.

    A bin is the plain sum over the window, nothing is normalised: with the paper's settings the
    defaults give 32 ms windows every 8 ms (Pishdadian et al., "Finding Strength in Weakness",
    III-B; ESPnet's own `stft` has no such window).

    Args:
        n_fft: window length in samples.
        hop_length: samples between frames.
        sample_rate: Hz; the rate of all audio that the model sees.
    """

    def __init__(self, n_fft: int = 512, hop_length: int = 128, sample_rate: int = 16000):
        super().__init__()
        self.n_fft, self.hop_length, self.sample_rate = n_fft, hop_length, sample_rate
        self.stft = STFT(n_fft, hop_length, "sqrt_hann")

    @property
    def output_dim(self) -> int:
        """F, bins."""
        return self.n_fft // 2 + 1

    def forward(self, input: Tensor, ilens: Tensor, fs: int | None = None) -> tuple[Tensor, Tensor]:
        """`[B, T]` to a complex spectrum `[B, L, F]`, L = T // hop + 1, and its frame counts `[B]`.

        Raises:
            ValueError: `fs` is not the model's rate (resample first).
        """
        if fs is not None and fs != self.sample_rate:
            raise ValueError(f"the model works at {self.sample_rate} Hz, got audio at {fs} Hz")
        if input.dim() == 3:  # [B, T, C] from ESPnet's loaders: the mean of the channels
            input = input.mean(-1)
        valid = torch.arange(input.shape[1], device=input.device) < ilens.to(input.device)[:, None]
        return self.stft(input * valid), self.stft.frames(ilens)
