"""ESPnet separator `mask_conv`."""

from espnet2_ext.core.nets.mask_conv import ConvMasker
from espnet2_ext.enh.separator.abs_mask_separator import AbsMaskSeparator


class MaskConvSeparator(AbsMaskSeparator):
    """`core.nets.mask_conv.ConvMasker`: small enough to be trained without a GPU.

    Args:
        input_dim: F, from the encoder.
        num_spk: S, outputs; the weak-label task gives it.
        sample_rate: in Hz, for the mel bands.
        The rest as in `ConvMasker`.
    """

    def __init__(
        self,
        input_dim: int,
        num_spk: int = 2,
        mel_bands: int = 64,
        channels: list[int] = (24, 48, 96),
        hidden: int = 64,
        mask_type: str = "magnitude",
        bound: float = 2.0,
        sample_rate: int = 16000,
    ):
        net = ConvMasker(
            input_dim,
            num_spk,
            mel_bands=mel_bands,
            channels=channels,
            hidden=hidden,
            mask_type=mask_type,
            bound=bound,
            fs=sample_rate,
        )
        super().__init__(net, num_spk, mask_type)
