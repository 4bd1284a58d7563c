"""Losses on class probabilities."""

import torch  # noqa: F401, for the example
import torch.nn.functional as F
from torch import Tensor


def tagging_bce(*, logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of tags, mean over the classes; CaRE-SEP paper, section 2.3.

    Args:
        logits: `[B, K]`, before the sigmoid.
        labels: `[B, K]`, 0 or 1 (or between, after mixup).

    Returns:
        `[B]`.

    Raises:
        ValueError: shapes that differ.

    >>> tagging_bce(logits=torch.zeros(1, 4), labels=torch.eye(4)[:1])
    tensor([0.6931])
    """
    if logits.shape != labels.shape or logits.dim() != 2:
        raise ValueError(
            f"expected logits and labels of one shape [B, K], got {list(logits.shape)} and {list(labels.shape)}"
        )
    loss = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
    return loss.mean(-1)


def mixture_tagging(*, mix_logits: Tensor, mix_labels: Tensor) -> Tensor:
    """`tagging_bce` of a mixture and of all the classes that sound in it; not in the paper, which tags queries alone.

    Args:
        mix_logits, mix_labels: `[B, K]`, as in `tagging_bce`.

    Returns:
        `[B]`.

    Raises:
        ValueError: shapes that differ.
    """
    return tagging_bce(logits=mix_logits, labels=mix_labels)
