"""A loss of many items through a network that does not learn, a few items at a time."""

from collections.abc import Callable

import torch
from torch import Tensor


class _Along(torch.autograd.Function):
    """The values of a function and, made in the same go, its gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, function: Callable[[Tensor, slice], Tensor], part: int) -> Tensor:
        grad, values = torch.empty_like(x), []
        for start in range(0, len(x), part):
            here = slice(start, start + part)
            with torch.enable_grad():
                piece = x[here].detach().requires_grad_()
                value = function(piece, here)
                (grad[here],) = torch.autograd.grad(value.sum(), piece)
            values.append(value.detach())
        ctx.save_for_backward(grad)
        return torch.cat(values)

    @staticmethod
    def backward(ctx, upstream: Tensor):
        if torch.is_grad_enabled():  # create_graph: the gradient that is kept has no graph
            raise RuntimeError(
                "in_parts gives no second derivatives (create_graph=True); call the function on all items at once"
            )
        (grad,) = ctx.saved_tensors
        return grad * upstream.reshape(-1, *[1] * (grad.dim() - 1)).to(grad.dtype), None, None


def in_parts(function: Callable[[Tensor, slice], Tensor], x: Tensor, part: int) -> Tensor:
    """`function(x, slice(0, N))` of `x` `[N, ...]`, by calls on `part` items; returns `[N]`.

    A part's gradient is made as soon as its values are, and its activations are freed: memory
    holds those of one part and nothing is computed twice, as it would be with checkpointing.

    Args:
        function: takes a part of `x` and the slice that it is, gives one value an item. Items must
            not depend on each other. Gradients go to `x` alone, to no parameter.
        x: `[N, ...]`.
        part: items in a call.

    Raises:
        RuntimeError: in a backward pass with `create_graph`: there are no second derivatives.

    >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> in_parts(lambda piece, here: piece.square().sum(1), x, 1).sum().backward()
    >>> x.grad
    tensor([[2., 4.],
            [6., 8.]])
    """
    if torch.is_grad_enabled() and x.requires_grad:
        if torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda") == torch.half:
            return function(x, slice(0, len(x)))  # the scaled loss must reach half precision
        return _Along.apply(x, function, part)
    return torch.cat([function(x[i : i + part], slice(i, i + part)) for i in range(0, len(x), part)])
