"""Log-mel spectrogram with batch normalisation: the front end of PANN's CNN14 and of HTS-AT.

Kong et al., "PANNs: Large-scale pretrained audio neural networks" (TASLP 2020), section III, and
Chen et al., "HTS-AT" (ICASSP 2022), section 2.1.
"""

import torch
from torch import Tensor, nn

from espnet2_ext.core.layers.mel import mel_filterbank
from espnet2_ext.core.layers.spec_augment import SpecAugment
from espnet2_ext.core.layers.swin import valid_mask
from espnet2_ext.core.nets.tagger import mix_up


class LogMel(nn.Module):
    """Waveform `[B, T]` to normalised log-mels `[B, L, N]` and their frames `[B]`.

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
        if lengths is None:
            lengths = torch.full(wave.shape[:1], wave.shape[1])
        lengths = lengths.to(wave.device)
        x, frames = self.decibels(wave, lengths), lengths // self.hop_length + 1
        valid = valid_mask(frames, x.shape[1])[:, :, 0, 0]
        y = torch.zeros_like(x)
        y[valid] = self.bn0(x[valid])
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
