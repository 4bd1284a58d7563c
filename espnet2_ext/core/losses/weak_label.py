"""Losses to train a separator, and its classifier, from strong, frame, clip or mixed labels.

Pishdadian et al., "Finding Strength in Weakness": (11) for frame labels, (15) for clip labels, (17)
for strong ones, with the terms of `weak_terms` and `mixture_terms`. Not in the paper: batches whose
items each carry their own label type, a residual output, and mixtures of mixtures.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnet2_ext.core.losses.classifier import ClassifierLoss
from espnet2_ext.core.losses.labels import CLIP, FRAME, KINDS, LABEL_TYPES, STRONG, Labels, Target, given
from espnet2_ext.core.losses.mixture_terms import active_mixture, mixture_consistency, remix_consistency
from espnet2_ext.core.losses.weak_terms import (
    class_loss,
    class_weights,
    estimate_labels,
    full_precision,
    mask_inference,
)

__all__ = [
    "CLIP",
    "FRAME",
    "KINDS",
    "LABEL_TYPES",
    "STRONG",
    "ClassifierLoss",
    "Labels",
    "WeakLabelLoss",
    "active_mixture",
    "class_loss",
    "class_weights",
    "mask_inference",
    "mixture_consistency",
    "remix_consistency",
]

STRATEGIES = ("joint", "finetune", "fixed")


class WeakLabelLoss(ClassifierLoss):
    """The loss of a separator: class term + alpha * mixture term, (11) or (15); strong: (17).

    With frame labels the terms are (10) and (5), with clip labels (12) and (6); strong items have
    (17) alone. Their balance depends on the scaling of the transform (alpha = 100 is meant for an
    unnormalised STFT) and on the reduction. `mean` divides the mixture term by L F (counted frames,
    bins), the class term of frame labels by L' (frames of the classifier) and that of clip labels
    by nothing, as it is one value a clip. alpha with `mean` is thus alpha L' / (L F) with `sum` for
    frame labels, alpha / (L F) for clip labels. 4 s in the paper's STFT (L = 501, F = 257) and its
    CRNN (L' = 126): 100 is 0.098 and 7.8e-4. With `sum` one alpha cannot suit both: against the
    mixture term, clip labels weigh 126 times less than frame labels; with `mean` they weigh alike.

    Args:
        classifier: see `ClassifierLoss`; may be None for `strong`.
        label_type: `strong`, `frame`, `clip`, or `mixed`: each item's own, in `Labels.kind`.
        alpha: of the mixture term.
        prior, clip_prior, reduction, part: see `ClassifierLoss`.
        strategy: `joint` and `finetune` (from scratch, or a trained classifier) train the
            classifier along, all terms count. `fixed`: its parameters are frozen, it stays in
            evaluation mode, and its term on the mixture, a constant, is neither computed nor added.
        strong_scale: factor of (17), to balance strong items against others in a batch; 1 in the
            paper, which does not mix them.
        remix: of the term `remix_consistency`, for weakly labelled items that are mixtures of
            mixtures (`Labels.parts`); 0, without it, in the paper.

    Raises:
        ValueError: an unknown label type, strategy or reduction; no classifier for weak labels.

    >>> loss, est = WeakLabelLoss(None, label_type="strong"), torch.ones(1, 2, 3, 4)
    >>> loss(est=est, mix=est.sum(1), labels=Labels(ref=0.5 * est))  # 0.5 a source
    {'loss': tensor([1.]), 'strong': tensor([1.])}
    """

    def __init__(
        self,
        classifier: nn.Module | None,
        *,
        label_type: str = "frame",
        alpha: float = 100.0,
        prior: Tensor | None = None,
        clip_prior: Tensor | None = None,
        strategy: str = "fixed",
        reduction: str = "mean",
        strong_scale: float = 1.0,
        remix: float = 0.0,
        part: int | None = None,
    ):
        super().__init__(
            classifier, label_type=label_type, prior=prior, clip_prior=clip_prior, reduction=reduction, part=part
        )
        if strategy not in STRATEGIES:
            raise ValueError(f"strategy must be one of {STRATEGIES}, not {strategy!r}")
        if classifier is None and label_type != "strong":
            raise ValueError(f"{label_type} labels need a classifier")
        self.alpha, self.strategy, self.strong_scale = alpha, strategy, strong_scale
        self.remix = remix
        self.fixed = strategy == "fixed"
        if self.fixed and classifier is not None:
            classifier.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "WeakLabelLoss":
        super().train(mode)
        if self.fixed and self.classifier is not None:
            self.classifier.eval()
        return self

    @property
    def names(self) -> list[str]:
        """What `forward` gives, whatever is in a batch."""
        names = ["loss"] + ["strong"] * (self.label_type in ("strong", "mixed"))
        if self.label_type != "strong":
            names += ["mixture", "class_est"] + ["class_mix"] * (not self.fixed)
            names += ["remix"] * bool(self.remix)
        return names

    def forward(self, *, est: Tensor, mix: Tensor, labels: Labels, lengths: Tensor | None = None) -> dict[str, Tensor]:
        """The loss of each item, and its terms.

        Args:
            est: `[B, S, L, F]`, the masked mixture, real or complex; S is K or K + 1.
            mix: `[B, L, F]`, of the same kind: the magnitude for real estimates.
            labels: what is known of the mixtures.
            lengths: `[B]` frames; what lies behind is padding.

        Returns:
            dict of `[B]`: `loss`, and detached `strong`, `mixture`, `class_est`, `class_mix`,
            `remix`: those of the label type and settings, 0 for items without this term.

        Raises:
            ValueError: shapes that do not fit, or labels that are missing; says which.
        """
        if est.dim() != 4 or est.shape[:1] + est.shape[2:] != mix.shape:
            raise ValueError(
                f"expected est [B, S, L, F] and mix [B, L, F], got est {list(est.shape)}, mix {list(mix.shape)}"
            )
        est, mix = full_precision(est), full_precision(mix)
        terms = dict.fromkeys(self.names, est.new_zeros(len(est), dtype=est.dtype.to_real()))
        for kind, index, (e, m, n), known in self.groups((est, mix, lengths), labels):
            found = self.strong_terms(e, m, n, known) if kind == STRONG else self.weak_terms(e, m, n, known, kind)
            for name, value in found.items():
                terms[name] = terms[name].index_put((index,), value)
        return {name: x if name == "loss" else x.detach() for name, x in terms.items()}

    def strong_terms(self, est: Tensor, mix: Tensor, lengths: Tensor | None, labels: Labels) -> dict[str, Tensor]:
        """(17) for strong items: `loss` and `strong`, `[B]`; arguments as in `forward`."""
        frames = None if self.weight is None else given(labels.frame, "frame", "[B, K, L]")
        weight = None if frames is None else self.weights_of("weight", frames)
        if weight is not None:
            residual = est.shape[1] - weight.shape[1]  # has no prior
            weight = F.pad(weight, (0, 0, 0, residual), value=1.0)
        strong = mask_inference(
            est=est,
            ref=given(labels.ref, "ref", "[B, S, L, F]"),
            weight=weight,
            lengths=lengths,
            reduction=self.reduction,
        )
        return {"loss": self.strong_scale * strong, "strong": strong}

    def weak_terms(
        self, est: Tensor, mix: Tensor, lengths: Tensor | None, labels: Labels, kind: int
    ) -> dict[str, Tensor]:
        """(11) or (15) for items of a weak label type `kind`: `loss` and its terms, `[B]`."""
        active = given(labels.clip, "clip", "[B, K]") if kind == CLIP else given(labels.frame, "frame", "[B, K, L]")
        mixture = active_mixture(est=est, mix=mix, active=active, lengths=lengths, reduction=self.reduction)
        terms = self.class_terms(est, mix, self.target(kind, labels, lengths))
        loss = sum(terms.values()) + self.alpha * mixture
        if self.remix and labels.parts is not None:
            terms["remix"] = remix_consistency(
                est=est,
                parts=labels.parts,
                lengths=lengths,
                reduction=self.reduction,
                active=given(labels.part_active, "part_active", "[B, P, K, L]"),
            )
            loss = loss + self.remix * terms["remix"]
        return {"loss": loss, "mixture": mixture, **terms}

    def class_terms(self, est: Tensor, mix: Tensor, target: Target) -> dict[str, Tensor]:
        """`[B]`: (9) or (14) summed over the estimates `[B, S, L, F]` and, unless fixed, (8) or (13)."""
        batch, sources = est.shape[:2]
        mag, labels = est.abs(), estimate_labels(target.labels, sources)
        if not self.fixed:  # one batch, so that a batch norm sees mixtures and estimates alike
            mag = torch.cat([mag, mix.abs()[:, None]], 1)
            labels = torch.cat([labels, target.labels[:, None]], 1)
        number = mag.shape[1]
        weight, lengths = (None if x is None else x.repeat_interleave(number, 0) for x in target[1:])
        if self.fixed and self.classifier.training:  # who set the whole model to training did this
            self.classifier.eval()
        learns = torch.is_grad_enabled() or self.classifier.training
        judge = self.judge if learns and not self.fixed else self.judge_in_parts
        each = judge(mag.flatten(0, 1), Target(labels.flatten(0, 1), weight, lengths))
        each = each.reshape(batch, number)
        terms = {"class_est": each[:, :sources].sum(1)}
        return terms if self.fixed else {**terms, "class_mix": each[:, sources]}
