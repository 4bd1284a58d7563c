"""`espnet2-ext tables` and `sweep`: the papers' tables, and the experiments that fill them."""

import argparse
import shlex
import signal
import sys


def tables(argv: list[str] | None = None) -> None:
    """The papers' tables: the command for each row (--list), or your results beside the published ones (--table).

    Without --exp_dirs, experiments are looked for below egs2/*/exp: those recorded by a sweep,
    and those in a folder named after a row's cell, such as qsep_C_seed0. A cell stays empty where
    nothing was run.
    """
    from espnet2_ext.papers.tables import PAPERS

    p = argparse.ArgumentParser(description=tables.__doc__)
    p.add_argument("--list", action="store_true", help="every row and figure with the command that fills it")
    p.add_argument(
        "--paper",
        choices=PAPERS,
        help="care_sep or weak (default with --list: both; with --table: the one that has it, of fig3 care_sep)",
    )
    p.add_argument(
        "--table",
        nargs="+",
        default=[],
        metavar="NUMBER",
        help="such as 1, fig3 or VII; all: every table and figure of --paper",
    )
    p.add_argument(
        "--exp_dirs",
        nargs="+",
        default=[],
        metavar="[CELL=]FOLDER",
        help="folders to search, or the experiment to use for a CELL",
    )
    p.add_argument("-o", "--output", help="write the Markdown there as well")
    args = p.parse_args(argv)
    if args.list == bool(args.table):
        p.error("give --list, or --table with its number")
    from espnet2_ext.papers.fill import fill_tables
    from espnet2_ext.papers.tables import listing
    from espnet2_ext.util.files import write_text

    text = listing(args.paper) if args.list else fill_tables(args.table, args.paper, args.exp_dirs)
    print(text)
    if args.output:
        write_text(args.output, text + "\n")


def sweep(argv: list[str] | None = None) -> None:
    """Train and score the cells of a sweep one after the other; run again to resume.

    Sweeps are in `conf/sweeps`. Beside the experiments (RECIPE/exp/NAME), `sweep_*.md` holds the
    table, updated after each cell, and log/ the output of each cell.
    """
    p = sweep_parser()
    args = p.parse_args(argv)
    try:
        run_options = shlex.split(args.run_options)
    except ValueError as e:
        p.error(f"--run_options {args.run_options}: {e}")
    from espnet2_ext.papers.experiments import Notes
    from espnet2_ext.papers.run_sweep import run_sweep, shell_line, write_sweep_table
    from espnet2_ext.papers.sweep import Sweep

    chosen = Sweep(args.sweep, recipe=args.recipe, size=args.size, folder=args.folder, run_options=run_options)
    runs = chosen.runs(args.only, args.max_seeds)
    if args.dry_run:
        for one in runs:
            print(shell_line(chosen, one))
        for name in chosen.configs:
            print(f"# made when the sweep runs: {chosen.recipe}/{chosen.configs.path(name)}")
    elif args.table_only:
        print(write_sweep_table(Notes(chosen)))
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that run.sh is ended as well
        run_sweep(chosen, runs, max_minutes=args.max_minutes)


def sweep_parser() -> argparse.ArgumentParser:
    """The options of `sweep`."""
    p = argparse.ArgumentParser(description=sweep.__doc__)
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
