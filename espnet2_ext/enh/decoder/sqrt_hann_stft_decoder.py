"""ESPnet decoder `sqrt_hann_stft`."""

from espnet2.enh.decoder.abs_decoder import AbsDecoder
from torch import Tensor

from espnet2_ext.core.nets.stft import STFT


class SqrtHannSTFTDecoder(AbsDecoder):
    """Inverse of `SqrtHannSTFTEncoder`; the arguments must be the same."""

    def __init__(self, n_fft: int = 512, hop_length: int = 128, sample_rate: int = 16000):
        super().__init__()
        self.n_fft, self.hop_length, self.sample_rate = n_fft, hop_length, sample_rate
        self.stft = STFT(n_fft, hop_length, "sqrt_hann")

    def forward(self, input: Tensor, ilens: Tensor, fs: int | None = None) -> tuple[Tensor, Tensor]:
        """`[..., L, F]` (complex) to waveforms `[..., T]`, T = max(ilens), and `ilens`."""
        return self.stft.inverse(input, int(ilens.max())), ilens
