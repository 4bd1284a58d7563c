"""Write RESULTS.md and the listening page of an experiment from its scores."""

import argparse
from collections.abc import Sequence

from espnet2_ext.cli.run import run


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exp_dir", required=True, help="experiment, gets RESULTS.md and report/")
    parser.add_argument(
        "--inference_dir",
        action="append",
        help="scored outputs, may be given again (default: every scored EXP_DIR/inference_*)",
    )
    parser.add_argument(
        "--data_dir", action="append", help="test set of each --inference_dir, where it is not where scoring found it"
    )
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Run with the arguments of the command line, or `cmd`."""
    parser = get_parser()
    args = parser.parse_args(cmd)
    if args.data_dir and len(args.data_dir) != len(args.inference_dir or []):
        parser.error("give one --data_dir for each --inference_dir, in the same order")
    from espnet2_ext.report.page import write_page
    from espnet2_ext.report.results import write_results

    print(write_results(args.exp_dir, args.inference_dir))
    print(write_page(args.exp_dir, args.inference_dir, args.data_dir))


if __name__ == "__main__":
    run(main)
