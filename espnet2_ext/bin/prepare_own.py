"""Make a corpus of one's own sounds: `python -m espnet2_ext.bin.prepare_own SOUNDS`."""

import argparse
from pathlib import Path

from espnet2_ext.cli.run import run
from espnet2_ext.data.corpora.own_clips import prepare


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "sounds",
        type=Path,
        help="folder with a subfolder for each class, or a .csv or .tsv whose "
        "columns are path, labels and optionally set and group",
    )
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    parser.add_argument(
        "--valid_share", type=float, default=0.1, help="part of each class for choosing the best checkpoint"
    )
    parser.add_argument("--test_share", type=float, default=0.1, help="part of each class for the test")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split")
    return parser


def main(cmd: list[str] | None = None) -> None:
    """Write `labels.tsv` and the `clips.tsv` of train, valid and test."""
    args = get_parser().parse_args(cmd)
    shares = args.valid_share, args.test_share
    counts = prepare(args.sounds, args.data_dir, shares=shares, seed=args.seed)
    print(", ".join(f"{name}: {n} clips" for name, n in counts.items()))


if __name__ == "__main__":
    run(main)
