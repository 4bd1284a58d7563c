"""What is known of a batch of mixtures: strong, frame, clip or mixed labels."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from espnet2_ext.core.layers.padding import unless_whole

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


def joined(mix: Tensor, lengths: Tensor, batch: dict) -> tuple[Tensor, Tensor, dict, Tensor]:
    """All recordings of a batch of B, and which of them is added to each of the first B, `[B]`; for `remixed`.

    Where the batch has partners (`partner_mix` and so on), they come behind, 2 B in all; else each gets one of the
    others (`partners`).
    """
    if "partner_mix" not in batch:
        return mix, lengths, batch, partners(batch.get("clip_label", mix.new_zeros(len(mix), 0)))
    names = {k: f"partner_{k.removeprefix('speech_')}" for k in batch if not k.startswith("partner_")}
    both = {k: _behind(batch[k], batch[name]) for k, name in names.items() if name in batch}
    more = batch["partner_mix"]
    own = batch.get("partner_mix_lengths", torch.full(more.shape[:1], more.shape[1]))
    other = torch.arange(len(mix), 2 * len(mix), device=mix.device)
    return _behind(mix, more), torch.cat([lengths, own.to(lengths.device)]), {**batch, **both}, other


def _behind(x: Tensor, more: Tensor) -> Tensor:
    """`more` behind the items of `x`, zeros where axis 1 of one is shorter."""
    if x.dim() > 1 and x.shape[1] != more.shape[1]:
        size = max(x.shape[1], more.shape[1])
        x, more = (F.pad(v, [0, 0] * (v.dim() - 2) + [0, size - v.shape[1]]) for v in (x, more))
    return torch.cat([x, more])


def remixed(mix: Tensor, lengths: Tensor, batch: dict, other: Tensor) -> tuple[Tensor, Tensor, dict]:
    """A batch with another of its recordings, `other` `[B]` as of `joined`, added to each of the first B.

    `part_` keys hold both, `[B, 2, ...]`. A batch of one recording stays as it is.
    """
    if len(mix) < 2:
        return mix, lengths, batch
    first = len(other)
    both = {
        k: torch.stack([x[:first], x[other]], 1)
        for k, x in {"mix": mix, **batch}.items()
        if k in ("mix", "clip_label", "frame_label", "label_kind")
    }
    new = {k: both[k].amax(1) for k in both if k != "mix"}  # of two label types the weaker one
    refs = {k: x for k, x in batch.items() if k.startswith("speech_ref") and x.is_floating_point()}
    new |= {k: x[:first] + x[other] for k, x in refs.items()} | {f"part_{k}": x for k, x in both.items()}
    if unless_whole(lengths, mix.shape[1]) is not None:
        lengths = torch.maximum(lengths[:first], lengths[other.to(lengths.device)])
    return both["mix"].sum(1), lengths[:first], {**batch, **new}


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
