"""Masks from a bidirectional LSTM.

Pishdadian et al., "Finding Strength in Weakness", section II-F and figure 2a; the phase-sensitive
and the complex mask are what that paper leaves to future work.
"""

import torch
from torch import Tensor, nn

from espnet2_ext.core.layers.padding import BLSTM, hide_padding, norm_frames

MASK_TYPES = ("magnitude", "share", "phase_sensitive", "complex")
LOG_FLOOR = 1e-5  # added to magnitudes before the logarithm: 100 dB below a bin of magnitude 1


def bounded_mask(x: Tensor, mask_type: str, bound: float) -> Tensor:
    """What a network gives, to masks.

    Args:
        x: `[B, S, ...]`; for `complex` with a last axis of 2, real and imaginary part.
        mask_type: `magnitude`: sigmoid, in 0 to 1, as in the paper. `share`: softmax over the
            outputs, so that they sum to the mixture; learns from fewer steps. `phase_sensitive`:
            real and signed, bound * tanh(x / bound). `complex`: z times bound tanh(|z| / bound) /
            |z|: the phase of z, and its modulus as long as it is small against the bound.
        bound: of the modulus.

    Returns:
        the masks; for `complex` a complex tensor without the last axis.
    """
    if mask_type == "magnitude":
        return x.sigmoid()
    if mask_type == "share":
        return x.softmax(1)
    if mask_type == "phase_sensitive":
        return bound * torch.tanh(x / bound)
    x = x.float()
    size = (x.square().sum(-1) + 1e-12).sqrt() / bound  # no root of 0, where the slope is infinite
    return torch.view_as_complex(x) * (torch.tanh(size) / size)


class BLSTMMasker(nn.Module):
    """Log magnitudes of the mixture to one mask an output.

    Args:
        num_bins: F.
        num_outputs: S.
        hidden: units a direction; layers: of the LSTM. 600 and 3 in the paper.
        mask_type: one of `MASK_TYPES`; see `bounded_mask`.
        bound: largest modulus of phase-sensitive and complex masks.
        input_norm: batch norm of each bin at the input, as the paper does for music.
    """

    def __init__(
        self,
        num_bins: int,
        num_outputs: int,
        *,
        hidden: int = 600,
        layers: int = 3,
        mask_type: str = "magnitude",
        bound: float = 2.0,
        input_norm: bool = False,
    ):
        super().__init__()
        if mask_type not in MASK_TYPES:
            raise ValueError(f"mask_type must be one of {MASK_TYPES}, not {mask_type!r}")
        if bound <= 0:
            raise ValueError(f"bound must be positive, not {bound}")
        self.num_bins, self.num_outputs = num_bins, num_outputs
        self.mask_type, self.bound = mask_type, bound
        self.norm = nn.BatchNorm1d(num_bins) if input_norm else None
        self.rnn = BLSTM(num_bins, hidden, layers)
        self.out = nn.Linear(2 * hidden, num_outputs * num_bins * (1 + (mask_type == "complex")))

    def forward(self, spec: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Spectrum `[B, L, F]`, complex (or its magnitude), to masks `[B, S, L, F]`.

        Frames behind an item's length `[B]` do not change the others.

        Raises:
            ValueError: another shape.
        """
        if spec.dim() != 3 or spec.shape[-1] != self.num_bins:
            raise ValueError(f"expected a spectrum [B, L, {self.num_bins}], got {list(spec.shape)}")
        x = (spec.abs() + LOG_FLOOR).log().to(self.out.weight.dtype)
        if self.norm is not None:
            x = norm_frames(self.norm, x.transpose(1, 2).contiguous(), lengths).transpose(1, 2)
        x = self.out(self.rnn(hide_padding(x, lengths), lengths))
        x = x.unflatten(-1, (self.num_outputs, self.num_bins, -1)).transpose(1, 2)
        if self.mask_type != "complex":
            x = x.squeeze(-1)
        return bounded_mask(x, self.mask_type, self.bound)
