"""Tag every clip of a bank: tags.npz and, with frames, activity.npz.

The model is a trained tagger, or a separator that tags.
"""

import argparse

from espnet2_ext.cli.run import run


def get_parser() -> argparse.ArgumentParser:
    """Options of this step."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--bank", required=True, help="clip bank, such as dump/test")
    p.add_argument("--output_dir", required=True)
    p.add_argument("--frames", action="store_true", help="write the frame-wise activity as well (activity.npz)")
    add_model_options(p)
    return p


def add_model_options(p: argparse.ArgumentParser) -> None:
    """Which tagger, and how it runs."""
    p.add_argument("--train_config", help="config.yaml of the experiment")
    p.add_argument("--model_file", help="its weights, such as valid.loss.best.pth; labels.tsv lies beside them")
    p.add_argument("--bundle", help="instead of both: a separator that tags, as one file")
    p.add_argument("--batch_size", type=int, default=16, help="clips of one length at once")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    p.add_argument(
        "--num_workers",
        type=int,
        default=1,
        help="processes, with a model and a core each; 1: this one, with all cores",
    )
    p.add_argument("--scheduler", help="address of a Dask scheduler, instead of local processes")


def main(cmd=None):
    """Run the step."""
    args = get_parser().parse_args(cmd)
    from espnet2_ext.infer.tag_bank import tag_bank
    from espnet2_ext.infer.tagger import TagFiles

    tag_bank(
        args.bank,
        args.output_dir,
        TagFiles(args.bundle, args.train_config, args.model_file, args.device),
        frames=args.frames,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        scheduler=args.scheduler,
    )


if __name__ == "__main__":
    run(main)
