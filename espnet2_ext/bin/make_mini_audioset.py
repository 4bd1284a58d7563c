"""Make the embedded corpus: sounds in AudioSet's layout, from a General MIDI sound font."""

import argparse
from pathlib import Path

from espnet2_ext.cli.run import run
from espnet2_ext.data.synth.audioset import make_mini_audioset


def get_parser() -> argparse.ArgumentParser:
    """Options of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("downloads/mini_audioset"), help="folder")
    parser.add_argument("--train_clips", type=int, default=60, help="clips a class")
    parser.add_argument("--eval_clips", type=int, default=12, help="clips a class")
    parser.add_argument("--clip_seconds", type=float, default=5.0)
    parser.add_argument("--classes", nargs="+", default=[], metavar="CLASS", help="names or mids; none given: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_workers", type=int, help="processes; not given: one a core")
    parser.add_argument("--scheduler", help="address of a Dask scheduler to work on instead")
    return parser


def main(cmd: list[str] | None = None) -> None:
    """Run the command line `cmd`."""
    args = vars(get_parser().parse_args(cmd))
    make_mini_audioset(args.pop("out"), **args)


if __name__ == "__main__":
    run(main)
