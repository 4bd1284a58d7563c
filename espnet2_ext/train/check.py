"""The check before a long training: one batch, one step, and the validation set's list."""

import argparse
import logging

import torch
from espnet2.tasks.abs_task import AbsTask
from espnet2.torch_utils.model_summary import model_summary
from espnet2.train.distributed_utils import DistributedOption
from torch import Tensor

from espnet2_ext.errors import DataError


def check(task: type[AbsTask], args: argparse.Namespace) -> None:
    """Take the first step of a training in this process, and log what each array of the batch holds.

    Args:
        task: with `start_model(args)`, the model as a training begins.

    Raises:
        DataError: from `start_model` and `check_sum`, or a loss that is not finite.
    """
    args.num_workers = 0
    torch.manual_seed(args.seed)
    model = task.start_model(args).train()
    logging.info("%s", model_summary(model).partition("Model summary:")[2].strip())
    factory = task.build_iter_factory(args, DistributedOption(), "train")
    keys, batch = next(iter(factory.build_iter(1)))
    for name, x in batch.items():
        rms = x.float().square().mean().sqrt()
        logging.info("%s: %s %s, from %.3g to %.3g, RMS %.3g", name, list(x.shape), x.dtype, x.min(), x.max(), rms)
    if getattr(factory.drawer, "sums", True):
        check_sum(keys, batch)
    loss, stats, _ = model(**batch, utt_id=keys)
    loss.backward()
    logging.info("first step: %s", ", ".join(f"{k} {float(v):.3f}" for k, v in stats.items()))
    if not loss.isfinite():
        raise DataError(f"the loss of the first step is {float(loss)}")
    valid = task.build_iter_factory(args, DistributedOption(), "valid")
    logging.info("validation: %d batches", len(valid.build_iter(1)))


def check_sum(keys: list[str], batch: dict[str, Tensor]) -> None:
    """Refuse targets that do not sum to the mixture (DataError).

    Args:
        batch: `speech_mix` and `speech_ref1`, ..., [B, T] each. Mixtures with an absent target and
            batches without targets pass.
    """
    refs = [x for name, x in batch.items() if name.startswith("speech_ref") and not name.endswith("_lengths")]
    if not refs:
        return
    refs = torch.stack(refs)
    there = (refs.abs().amax(-1) > 0).all(0)
    error = (refs.sum(0) - batch["speech_mix"]).abs().amax(-1) * there
    if (error > 1e-5 * batch["speech_mix"].abs().amax(-1)).any():
        raise DataError(f"{keys[int(error.argmax())]}: targets do not sum to the mixture")
