"""The loss of a classifier of sound events, and what it shares with that of a separator that it judges.

Pishdadian et al., "Finding Strength in Weakness": (8) for frame labels, (13) for clip labels, with weights (18).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from espnet2_ext.core.losses.in_parts import in_parts
from espnet2_ext.core.losses.labels import CLIP, FRAME, KINDS, LABEL_TYPES, STRONG, Labels, Target, given, rows
from espnet2_ext.core.losses.weak_terms import (
    REDUCTIONS,
    class_weights,
    full_precision,
    pick_weights,
    spectrum_class_loss,
    valid_frames,
)


class ClassifierLoss(nn.Module):
    """The classifier's own training on mixtures: (8) or (13), with weights (18).

    Args:
        classifier: as in `core.nets.sed`: `forward(mag [B, L, F], lengths) -> [B, K, L']`, `pool`,
            `shrink` and `frames`.
        label_type: `frame` or `clip`. `strong` trains on frame labels; `mixed` on the clip's where
            `Labels.kind` is 2, else on frame labels.
        prior: `[K]`, share of frames in which each class is active, for the weights (16) of strong
            and frame items; None: no weights.
        clip_prior: `[K]`, the same for clips and clip items. The paper does not weight those.
        reduction: `mean` or `sum`, over frames.
        part: spectra that a fixed classifier judges at a time; None: what is fastest.

    Raises:
        ValueError: an unknown label type or reduction; a prior outside 0 to 1.
    """

    classifier: Any
    weight: Tensor | None
    clip_weight: Tensor | None

    def __init__(
        self,
        classifier: nn.Module | None,
        *,
        label_type: str = "frame",
        prior: Tensor | None = None,
        clip_prior: Tensor | None = None,
        reduction: str = "mean",
        part: int | None = None,
    ):
        super().__init__()
        for name, value, known in (("label_type", label_type, LABEL_TYPES), ("reduction", reduction, REDUCTIONS)):
            if value not in known:
                raise ValueError(f"{name} must be one of {known}, not {value!r}")
        self.classifier, self.label_type, self.reduction = classifier, label_type, reduction
        self.part = part
        for name, share in (("weight", prior), ("clip_weight", clip_prior)):
            self.register_buffer(name, None if share is None else class_weights(share), persistent=False)

    def forward(self, *, mix: Tensor, labels: Labels, lengths: Tensor | None = None) -> dict[str, Tensor]:
        """`mix` `[B, L, F]`, real or complex; gives `loss` and, detached, `class_mix`, `[B]`."""
        seen = full_precision(self.seen(mix))
        loss = seen.new_zeros(len(seen), dtype=seen.dtype.to_real())
        for kind, index, (part, lengths_), known in self.groups((seen, lengths), labels):
            value = self.judge(part, self.target(max(kind, FRAME), known, lengths_))
            loss = loss.index_put((index,), value)
        return {"loss": loss, "class_mix": loss.detach()}

    # ---- shared with WeakLabelLoss -----------------------------------------------------------
    def seen(self, spec: Tensor) -> Tensor:
        """What the classifier takes of spectra `[..., L, F]`: their magnitudes, unless it sees phases, too."""
        return spec if getattr(self.classifier, "takes_complex", False) else spec.abs()

    def groups(self, tensors: tuple, labels: Labels) -> list[tuple[int, Tensor, Sequence, Labels]]:
        """The batch by label type: that, its items' indices `[b]`, their part of tensors `[B, ...]` and labels."""
        batch, device = len(tensors[0]), tensors[0].device
        if self.label_type != "mixed":
            return [(KINDS[self.label_type], torch.arange(batch, device=device), tensors, labels)]
        kind = given(labels.kind, "kind", "[B]")
        if kind.shape != (batch,) or not bool(((kind >= STRONG) & (kind <= CLIP)).all()):
            raise ValueError(f"expected labels.kind [{batch}] of 0, 1 and 2, got {kind.tolist()}")
        found = ((k, (kind == k).nonzero()[:, 0]) for k in KINDS.values())
        return [(k, i, rows(tensors, i), Labels(*rows(labels, i))) for k, i in found if len(i)]

    def target(self, kind: int, labels: Labels, lengths: Tensor | None) -> Target:
        """Labels and weights of the mixtures: `[B, K, L']` at the classifier's frames, or `[B, K]` of the clip."""
        if kind == CLIP:
            clip = given(labels.clip, "clip", "[B, K]").float()
            return Target(clip, self.weights_of("clip_weight", clip), lengths)
        frame = given(labels.frame, "frame", "[B, K, L]").float()
        if lengths is not None:  # a pooled frame must not take a label from the padding
            frame = frame.masked_fill(~valid_frames(lengths, frame.shape[-1])[:, None], 0)
        frame = self.classifier.shrink(frame)
        return Target(frame, self.weights_of("weight", frame), lengths)

    def weights_of(self, name: str, labels: Tensor) -> Tensor | None:
        """The weights called so of `labels` `[B, K]` or `[B, K, L]`, of their shape; None: none."""
        weight = getattr(self, name)
        if weight is not None and weight.device != labels.device:  # once: ESPnet moves its model, not the criteria
            setattr(self, name, weight.to(labels.device))
        return None if weight is None else pick_weights(getattr(self, name), labels)

    def judge(self, seen: Tensor, target: Target) -> Tensor:
        """Cross-entropy of the classifier's answer to `seen` `[N, L, F]`; `[N]`, of their precision."""
        own = next(self.classifier.parameters(), seen).dtype  # its weights may be of half precision
        logits = self.classifier(seen if seen.is_complex() else seen.to(own), target.lengths)
        if target.labels.dim() == 2:
            logits = self.classifier.pool(logits, self._frames(target))
        return self.compared(logits, target).to(seen.dtype.to_real())

    def compared(self, logits: Tensor, target: Target) -> Tensor:
        """Cross-entropy of an answer, logits of frames `[N, K, L']` or clips `[N, K]`, to what it should be; `[N]`."""
        valid = valid_frames(self._frames(target), logits.shape[-1]) if logits.dim() == 3 else None
        return spectrum_class_loss(
            logits=logits, target=target.labels, weight=target.weight, valid=valid, reduction=self.reduction
        )

    def _frames(self, target: Target) -> Tensor | None:
        return None if target.lengths is None else self.classifier.frames(target.lengths)

    def judge_in_parts(self, seen: Tensor, target: Target) -> Tensor:
        """`judge` by a classifier that does not learn: the same `[N]`, in the memory of one part."""
        most = None if seen.is_cuda else getattr(self.classifier, "cpu_values", None)
        part = self.part or (len(seen) if most is None else max(1, most // seen[0].numel()))
        return in_parts(lambda x, here: self.judge(x, Target(*rows(target, here))), seen, part)
