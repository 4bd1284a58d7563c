"""What is known of a batch of mixtures: strong, frame, clip or mixed labels."""

from typing import NamedTuple

import torch
from torch import Tensor

STRONG, FRAME, CLIP = range(3)
KINDS = {"strong": STRONG, "frame": FRAME, "clip": CLIP}
LABEL_TYPES = (*KINDS, "mixed")


class Labels(NamedTuple):
    """What is known of a batch of mixtures; a field that no item's label type needs may be None.

    `clip` `[B, K]` and `frame` `[B, K, L]` are 0 or 1, `ref` `[B, S, L, F]` holds the spectra of
    the isolated sources, `kind` `[B]` int64 each item's label type: 0 strong, 1 frame, 2 clip.
    Of a mixture of P mixtures, `parts` `[B, P, L, F]` are their spectra and `part_active`
    `[B, P, K, L]`, or `[B, P, K]` of clips, their labels.

    Estimates by query are of some classes only: `asked` `[B, Q]` int64 names them, `query` `[B, Q, E]` are the
    embeddings they were asked for with. What else is said of an estimate, `ref` `[B, Q, L, F]`, is in this order.
    """

    clip: Tensor | None = None
    frame: Tensor | None = None
    ref: Tensor | None = None
    kind: Tensor | None = None
    parts: Tensor | None = None
    part_active: Tensor | None = None
    asked: Tensor | None = None
    query: Tensor | None = None


class Target(NamedTuple):
    """What the classifier should say; axis 0 as the spectra that it judges."""

    labels: Tensor  # [N, K, L'], or [N, K] of clips
    weight: Tensor | None  # of the same shape
    lengths: Tensor | None  # [N], frames of the spectrum


def partners(clip: Tensor) -> Tensor:
    """Which mixture of a batch is added to each, where mixtures of mixtures are made; `[B]` int64.

    Another one that shares as few of its classes, `clip` `[B, K]`, as the batch allows; of several such one that has
    few classes, as a part of one class is a strong example of it; of these the next one behind it in the batch, whose
    order is random.

    >>> partners(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 0.0]])).tolist()
    [2, 0, 0]
    """
    place = torch.arange(len(clip), device=clip.device)
    after = (place - place[:, None]) % len(clip)  # how far behind an item, round the batch
    each = clip @ clip.T * (1 + clip.shape[1]) + clip.sum(1)
    return (each * len(clip) + after).fill_diagonal_(torch.inf).argmin(1)


def by_frame(active: Tensor, dims: int, length: int) -> Tensor:
    """Labels of frames, which have `dims` axes, as they are; those of clips `[..., K]` in each frame, `[..., K, L]`.

    >>> by_frame(torch.tensor([[1.0, 0.0]]), 3, 2)
    tensor([[[1., 1.],
             [0., 0.]]])
    """
    return active if active.dim() == dims else active[..., None].expand(*active.shape, length)


def of_asked(active: Tensor, asked: Tensor, dim: int = 1) -> Tensor:
    """Labels of K classes along `dim`, `[B, K, ...]` or `[B, P, K, ...]`, as those of the classes `asked` `[B, Q]`.

    >>> of_asked(torch.tensor([[5.0, 6.0, 7.0]]), torch.tensor([[2, 0]]))
    tensor([[7., 5.]])
    """
    shape = [1] * active.dim()
    shape[0], shape[dim] = asked.shape
    size = [*active.shape[:dim], asked.shape[1], *active.shape[dim + 1 :]]
    return active.gather(dim, asked.reshape(shape).expand(size))


def rows(fields: tuple, index: Tensor | slice) -> list:
    """The items `index` of every field `[B, ...]` that is there."""
    return [None if x is None else x[index] for x in fields]


def given(x: Tensor | None, name: str, shape: str) -> Tensor:
    """A field of `Labels` of the given `shape` that the label type needs; ValueError where it is missing."""
    if x is None:
        raise ValueError(f"expected labels.{name} {shape}, got None")
    return x
