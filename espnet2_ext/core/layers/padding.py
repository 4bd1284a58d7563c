"""What keeps the padding of a batch from changing its items. Lengths `[B]`; None: nothing is padded.

Lengths are tensors on the host, or the numbers themselves: what they decide, such as whether anything is padded, would
make a GPU be waited for. What is computed with them on another device is kept there (`on_device`, `own_rows`).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

Lengths = Tensor | Sequence[int]
L = TypeVar("L", bound=Lengths)


def traced(lengths: Sequence[Any]) -> bool:
    """Whether lengths are scalar tensors, inputs of a graph that is exported: no branch may depend on their values."""
    return isinstance(lengths[0], Tensor)


def numbers(lengths: Lengths) -> tuple[int, ...]:
    """Lengths as numbers; those on a GPU are waited for."""
    return tuple(lengths.tolist() if isinstance(lengths, Tensor) else lengths)


def host_lengths(x: Tensor, lengths: Lengths | None = None) -> Tensor:
    """Lengths `[B]` of the items of `x` `[B, T, ...]` as a tensor on the host; None: all are whole."""
    return torch.full(x.shape[:1], x.shape[1], device="cpu") if lengths is None else torch.tensor(numbers(lengths))


def kept(size: int) -> Callable:
    """Keeps the last `size` tensors that a function gave, for training, too; within a compiled graph it keeps none."""

    def keep(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        cached = functools.lru_cache(maxsize=size)(torch.inference_mode(False)(make))

        @functools.wraps(make)
        def get(*key) -> Tensor:
            return make(*key) if torch.compiler.is_compiling() else cached(*key)

        known: Any = get
        known.cache_clear, known.cache_info = cached.cache_clear, cached.cache_info
        return known

    return keep


@kept(256)
def on_device(lengths: tuple[Any, ...], device: torch.device) -> Tensor:
    """Lengths `[B]` as a tensor there, not to be changed."""
    x = torch.stack(lengths) if traced(lengths) else torch.tensor(lengths)
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def own_rows(lengths: Lengths, size: int, device: torch.device) -> Tensor | None:
    """Places, in `[B L]`, of the frames that are not padding, of L = `size`; None: none is."""
    lengths = numbers(lengths)
    if min(lengths) >= size:
        return None
    return on_device(tuple(i * size + at for i, n in enumerate(lengths) for at in range(min(n, size))), device)


def unless_whole(lengths: L | None, size: int) -> L | None:
    """The lengths, or None where every item is of the whole `size`."""
    if lengths is None or traced(own := numbers(lengths)):
        return lengths
    return None if min(own) >= size else lengths


def hide_padding(x: Tensor, lengths: Lengths | None, dim: int = 1) -> Tensor:
    """`x` `[B, ...]` with 0 where `dim`, the frames, lies behind an item's length `[B]`."""
    lengths = unless_whole(lengths, x.shape[dim])
    if lengths is None:
        return x
    shape = [1] * x.dim()
    shape[dim] = x.shape[dim]
    frames = torch.arange(x.shape[dim], device=x.device).reshape(shape)
    lengths = on_device(numbers(lengths), x.device)
    return x.masked_fill(frames >= lengths.reshape(-1, *[1] * (x.dim() - 1)), 0)


def mean_frames(x: Tensor, lengths: Lengths) -> Tensor:
    """Mean `[B, ...]` over the own frames of `x` `[B, L, ...]`, which is 0 behind them; 0 where there are none."""
    count = on_device(numbers(lengths), x.device).clamp(min=1)
    return x.sum(1) / count.reshape(-1, *[1] * (x.dim() - 2))


def norm_frames(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor, lengths: Lengths | None) -> Tensor:
    """Batch norm of `x` `[B, C, L, ...]` with the statistics of its own frames; 0 behind the lengths.

    A single value a channel has no variance: then it does what it does in evaluation.
    """
    lengths = unless_whole(lengths, x.shape[2])
    if lengths is None or not norm.training:
        return hide_padding(_norm(norm, x), lengths, 2)
    frames = x.transpose(1, 2)  # [B, L, C, ...]
    return on_own(lambda own: _norm(norm, own[..., None])[..., 0], frames, lengths).transpose(1, 2)


def on_own(function: Callable[[Tensor], Tensor], x: Tensor, lengths: Lengths) -> Tensor:
    """`function` on the frames of `x` `[B, L, ...]` that are not padding, `[N, ...]`; the others are 0.

    function: to the same shape.
    """
    rows, own = own_rows(lengths, x.shape[1], x.device), x.flatten(0, 1)
    if rows is None:
        return function(own).unflatten(0, x.shape[:2])
    found = function(own.index_select(0, rows))
    return found.new_zeros(own.shape).index_copy(0, rows, found).unflatten(0, x.shape[:2])


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


class BLSTM(nn.LSTM):
    """`forward(x [B, L, D], lengths [B] or None) -> [B, L, 2 H]`, 0 behind an item's length.

    What an item gives does not depend on its padding. There is no dropout, so that training and
    evaluation do the same; the module stays in training mode because cuDNN keeps what the backward
    pass needs in no other, and a frozen network in evaluation mode must still pass gradients on.
    """

    def __init__(self, width: int, hidden: int, layers: int = 1):
        super().__init__(width, hidden, layers, batch_first=True, bidirectional=True)

    def train(self, mode: bool = True) -> "BLSTM":
        return super().train(True)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """`[B, L, D]` and frames `[B]` (None: all) to `[B, L, 2 H]`."""
        if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return self._run(x, unless_whole(lengths, x.shape[1]))
        with torch.autocast("cpu", enabled=False):  # few processors have an LSTM of lower precision
            return self._run(x.to(next(self.parameters()).dtype), unless_whole(lengths, x.shape[1]))

    def _run(self, x: Tensor, lengths: Lengths | None) -> Tensor:
        if lengths is None:
            return super().forward(x)[0]
        given, size = host_lengths(x, lengths), x.shape[1]
        order = given.argsort(descending=True, stable=True)  # on the host: packing would look at the device for it
        x = x.index_select(0, on_device(numbers(order), x.device))
        packed = pack_padded_sequence(x, given[order], batch_first=True)
        out = pad_packed_sequence(super().forward(packed)[0], batch_first=True, total_length=size)[0]
        return out.index_select(0, on_device(numbers(order.argsort()), x.device))
