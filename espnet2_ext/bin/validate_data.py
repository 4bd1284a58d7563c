"""Say what is wrong with tables of labelled recordings, or with prepared folders: all of it."""

import argparse
import sys

from espnet2_ext.cli.run import run
from espnet2_ext.errors import DataError

SHOWN = 100  # problems that are printed


def add_options(p: argparse.ArgumentParser) -> None:
    """Options of this command."""
    p.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="tables (path, labels or path, onset, offset, label) of one corpus; folders"
        " with clips.tsv, bank.json or mixtures.tsv",
    )
    p.add_argument("--num_workers", type=int, help="processes (default: one per core)")
    add_table_options(p)


def add_table_options(p: argparse.ArgumentParser) -> None:
    """Options of everything that reads one's own tables."""
    p.add_argument(
        "--classes",
        nargs="+",
        default=[],
        metavar="CLASS",
        help="all classes, in their order (default: those in the tables, sorted)",
    )
    p.add_argument(
        "--allow_unlabelled", action="store_true", help="accept unlabelled recordings as containing no class"
    )
    p.add_argument("--valid_share", type=float, default=0.1, help="part of each class for validation (%(default)s)")
    p.add_argument("--test_share", type=float, default=0.1, help="part of each class for the test (%(default)s)")
    p.add_argument("--seed", type=int, default=0, help="seed of the split (%(default)s)")


def get_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    return parser


def check(a: argparse.Namespace) -> None:
    """Print what is wrong, then what is there. Raises DataError where something is refused."""
    from espnet2_ext.data.validate import validate  # not above: `espnet2-ext` loads this module

    problems, told = validate(
        a.paths,
        classes=a.classes,
        allow_unlabelled=a.allow_unlabelled,
        shares=(a.valid_share, a.test_share),
        seed=a.seed,
        num_workers=a.num_workers,
    )
    refused = [p for p in problems if p.fatal]
    for problem in refused[:SHOWN]:
        print(problem, file=sys.stderr)
    if len(refused) > SHOWN:
        print(f"... and {len(refused) - SHOWN} more", file=sys.stderr)
    for problem in problems:
        if not problem.fatal:
            print(f"note: {problem}")
    for line in told:
        print(line)
    if refused:
        raise DataError(f"{len(refused)} problem{'s' * (len(refused) > 1)}, see above")
    print("nothing is wrong with it")


def main(cmd: list[str] | None = None) -> None:
    """Run the command."""
    check(get_parser().parse_args(cmd))


if __name__ == "__main__":
    run(main)
