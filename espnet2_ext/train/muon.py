"""Muon for the matrices of a network, AdamW for the rest, as one optimiser.

PyTorch's own Muon takes matrices alone and works in bfloat16, which is slow on most CPUs.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

NEWTON_SCHULZ = 3.4445, -4.7750, 2.0315  # Jordan: singular values come near 1 in five rounds


def orthogonalised(x: Tensor, rounds: int = 5) -> Tensor:
    """Matrices `[B, m, n]` with their singular values brought near 1 (0.7 to 1.2); a matrix of zeros stays so."""
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(rounds):
        square = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x


def _is_matrix(p: Tensor, conf: dict[str, Any]) -> bool:
    dims = (2, 4) if conf.get("convolutions") else (2,)  # a state saved by earlier code does not know it
    return p.dim() in dims and min(p.flatten(1).shape) >= conf["min_side"]


class MuonAdamW(torch.optim.AdamW):
    """Muon (Jordan et al., 2024) for matrices, AdamW for all other parameters.

    A matrix takes its step along the orthogonalised momentum (Nesterov's) of its gradient, with a root mean square of
    0.2 times the rate, about that of AdamW's (Liu et al., "Muon is scalable for LLM training", 2025, section 2.2).

    Args:
        params: parameters or groups of them.
        lr: rate of AdamW. muon_rate: how many times as high it is for matrices. momentum: of matrices.
        betas, eps: of AdamW. weight_decay: of both.
        min_side: a matrix is what has two dimensions, the shorter of at least this size. More than the attention's
            heads, as its table of relative positions is no matrix.
        convolutions: take the filters of convolutions over two axes, too, as matrices `[m, n k l]` of `[m, n, k, l]`.

    Raises:
        ValueError: a value outside its range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        muon_rate: float = 3.0,
        momentum: float = 0.95,
        min_side: int = 24,
        convolutions: bool = False,
    ):
        if not 0 <= momentum < 1 or muon_rate <= 0:
            raise ValueError(f"momentum must lie in [0, 1), muon_rate above 0, not {momentum} and {muon_rate}")
        super().__init__(params, lr=lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay)
        # Not `momentum`: schedules would change it.
        more = {"muon_rate": muon_rate, "muon_momentum": momentum, "min_side": min_side, "convolutions": convolutions}
        self.defaults.update(more)
        for group in self.param_groups:
            group.update(more | group)  # a group's own value wins

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        """One step; the value of `closure`, if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        taken = []
        for group in self.param_groups:
            matrices = [p for p in group["params"] if p.grad is not None and _is_matrix(p, group)]
            self._step_matrices(matrices, group)
            taken += [(p, p.grad) for p in matrices]
        for p, _ in taken:
            p.grad = None  # AdamW passes over them
        super().step()
        for p, grad in taken:
            p.grad = grad
        return loss

    def _step_matrices(self, matrices: list[Tensor], conf: dict[str, Any]) -> None:
        lr, momentum = conf["lr"] * conf["muon_rate"], conf["muon_momentum"]
        alike: dict[Any, list[Tensor]] = defaultdict(list)
        for p in matrices:
            alike[p.shape, p.device, p.dtype].append(p)
        for (shape, _, _), group in alike.items():
            updates = []
            for p in group:
                state = self.state[p]
                if "momentum_buffer" not in state:
                    state["step"] = torch.zeros(())  # AdamW, when it takes a state back, looks for it in each
                    state["momentum_buffer"] = torch.zeros_like(p)
                state["step"] += 1
                average = state["momentum_buffer"].lerp_(p.grad, 1 - momentum)
                updates.append(p.grad.lerp(average, momentum))
            matrices = torch.stack(updates).flatten(2)
            scale = lr * 0.2 * max(matrices.shape[1:]) ** 0.5
            for p, update in zip(group, orthogonalised(matrices)):
                p.mul_(1 - lr * conf["weight_decay"]).sub_(update.reshape(shape), alpha=scale)
