"""Stage 3: the good clips of data/SET/manifest.tsv -> a clip bank in dump/SET."""

import argparse

from espnet2_ext.cli.run import run
from espnet2_ext.data.bank.archive import Settings, archive
from espnet2_ext.data.bank.bank import SUFFIX


def get_parser() -> argparse.ArgumentParser:
    """Options of this step."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("data_dir", help="folder with manifest.tsv")
    p.add_argument("out_dir", help="where the bank goes")
    p.add_argument("--labels", help="labels.tsv (default: beside DATA_DIR)")
    p.add_argument("--fs", type=int, default=Settings.fs, help="rate in Hz (%(default)s)")
    p.add_argument(
        "--format",
        choices=list(SUFFIX),
        default=Settings.format,
        help="flac: half the disk; pcm16: far less CPU (%(default)s)",
    )
    p.add_argument(
        "--clips_per_shard",
        type=int,
        default=Settings.clips_per_shard,
        help="clips a file; 0: by their number (%(default)s)",
    )
    p.add_argument("--num_workers", type=int, help="processes (default: one a core)")
    p.add_argument("--scheduler", help="address of a Dask scheduler, instead of local processes")
    return p


def main(cmd=None):
    """Run the step."""
    args = get_parser().parse_args(cmd)
    archive(
        args.data_dir,
        args.out_dir,
        labels=args.labels,
        settings=Settings(args.fs, args.format, args.clips_per_shard),
        num_workers=args.num_workers,
        scheduler=args.scheduler,
    )


if __name__ == "__main__":
    run(main)
