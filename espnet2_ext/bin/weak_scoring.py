"""Score class-wise outputs against a rendered test set: scores.jsonl and summary.json."""

import argparse
from collections.abc import Sequence

from espnet2_ext.cli.run import run


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", required=True, help="rendered test set (dump/SET_mix)")
    parser.add_argument(
        "--inference_dir",
        required=True,
        action="append",
        help="outputs; the scores go to its folder scores/; may be given again",
    )
    parser.add_argument(
        "--espnet_keys",
        type=int,
        help="mixtures that espnet2.bin.enh_scoring scores too, drawn with a fixed seed; 0: none (default: all)",
    )
    parser.add_argument("--num_workers", type=int, help="processes (default: one a core)")
    parser.add_argument("--scheduler", help="address of a Dask scheduler instead of processes")
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Run with the arguments of the command line, or `cmd`."""
    args = get_parser().parse_args(cmd)
    from espnet2_ext.scores.score import score

    for folder in args.inference_dir:
        print(
            score(
                args.data_dir,
                folder,
                espnet_keys=args.espnet_keys,
                num_workers=args.num_workers,
                scheduler=args.scheduler,
            )
        )


if __name__ == "__main__":
    run(main)
