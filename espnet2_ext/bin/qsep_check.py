"""Look at data and model before the long training: `python -m espnet2_ext.bin.qsep_check`.

Takes the options of `qsep_train`. Draws one training batch, checks that its targets sum to the
mixture, prints what each key of the data holds, takes one step, and reads the validation list.
"""

import torch

from espnet2_ext.cli.run import run
from espnet2_ext.errors import DataError
from espnet2_ext.tasks.qsep import QSepTask
from espnet2_ext.train.check import first_step


def get_parser():
    """The options of `qsep_train`."""
    return QSepTask.get_parser()


def main(cmd: list[str] | None = None) -> None:
    """Check, and say what was seen.

    Raises:
        DataError: targets that do not sum to the mixture, or a loss that is not a number.
    """
    args = get_parser().parse_args(cmd)
    args.num_workers = 0
    torch.manual_seed(args.seed)
    first_step(QSepTask, args, QSepTask.start_model(args).train(), check_sum)


def check_sum(keys: list[str], batch: dict[str, torch.Tensor]) -> None:
    """Refuse targets that, all of them present, do not sum to the mixture (DataError)."""
    refs = torch.stack(
        [x for name, x in batch.items() if name.startswith("speech_ref") and not name.endswith("_lengths")]
    )
    there = (refs.abs().amax(-1) > 0).all(0)
    error = (refs.sum(0) - batch["speech_mix"]).abs().amax(-1) * there
    if (error > 1e-5 * batch["speech_mix"].abs().amax(-1)).any():
        raise DataError(f"{keys[int(error.argmax())]}: targets do not sum to the mixture")


if __name__ == "__main__":
    run(main)
