"""Losses on separated waveforms."""

import torch
from torch import Tensor

from espnet2_ext.core.layers.padding import hide_padding, numbers, on_device
from espnet2_ext.core.losses.weak_terms import full_precision

_TINY = 1e-30  # mean squares under this are zeros: float32 could not hold their ratios


def _checked(lengths: Tensor | None, *waves: Tensor) -> list[Tensor]:
    """Waveforms of one shape `[B, T]` in at least 32 bits, 0 behind the lengths."""
    if waves[0].dim() != 2 or any(x.shape != waves[0].shape for x in waves):
        raise ValueError(f"expected waveforms of one shape [B, T], got {', '.join(str(list(x.shape)) for x in waves)}")
    return [hide_padding(full_precision(x), lengths) for x in waves]


def wave_l1(*, est: Tensor, ref: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Mean absolute error of waveforms `[B, T]`; returns `[B]`. CaRE-SEP paper, section 2.1.

    Args:
        est, ref: `[B, T]`. lengths: `[B]` samples; what lies behind is padding. None: all count.

    Raises:
        ValueError: shapes that differ or are not `[B, T]`.

    >>> wave_l1(est=torch.tensor([[1.0, 0.0]]), ref=torch.tensor([[0.0, 0.0]]))
    tensor([0.5000])
    """
    est, ref = _checked(lengths, est, ref)
    error = (est - ref).abs()
    if lengths is None:
        return error.mean(-1)
    return error.sum(-1) / on_device(numbers(lengths), error.device).clamp(1, est.shape[1])


def neg_sdr(
    *,
    est: Tensor,
    ref: Tensor,
    mix: Tensor,
    lengths: Tensor | None = None,
    max_db: float = 60.0,
    silence_db: float = 30.0,
    eps: float = 1e-8,
) -> Tensor:
    """Negative source-to-distortion ratio in dB; for a silent reference, the output's level.

    With a reference r: -10 log10(|r|^2 / (|r - e|^2 + 10^(-max_db / 10) |r|^2)), the SDR of the
    CaRE-SEP paper, section 2.1, which cannot pass `max_db`. A query whose sound is not in the
    mixture has a reference of zeros, for which an SDR has no gradient: there it is
    10 log10(|e|^2 / |m|^2 + 10^(-silence_db / 10)), the output's level against the mixture m (not
    in the paper, which never trains on absent sounds). The level of a recording changes neither.

    Args:
        est, ref, mix: `[B, T]`.
        lengths: `[B]` samples; what lies behind is padding. None: all count.
        max_db: where the gain for a better estimate ends.
        silence_db: where the gain for a quieter one ends.
        eps: a reference whose energy is at most this share of the mixture's is silent. A mixture of
            zeros counts as one of full scale.

    Returns:
        `[B]` in dB.

    Raises:
        ValueError: shapes that differ or are not `[B, T]`.

    >>> ref = torch.tensor([[1.0, 0.0, 0.0]])
    >>> neg_sdr(est=0.9 * ref, ref=ref, mix=ref).round(decimals=2)
    tensor([-20.])
    """
    est, ref, mix = _checked(lengths, est, ref, mix)
    error, target, total = (x.square().mean(-1) for x in (ref - est, ref, mix))
    total = torch.where(total > _TINY, total, 1.0)
    silent = target <= (eps * total).clamp(min=_TINY)
    best = torch.where(silent, 10 ** (-silence_db / 10), 10 ** (-max_db / 10))
    return 10 * torch.log10(error / torch.where(silent, total, target) + best)
