"""The terms of the losses for strong, frame and clip labels, each a function of its own.

Pishdadian, Wichern and Le Roux, "Finding Strength in Weakness: Learning to Separate Sounds with
Weak Supervision", section II. Every function gives one value an item, `[B]`. With
`reduction="sum"` it is the paper's sum; with `"mean"`, the default, the terms on spectra are sums
over the sources and means over bins and counted frames, the class terms sums over classes and
estimates and means over frames, so that no value depends on the length of a clip or on the
transform's size. Frames that are left out count in neither.

The spectra are of shape `[B, S, L, F]` for estimates and `[B, L, F]` for the mixture, real
(magnitudes, or signed for phase-sensitive masks) or complex. S is K, one output a class in the
order of the classes, or more: what comes after the classes is a residual output, for the sound of
no labelled class (not in the paper). It always counts as active.
"""

from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor

REDUCTIONS = ("mean", "sum")


@overload
def valid_frames(lengths: Tensor, num_frames: int) -> Tensor: ...
@overload
def valid_frames(lengths: None, num_frames: int) -> None: ...
def valid_frames(lengths: Tensor | None, num_frames: int) -> Tensor | None:
    """`[B]` lengths in frames to a mask `[B, L]`, true on an item's own frames; None stays None."""
    if lengths is None:
        return None
    return torch.arange(num_frames, device=lengths.device) < lengths[:, None]


def refuse(expected: str, **tensors: Tensor) -> None:
    """Raise a ValueError that says what was expected, and the shapes that came."""
    got = ", ".join(f"{name} {list(x.shape)}" for name, x in tensors.items())
    raise ValueError(f"expected {expected}, got {got}")


def same_kind(**spectra: Tensor) -> None:
    """Raise a ValueError where one of two spectra is real and the other complex."""
    if len({x.is_complex() for x in spectra.values()}) > 1:
        got = " and ".join(str(x.dtype) for x in spectra.values())
        raise ValueError(f"expected {' and '.join(spectra)} both real or both complex, got {got}")


def _check_reduction(reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {REDUCTIONS}, not {reduction!r}")


def full_precision(x: Tensor) -> Tensor:
    """`x` `[...]` in at least 32 bits a real number: bfloat16 is too coarse to sum in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def over_frames(frames: Tensor, counted: Tensor | None, bins: int, reduction: str) -> Tensor:
    """Sums over the bins of each frame `[B, L]` to one value an item, counting `[B, L]` frames."""
    _check_reduction(reduction)
    if counted is None:
        total, number = frames.sum(1), frames.shape[1]
    else:
        total = frames.masked_fill(~counted, 0).sum(1)
        number = counted.sum(1).clamp(min=1)  # an item of which nothing counts gives 0
    return total if reduction == "sum" else total / (number * bins)


def class_weights(prior: Tensor) -> Tensor:
    """Weights that let the active and the inactive frames of each class count alike; (16).

    Args:
        prior: `[K]`, gamma: the share of frames in which each class is active.

    Returns:
        `[2, K]`: row 1 where the class is active, 1 / gamma; row 0 where not, 1 / (1 - gamma).
        The weight of what never occurs is 1 (a class always active, or never).

    Raises:
        ValueError: not `[K]`, or a prior outside 0 to 1; names the class's index.

    >>> class_weights(torch.tensor([0.25, 0.5, 1.0]))
    tensor([[1.3333, 2.0000, 1.0000],
            [4.0000, 2.0000, 1.0000]])
    """
    prior = torch.as_tensor(prior, dtype=torch.float32)
    if prior.dim() != 1:
        refuse("prior [K]", prior=prior)
    for k, gamma in enumerate(prior.tolist()):
        if not 0 <= gamma <= 1:
            raise ValueError(f"the prior of class {k} must lie between 0 and 1, not {gamma:g}")
    share = torch.stack([1 - prior, prior])
    return torch.where(share > 0, 1 / share, 1.0)


def pick_weights(weight: Tensor, labels: Tensor) -> Tensor:
    """`[2, K]` of `class_weights`, labels `[B, K]` or `[B, K, L]` to weights of their shape; (16).

    >>> pick_weights(torch.tensor([[2.0, 3.0], [4.0, 5.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([[4., 3.]])
    """
    if weight.shape != (2, labels.shape[1]):
        refuse("weight [2, K] and labels [B, K, ...]", weight=weight, labels=labels)
    off, on = weight.reshape(2, 1, -1, *[1] * (labels.dim() - 2)).to(labels.device)
    return torch.where(labels > 0.5, on, off)


def mask_inference(
    *, est: Tensor, ref: Tensor, weight: Tensor | None = None, lengths: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Strong labels: |S^_i - S_i| against the isolated sources; (3), and (17) with weights.

    Args:
        est: `[B, S, L, F]`, the masked mixture.
        ref: `[B, S, L, F]`, the spectra of the isolated sources, of the same kind.
        weight: `[B, S, L]`, W of each source and frame (see `pick_weights`); None: 1.
        lengths: `[B]` frames; what lies behind is padding.
        reduction: `mean` (over bins and frames, sum over sources) or `sum`, as in the paper.

    Returns:
        `[B]`.

    Raises:
        ValueError: shapes that do not fit, or one of both complex.

    >>> est = torch.tensor([1.0, 2.0]).reshape(1, 1, 1, 2)
    >>> mask_inference(est=est, ref=torch.zeros_like(est))
    tensor([1.5000])
    """
    if est.dim() != 4 or est.shape != ref.shape:
        refuse("est and ref of one shape [B, S, L, F]", est=est, ref=ref)
    same_kind(est=est, ref=ref)
    if weight is not None and weight.shape != est.shape[:3]:
        refuse("weight [B, S, L] for est [B, S, L, F]", weight=weight, est=est)
    frames = (full_precision(est) - full_precision(ref)).abs().sum(-1)  # [B, S, L]
    if weight is not None:
        frames = frames * weight
    return over_frames(frames.sum(1), valid_frames(lengths, est.shape[2]), est.shape[3], reduction)


def estimate_labels(labels: Tensor, sources: int, asked: Tensor | None = None) -> Tensor:
    """Labels of the mixture `[B, K, ...]` to those of each estimate, `[B, S, K, ...]`; (9), (14).

    Estimate i keeps the label of class i, or `asked[:, i]` where `[B, S]` are given, every other class is absent; a
    residual has none.

    >>> estimate_labels(torch.tensor([[1.0, 1.0]]), 3)
    tensor([[[1., 0.],
             [0., 1.],
             [0., 0.]]])
    """
    own = torch.eye(sources, labels.shape[1], dtype=labels.dtype, device=labels.device)[None]
    if asked is not None:
        own = F.one_hot(asked, labels.shape[1]).to(labels.dtype)
    return labels[:, None] * own.reshape(*own.shape, *[1] * (labels.dim() - 2))


def spectrum_class_loss(
    *,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    valid: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Binary cross-entropy (7) of one spectrum an item, summed over the classes; (8), (13), (18).

    Args:
        logits: `[N, K, L']` of frames, or `[N, K]` of clips, before the sigmoid.
        target, weight: of the same shape; weight None: 1.
        valid: `[N, L']`, the frames that count; None: all.
        reduction: `mean` or `sum` over the frames.

    Returns:
        `[N]`.

    >>> spectrum_class_loss(logits=torch.zeros(1, 2), target=torch.tensor([[1.0, 0.0]]))
    tensor([1.3863])
    """
    if logits.shape != target.shape or logits.dim() not in (2, 3):
        refuse("logits and labels of one shape [B, K, L'] or [B, K]", logits=logits, labels=target)
    logits = full_precision(logits)
    loss = F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), weight, reduction="none").sum(1)
    return over_frames(loss[:, None] if loss.dim() == 1 else loss, valid, 1, reduction)


def class_loss(
    *,
    logits_mix: Tensor | None,
    logits_est: Tensor | None,
    labels: Tensor,
    weight: Tensor | None = None,
    lengths: Tensor | None = None,
    reduction: str = "mean",
) -> dict[str, Tensor]:
    """What the classifier should find in the mixture and in each estimate; (8)-(10), (12)-(14).

    In the mixture: the labels. In estimate i: the label of class i and nothing else, as
    H(l_i, p_i(S^_i)) + sum over j != i of H(0, p_j(S^_i)). With weights, each class counts with
    its W in the mixture's frame, also where an estimate should not contain it; (18), (19).

    Args:
        logits_mix: `[B, K, L']`, or `[B, K]` for clip labels; None leaves this term out.
        logits_est: `[B, S, K, L']`, or `[B, S, K]`; None leaves this term out.
        labels: `[B, K, L']` at the classifier's frames, or `[B, K]`.
        weight: `[2, K]` of `class_weights`; None: 1.
        lengths: `[B]` in the classifier's frames; for frame labels only.
        reduction: `mean` or `sum`, as in the paper, over the frames.

    Returns:
        dict of `[B]`: `class_mix`, (8) or (13), and `class_est`, the sum of (9) or (14) over the
        estimates; their sum is (10) or (12).

    Raises:
        ValueError: shapes that do not fit.

    >>> terms = class_loss(logits_mix=torch.zeros(1, 2), logits_est=torch.zeros(1, 2, 2),
    ...                    labels=torch.tensor([[1.0, 0.0]]))  # log 2 a class and spectrum
    >>> terms["class_mix"], terms["class_est"]
    (tensor([1.3863]), tensor([2.7726]))
    """
    valid = valid_frames(lengths, labels.shape[-1]) if labels.dim() == 3 else None
    weights = None if weight is None else pick_weights(weight, labels)
    terms = {}
    if logits_mix is not None:
        terms["class_mix"] = spectrum_class_loss(
            logits=logits_mix, target=labels, weight=weights, valid=valid, reduction=reduction
        )
    if logits_est is not None:
        terms["class_est"] = _estimates_loss(logits_est, labels, weights, valid, reduction)
    return terms


def _estimates_loss(
    logits: Tensor, labels: Tensor, weight: Tensor | None, valid: Tensor | None, reduction: str
) -> Tensor:
    batch, sources = logits.shape[:2]
    if logits.shape != (len(labels), sources, *labels.shape[1:]):
        refuse(
            "logits_est [B, S, K, L'] or [B, S, K] for labels [B, K, L'] or [B, K]", logits_est=logits, labels=labels
        )
    weight, valid = (None if x is None else x.repeat_interleave(sources, 0) for x in (weight, valid))
    target = estimate_labels(labels, sources)
    each = spectrum_class_loss(
        logits=logits.flatten(0, 1), target=target.flatten(0, 1), weight=weight, valid=valid, reduction=reduction
    )
    return each.reshape(batch, sources).sum(1)
