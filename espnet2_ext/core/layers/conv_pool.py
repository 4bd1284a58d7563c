"""Convolution, batch norm, ReLU and max-pooling as one block that is quick on a CPU.

The same values as the four steps one after the other, to rounding:
- Channels lie last in memory: oneDNN convolves without reordering, pooling runs over vectors.
- max(relu(x)) is relu(max(x)): pool first, then rectify the quarter that is left, in place.
- In evaluation the batch norm is a scale and a shift, folded into the convolution.
- A frozen convolution from one channel gets its input's gradient as one matrix product and sums of
  shifted planes; the library's kernel, made for many channels, takes three times as long.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnet2_ext.core.layers.padding import hide_padding, norm_frames


class _FromOneChannel(torch.autograd.Function):
    """`conv2d` with `padding=k // 2` of `x` `[B, 1, L, F]`, differentiable in `x` alone."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.dtype = x.dtype
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream: Tensor):
        (weight,) = ctx.saved_tensors
        kernel, half = weight.shape[-1], weight.shape[-1] // 2
        length, bins = upstream.shape[2:]
        taps = weight.reshape(len(weight), -1).t().to(upstream.dtype)  # [k k, C]
        planes = taps @ upstream.permute(0, 2, 3, 1).reshape(len(upstream), -1, len(weight)).mT
        planes = planes.unflatten(2, (length, bins))  # [B, k k, L, F]
        grad = upstream.new_zeros(len(upstream), length + kernel - 1, bins + kernel - 1, dtype=ctx.dtype)
        for tap in range(kernel * kernel):
            row, column = divmod(tap, kernel)
            grad[:, row : row + length, column : column + bins] += planes[:, tap]
        return grad[:, None, half : half + length, half : half + bins], None, None


class ConvPool(nn.Module):
    """`[B, C, L, F]` to `[B, C', ceil(L / p), ceil(F / q)]`, pooled by (p, q); L frames, F bins.

    Frames behind an item's length change nothing, not even the statistics of the batch norm.

    Args:
        channels_in, channels_out: C and C'.
        kernel: side of the convolution, odd.
        pool: (p, q), frames and bins in a maximum; at the end it takes what is left.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, pool: tuple[int, int]):
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, not {kernel}")
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)
        self.pool = pool

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        weight, bias = (self.conv.weight, None) if self.norm.training else self.folded()
        if x.device.type == "cpu":
            # `to`, not `contiguous`: with one channel the latter takes any layout for this one
            x, weight = (v.to(memory_format=torch.channels_last) for v in (x, weight))
        if bias is None:
            x = norm_frames(self.norm, F.conv2d(x, weight, padding=self.conv.padding), lengths)
        else:
            x = self.convolved(x, weight, bias)
        x = hide_padding(x, lengths, dim=2)  # 0 cannot win over what ReLU leaves
        return F.max_pool2d(x, self.pool, ceil_mode=True).relu_()

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of one convolution that does the work of convolution and batch norm."""
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None and variance is not None
        scale = self.norm.weight * (variance + self.norm.eps).rsqrt()
        return self.conv.weight * scale[:, None, None, None], self.norm.bias - mean * scale

    def convolved(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if x.shape[1] == 1 and x.device.type == "cpu" and not weight.requires_grad:
            return _FromOneChannel.apply(x, weight, bias)
        return F.conv2d(x, weight, bias, padding=self.conv.padding)
