"""What keeps the padding of a batch from changing its items. Lengths `[B]`; None: nothing is padded."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def unless_whole(lengths: Tensor | None, size: int) -> Tensor | None:
    """The lengths, or None where every item is of the whole `size`: asked once, as a GPU must wait for it."""
    return None if lengths is None or int(lengths.min()) >= size else lengths


def hide_padding(x: Tensor, lengths: Tensor | None, dim: int = 1) -> Tensor:
    """`x` `[B, ...]` with 0 where `dim`, the frames, lies behind an item's length `[B]`."""
    lengths = unless_whole(lengths, x.shape[dim])
    if lengths is None:
        return x
    shape = [1] * x.dim()
    shape[dim] = x.shape[dim]
    frames = torch.arange(x.shape[dim], device=x.device).reshape(shape)
    return x.masked_fill(frames >= lengths.to(x.device).reshape(-1, *[1] * (x.dim() - 1)), 0)


def norm_frames(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor, lengths: Tensor | None) -> Tensor:
    """Batch norm of `x` `[B, C, L, ...]` with the statistics of its own frames; 0 behind the lengths.

    A single value a channel has no variance: then it does what it does in evaluation.
    """
    lengths = unless_whole(lengths, x.shape[2])
    if lengths is None:
        return _norm(norm, x)
    frames = x.transpose(1, 2)  # [B, L, C, ...]
    own = torch.arange(x.shape[2], device=x.device) < lengths.to(x.device)[:, None]
    normed = _norm(norm, frames[own][..., None])[..., 0]
    own = own.reshape(*own.shape, *[1] * (x.dim() - 2))
    return torch.zeros_like(frames).masked_scatter(own, normed.to(x.dtype)).transpose(1, 2)


def _norm(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    if norm.training and x.numel() == x.shape[1]:
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    return norm(x)


def by_length(function: Callable[..., tuple[Tensor, ...]], lengths: Tensor, *tensors: Tensor) -> list[Tensor]:
    """A function that knows no lengths, on the items of one length at a time.

    Args:
        function: takes the tensors of some items, gives tensors with these items as axis 0.
        lengths: `[B]`.
        tensors: `[B, ..., L]`, cut to the length.
    """
    groups = [(lengths == n).nonzero()[:, 0].to(tensors[0].device) for n in lengths.unique()]
    parts = [function(*(x[i, ..., : int(n)] for x in tensors)) for n, i in zip(lengths.unique(), groups, strict=True)]
    back = torch.cat(groups).argsort()
    return [torch.cat(found)[back] for found in zip(*parts, strict=True)]
