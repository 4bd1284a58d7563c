"""ESPnet decoder `sqrt_hann_stft`."""

from espnet2_ext.enh.decoder.hann_stft_decoder import HannSTFTDecoder


class SqrtHannSTFTDecoder(HannSTFTDecoder):
    """Inverse of `SqrtHannSTFTEncoder`; the arguments must be the same."""

    window = "sqrt_hann"

    def __init__(self, n_fft: int = 512, hop_length: int = 128, sample_rate: int = 16000):
        super().__init__(n_fft, hop_length, sample_rate)
