"""Losses on separated waveforms."""

import torch
from torch import Tensor


def _check(est: Tensor, ref: Tensor) -> None:
    if est.shape != ref.shape or est.dim() != 2:
        raise ValueError(f"expected est and ref of one shape [B, T], got {list(est.shape)} and {list(ref.shape)}")


def wave_l1(*, est: Tensor, ref: Tensor) -> Tensor:
    """Mean absolute error of waveforms `[B, T]`; returns `[B]`. CaRE-SEP paper, section 2.1.

    Raises:
        ValueError: shapes that differ or are not `[B, T]`.

    >>> wave_l1(est=torch.tensor([[1.0, 0.0]]), ref=torch.tensor([[0.0, 0.0]]))
    tensor([0.5000])
    """
    _check(est, ref)
    return (est - ref).abs().mean(-1)


def neg_sdr(
    *, est: Tensor, ref: Tensor, mix: Tensor, max_db: float = 60.0, silence_db: float = 30.0, eps: float = 1e-8
) -> Tensor:
    """Negative source-to-distortion ratio in dB; for a silent reference, the output's level.

    With a reference r: -10 log10(|r|^2 / (|r - e|^2 + 10^(-max_db / 10) |r|^2)), the SDR of the
    CaRE-SEP paper, section 2.1, which cannot pass `max_db`. A query whose sound is not in the
    mixture has a reference of zeros, for which an SDR has no gradient: there it is
    10 log10(|e|^2 / |m|^2 + 10^(-silence_db / 10)), the output's level against the mixture m (not
    in the paper, which never trains on absent sounds).

    Args:
        est, ref, mix: `[B, T]`.
        max_db: where the gain for a better estimate ends.
        silence_db: where the gain for a quieter one ends.
        eps: added to every energy, per sample.

    Returns:
        `[B]` in dB.

    Raises:
        ValueError: shapes that differ or are not `[B, T]`.

    >>> ref = torch.tensor([[1.0, 0.0, 0.0]])
    >>> neg_sdr(est=0.9 * ref, ref=ref, mix=ref).round(decimals=2)
    tensor([-20.])
    """
    _check(est, ref)
    _check(est, mix)

    def energy(x: Tensor) -> Tensor:
        return x.float().square().mean(-1) + eps

    target, total = energy(ref), energy(mix)
    error = (energy(ref - est) + 10 ** (-max_db / 10) * target) / target
    rest = energy(est) / total + 10 ** (-silence_db / 10)
    silent = ref.abs().amax(-1) == 0
    return 10 * torch.log10(torch.where(silent, rest, error))
