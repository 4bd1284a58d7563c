"""ESPnet criterion `weak_label`."""

from collections.abc import Sequence

import torch
from espnet2.enh.loss.criterions.abs_loss import AbsEnhLoss
from torch import Tensor, nn

from espnet2_ext.core.losses.weak_label import ClassifierLoss, Labels, WeakLabelLoss


class WeakLabelCriterion(AbsEnhLoss):
    """`core.losses.weak_label` behind ESPnet's interface, for `ESPnetWeakLabelModel`.

    In a YAML: `{name: weak_label, conf: {alpha: 100, class_weights: true}}`. The first four
    arguments and the priors come from the task's own options.

    Args:
        classifier, label_type, strategy, remix: see `WeakLabelLoss`. A model that is trained with
            `remix` makes its batches of mixtures of mixtures (`ESPnetWeakLabelModel`).
        part: `separator`, or `classifier` for the classifier's own training (`ClassifierLoss`).
        prior, clip_prior: K shares of frames and of clips in which each class is active.
        alpha: weight of the mixture term, (11) and (15) of the paper.
        class_weights: weights (16) for frame and strong labels, from `prior`.
        clip_weights: the same for clip labels, from `clip_prior`; the paper has none.
        reduction: `mean` or `sum`. strong_scale: see `WeakLabelLoss`.
        name: in the log.

    After each call `stats` holds the terms `[B]`, detached.
    """

    needs = {"mix": "mix_spectrum", "labels": "labels", "lengths": "frames"}

    def __init__(
        self,
        classifier: nn.Module | None,
        label_type: str = "frame",
        strategy: str = "fixed",
        remix: float = 0.0,
        part: str = "separator",
        prior: Sequence[float] | None = None,
        clip_prior: Sequence[float] | None = None,
        alpha: float = 100.0,
        class_weights: bool = True,
        clip_weights: bool = False,
        reduction: str = "mean",
        strong_scale: float = 1.0,
        name: str = "weak_label",
    ):
        super().__init__()
        self._name, self.part, self.stats = name, part, {}
        options = {
            "label_type": label_type,
            "reduction": reduction,
            "prior": _tensor(prior) if class_weights else None,
            "clip_prior": _tensor(clip_prior) if clip_weights else None,
        }
        if part == "classifier":
            self.loss = ClassifierLoss(classifier, **options)
        else:
            self.loss = WeakLabelLoss(
                classifier, alpha=alpha, strategy=strategy, strong_scale=strong_scale, remix=remix, **options
            )

    @property
    def name(self) -> str:
        """The key in the log."""
        return self._name

    def forward(self, ref: None, inf: Tensor | None, mix: Tensor, labels: Labels, lengths: Tensor | None) -> Tensor:
        """`[B]` of estimates `inf` `[B, S, L, F]` (None for a classifier) and `mix` `[B, L, F]`.

        References come with the labels; `ref` is not looked at.
        """
        given = {"mix": mix, "labels": labels, "lengths": lengths}
        if self.part == "separator":
            given["est"] = inf
        terms = self.loss(**given)
        loss = terms.pop("loss")
        self.stats = terms
        return loss


def _tensor(prior: Sequence[float] | None) -> Tensor | None:
    return None if prior is None else torch.tensor(list(prior), dtype=torch.float32)
