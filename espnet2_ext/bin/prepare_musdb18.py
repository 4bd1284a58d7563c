"""MUSDB18: `lists` of its stems (stage 1), and `tables` of mixtures from the archived stems."""

import argparse

from espnet2_ext.cli.run import run
from espnet2_ext.data.corpora.musdb18 import OTHER, prepare_musdb18
from espnet2_ext.data.mixtures.from_songs import SongSettings, make_song_table


def get_parser() -> argparse.ArgumentParser:
    """Options of both steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    p = steps.add_parser("lists", help="labels.tsv and the clips.tsv of train, valid and test")
    p.add_argument(
        "--musdb18", required=True, help="folder with train/ and test/, of .stem.mp4 files or of HQ's WAV folders"
    )
    p.add_argument("--data_dir", default="data", help="where the lists go (%(default)s)")
    p.add_argument(
        "--other",
        choices=OTHER,
        default="none",
        help="the stem `other`: left out, a class, or sound of no labelled class",
    )
    p.add_argument("--decoded", default="dump/stems", help="where the sounds of stem files go (%(default)s)")
    p.add_argument("--fs", type=int, default=16000, help="their rate in Hz (%(default)s)")
    p.add_argument(
        "--valid_share",
        type=float,
        default=0.14,
        help="of the training songs, where MUSDB18's own 14 are not there (%(default)s)",
    )
    p.add_argument("--seed", type=int, default=0, help="of that choice")
    _add_workers(p)

    p = steps.add_parser("tables", help="the mixture table of one set")
    p.add_argument("data_dir", help="folder with clips.tsv and manifest.tsv")
    p.add_argument("--bank", required=True, help="the archived stems")
    p.add_argument("--out", required=True, help="folder of the table")
    p.add_argument("--seconds", type=float, default=SongSettings.seconds, help="length of a chunk (%(default)s)")
    p.add_argument("--whole", action="store_true", help="whole songs instead of chunks")
    p.add_argument(
        "--threshold_db",
        type=float,
        default=SongSettings.threshold_db,
        help="a stem above it is active in a chunk: dB of full scale, mean square of the chunk (%(default)s)",
    )
    p.add_argument("--n_fft", type=int, default=512, help="of the frame labels (%(default)s)")
    p.add_argument("--hop", type=int, default=128, help="of the frame labels (%(default)s)")
    _add_workers(p)
    return parser


def _add_workers(p: argparse.ArgumentParser) -> None:
    p.add_argument("--num_workers", type=int, help="processes (default: one a core)")
    p.add_argument("--scheduler", help="address of a Dask scheduler, instead of local processes")


def main(cmd: list[str] | None = None) -> None:
    """Run a step."""
    args = vars(get_parser().parse_args(cmd))
    if args.pop("step") == "lists":
        counts = prepare_musdb18(args.pop("musdb18"), args.pop("data_dir"), **args)
        print(", ".join(f"{name}: {n} songs" for name, n in counts.items()))
        return
    settings = SongSettings(args.pop("seconds"), args.pop("whole"), args.pop("threshold_db"))
    out = args.pop("out")
    info = make_song_table(args.pop("data_dir"), args.pop("bank"), out, settings=settings, **args)
    priors = ", ".join(f"{c} {p:.2f}" for c, p in zip(info["classes"], info["clip_prior"]))
    print(f"{out}: {info['mixtures']} mixtures; share with {priors}")


if __name__ == "__main__":
    run(main)
