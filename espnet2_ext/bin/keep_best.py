"""Keep, of trainings that differ in their seed, the one of the lowest validation loss."""

import argparse
from collections.abc import Sequence

from espnet2_ext.cli.run import run


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("trials", nargs="+", metavar="TRIAL", help="folder of a training")
    p.add_argument("--exp_dir", required=True, help="beside them: becomes a link to the best")
    p.add_argument(
        "--model_file", default="valid.loss.best.pth", help="the weights whose loss counts, or latest.pth (%(default)s)"
    )
    return p


def main(cmd: Sequence[str] | None = None) -> None:
    """Run with the arguments of the command line, or `cmd`."""
    args = get_parser().parse_args(cmd)
    from espnet2_ext.train.trials import keep_best

    print(keep_best(args.exp_dir, args.trials, args.model_file))


if __name__ == "__main__":
    run(main)
