"""ESPnet's criterion `weak_label`, and the loss wrappers `keyed_order` and `all_sources`."""

from collections.abc import Sequence

import torch
from espnet2.enh.loss.criterions.abs_loss import AbsEnhLoss
from espnet2.enh.loss.wrappers.abs_wrapper import AbsLossWrapper
from torch import Tensor, nn

from espnet2_ext.core.losses.query_weak import QueryWeakLoss
from espnet2_ext.core.losses.weak_label import ClassifierLoss, Labels, WeakLabelLoss
from espnet2_ext.errors import DataError


class WeakLabelCriterion(AbsEnhLoss):
    """`core.losses.weak_label` behind ESPnet's interface, for `ESPnetWeakLabelModel`.

    In a YAML: `{name: weak_label, conf: {alpha: 100, class_weights: true}}`. The first four arguments, the priors and
    `consistency` come from the task's own options.

    Args:
        classifier, label_type, strategy, remix: see `WeakLabelLoss`. A model that is trained with
            `remix` makes its batches of mixtures of mixtures (`ESPnetWeakLabelModel`).
        consistency: see `QueryWeakLoss`; of separators of classes 0.
        part: `separator`, or `classifier` for the classifier's own training (`ClassifierLoss`).
        prior, clip_prior: K shares of frames and of clips in which each class is active, in what is
            trained on: with `remix`, of the sums.
        alpha: weight of the mixture term, (11) and (15) of the paper.
        class_weights: weights (16) for frame and strong labels, from `prior`.
        clip_weights: the same for clip labels, from `clip_prior`; the paper has none.
        reduction: `mean` or `sum`. strong_scale: see `WeakLabelLoss`.
        name: in the log.

    After each call `stats` holds the terms `[B]`, detached.

    Raises:
        DataError: another task than `WeakLabelTask`, which knows the classifier, builds the model.
    """

    needs = {"mix": "mix_spectrum", "labels": "labels", "lengths": "frames"}

    def __init__(
        self,
        classifier: nn.Module | None | str = "unknown",
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
        consistency: float = 0.0,
        name: str = "weak_label",
    ):
        super().__init__()
        if isinstance(classifier, str):
            raise DataError(
                "criterion weak_label: models of weak labels are not built by ESPnet's EnhancementTask; train with "
                "`espnet2-ext weak-train`, separate with `espnet2_ext.infer.espnet.WeakSeparateSpeech`"
            )
        self._name, self.part, self.stats = name, part, {}
        options = {
            "label_type": label_type,
            "reduction": reduction,
            "prior": _tensor(prior) if class_weights else None,
            "clip_prior": _tensor(clip_prior) if clip_weights else None,
        }
        by_query = getattr(classifier, "takes_complex", False)
        if consistency and not by_query:
            raise DataError("criterion weak_label: consistency is of separators by query; leave it out")
        if part == "classifier":
            self.loss = ClassifierLoss(classifier, **options)
            return
        options |= {"alpha": alpha, "strategy": strategy, "strong_scale": strong_scale, "remix": remix}
        if by_query:
            self.loss = QueryWeakLoss(classifier, consistency=consistency, **options)
        else:
            self.loss = WeakLabelLoss(classifier, **options)

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


class KeyedOrderSolver(AbsLossWrapper):
    """Fixed order (a query names its target, so nothing is permuted), with keys for the criterion.

    A criterion with an attribute `needs = {argument: key}` gets `others[key]` as that argument; `{}` in a key stands
    for the target, `_spk1`, `_spk2`, ... Arguments that its `optional` names are left out where there is no such key.

    Raises:
        KeyError: a key that the criterion needs and the model or the batch does not give.
    """

    def __init__(self, criterion: AbsEnhLoss, weight: float = 1.0):
        super().__init__()
        self.criterion = criterion
        self.weight = weight

    def forward(self, ref: list, inf: list, others: dict | None = None):
        """Lists of `[B, T]`; returns the mean loss, a dict for the log, and the order kept."""
        losses = []
        for spk, (r, i) in enumerate(zip(ref, inf, strict=True), 1):
            losses.append(self.criterion(r, i, **self._keyed(f"_spk{spk}", others or {})).mean())
        loss = torch.stack(losses).mean()
        perm = torch.arange(len(ref)).repeat(ref[0].shape[0], 1)
        return loss, {self.criterion.name: loss.detach()}, {"perm": perm}

    def _keyed(self, spk: str, others: dict) -> dict:
        keyed = {}
        for argument, key in getattr(self.criterion, "needs", {}).items():
            key = key.format(spk)
            if key not in others and argument in getattr(self.criterion, "optional", ()):
                continue
            if key not in others:
                raise KeyError(
                    f"criterion {self.criterion.name!r} needs {key!r}, which neither "
                    f"the model nor the batch gives; there is: {sorted(others)}"
                )
            keyed[argument] = others[key]
        return keyed


class AllSourcesSolver(KeyedOrderSolver):
    """Shows a criterion all sources at once, `[B, S, ...]`; ESPnet's own show one at a time.

    A criterion with a method `with_order` gives the order of its outputs as well, otherwise they
    stay as they are. Keys that a criterion needs are handed over as in `keyed_order`; what it
    leaves in `stats`, `[B]` each, goes into the log.
    """

    def forward(self, ref: list | Tensor | None, inf: list | Tensor | None, others: dict | None = None):
        """Lists of S tensors `[B, T]`; returns the mean loss, a dict for the log, and the order."""
        ref, inf = (torch.stack(list(x), 1) if isinstance(x, list | tuple) else x for x in (ref, inf))
        keyed, order = self._keyed("", others or {}), {}
        if hasattr(self.criterion, "with_order"):
            loss, order["perm"] = self.criterion.with_order(ref, inf, **keyed)
        else:
            loss = self.criterion(ref, inf, **keyed)
            if inf is not None:
                order["perm"] = torch.arange(inf.shape[1]).repeat(len(inf), 1)
        loss = loss.mean()
        stats = {k: v.mean() for k, v in getattr(self.criterion, "stats", {}).items()}
        return loss, {**stats, self.criterion.name: loss.detach()}, order
