"""ESPnet loss wrapper `all_sources`."""

import torch
from torch import Tensor

from espnet2_ext.enh.loss.wrappers.keyed_order import KeyedOrderSolver


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
