"""Make the embedded corpus: effects in UrbanSound8K's layout, from a General MIDI sound font."""

import argparse
from pathlib import Path

from espnet2_ext.cli.run import run
from espnet2_ext.data.synth.urbansound8k import make_mini_urbansound8k


def get_parser() -> argparse.ArgumentParser:
    """Options of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("downloads/mini_urbansound8k"))
    parser.add_argument("--recordings", type=int, default=5, help="of each effect in each fold")
    parser.add_argument("--background", type=int, default=0, help="of each background class in each fold")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_workers", type=int, help="processes; not given: one a core")
    parser.add_argument("--scheduler", help="address of a Dask scheduler to work on instead")
    return parser


def main(cmd: list[str] | None = None) -> None:
    """Run the command line `cmd`."""
    args = vars(get_parser().parse_args(cmd))
    make_mini_urbansound8k(args.pop("out"), **args)


if __name__ == "__main__":
    run(main)
