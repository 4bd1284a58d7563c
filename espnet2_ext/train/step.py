"""How the steps of a training are computed: in bfloat16 where that is enough, and with less memory."""

import argparse
import types

import torch
from espnet2.utils.types import str2bool
from torch import nn

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
