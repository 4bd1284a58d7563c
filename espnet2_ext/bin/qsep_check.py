"""Look at data and model before the long training: `python -m espnet2_ext.bin.qsep_check`.

Takes the options of `qsep_train`. Draws one training batch, checks that its targets sum to the
mixture, prints what each key of the data holds, takes one step, and reads the validation list.
"""

import logging

import torch
from espnet2.torch_utils.model_summary import model_summary
from espnet2.train.distributed_utils import DistributedOption

from espnet2_ext.bin._cli import run
from espnet2_ext.errors import DataError
from espnet2_ext.tasks.qsep import QSepTask


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
    model = QSepTask.start_model(args).train()
    logging.info("%s", model_summary(model).partition("Model summary:")[2].strip())
    factory = QSepTask.build_iter_factory(args, DistributedOption(), "train")
    keys, batch = next(iter(factory.build_iter(1)))
    for name, x in batch.items():
        logging.info("%s: %s %s, from %.3g to %.3g, RMS %.3g", name, list(x.shape), x.dtype,
                     x.min(), x.max(), x.float().square().mean().sqrt())
    check_sum(keys, batch)
    loss, stats, _ = model(**batch, utt_id=keys)
    loss.backward()
    logging.info("first step: %s", ", ".join(f"{k} {float(v):.3f}" for k, v in stats.items()))
    if not loss.isfinite():
        raise DataError(f"the loss of the first step is {float(loss)}")
    valid = QSepTask.build_iter_factory(args, DistributedOption(), "valid")
    logging.info("validation: %d batches", len(valid.build_iter(1)))


def check_sum(keys: list[str], batch: dict[str, torch.Tensor]) -> None:
    """Refuse targets that, all of them present, do not sum to the mixture (DataError)."""
    refs = torch.stack([x for name, x in batch.items()
                        if name.startswith("speech_ref") and not name.endswith("_lengths")])
    there = (refs.abs().amax(-1) > 0).all(0)
    error = (refs.sum(0) - batch["speech_mix"]).abs().amax(-1) * there
    if (error > 1e-5 * batch["speech_mix"].abs().amax(-1)).any():
        raise DataError(f"{keys[int(error.argmax())]}: targets do not sum to the mixture")


if __name__ == "__main__":
    run(main)
