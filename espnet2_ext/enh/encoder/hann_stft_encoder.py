"""ESPnet encoder `hann_stft`."""

from espnet2_ext.core.layers.stft import STFT
from espnet2_ext.enh.encoder.abs_stft_encoder import AbsSTFTEncoder


class HannSTFTEncoder(AbsSTFTEncoder):
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

    @property
    def output_dim(self) -> int:
        """F, bins."""
        return self.n_fft // 2 + 1
