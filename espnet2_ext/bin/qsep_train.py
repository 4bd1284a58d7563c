"""Train a query-based separator with ESPnet's trainer: `python -m espnet2_ext.bin.qsep_train`."""

from pathlib import Path

from espnet2_ext.bin._cli import run
from espnet2_ext.errors import DataError
from espnet2_ext.tasks.qsep import QSepTask


def get_parser():
    """ESPnet's training options, with those of `QSepTask`."""
    return QSepTask.get_parser()


def main(cmd: list[str] | None = None) -> None:
    """Train, or go on with `--resume true`.

    Raises:
        DataError: the training ended without a usable checkpoint.
    """
    args = get_parser().parse_args(cmd)
    QSepTask.main(args=args)
    if args.dry_run or args.collect_stats:
        return
    if not (Path(args.output_dir) / "checkpoint.pth").exists():
        raise DataError(f"{args.output_dir}: training ended without a checkpoint "
                        "(no step was taken, or every gradient was invalid; see its log)")


if __name__ == "__main__":
    run(main)
