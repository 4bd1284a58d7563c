"""Look at data and network before the long training: `python -m espnet2_ext.bin.tag_check`.

Takes the options of `tag_train`. Draws one training batch, prints what each key of the data holds,
takes one step, and reads the validation set's list.
"""

import torch

from espnet2_ext.cli.run import run
from espnet2_ext.tasks.tagging import TaggingTask
from espnet2_ext.train.check import first_step


def get_parser():
    """The options of `tag_train`."""
    return TaggingTask.get_parser()


def main(cmd: list[str] | None = None) -> None:
    """Check, and say what was seen.

    Raises:
        DataError: as `TaggingTask.check` and `load_all`; or a loss that is not a number.
    """
    args = get_parser().parse_args(cmd)
    args.num_workers = 0
    torch.manual_seed(args.seed)
    TaggingTask.check(args)
    first_step(TaggingTask, args, TaggingTask.start_model(args).train())


if __name__ == "__main__":
    run(main)
