"""Render a table of mixtures into a data folder: `python -m espnet2_ext.bin.render_mixtures ...`.

A call that was stopped goes on where it was; a folder of the same table is left as it is.
"""

import argparse
from pathlib import Path

from espnet2_ext.cli.run import run
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.mixtures.event_table import MixtureTable
from espnet2_ext.data.mixtures.mixture_folder import render_mixtures


def get_parser() -> argparse.ArgumentParser:
    """Options of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--table", type=Path, required=True, help="folder of the table")
    parser.add_argument("--bank", type=Path, required=True, help="folder of the clip bank")
    parser.add_argument("--out", type=Path, required=True, help="the data folder")
    parser.add_argument("--num_workers", type=int, help="processes; default: one a core")
    parser.add_argument("--scheduler", help="address of a Dask scheduler")
    return parser


def main(cmd: list[str] | None = None) -> None:
    """Write mixtures, sources and their tables; `list.json` last."""
    args = get_parser().parse_args(cmd)
    about = render_mixtures(
        MixtureTable(args.table), ClipBank(args.bank), args.out, num_workers=args.num_workers, scheduler=args.scheduler
    )
    print(f"{args.out}: {about['mixtures']} mixtures, {about['scaled']} lowered to stay in range")


if __name__ == "__main__":
    run(main)
