"""The terms that tie the estimates to the mixture: shapes, labels and means as in `weak_terms`."""

import torch
from torch import Tensor

from espnet2_ext.core.losses.labels import by_frame
from espnet2_ext.core.losses.weak_terms import full_precision, over_frames, refuse, same_kind, valid_frames


def _check_spectra(est: Tensor, mix: Tensor) -> None:
    if est.dim() != 4 or est.shape[:1] + est.shape[2:] != mix.shape:
        refuse("est [B, S, L, F] and mix [B, L, F]", est=est, mix=mix)
    same_kind(est=est, mix=mix)


def mixture_consistency(*, est: Tensor, mix: Tensor, lengths: Tensor | None = None, reduction: str = "mean") -> Tensor:
    """The estimates must add up to the mixture: |X - sum_i S^_i|, whatever the labels; (4).

    Args:
        est: `[B, S, L, F]`; mix: `[B, L, F]`, both real or both complex.
        lengths: `[B]` frames.
        reduction: `mean` (over bins and frames) or `sum`, as in the paper.

    Returns:
        `[B]`.

    Raises:
        ValueError: shapes that do not fit, or one of both complex.

    >>> mix = torch.tensor([[[3.0, 1.0]]])
    >>> mixture_consistency(est=torch.ones(1, 2, 1, 2), mix=mix)  # |3 - 2| and |1 - 2|
    tensor([1.])
    """
    _check_spectra(est, mix)
    frames = (full_precision(mix) - full_precision(est).sum(1)).abs().sum(-1)
    return over_frames(frames, valid_frames(lengths, est.shape[2]), est.shape[3], reduction)


def active_mixture(
    *, est: Tensor, mix: Tensor, active: Tensor, lengths: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """The active estimates must add up to the mixture, the others be silent; (5) and (6).

    |X - sum over active i of S^_i| + sum over inactive i of |S^_i|. Frames without any active
    class are left out, unless there is a residual output to take their sound.

    Args:
        est: `[B, S, L, F]`; mix: `[B, L, F]`, both real or both complex.
        active: `[B, K, L]` frame labels, 0 or 1, for (5). For (6) `[B, K]`, the clip's labels,
            the same in each frame. S > K: what follows the classes always counts as active.
        lengths: `[B]` frames.
        reduction: `mean` (over bins and counted frames) or `sum`, as in the paper.

    Returns:
        `[B]`; 0 for an item of which no frame counts.

    Raises:
        ValueError: shapes that do not fit, or one of both complex.

    >>> est = torch.tensor([2.0, 1.0]).reshape(1, 2, 1, 1)
    >>> active_mixture(est=est, mix=torch.tensor([[[5.0]]]), active=torch.tensor([[1.0, 0.0]]))
    tensor([4.])
    """
    _check_spectra(est, mix)
    batch, sources, length, bins = est.shape
    active = by_frame(active, 3, length)
    if active.dim() != 3 or active.shape[::2] != (batch, length) or active.shape[1] > sources:
        refuse("active [B, K, L] or [B, K] for est [B, S, L, F], K <= S", active=active, est=est)
    on = active > 0.5
    if active.shape[1] < sources:
        on = torch.cat([on, on.new_ones(batch, sources - active.shape[1], length)], 1)
    est = full_precision(est)
    rest = (full_precision(mix) - (est * on[..., None]).sum(1)).abs().sum(-1)  # [B, L]
    leak = est.abs().sum(-1).masked_fill(on, 0).sum(1)
    counted = on.any(1)
    valid = valid_frames(lengths, length)
    counted = counted if valid is None else counted & valid
    return over_frames(rest + leak, counted, bins, reduction)


def remix_consistency(
    *, est: Tensor, parts: Tensor, active: Tensor, lengths: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """In a mixture of mixtures, the estimates of each one's classes must add up to that one.

    Sum over the parts p of |X_p - sum over i active in p of S^_i|, on the frames in which no class
    is active in two parts: there the labels alone tell whose an estimate is. Not in the paper; it
    is the mixture invariant loss (Wisdom et al., "Unsupervised Sound Separation Using Mixture
    Invariant Training", eq. 2), with labels in the place of the best assignment. A residual output
    has no label: each of its bins goes to the part that it fits best.

    Args:
        est: `[B, S, L, F]`, estimates from the sum of the parts.
        parts: `[B, P, L, F]`, the mixtures that were added, of the same kind as the estimates.
        active: `[B, P, K, L]` frame labels of the parts, or `[B, P, K]`, their clips' labels.
        lengths: `[B]` frames.
        reduction: `mean` (sum over parts, mean over bins and counted frames) or `sum`.

    Returns:
        `[B]`; 0 for an item of which no frame counts. Frames without any active class do not,
        unless there is a residual.

    Raises:
        ValueError: shapes that do not fit, or one of both complex.

    >>> est, parts = torch.tensor([2.0, 1.0]), torch.tensor([3.0, 1.5])
    >>> remix_consistency(est=est.reshape(1, 2, 1, 1), parts=parts.reshape(1, 2, 1, 1),
    ...                   active=torch.eye(2)[None])  # |3 - 2| and |1.5 - 1|
    tensor([1.5000])
    """
    batch, sources, length, bins = est.shape
    active = by_frame(active, 4, length)
    if (
        active.dim() != 4
        or parts.shape != (*active.shape[:2], length, bins)
        or active.shape[::3] != (batch, length)
        or active.shape[2] > sources
    ):
        refuse(
            "est [B, S, L, F], parts [B, P, L, F] and active [B, P, K, L] or [B, P, K], K <= S",
            est=est,
            parts=parts,
            active=active,
        )
    same_kind(est=est, parts=parts)
    est, on, classes = full_precision(est), active > 0.5, active.shape[2]
    counted = (on.sum(1) <= 1).all(1)  # [B, L]
    rest = torch.stack(
        [
            part - (est[:, :classes] * own[..., None]).sum(1)
            for part, own in zip(full_precision(parts).unbind(1), on.unbind(1))
        ],
        1,
    )
    away = rest.abs().sum(1)  # [B, L, F]
    if classes < sources:
        residual = est[:, classes:].sum(1, keepdim=True)
        away = away + ((rest - residual).abs() - rest.abs()).amin(1)
    else:
        counted = counted & on.any(1).any(1)
    valid = valid_frames(lengths, length)
    counted = counted if valid is None else counted & valid
    return over_frames(away.sum(-1), counted, bins, reduction)
