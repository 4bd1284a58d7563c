"""ESPnet encoder `mel_band_split`."""

from torch import Tensor

from espnet2_ext.core.layers.band_split import BandSplit
from espnet2_ext.core.layers.stft import STFT
from espnet2_ext.enh.encoder.abs_stft_encoder import AbsSTFTEncoder


class MelBandSplitEncoder(AbsSTFTEncoder):
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
        """W, bins in the widest band; the number of bands is the extractor's own argument."""
        return self.bands.band_width

    def spectrum(self, wave: Tensor) -> Tensor:
        """`[..., T]` to a complex spectrum `[..., L, N, W]`, L = T // hop + 1."""
        return self.bands.split(self.stft(wave))
