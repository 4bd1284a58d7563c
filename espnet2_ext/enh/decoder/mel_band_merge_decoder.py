"""ESPnet decoder `mel_band_merge`."""

from espnet2.enh.decoder.abs_decoder import AbsDecoder
from torch import Tensor

from espnet2_ext.core.layers.band_split import BandSplit
from espnet2_ext.core.layers.stft import STFT


class MelBandMergeDecoder(AbsDecoder):
    """Bands back to bins, then the inverse STFT. Arguments as in `MelBandSplitEncoder`."""

    def __init__(self, sample_rate: int = 32000, n_fft: int = 1024, hop_length: int = 320, num_bands: int = 64):
        super().__init__()
        self.stft = STFT(n_fft, hop_length)
        self.bands = BandSplit(n_fft, sample_rate, num_bands)

    def forward(self, input: Tensor, ilens: Tensor, fs: int | None = None) -> tuple[Tensor, Tensor]:
        """`[..., L, N, W]` (complex) to waveforms `[..., T]`, T = max(ilens), and `ilens`."""
        return self.stft.inverse(self.bands.merge(input), int(ilens.max())), ilens
