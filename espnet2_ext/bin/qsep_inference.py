"""Run a query model on a data folder."""

import argparse

from espnet2_ext.cli.run import run


def get_parser() -> argparse.ArgumentParser:
    """Options of this step."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--data_dir", required=True, help="rendered test set, or a folder with wav.scp and enroll_spk1.scp")
    p.add_argument("--output_dir", required=True)
    p.add_argument("--bundle", help="the model as one file")
    p.add_argument("--train_config", help="or config.yaml of the experiment")
    p.add_argument("--model_file", help="with its weights, such as valid.loss.ave.pth")
    p.add_argument(
        "--protocols",
        nargs="+",
        default=["self", "other"],
        help="of a rendered test set: self (the clean target is the query), other",
    )
    p.add_argument(
        "--passes",
        nargs="+",
        default=["mixture", "clean", "silence"],
        help="of a rendered test set: mixture, clean (the target alone), silence (a clip without the class)",
    )
    p.add_argument(
        "--no_tags",
        action="store_true",
        help="skip tags (no mAP); for experiments whose classes differ from the data's (automatic for bundles)",
    )
    p.add_argument(
        "--batch_size", type=int, default=8, help="batch size; a batch has clips of one length (%(default)s)"
    )
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    p.add_argument(
        "--num_workers",
        type=int,
        default=1,
        help="processes, with a model and a core each; 1: this one, with all cores",
    )
    p.add_argument("--scheduler", help="address of a Dask scheduler, instead of local processes")
    return p


def main(cmd=None):
    """Run the step."""
    args = get_parser().parse_args(cmd)
    from espnet2_ext.infer.folder import ModelFiles, infer_folder

    infer_folder(
        args.data_dir,
        args.output_dir,
        ModelFiles(args.bundle, args.train_config, args.model_file, args.device),
        protocols=args.protocols,
        passes=args.passes,
        batch_size=args.batch_size,
        tags=not args.no_tags,
        num_workers=args.num_workers,
        scheduler=args.scheduler,
    )


if __name__ == "__main__":
    run(main)
