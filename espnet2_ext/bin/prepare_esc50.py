"""Stage 1 for ESC-50: its folder -> data/labels.tsv, data/SET/clips.tsv."""

import argparse

from espnet2_ext.cli.run import run
from espnet2_ext.data.corpora.esc50 import prepare_esc50
from espnet2_ext.errors import DataError


def get_parser() -> argparse.ArgumentParser:
    """Options of this step."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--esc50", required=True, help="folder with meta/esc50.csv and audio/")
    p.add_argument(
        "--set",
        nargs="+",
        action="append",
        required=True,
        metavar=("NAME", "FOLD"),
        help="a set and its folds; may be given again",
    )
    p.add_argument("--data_dir", required=True, help="where the tables go")
    return p


def main(cmd=None):
    """Run the step."""
    args = get_parser().parse_args(cmd)
    try:
        sets = {name: [int(fold) for fold in folds] for name, *folds in args.set}
    except ValueError:
        raise DataError("--set needs a name and numbers of folds") from None
    prepare_esc50(args.esc50, args.data_dir, sets)


if __name__ == "__main__":
    run(main)
