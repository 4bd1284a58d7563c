"""ESPnet encoder `sqrt_hann_stft`."""

from espnet2_ext.enh.encoder.hann_stft_encoder import HannSTFTEncoder


class SqrtHannSTFTEncoder(HannSTFTEncoder):
    """STFT with the square root of a Hann window; `SqrtHannSTFTDecoder` is its exact inverse.

    A bin is the plain sum over the window, nothing is normalised: with the paper's settings the
    defaults give 32 ms windows every 8 ms (Pishdadian et al., "Finding Strength in Weakness",
    III-B; ESPnet's own `stft` has no such window). Arguments as in `HannSTFTEncoder`.
    """

    window = "sqrt_hann"

    def __init__(self, n_fft: int = 512, hop_length: int = 128, sample_rate: int = 16000):
        super().__init__(n_fft, hop_length, sample_rate)
