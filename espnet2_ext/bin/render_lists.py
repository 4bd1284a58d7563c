"""Render a list of pairs into a data folder: `python -m espnet2_ext.bin.render_lists --list ...`.

A call that was stopped goes on where it was; a folder of the same list is left as it is.
"""

import argparse
from pathlib import Path

from espnet2_ext.cli.run import run
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.mixtures.folder import render_folder
from espnet2_ext.data.mixtures.pair_list import about_list, read_list


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--list", type=Path, required=True, help="pairs.tsv")
    parser.add_argument("--bank", type=Path, required=True, help="folder of the clip bank")
    parser.add_argument("--out", type=Path, required=True, help="the data folder")
    parser.add_argument("--num_workers", type=int, help="processes; default: one a core")
    parser.add_argument("--scheduler", help="address of a Dask scheduler")
    return parser


def main(cmd: list[str] | None = None) -> None:
    """Write mixtures, targets, queries and their tables; `list.json` last."""
    args = get_parser().parse_args(cmd)
    bank = ClipBank(args.bank)
    about = render_folder(
        read_list(args.list, bank),
        bank,
        args.out,
        seed=about_list(args.list).get("seed"),
        num_workers=args.num_workers,
        scheduler=args.scheduler,
    )
    print(
        f"{args.out}: {about['pairs']} pairs, {about['scaled']} lowered to stay in range, "
        f"{about['without_other']} of {about['keys']} targets without another clip of the class"
    )


if __name__ == "__main__":
    run(main)
