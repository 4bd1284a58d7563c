"""Write RESULTS.md, figures and the listening page of several experiments, side by side, and print
which labels gave more."""

import argparse
from collections.abc import Sequence

from espnet2_ext.cli.run import run


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output_dir", required=True, help="gets RESULTS.md and index.html")
    parser.add_argument(
        "--experiment",
        action="append",
        required=True,
        metavar="LABEL=FOLDER",
        help="a trained separator and what to call it, such as frame=exp/weak_x_frame; repeatable",
    )
    parser.add_argument(
        "--test_set",
        action="append",
        required=True,
        help="name of a set: the scored outputs lie in FOLDER/inference_NAME; repeatable",
    )
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Run with the arguments of the command line, or `cmd`."""
    args = get_parser().parse_args(cmd)
    from espnet2_ext.report.weak_page import write_weak_page
    from espnet2_ext.report.weak_results import write_weak_results
    from espnet2_ext.report.weak_sets import ordering, parse_experiments, scored_on

    experiments = parse_experiments(args.experiment)
    print(write_weak_results(args.output_dir, experiments, args.test_set))
    print(write_weak_page(args.output_dir, experiments, args.test_set))
    for name in args.test_set:
        print(f"{name}: {ordering(scored_on(experiments, name))}")


if __name__ == "__main__":
    run(main)
