"""From the logits of frames to the logit of the clip, exact where probabilities are averaged.

Except for the maximum every pooling is a weighted mean p = sum_t w_t p_t of the frames' probabilities, with weights
that sum to 1. Its logit, log p - log(1 - p), is made of sums of logarithms, log p = logsumexp(log w_t + log p_t), so
that a clip whose probability is 1e-30 off 0 or 1 still has a finite loss and a gradient. Max is equation (20) of
Pishdadian et al., "Finding Strength in Weakness"; the others are after Wang, Li and Metze, "A comparison of five
multiple instance learning pooling functions" (ICASSP 2019), and McFee, Salamon and Bello, "Adaptive pooling operators
for weakly labeled sound event detection" (2018).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOWEST = torch.finfo(torch.float32).min


class ClipPooling(nn.Module):
    """Frame logits `[B, K, L]`, and lengths `[B]` in frames or None, to clip logits `[B, K]`.

    Frames behind an item's length count for nothing. Computed in
    float32 or better.

    Raises:
        ValueError: logits that are not `[B, K, L]`.
    """

    def forward(self, logits: Tensor, lengths: Tensor | None = None) -> Tensor:
        """`[B, K, L]` and frames `[B]` to `[B, K]`."""
        if logits.dim() != 3:
            raise ValueError(f"expected frame logits [B, K, L], got {list(logits.shape)}")
        padding = None
        if lengths is not None:
            frames = torch.arange(logits.shape[-1], device=logits.device)
            padding = (frames >= lengths.to(logits.device)[:, None])[:, None]  # [B, 1, L]
        with torch.autocast(logits.device.type, enabled=False):
            full = logits.to(torch.promote_types(logits.dtype, torch.float32))
            return self.pool(full, padding)

    def pool(self, logits: Tensor, padding: Tensor | None) -> Tensor:
        """`[B, K, L]`, and where it is padding, `[B, 1, L]` or None, to `[B, K]`."""
        raise NotImplementedError


def _logsumexp(x: Tensor, padding: Tensor | None) -> Tensor:
    if padding is not None:
        x = x.masked_fill(padding, LOWEST)
    return x.logsumexp(-1)


def _logit_of_mean(logits: Tensor, log_weight: Tensor, padding: Tensor | None) -> Tensor:
    """The logit of sum_t w_t p_t / sum_t w_t; the sum of the weights cancels."""
    if padding is not None:
        log_weight = log_weight.masked_fill(padding, LOWEST)
    log_weight = log_weight - log_weight.amax(-1, keepdim=True).detach()  # small numbers are exact
    yes = _logsumexp(log_weight + F.logsigmoid(logits), padding)
    no = _logsumexp(log_weight + F.logsigmoid(-logits), padding)
    return yes - no


class MaxPooling(ClipPooling):
    """The largest probability of any frame; (20).

    >>> MaxPooling()(torch.tensor([[[-1.0, 2.0, 0.5]]]))
    tensor([[2.]])
    """

    def pool(self, logits: Tensor, padding: Tensor | None) -> Tensor:
        if padding is not None:
            logits = logits.masked_fill(padding, LOWEST)
        return logits.amax(-1)


class AveragePooling(ClipPooling):
    """The mean of the frames' probabilities.

    >>> AveragePooling()(torch.tensor([[[-1.0, 1.0]]])).sigmoid()
    tensor([[0.5000]])
    """

    def pool(self, logits: Tensor, padding: Tensor | None) -> Tensor:
        return _logit_of_mean(logits, torch.zeros_like(logits), padding)


class LinearSoftmaxPooling(ClipPooling):
    """Each frame weighted by its own probability: sum_t p_t^2 / sum_t p_t.

    >>> p = torch.tensor([[[0.2, 0.6]]])
    >>> LinearSoftmaxPooling()(p.logit()).sigmoid()
    tensor([[0.5000]])
    """

    def pool(self, logits: Tensor, padding: Tensor | None) -> Tensor:
        return _logit_of_mean(logits, F.logsigmoid(logits), padding)


class AutoPooling(ClipPooling):
    """Weights exp(a_k p_t) with a learned a_k a class: 0 is the mean, infinity the maximum.

    >>> AutoPooling(1)(torch.zeros(1, 1, 3))
    tensor([[0.]], grad_fn=<SubBackward0>)
    """

    def __init__(self, num_classes: int):
        super().__init__()
        self.sharpness = nn.Parameter(torch.ones(num_classes))

    def pool(self, logits: Tensor, padding: Tensor | None) -> Tensor:
        return _logit_of_mean(logits, self.sharpness[:, None] * logits.sigmoid(), padding)


class AttentionPooling(ClipPooling):
    """Weights exp(sum_j A_kj z_jt), a learned map of the logits z of all classes in the frame.

    The attention is computed from the logits, not from the features below them, so that a pooling
    needs nothing else. A starts as the identity: weights in proportion to the odds.

    >>> AttentionPooling(1)(torch.zeros(1, 1, 3))
    tensor([[0.]], grad_fn=<SubBackward0>)
    """

    def __init__(self, num_classes: int):
        super().__init__()
        self.attention = nn.Parameter(torch.eye(num_classes))

    def pool(self, logits: Tensor, padding: Tensor | None) -> Tensor:
        return _logit_of_mean(logits, self.attention @ logits, padding)


POOLINGS = ("max", "average", "linear_softmax", "attention", "auto")


def make_pooling(name: str, num_classes: int) -> ClipPooling:
    """The pooling of that name, one of `POOLINGS`.

    Raises:
        ValueError: unknown name; lists the known ones.
    """
    if name not in POOLINGS:
        raise ValueError(f"pooling must be one of {POOLINGS}, not {name!r}")
    plain = {"max": MaxPooling, "average": AveragePooling, "linear_softmax": LinearSoftmaxPooling}
    learned = {"attention": AttentionPooling, "auto": AutoPooling}
    return plain[name]() if name in plain else learned[name](num_classes)
