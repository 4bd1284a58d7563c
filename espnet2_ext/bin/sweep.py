"""Train and score the cells of a sweep one after the other; continues when started again.

Sweeps are in `conf/sweeps`. Beside the experiments (RECIPE/exp/NAME), `sweep_*.md` holds the
table, updated after each cell, and log/ the output of each cell.
"""

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence

from espnet2_ext.cli.run import run


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("sweep", help="such as conf/sweeps/side_by_side.yaml")
    p.add_argument("--recipe", help="the recipe's folder (default: as the sweep says)")
    p.add_argument(
        "--run_options",
        default="",
        metavar="'--OPTION VALUE ...'",
        help="more options of every run.sh, such as the path of a corpus",
    )
    p.add_argument("--size", help="which of the sweep's sizes (default: the first)")
    p.add_argument(
        "--folder",
        help="name of the folder in the recipe's exp/ (default: as the "
        "sweep says; _SIZE is put behind it where there are sizes); "
        "another corpus needs another one",
    )
    p.add_argument("--only", nargs="+", default=[], metavar="CELL", help="only these cells and what they need")
    p.add_argument("--max_seeds", type=int, metavar="N", help="at most N seeds per cell (default: all)")
    p.add_argument("--max_minutes", type=float, metavar="N", help="start no new cell after N minutes")
    p.add_argument("--dry_run", action="store_true", help="print the commands, run nothing")
    p.add_argument("--table_only", action="store_true", help="rewrite the table, run nothing")
    return p


def main(cmd: Sequence[str] | None = None) -> None:
    """Run with the arguments of the command line, or `cmd`."""
    parser = get_parser()
    args = parser.parse_args(cmd)
    from espnet2_ext.papers.run_sweep import run_sweep, shell_line
    from espnet2_ext.papers.sweep import Sweep
    from espnet2_ext.papers.sweep_notes import Notes
    from espnet2_ext.papers.sweep_table import write_sweep_table

    try:
        run_options = shlex.split(args.run_options)
    except ValueError as e:
        parser.error(f"--run_options {args.run_options}: {e}")
    sweep = Sweep(args.sweep, recipe=args.recipe, size=args.size, folder=args.folder, run_options=run_options)
    runs = sweep.runs(args.only, args.max_seeds)
    if args.dry_run:
        for one in runs:
            print(shell_line(sweep, one))
        for name in sweep.configs:
            print(f"# made when the sweep runs: {sweep.recipe}/{sweep.configs.path(name)}")
    elif args.table_only:
        print(write_sweep_table(Notes(sweep)))
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that run.sh is ended as well
        run_sweep(sweep, runs, max_minutes=args.max_minutes)


if __name__ == "__main__":
    run(main)
