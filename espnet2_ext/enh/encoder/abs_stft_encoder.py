"""What the encoders that make a spectrum share."""

import torch
from espnet2.enh.encoder.abs_encoder import AbsEncoder
from torch import Tensor

from espnet2_ext.core.layers.stft import STFT


class AbsSTFTEncoder(AbsEncoder):
    """Waveform to a complex spectrum; a subclass may arrange its bins (`spectrum`).

    Args:
        stft: a bin is the plain sum over its window, nothing is normalised.
        sample_rate: Hz; the rate of all audio that the model sees.
    """

    def __init__(self, stft: STFT, sample_rate: int):
        super().__init__()
        self.stft, self.sample_rate = stft, sample_rate

    def spectrum(self, wave: Tensor) -> Tensor:
        """`[..., T]` to a complex spectrum `[..., L, F]`, L = T // hop + 1."""
        return self.stft(wave)

    def level(self, rms: Tensor) -> Tensor:
        """RMS of a wave to the root of the mean energy of its frames, as networks measure it.

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
