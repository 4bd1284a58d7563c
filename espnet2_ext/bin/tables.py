"""The papers' tables: the command for each row (--list), or your results beside the published ones
(--table).

Without --exp_dirs, experiments are looked for below egs2/*/exp: those recorded by a sweep,
and those in a folder named after a row's cell, such as qsep_C_seed0. A cell stays empty where
nothing was run.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from espnet2_ext.cli.run import run
from espnet2_ext.papers.tables import PAPERS, find_table, load_paper, paper_of


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(description=__doc__)
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
    return p


def main(cmd: Sequence[str] | None = None) -> None:
    """Run with the arguments of the command line, or `cmd`."""
    parser = get_parser()
    args = parser.parse_args(cmd)
    if args.list == bool(args.table):
        parser.error("give --list, or --table with its number")
    from espnet2_ext.papers.listing import listing
    from espnet2_ext.papers.trained import check_names
    from espnet2_ext.util.files import write_text

    check_names(args.exp_dirs)
    if args.list:
        papers = [load_paper(key) for key in ([args.paper] if args.paper else PAPERS)]
        text = "\n\n".join("\n".join(listing(paper)) for paper in papers)
    else:
        text = "\n\n".join(_table(number, args) for number in _numbers(args))
    print(text)
    if args.output:
        write_text(args.output, text + "\n")


def _numbers(args: argparse.Namespace) -> list[str]:
    if "all" in map(str.lower, args.table):
        args.paper = args.paper or "care_sep"
        return list(load_paper(args.paper).tables)
    return args.table


def _table(number: str, args: argparse.Namespace) -> str:
    """One table or figure, filled."""
    from espnet2_ext.papers.fill import fill, fill_figure, fill_mixtures
    from espnet2_ext.papers.trained import default_roots, find_tables_of, find_trained, split_root

    table = find_table(args.paper or paper_of(number), number)
    top = Path(os.path.relpath(Path(__file__).parents[2]))
    if table.mixtures:
        data = top / table.recipe / "data"
        folders = find_tables_of(args.exp_dirs or [data] * data.is_dir())
        return "\n".join(fill_mixtures(table, folders))
    roots = args.exp_dirs or default_roots(top)
    trained = find_trained(roots)
    if table.files:
        folders = [folder for name, folder in map(split_root, map(str, roots)) if not name]
        return "\n".join(fill_figure(table, trained, folders))
    return "\n".join(fill(table, trained))


if __name__ == "__main__":
    run(main)
