"""Write where in each clip of a bank each of its classes is heard best, for drawing anchors."""

import argparse

from espnet2_ext.bin.tag_inference import add_model_options
from espnet2_ext.cli.run import run


def get_parser() -> argparse.ArgumentParser:
    """Options of this step."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--bank", required=True, help="clip bank, such as dump/train")
    p.add_argument("--out", required=True, help="the table, such as EXP/anchors_train.npz")
    p.add_argument("--segment", type=float, default=2.0, help="length of a segment in seconds")
    add_model_options(p)
    return p


def main(cmd=None):
    """Run the step."""
    args = get_parser().parse_args(cmd)
    from espnet2_ext.infer.anchors import find_anchors
    from espnet2_ext.infer.tagger import TagFiles

    find_anchors(
        args.bank,
        args.out,
        TagFiles(args.bundle, args.train_config, args.model_file, args.device),
        segment=args.segment,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        scheduler=args.scheduler,
    )


if __name__ == "__main__":
    run(main)
