"""ESPnet loss wrappers `keyed_order` and `all_sources`."""

import torch
from espnet2.enh.loss.criterions.abs_loss import AbsEnhLoss
from espnet2.enh.loss.wrappers.abs_wrapper import AbsLossWrapper
from torch import Tensor


class KeyedOrderSolver(AbsLossWrapper):
    """Fixed order (a query names its target, so nothing is permuted), with keys for the criterion.

    A criterion with an attribute `needs = {argument: key}` gets `others[key]` as that argument;
    `{}` in a key stands for the target, `_spk1`, `_spk2`, ...

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
