"""What the checks before a training share: one step on a real batch."""

import argparse
import logging
from collections.abc import Callable

from espnet2.tasks.abs_task import AbsTask
from espnet2.torch_utils.model_summary import model_summary
from espnet2.train.distributed_utils import DistributedOption
from torch import Tensor, nn

from espnet2_ext.errors import DataError

Look = Callable[[list[str], dict[str, Tensor]], None]


def first_step(task: type[AbsTask], args: argparse.Namespace, model: nn.Module, look: Look | None = None) -> None:
    """Take the first step of a training, say what was seen, and count the validation batches.

    Args:
        args: with `num_workers` 0.
        look: called with the keys and arrays of the batch.

    Raises:
        DataError: a loss that is not a number, or from `look`.
    """
    logging.info("%s", model_summary(model).partition("Model summary:")[2].strip())
    factory = task.build_iter_factory(args, DistributedOption(), "train")
    keys, batch = next(iter(factory.build_iter(1)))
    for name, x in batch.items():
        logging.info(
            "%s: %s %s, from %.3g to %.3g, RMS %.3g",
            name,
            list(x.shape),
            x.dtype,
            x.min(),
            x.max(),
            x.float().square().mean().sqrt(),
        )
    if look is not None:
        look(keys, batch)
    loss, stats, _ = model(**batch, utt_id=keys)
    loss.backward()
    logging.info("first step: %s", ", ".join(f"{k} {float(v):.3f}" for k, v in stats.items()))
    if not loss.isfinite():
        raise DataError(f"the loss of the first step is {float(loss)}")
    valid = task.build_iter_factory(args, DistributedOption(), "valid")
    logging.info("validation: %d batches", len(valid.build_iter(1)))
