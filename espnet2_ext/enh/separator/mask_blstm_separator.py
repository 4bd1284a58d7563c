"""ESPnet separator `mask_blstm`."""

from espnet2_ext.core.nets.mask_blstm import BLSTMMasker
from espnet2_ext.enh.separator.abs_mask_separator import AbsMaskSeparator


class MaskBLSTMSeparator(AbsMaskSeparator):
    """`core.nets.mask_blstm.BLSTMMasker`: the separator of the paper (II-F).

    Args:
        input_dim: F, from the encoder.
        num_spk: S, outputs; the weak-label task gives it.
        The rest as in `BLSTMMasker`.
    """

    def __init__(
        self,
        input_dim: int,
        num_spk: int = 2,
        hidden: int = 600,
        layers: int = 3,
        mask_type: str = "magnitude",
        bound: float = 2.0,
        input_norm: bool = False,
    ):
        net = BLSTMMasker(
            input_dim, num_spk, hidden=hidden, layers=layers, mask_type=mask_type, bound=bound, input_norm=input_norm
        )
        super().__init__(net, num_spk, mask_type)
