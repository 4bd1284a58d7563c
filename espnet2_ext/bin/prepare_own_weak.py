"""One's own labelled recordings: `lists` of them (stage 1), and `tables` of mixtures from them."""

import argparse

from espnet2_ext.bin.validate_data import add_table_options
from espnet2_ext.cli.run import run
from espnet2_ext.data.mixtures.from_recordings import OwnSettings, make_own_table, prepare_own_sounds


def get_parser() -> argparse.ArgumentParser:
    """Options of both steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    p = steps.add_parser("lists", help="labels.tsv, and clips.tsv and marks.tsv of each set")
    p.add_argument(
        "tables",
        nargs="+",
        metavar="TABLE",
        help=".csv or .tsv with the columns path, labels, or path, onset, offset, label",
    )
    p.add_argument("--data_dir", default="data", help="where the lists go (%(default)s)")
    add_table_options(p)

    p = steps.add_parser("tables", help="the mixture table of one set")
    p.add_argument("data_dir", help="folder with marks.tsv")
    p.add_argument("--bank", required=True, help="the archived recordings")
    p.add_argument("--out", required=True, help="folder of the table")
    p.add_argument("--seconds", type=float, default=OwnSettings.seconds, help="length of a chunk (%(default)s)")
    p.add_argument("--whole_clips", action="store_true", help="do not cut recordings that have clip labels")
    p.add_argument("--n_fft", type=int, default=512, help="of the frame labels (%(default)s)")
    p.add_argument("--hop", type=int, default=128, help="of the frame labels (%(default)s)")
    return parser


def main(cmd: list[str] | None = None) -> None:
    """Run a step."""
    a = get_parser().parse_args(cmd)
    if a.step == "lists":
        counts = prepare_own_sounds(
            a.tables,
            a.data_dir,
            classes=a.classes,
            allow_unlabelled=a.allow_unlabelled,
            shares=(a.valid_share, a.test_share),
            seed=a.seed,
        )
        print(", ".join(f"{name}: {n} recordings" for name, n in counts.items()))
        return
    settings = OwnSettings(a.seconds, a.whole_clips)
    info = make_own_table(a.data_dir, a.bank, a.out, settings=settings, n_fft=a.n_fft, hop=a.hop)
    priors = ", ".join(f"{c} {p:.2f}" for c, p in zip(info["classes"], info["clip_prior"]))
    print(f"{a.out}: {info['mixtures']} mixtures; share with {priors}")


if __name__ == "__main__":
    run(main)
