"""Swin transformer blocks on token maps whose size is not fixed.

A token map is `[B, L, N, D]`: L tokens in time, N in frequency, D wide. Windows, shifts and relative-position bias are
those of Liu et al., "Swin transformer" (ICCV 2021), with two differences. Maps of any length are taken: each stage pads
time to its windows, and padding is never attended to. And the masks and the relative-position index depend on the map's
size alone, so they are computed once a size and kept (`_window_groups`, `_relative_index`).
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from espnet2_ext.core.layers.padding import kept, on_device, unless_whole

CPU = torch.device("cpu")


@kept(32)
def _relative_index(window: tuple[int, int], device: torch.device = CPU) -> Tensor:
    """Index `[M, M]` into the bias table for each pair of the window's M = wl * wn tokens."""
    wl, wn = window
    at = torch.stack(torch.meshgrid(torch.arange(wl), torch.arange(wn), indexing="ij"))
    at = at.flatten(1)  # [2, M]
    rel = at[:, :, None] - at[:, None, :]  # [2, M, M]
    return ((rel[0] + wl - 1) * (2 * wn - 1) + rel[1] + wn - 1).to(device)


@kept(512)
def _window_groups(
    length: int, valid: int, bands: int, window: tuple[int, int], shift: tuple[int, int], device: torch.device = CPU
) -> Tensor:
    """Additive mask `[n_windows, M, M]`: 0 inside a group, -inf between groups.

    Tokens of one window may attend to each other when the shift did not wrap them together from
    opposite edges, and when both are valid or both are padding (so that no row is empty).
    """

    def regions(size: int, win: int, by: int) -> Tensor:
        region = torch.zeros(size, dtype=torch.long)
        if by:
            region[-win:] = 1
            region[-by:] = 2
        return region

    ids = regions(length, window[0], shift[0])[:, None] * 3 + regions(bands, window[1], shift[1])
    padding = torch.arange(length).roll(-shift[0]) >= valid
    ids = ids + 9 * padding[:, None]
    ids = split_windows(ids[None, :, :, None], window).squeeze(-1)  # [n_windows, M]
    other = ids[:, :, None] != ids[:, None, :]
    return torch.zeros(other.shape).masked_fill_(other, float("-inf")).to(device)


def split_windows(x: Tensor, window: tuple[int, int]) -> Tensor:
    """`[B, L, N, D]` to `[B * n_windows, M, D]`; L and N must be multiples of the window."""
    b, length, bands, d = x.shape
    wl, wn = window
    x = x.view(b, length // wl, wl, bands // wn, wn, d)
    return x.transpose(2, 3).reshape(-1, wl * wn, d)


def join_windows(x: Tensor, window: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Inverse of `split_windows`: `[B * n_windows, M, D]` to `[B, L, N, D]`, size = (L, N)."""
    length, bands = size
    wl, wn = window
    x = x.view(-1, length // wl, bands // wn, wl, wn, x.shape[-1])
    return x.transpose(2, 3).reshape(-1, length, bands, x.shape[-1])


def hide_tokens(x: Tensor, valid: tuple[int, ...]) -> Tensor:
    """A map `[B, L, N, D]` with 0 behind the `valid` tokens of each item."""
    if unless_whole(valid, x.shape[1]) is None:
        return x
    return x * valid_mask(on_device(valid, x.device), x.shape[1])


def valid_mask(valid: Tensor, length: int) -> Tensor:
    """`[B]` token counts to a `[B, L, 1, 1]` mask that is true where a token is valid."""
    at = torch.arange(length, device=valid.device)
    return (at < valid[:, None])[:, :, None, None]


class DropPath(nn.Module):
    """Stochastic depth: drop a residual branch per item with probability `p` while training."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """`[B, ...]` to the same."""
        if not self.training or self.p == 0.0:
            return x
        keep = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(1 - self.p)
        return x * keep / (1 - self.p)


class WindowAttention(nn.Module):
    """Multi-head attention inside windows, with a learned bias for each relative position."""

    def __init__(self, dim: int, heads: int, window: tuple[int, int]):
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads must divide the width: width {dim}, heads {heads}")
        self.heads = heads
        self.window = window
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        table = torch.empty((2 * window[0] - 1) * (2 * window[1] - 1), heads)
        self.relative_bias = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))

    def bias(self) -> Tensor:
        """`[1, H, M, M]`."""
        index = _relative_index(self.window, self.relative_bias.device)
        m = index.shape[0]
        return self.relative_bias[index.reshape(-1)].T.reshape(1, self.heads, m, m)

    def forward(self, x: Tensor, groups: Tensor | None) -> Tensor:
        """x `[B * n_windows, M, D]`, groups `[B or 1, n_windows, M, M]` or None."""
        bw, m, d = x.shape
        q, k, v = self.qkv(x).view(bw, m, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mask = self.bias()
        if mask.requires_grad and x.device.type == "cpu":  # there attention with such a mask is not fused
            score = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
            if groups is None:
                score = score + mask
            else:
                score = score.unflatten(0, (-1, groups.shape[1])) + (mask + groups[:, :, None])
            out = score.softmax(-1).flatten(0, -4) @ v
            return self.proj(out.transpose(1, 2).reshape(bw, m, d))
        if groups is not None:
            mask = mask + groups[:, :, None].to(mask.dtype)  # [B or 1, n_windows, H, M, M]
            mask = mask.expand(bw // mask.shape[1], -1, -1, -1, -1).reshape(bw, self.heads, m, m)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(q.dtype))
        return self.proj(out.transpose(1, 2).reshape(bw, m, d))


class SwinBlock(nn.Module):
    """Window attention and MLP; a query, when given, is added to the feature map first.

    Args:
        shift: tokens by which the windows are moved, (time, frequency).
        query_dim: width E of the query embedding that `forward` may get; 0: it gets none.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        window: tuple[int, int],
        shift: tuple[int, int],
        query_dim: int = 0,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.window = window
        self.shift = shift
        self.query: Any = nn.Linear(query_dim, dim) if query_dim else None
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, int(mlp_ratio * dim)), nn.GELU(), nn.Linear(int(mlp_ratio * dim), dim))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, groups: Tensor | None, query: Tensor | None) -> Tensor:
        """x `[B, L, N, D]`, query `[B, E]` or None; returns `[B, L, N, D]`."""
        if query is not None:
            assert self.query is not None, "the block was made without query_dim"
            x = x + self.query(query)[:, None, None]
        x = x + self.drop_path(self._attend(self.norm1(x), groups))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, groups: Tensor | None) -> Tensor:
        size = x.shape[1], x.shape[2]
        moved = any(self.shift)
        if moved:
            x = x.roll((-self.shift[0], -self.shift[1]), (1, 2))
        x = join_windows(self.attn(split_windows(x, self.window), groups), self.window, size)
        return x.roll(self.shift, (1, 2)) if moved else x


class SwinStage(nn.Module):
    """`depth` blocks on one map size, every other one shifted by half a window.

    A window never exceeds the N frequency tokens; along an axis that one window covers there is
    nothing to shift (as in Swin). The same holds for time where all maps are `length` tokens long;
    None: they are of any length. The blocks take a query of width `query_dim`, or none if it is 0.
    """

    checkpointed = False  # activations inside the blocks are computed again for the gradients

    def __init__(
        self,
        dim: int,
        depth: int,
        heads: int,
        window: int,
        bands: int,
        query_dim: int = 0,
        drop_path: list[float] | None = None,
        length: int | None = None,
    ):
        super().__init__()
        self.window = (min(window, length or window), min(window, bands))
        if bands % self.window[1]:
            raise ValueError(f"windows of {window} tokens do not fill {bands} tokens of frequency")
        self.bands, self.takes_query = bands, query_dim > 0
        half = (0 if length == self.window[0] else window // 2, 0 if bands == self.window[1] else window // 2)
        drop_path = drop_path or [0.0] * depth
        self.shifts = [half if i % 2 else (0, 0) for i in range(depth)]
        self.blocks = nn.ModuleList(
            SwinBlock(dim, heads, self.window, shift, query_dim, drop_path=rate)
            for shift, rate in zip(self.shifts, drop_path)
        )

    def _groups(self, length: int, valid: tuple[int, ...], shift: tuple[int, int], x: Tensor) -> Tensor | None:
        if not any(shift) and unless_whole(valid, length) is None:
            return None
        sizes = valid if len(set(valid)) > 1 else valid[:1]
        return torch.stack([_window_groups(length, v, self.bands, self.window, shift, x.device) for v in sizes])

    def forward(self, x: Tensor, valid: Sequence[int], query: Tensor | None = None) -> Tensor:
        """x `[B, L, N, D]` with `valid[b]` tokens of time in item b; padding comes back as 0."""
        length, valid = x.shape[1], tuple(valid)
        if pad := -length % self.window[0]:
            x = F.pad(x, (0, 0, 0, 0, 0, pad))
        groups = {}
        for block, shift in zip(self.blocks, self.shifts):
            if shift not in groups:
                groups[shift] = self._groups(x.shape[1], valid, shift, x)
            again = self.checkpointed and torch.is_grad_enabled()
            given = x, groups[shift], query
            x = checkpoint(block, *given, use_reentrant=False) if again else block(*given)
        return hide_tokens(x[:, :length], valid)


class PatchMerge(nn.Module):
    """Halve both axes, double the width: `[B, L, N, D]` to `[B, L / 2, N / 2, 2 D]`."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduce = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, L, N, D]` to `[B, L / 2, N / 2, 2 D]`."""
        b, length, bands, d = x.shape
        x = x.view(b, length // 2, 2, bands // 2, 2, d)
        # time, the first axis, varies fastest among the four, as the first axis does in Swin
        x = x.permute(0, 1, 3, 4, 2, 5).reshape(b, length // 2, bands // 2, 4 * d)
        return self.reduce(self.norm(x))


class PatchExpand(nn.Module):
    """Enlarge both axes by `scale`: `[B, L, N, D]` to `[B, scale L, scale N, out_dim]`."""

    def __init__(self, dim: int, out_dim: int, scale: int = 2):
        super().__init__()
        self.scale = scale
        self.expand = nn.Linear(dim, scale * scale * out_dim, bias=False)
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, L, N, D]` to `[B, scale L, scale N, out_dim]`."""
        b, length, bands, _ = x.shape
        s = self.scale
        x = self.expand(x).view(b, length, bands, s, s, -1)
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(b, length * s, bands * s, x.shape[-1])
        return self.norm(x)


class Join(nn.Linear):
    """A linear map of a map joined to a skip. What is the same for all queries is worked on once."""

    def forward(self, x: Tensor, skip: Tensor, query: Tensor) -> Tensor:
        """`[B or B Q, L, N, D]` and `[B or B Q, L, N, D']`, for queries `[B Q, E]`, to `[B Q, L, N, out]`."""
        if len(x) == len(skip):
            return for_each(query, F.linear(torch.cat([x, skip], -1), self.weight, self.bias))[0]
        own, shared = self.weight.split([x.shape[-1], skip.shape[-1]], 1)
        return F.linear(x, own) + for_each(query, F.linear(skip, shared, self.bias))[0]


def for_each(query: Tensor | None, x: Tensor, valid: Sequence[int] = ()) -> tuple[Tensor, tuple[int, ...]]:
    """`x` `[B, ...]` and its valid tokens once for each of the queries `[B Q, E]`; as they are where they are so."""
    times = 1 if query is None else len(query) // len(x)
    return (x.repeat_interleave(times, 0) if times > 1 else x), tuple(v for v in valid for _ in range(times))


def enter(stage: Any, x: Tensor, valid: tuple[int, ...], query: Tensor | None) -> tuple[Tensor, tuple[int, ...]]:
    """A stage with the queries, if it takes any: the first such one makes B maps B Q."""
    if not stage.takes_query:
        return stage(x, valid), valid
    x, valid = for_each(query, x, valid)
    return stage(x, valid, query), valid
