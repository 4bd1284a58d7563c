"""Stage 2: decode every clip of data/SET/clips.tsv and write manifest.tsv beside it."""

import argparse

from espnet2_ext.cli.run import run
from espnet2_ext.data.bank.scan import Limits, scan


def get_parser() -> argparse.ArgumentParser:
    """Options of this step."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("data_dirs", nargs="+", metavar="DATA_DIR", help="folders with clips.tsv")
    p.add_argument(
        "--min_seconds", type=float, default=Limits.min_seconds, help="shorter clips are left out (default %(default)s)"
    )
    p.add_argument(
        "--silence_db",
        type=float,
        default=Limits.silence_db,
        help="clips with no 100 ms above this are left out (%(default)s)",
    )
    p.add_argument(
        "--max_bad_share", type=float, default=0.2, help="stop when more than this share is left out (%(default)s)"
    )
    p.add_argument("--redo", action="store_true", help="decode again though the list is the same")
    p.add_argument("--num_workers", type=int, help="processes (default: one a core)")
    p.add_argument("--scheduler", help="address of a Dask scheduler, instead of local processes")
    return p


def main(cmd=None):
    """Run the step."""
    args = get_parser().parse_args(cmd)
    for data_dir in args.data_dirs:
        scan(
            data_dir,
            limits=Limits(args.min_seconds, args.silence_db),
            max_bad_share=args.max_bad_share,
            redo=args.redo,
            num_workers=args.num_workers,
            scheduler=args.scheduler,
        )


if __name__ == "__main__":
    run(main)
