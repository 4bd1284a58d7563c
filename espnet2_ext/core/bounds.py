"""Models are made in bounds: what is larger is refused before it is allocated."""

import contextlib
import os
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import torch
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode

from espnet2_ext.errors import DataError

FEW = 1000  # layers that any model may have; others: 20 for each tensor of their weights
MOST_BESIDE = 1 << 25  # numbers of a model that are in no file: windows, filterbanks; the largest of its tensors
MOST_TENSORS = 5000  # of weights, of a model that is trained


class TooLarge(DataError):
    """A model that is larger than the weights it comes with."""


def fitting() -> contextlib.AbstractContextManager:
    """While this lasts, only modules are made that this machine can hold and somebody trains."""
    bytes_here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return bounded(MOST_TENSORS, bytes_here // 8, lay_out=False)


@contextlib.contextmanager
def bounded(tensors: int, numbers: int, lay_out: bool = True) -> Iterator[None]:
    """While this lasts, modules are made in proportion to a file of so many `tensors` and `numbers`.

    What is larger is refused before it is allocated.

    Args:
        lay_out: weights that are not computed (`torch.empty`) are laid out on PyTorch's "meta" device, without
            memory, as they come from the file.

    Raises:
        TooLarge: in the constructor that asks for it.
    """
    left = {"layers": 20 * tensors + FEW, "tensors": 4 * tensors + FEW, "numbers": 2 * numbers + MOST_BESIDE}

    def take(what: str, count: int) -> None:
        left[what] -= count
        if left[what] < 0:
            raise TooLarge(
                f"it has more {what} than a model can have whose weights are {tensors} tensors of {numbers} numbers"
            )

    def taken(module: Any, name: str, tensor: torch.Tensor | None) -> None:
        take("tensors", 1)
        take("numbers", 0 if tensor is None else tensor.numel())

    handles = [
        hooks.register_module_module_registration_hook(lambda *_: take("layers", 1)),
        hooks.register_module_parameter_registration_hook(taken),
        hooks.register_module_buffer_registration_hook(taken),
    ]
    try:
        with _Watched(left, take, lay_out):
            yield
    finally:
        for handle in handles:
            handle.remove()


class _Watched(TorchFunctionMode):
    """Looks at how large a tensor will be before a function of PyTorch makes it."""

    def __init__(self, left: dict[str, int], take: Callable[[str, int], None], lay_out: bool):
        self.left, self.take, self.lay_out = left, take, lay_out

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        count = 0
        with contextlib.suppress(TypeError, ValueError, RuntimeError, LookupError, OverflowError):  # told by `func`
            count = _count(func, args, kwargs)
        if count > self.left["numbers"]:
            self.take("numbers", count)
        if self.lay_out and func is torch.empty and kwargs.get("device") is None:
            return func(*args, **kwargs | {"device": "meta"})
        if func.__name__ in FILLS and args and args[0].is_meta:  # PyTorch would import for a second to fill nothing
            return args[0]
        return func(*args, **kwargs)


def _count(func: Any, args: tuple, kwargs: dict) -> int:
    """Numbers in what a function makes of plain sizes, or of tensors element by element."""
    tensors = [a.shape for a in args if isinstance(a, torch.Tensor)]
    if func in SHAPED:
        sizes = kwargs.get("size", args)
        return prod(sizes[0] if isinstance(sizes[0], list | tuple) else sizes)
    if func in COUNTED:
        numbers = [abs(a) for a in (*args, *kwargs.values()) if isinstance(a, int | float) and not isinstance(a, bool)]
        return int(max(numbers) / (min(numbers[2], 1) if func is torch.arange and len(numbers) == 3 else 1))
    return prod(torch.broadcast_shapes(*tensors)) if len(tensors) > 1 else 0


FILLS = {"uniform_", "normal_", "zero_", "fill_", "kaiming_uniform_", "erfinv_", "mul_", "add_", "clamp_", "copy_"}
SHAPED = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}
COUNTED = {torch.arange, torch.linspace, torch.logspace, torch.randperm, torch.hann_window, torch.hamming_window}
COUNTED |= {torch.blackman_window, torch.bartlett_window, torch.kaiser_window}
