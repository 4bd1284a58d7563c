"""The steps of a training: in bfloat16 where that is enough, with less memory, and how their learning rate changes."""

import argparse
import types

import torch
from espnet2.schedulers.abs_scheduler import AbsEpochStepScheduler
from espnet2.utils.types import str2bool
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from espnet2_ext.errors import DataError


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `prepare`."""
    group = parser.add_argument_group("Training step")
    text = "bf16: autocast to bfloat16, on a GPU or on a CPU that has it; ESPnet's --use_amp is for GPUs alone"
    group.add_argument("--amp_dtype", choices=("fp32", "bf16"), default="fp32", help=text)
    text = "Keep the inputs of attention blocks alone, compute the rest again for the gradients: less memory, more time"
    group.add_argument("--activation_checkpointing", type=str2bool, default=False, help=text)


def prepare(model: nn.Module, args: argparse.Namespace) -> None:
    """Make the model's steps what the options say; names of weights stay.

    Raises:
        DataError: `amp_dtype` with ESPnet's `use_amp`; checkpointing for a model without attention blocks.
    """
    if getattr(args, "amp_dtype", "fp32") == "bf16":
        if getattr(args, "use_amp", False):
            raise DataError("--amp_dtype bf16: give this or --use_amp")
        model.forward = types.MethodType(_cast, model)
    if getattr(args, "activation_checkpointing", False):
        stages = [part for part in model.modules() if hasattr(part, "checkpointed")]
        if not stages:
            raise DataError("--activation_checkpointing: the model has no attention blocks; leave it out")
        for stage in stages:
            stage.checkpointed = True


def _cast(model: nn.Module, *given, **named):
    with torch.autocast(next(model.parameters()).device.type, torch.bfloat16):
        return type(model).forward(model, *given, **named)


class WarmupHalvingLR(LambdaLR, AbsEpochStepScheduler):
    """First epochs at fixed factors of the base rate, then a peak, halved at intervals to a floor.

    CaRE-SEP paper, section 3.2: 0.05, 0.1 and 0.2 of the base rate in the first three epochs, then 0.2,
    halved every ten epochs down to 0.05 (`peak: 0.2`), as in HTS-AT's public code.

    Args:
        optimizer: its learning rate is the base rate.
        warmup: factors of the first epochs.
        peak: factor after them.
        interval: epochs between halvings, counted from the first epoch.
        floor: smallest factor.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup: list = (0.05, 0.1, 0.2),
        interval: int = 10,
        floor: float = 0.05,
        peak: float = 1.0,
    ):
        def factor(epoch: int) -> float:
            if epoch < len(warmup):
                return warmup[epoch]
            return max(floor, peak * 0.5 ** (epoch // interval))

        super().__init__(optimizer, factor)
