"""Stage 1 for AudioSet: lists and audio as published -> data/labels.tsv, data/SET/clips.tsv."""

import argparse

from espnet2_ext.cli.run import run
from espnet2_ext.data.corpora.audioset import prepare_audioset
from espnet2_ext.errors import DataError


def get_parser() -> argparse.ArgumentParser:
    """Options of this step."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--audio", nargs="+", required=True, metavar="PATH", help="folders, .tar files, packed .h5 files")
    p.add_argument("--class_labels", required=True, help="class_labels_indices.csv")
    p.add_argument("--ontology", help="ontology.json: keeps a class from its ancestors")
    p.add_argument(
        "--set",
        nargs="+",
        action="append",
        required=True,
        metavar=("NAME", "CSV"),
        help="a set and its segment lists; may be given again",
    )
    p.add_argument("--data_dir", required=True, help="where the tables go")
    p.add_argument("--hdf5_rate", type=int, help="rate in Hz of packed files that lack it")
    return p


def main(cmd=None):
    """Run the step."""
    args = get_parser().parse_args(cmd)
    sets = {name: lists for name, *lists in args.set}
    if not all(sets.values()):
        raise DataError("--set needs a name and at least one segment list")
    prepare_audioset(
        args.data_dir, sets, args.class_labels, args.audio, ontology=args.ontology, hdf5_rate=args.hdf5_rate
    )


if __name__ == "__main__":
    run(main)
