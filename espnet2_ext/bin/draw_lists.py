"""Draw a list of pairs from a clip bank: `python -m espnet2_ext.bin.draw_lists --bank BANK ...`.

By default each clip is the first target once, with a drawn partner that shares no class with it,
and whole clips are mixed. A list that is there for the same bank and options is left as it is.
"""

import argparse
from pathlib import Path

from espnet2_ext.cli.run import run
from espnet2_ext.core.mixing.pair_drawer import ANCHORS, BALANCES, QUERIES
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.mixtures.pair_list import draw_list_file


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--bank", type=Path, required=True, help="folder of the clip bank")
    parser.add_argument("--out", type=Path, required=True, help="the list, pairs.tsv")
    parser.add_argument("--num_pairs", type=int, default=0, help="0: each clip is the first target once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--segment", type=float, default=0.0, help="seconds; 0: the longer clip")
    parser.add_argument("--anchor", choices=ANCHORS, help="default: peak, or whole without segment")
    parser.add_argument(
        "--anchor_file",
        help="a tagger's anchors of this bank and length of segment; where it has none, --anchor decides",
    )
    parser.add_argument(
        "--query_from",
        choices=sorted(QUERIES),
        default="other",
        help="clip of the queries; the targets themselves are written in any case",
    )
    parser.add_argument("--balance", choices=BALANCES, default="class", help="what is drawn first, a class or a clip")
    return parser


def main(cmd: list[str] | None = None) -> None:
    """Write the list, and beside it what it was drawn from."""
    args = get_parser().parse_args(cmd)
    options = {
        "segment": args.segment or None,
        "anchor": args.anchor or ("peak" if args.segment else "whole"),
        "query_from": args.query_from,
        "balance": args.balance,
    }
    draw_list_file(
        ClipBank(args.bank), args.out, args.num_pairs or None, args.seed, anchor_file=args.anchor_file, **options
    )


if __name__ == "__main__":
    run(main)
