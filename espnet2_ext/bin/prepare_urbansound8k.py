"""Stage 1 for UrbanSound8K: its folder -> data/labels.tsv, data/SET/clips.tsv."""

import argparse

from espnet2_ext.cli.run import run
from espnet2_ext.data.corpora.urbansound8k import CLASSES, SETS, parse_sets, prepare_urbansound8k


def get_parser() -> argparse.ArgumentParser:
    """Options of this step."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--urbansound8k", required=True, help="folder with metadata/ and audio/")
    p.add_argument("--data_dir", required=True, help="where the tables go")
    p.add_argument(
        "--splits",
        nargs="+",
        default=list(SETS),
        metavar="NAME:FOLDS",
        help="sets and their folds: train:1-6, test:9,10, or a share of a fold's "
        "recordings: valid:2/1of2 test:2/2of2 (default: the paper's, "
        f"{' '.join(SETS)})",
    )
    p.add_argument(
        "--classes", default=",".join(CLASSES), help="comma-separated, in the order of the labels (%(default)s)"
    )
    p.add_argument("--background_classes", default="", help="comma-separated; sound of no labelled class (none)")
    return p


def main(cmd=None):
    """Run the step."""
    args = get_parser().parse_args(cmd)
    classes, background = (
        [name for name in text.split(",") if name] for text in (args.classes, args.background_classes)
    )
    sets = prepare_urbansound8k(args.urbansound8k, args.data_dir, parse_sets(args.splits), classes, background)
    for name, about in sets.items():
        print(
            f"{name}: {about['slices']} slices of {about['recordings']} recordings, {about['missing']} without a file"
        )


if __name__ == "__main__":
    run(main)
