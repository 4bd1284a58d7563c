"""Separate every recording of a data folder into the classes that a model knows."""

import argparse

from espnet2_ext.cli.run import run


def get_parser() -> argparse.ArgumentParser:
    """Options of this step."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--data_dir", required=True, help="folder with wav.scp")
    p.add_argument(
        "--output_dir",
        required=True,
        action="append",
        help="gets spk1.scp ... in the order of the classes, and activity.npz; with the "
        "next options again: several models, one after another",
    )
    p.add_argument("--bundle", action="append", help="the model as one file")
    p.add_argument("--train_config", action="append", help="or config.yaml of the experiment")
    p.add_argument(
        "--model_file",
        action="append",
        help="with its weights: .pth, such as valid.loss.best.pth, or a Lightning .ckpt",
    )
    p.add_argument("--batch_size", type=int, default=8, help="recordings of one length at once")
    p.add_argument(
        "--chunk",
        type=float,
        default=60.0,
        help="seconds that the model sees at once, context not counted; 0: the whole "
        "recording, as in the paper (a BLSTM's answers depend on it a little; "
        "memory grows with the length)",
    )
    p.add_argument(
        "--context", type=float, default=5.0, help="seconds on both sides of a chunk, computed and thrown away"
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
    parser = get_parser()
    a = parser.parse_args(cmd)
    files = [a.bundle] if a.bundle else [a.train_config, a.model_file]
    if any(len(given or []) != len(a.output_dir) for given in files):
        parser.error("give --bundle, or --train_config and --model_file, for each --output_dir")
    from espnet2_ext.infer.weak_files import WeakFiles
    from espnet2_ext.infer.weak_folder import infer_weak_folder

    for out, *given in zip(a.output_dir, *files):
        bundle, config, weights = (*given, None, None) if a.bundle else (None, *given)
        infer_weak_folder(
            a.data_dir,
            out,
            WeakFiles(bundle, config, weights, a.device),
            batch_size=a.batch_size,
            chunk=a.chunk,
            context=a.context,
            num_workers=a.num_workers,
            scheduler=a.scheduler,
        )


if __name__ == "__main__":
    run(main)
