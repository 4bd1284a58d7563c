"""Draw two classes in embedding space: t-SNE of separation features and of query embeddings.

Figure 3 of the CaRE-SEP paper; a JSON of the same name beside the picture holds its numbers.
"""

import argparse
import json
import logging
from pathlib import Path

from espnet2_ext.cli.run import run
from espnet2_ext.errors import DataError

SUFFIXES = (".png", ".pdf", ".svg")


def get_parser() -> argparse.ArgumentParser:
    """Options of this step."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument(
        "--bundle",
        nargs="+",
        required=True,
        metavar="MODEL.zip",
        help="models of query-based separation; each gets a row, with the same clips",
    )
    p.add_argument("--data", required=True, help="clip bank (dump/SET), or a folder with a subfolder of sounds a class")
    p.add_argument(
        "--classes", nargs=2, required=True, metavar=("A", "B"), help="two classes of the data, by name or identifier"
    )
    p.add_argument("--clips", type=int, default=70, help="clips of each class (%(default)s)")
    p.add_argument(
        "--seconds",
        type=float,
        default=10.0,
        metavar="N",
        help="use only the first N seconds of longer clips (%(default)s)",
    )
    p.add_argument("--seed", type=int, default=0, help="of the clips drawn and of t-SNE")
    p.add_argument(
        "--batch_size", type=int, default=8, help="batch size; a batch has clips of one length (%(default)s)"
    )
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    p.add_argument("-o", "--output", required=True, help="a .png, .pdf or .svg file")
    return p


def main(cmd: list[str] | None = None) -> None:
    """Run the step."""
    args = get_parser().parse_args(cmd)
    out = Path(args.output)
    if out.suffix not in SUFFIXES:
        raise DataError(f"{out}: the name of the picture must end in {', '.join(SUFFIXES)}")
    for option in ("seconds", "batch_size"):
        if not getattr(args, option) > 0:
            raise DataError(f"--{option} must be more than 0, not {getattr(args, option)}")
    from espnet2_ext.report.embedding import record
    from espnet2_ext.report.embedding_figure import draw_embeddings, save_embeddings
    from espnet2_ext.util.files import write_text

    systems = []
    for path in args.bundle:  # one model at a time is held
        system, clips = look_into(path, args)
        systems.append(system)
        logging.info("%s: %s", system.name, ", ".join(f"{p.what} {p.kl:.2f}" for p in system.panels))
    save_embeddings(draw_embeddings(systems, clips.names, clips.classes), out)
    write_text(out.with_suffix(".json"), json.dumps(record(systems, clips, args.seed)) + "\n")
    print(out)


def look_into(path: str, args: argparse.Namespace):
    """The `System` of a bundle, and the clips at its rate."""
    from espnet2_ext.infer.features import features_of
    from espnet2_ext.infer.query_separator import Separator
    from espnet2_ext.report.embedding import System, make_panel
    from espnet2_ext.report.embedding_clips import draw_clips

    separator = Separator.from_bundle(path, args.device)
    clips = draw_clips(args.data, args.classes, args.clips, separator.fs, seconds=args.seconds, seed=args.seed)
    found = features_of(separator, clips.waves, args.batch_size)
    panels = (
        make_panel("separation feature", found.separation, clips.classes, args.seed),
        make_panel("query embedding", found.queries, clips.classes, args.seed),
    )
    about = {
        "bundle": str(path),
        "separation_feature": found.where,
        "query_width": found.queries.shape[1],
        "separation_feature_width": found.separation.shape[1],
    }
    return System(str(separator.info.get("name") or Path(path).stem), panels, about), clips


if __name__ == "__main__":
    run(main)
