"""ESPnet decoder `hann_stft`."""

from espnet2.enh.decoder.abs_decoder import AbsDecoder
from torch import Tensor

from espnet2_ext.core.layers.stft import STFT


class HannSTFTDecoder(AbsDecoder):
    """Inverse of `HannSTFTEncoder`; the arguments must be the same."""

    window = "hann"

    def __init__(self, n_fft: int = 2048, hop_length: int = 320, sample_rate: int = 32000):
        super().__init__()
        self.n_fft, self.hop_length, self.sample_rate = n_fft, hop_length, sample_rate
        self.stft = STFT(n_fft, hop_length, self.window)

    def forward(self, input: Tensor, ilens: Tensor, fs: int | None = None) -> tuple[Tensor, Tensor]:
        """`[..., L, F]` (complex) to waveforms `[..., T]`, T = max(ilens), and `ilens`."""
        return self.stft.inverse(input, int(ilens.max())), ilens
