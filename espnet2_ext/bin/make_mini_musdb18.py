"""Make the embedded corpus of songs: stems in MUSDB18-HQ's layout, from a General MIDI font."""

import argparse
from pathlib import Path

from espnet2_ext.cli.run import run
from espnet2_ext.data.synth.musdb18 import make_mini_musdb18


def get_parser() -> argparse.ArgumentParser:
    """Options of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("downloads/mini_musdb18"), help="folder")
    parser.add_argument("--train_songs", type=int, default=24)
    parser.add_argument("--test_songs", type=int, default=6)
    parser.add_argument(
        "--seconds", type=float, nargs=2, default=(24.0, 30.0), metavar=("MIN", "MAX"), help="lengths of the songs"
    )
    parser.add_argument("--channels", type=int, choices=(1, 2), default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_workers", type=int, help="processes; not given: one a core")
    parser.add_argument("--scheduler", help="address of a Dask scheduler to work on instead")
    return parser


def main(cmd: list[str] | None = None) -> None:
    """Run the command line `cmd`."""
    args = vars(get_parser().parse_args(cmd))
    make_mini_musdb18(args.pop("out"), **args)


if __name__ == "__main__":
    run(main)
