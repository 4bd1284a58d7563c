"""Stretches of weakly labelled recordings in which a class is heard alone, as the queries of another recording."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

UNLIKE = -20.0  # log probability of what frame labels rule out


def surest(
    logits: Tensor, clip: Tensor, frame: Tensor | None, size: int, again: Callable[[range], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Where each class is heard most surely, and alone.

    The sureness of class k in a frame is log p_k + the sum over the clip's other classes j of log (1 - p_j), that of a
    stretch the mean over its frames.

    Args:
        logits: `[B, K, L']`, framewise tags.
        clip: `[B, K]`, 1 for the classes that are in the recording; others cannot be heard.
        frame: `[B, K, L']`, frame labels where they are known: they take the place of the tags.
        size: frames of a stretch; a recording that is shorter is one.
        again: takes first frames of S stretches, every half of one, and gives tags of each as it is heard by itself,
            `[B, S, K]`: framewise tags of a whole recording know what else is in it. Their sureness is added.

    Returns:
        sureness `[B, K]`, -inf where the class is not there, and first frame `[B, K]` of its stretch.

    >>> sure, at = surest(torch.tensor([[[9.0, 9.0, -9.0], [-9.0, 9.0, 9.0]]]), torch.ones(1, 2), None, 1)
    >>> at, sure.exp().round(decimals=2)
    (tensor([[0, 2]]), tensor([[1., 1.]]))
    """
    size = min(size, logits.shape[2])
    yes, no = F.logsigmoid(logits), F.logsigmoid(-logits)
    if frame is not None:
        yes, no = (torch.where(known, 0.0, UNLIKE) for known in (frame > 0.5, frame < 0.5))
    alone = F.avg_pool1d(_alone(yes, no, clip), size, 1)
    starts = range(0, alone.shape[2], 1 if again is None else max(1, size // 2))
    if again is not None:
        heard = again(starts).transpose(1, 2)
        alone = alone[..., :: starts.step] + _alone(F.logsigmoid(heard), F.logsigmoid(-heard), clip)
    sure, at = alone.max(2)
    return sure.masked_fill(clip < 0.5, -torch.inf), at * starts.step


def _alone(yes: Tensor, no: Tensor, clip: Tensor) -> Tensor:
    """Of log p and log (1 - p), `[B, K, N]`, of classes and of the others that are in the clip."""
    no = no * clip[..., None]
    return yes + no.sum(1, keepdim=True) - no


def asked_classes(clip: Tensor, active: int, number: int, first: Tensor | None = None, shuffle: bool = True) -> Tensor:
    """Which classes are asked for in each mixture: at most `active` of its own, then others, `[B, number]` int64.

    Args:
        clip: `[B, K]`, 1 for the classes in the mixture. first: `[B, K]`, 1 for those of them that come first.
        shuffle: at random among what comes alike; otherwise in their order.

    >>> asked_classes(torch.tensor([[0.0, 1.0, 1.0, 0.0]]), 1, 2, shuffle=False)
    tensor([[1, 0]])
    """
    k = clip.shape[1]
    chance = torch.rand(clip.shape, device=clip.device) if shuffle else 1 - torch.arange(k, device=clip.device) / k
    own = clip > 0.5
    rank = chance + own * 4.0 + (0.0 if first is None else (own & (first > 0.5)) * 2.0)
    place = rank.argsort(1, descending=True).argsort(1)
    rank = torch.where(own & (place >= active), chance - 1, rank)  # behind all that are not there
    return rank.topk(min(number, k), 1).indices
