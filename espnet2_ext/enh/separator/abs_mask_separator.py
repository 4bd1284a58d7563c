"""ESPnet's separator interface over a network that gives masks."""

from collections import OrderedDict

from espnet2.enh.separator.abs_separator import AbsSeparator
from torch import Tensor, nn


class AbsMaskSeparator(AbsSeparator):
    """One mask an output, in a fixed order: the classes, then the residual where there is one.

    Args:
        net: `net(spec, lengths)`, complex `[B, L, F]` and frames `[B]`, to masks `[B, S, L, F]`.
        num_spk: S.
        mask_type: one of `core.nets.mask_blstm.MASK_TYPES`; all but `complex` are real.
    """

    def __init__(self, net: nn.Module, num_spk: int, mask_type: str):
        super().__init__()
        self.net, self.mask_type = net, mask_type
        self._num_spk = num_spk

    @property
    def num_spk(self) -> int:
        """S, outputs."""
        return self._num_spk

    def forward(self, input: Tensor, ilens: Tensor, additional: dict | None = None):
        """Mask a mixture.

        Args:
            input: complex `[B, L, F]`. ilens: frames `[B]`. additional: not used.

        Returns:
            S masked spectra `[B, L, F]`, `ilens`, and `mask_spk1` ... `mask_spkS` `[B, L, F]`.
        """
        masks = self.net(input, ilens).unbind(1)
        others = OrderedDict((f"mask_spk{s}", mask) for s, mask in enumerate(masks, 1))
        return [input * mask for mask in masks], ilens, others
