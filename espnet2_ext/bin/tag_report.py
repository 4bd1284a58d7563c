"""Write RESULTS.md of a tagger from its scores, with the training's curves."""

import argparse
from collections.abc import Sequence

from espnet2_ext.cli.run import run


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--exp_dir", required=True, help="experiment, gets RESULTS.md")
    p.add_argument(
        "--tags_dir", action="append", required=True, help="scored output of tag_inference, a test set each; repeatable"
    )
    return p


def main(cmd: Sequence[str] | None = None) -> None:
    """Run with the arguments of the command line, or `cmd`."""
    args = get_parser().parse_args(cmd)
    from espnet2_ext.report.tag_results import write_tag_results

    print(write_tag_results(args.exp_dir, args.tags_dir))


if __name__ == "__main__":
    run(main)
