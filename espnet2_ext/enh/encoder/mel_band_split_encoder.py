"""ESPnet encoder `mel_band_split`."""

import torch
from espnet2.enh.encoder.abs_encoder import AbsEncoder
from torch import Tensor

from espnet2_ext.core.nets.band_split import BandSplit
from espnet2_ext.core.nets.stft import STFT


class MelBandSplitEncoder(AbsEncoder):
    """STFT, grouped into mel-scale bands; `MelBandMergeDecoder` is its exact inverse.

    Args:
        sample_rate: Hz; the rate of all audio that the model sees.
        n_fft: window length in samples (Hann, centred).
        hop_length: samples.
        num_bands: N.
    """

    def __init__(self, sample_rate: int = 32000, n_fft: int = 1024, hop_length: int = 320,
                 num_bands: int = 64):
        super().__init__()
        self.sample_rate = sample_rate
        self.stft = STFT(n_fft, hop_length)
        self.bands = BandSplit(n_fft, sample_rate, num_bands)

    @property
    def output_dim(self) -> int:
        """W, bins in the widest band; the number of bands is the extractor's own argument."""
        return self.bands.band_width

    def forward(self, input: Tensor, ilens: Tensor, fs: int | None = None) -> tuple[Tensor, Tensor]:
        """`[B, T]` to a complex spectrum `[B, L, N, W]` and its frame counts `[B]`.

        Raises:
            ValueError: `fs` is not the model's rate (resample first).
        """
        if fs is not None and fs != self.sample_rate:
            raise ValueError(f"the model works at {self.sample_rate} Hz, got audio at {fs} Hz")
        if input.dim() == 3:  # [B, T, C] from ESPnet's loaders: the mean of the channels
            input = input.mean(-1)
        valid = torch.arange(input.shape[1], device=input.device) < ilens.to(input.device)[:, None]
        spec = self.bands.split(self.stft(input * valid))
        return spec, self.stft.frames(ilens)
