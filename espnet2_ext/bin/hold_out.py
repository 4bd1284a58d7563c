"""Stage 1: keep a part of the training clips back for validation."""

import argparse

from espnet2_ext.cli.run import run
from espnet2_ext.data.corpora.split import hold_out


def get_parser() -> argparse.ArgumentParser:
    """Options of this step."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("whole", help="folder with the clips.tsv to split")
    p.add_argument("train", help="folder for the larger part")
    p.add_argument("held", help="folder for the part held out")
    p.add_argument("--share", type=float, default=0.05, help="part to hold out (%(default)s)")
    p.add_argument("--most", type=int, help="hold out about this many clips at most")
    p.add_argument("--seed", type=int, default=0)
    return p


def main(cmd: list[str] | None = None) -> None:
    """Run the step."""
    a = get_parser().parse_args(cmd)
    train, held = hold_out(a.whole, a.train, a.held, share=a.share, most=a.most, seed=a.seed)
    print(f"{a.train}: {train} clips, {a.held}: {held} clips")


if __name__ == "__main__":
    run(main)
