"""Look at data and network before the long training: `python -m espnet2_ext.bin.tag_check`.

Takes the options of `tag_train`. Draws one training batch, prints what each key of the data holds,
takes one step, and reads the validation set's list.
"""

import logging

import torch
from espnet2.torch_utils.model_summary import model_summary
from espnet2.train.distributed_utils import DistributedOption

from espnet2_ext.bin._cli import run
from espnet2_ext.errors import DataError
from espnet2_ext.tasks.tagging import TaggingTask


def get_parser():
    """The options of `tag_train`."""
    return TaggingTask.get_parser()


def main(cmd: list[str] | None = None) -> None:
    """Check, and say what was seen.

    Raises:
        DataError: as `TaggingTask.prepare`; or a loss that is not a number.
    """
    args = get_parser().parse_args(cmd)
    args.num_workers = 0
    torch.manual_seed(args.seed)
    TaggingTask.prepare(args)
    model = TaggingTask.build_model(args).train()
    logging.info("%s", model_summary(model).partition("Model summary:")[2].strip())
    factory = TaggingTask.build_iter_factory(args, DistributedOption(), "train")
    keys, batch = next(iter(factory.build_iter(1)))
    for name, x in batch.items():
        logging.info("%s: %s %s, from %.3g to %.3g", name, list(x.shape), x.dtype, x.min(), x.max())
    loss, stats, _ = model(**batch, utt_id=keys)
    loss.backward()
    logging.info("first step: %s", ", ".join(f"{k} {float(v):.3f}" for k, v in stats.items()))
    if not loss.isfinite():
        raise DataError(f"the loss of the first step is {float(loss)}")
    valid = TaggingTask.build_iter_factory(args, DistributedOption(), "valid")
    logging.info("validation: %d batches", len(valid.build_iter(1)))


if __name__ == "__main__":
    run(main)
