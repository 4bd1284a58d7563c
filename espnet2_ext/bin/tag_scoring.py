"""Score tags against the labels of a bank (scores.json), or take the mean of folds' scores."""

import argparse
import json
from collections.abc import Sequence

from espnet2_ext.cli.run import run


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--bank", help="the bank that was tagged")
    p.add_argument("--tags_dir", help="output of tag_inference; gets scores.json")
    p.add_argument(
        "--folds",
        nargs="+",
        metavar="TAGS_DIR",
        help="instead of both: scored folders, one a fold, to take the mean of",
    )
    p.add_argument("--out", help="with --folds: file for the means, such as scores.json")
    return p


def main(cmd: Sequence[str] | None = None) -> None:
    """Run with the arguments of the command line, or `cmd`."""
    parser = get_parser()
    args = parser.parse_args(cmd)
    if bool(args.folds) == bool(args.bank and args.tags_dir):
        parser.error("give either --bank and --tags_dir, or --folds")
    from espnet2_ext.report.tag_results import folds, print_table
    from espnet2_ext.scores.tagging import load_tag_scores, mean_scores, score_tags
    from espnet2_ext.util.files import write_text

    if args.folds:
        mean = mean_scores(args.folds)
        if args.out:
            write_text(args.out, json.dumps(mean, indent=1) + "\n")
        print("\n".join(print_table(folds(mean))))
        return
    path = score_tags(args.bank, args.tags_dir)
    scores = load_tag_scores(path.parent)
    accuracy = "" if scores["accuracy"] is None else f", accuracy {scores['accuracy']:.4f}"
    print(f"{path}: mAP {scores['map']:.4f}{accuracy}, {scores['keys']} clips")


if __name__ == "__main__":
    run(main)
