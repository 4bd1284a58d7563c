"""Trained models over whole folders, and published ones converted."""

import argparse
from pathlib import Path

from espnet2_ext.cli.options import add_batch_size, add_device, add_model, add_model_workers
from espnet2_ext.errors import DataError
from espnet2_ext.util.names import Parser

# ---- inference -----------------------------------------------------------------------------------


def qsep_inference(argv: list[str] | None = None) -> None:
    """Run a query separator on a data folder."""
    p = Parser(description=qsep_inference.__doc__)
    text = "rendered test set, or a folder with wav.scp and enroll_spk1.scp"
    p.add_argument("--data_dir", required=True, help=text)
    p.add_argument("--output_dir", required=True)
    text = "of a rendered test set: self (the clean target is the query), other"
    p.add_argument("--protocols", nargs="+", default=["self", "other"], help=text)
    text = "of a rendered test set: mixture, clean (the target alone), silence (a clip without the class)"
    p.add_argument("--passes", nargs="+", default=["mixture", "clean", "silence"], help=text)
    text = "skip tags (no mAP); for experiments whose classes differ from the data's (automatic for bundles)"
    p.add_argument("--no_tags", action="store_true", help=text)
    args = _run_options(p, batch_size=8).parse_args(argv)
    from espnet2_ext.infer.query_folder import infer_folder

    infer_folder(
        args.data_dir,
        args.output_dir,
        protocols=args.protocols,
        passes=args.passes,
        tags=not args.no_tags,
        **_run_arguments(args, "queries"),
    )


def weak_inference(argv: list[str] | None = None) -> None:
    """Separate every recording of a data folder into the classes that a model knows."""
    p = Parser(description=weak_inference.__doc__)
    p.add_argument("--data_dir", required=True, help="folder with wav.scp")
    text = (
        "gets spk1.scp ... in the order of the classes, and activity.npz; repeatable, together with the options that "
        "name the model: several models, one after another"
    )
    p.add_argument("--output_dir", required=True, action="append", help=text)
    text = (
        "of a query model, with what it is asked for each class: class (its mean query) or, of a rendered test set, "
        "self (the clean sound) or other (that in another mixture)"
    )
    p.add_argument("--queries", choices=("self", "other", "class"), help=text)
    text = (
        "seconds that the model sees at once, without context; 0: the whole recording, as in the paper (a BLSTM's "
        "answers depend on it a little; memory grows with the length) (%(default)s)"
    )
    p.add_argument("--chunk", type=float, default=60.0, help=text)
    text = "seconds on both sides of a chunk, computed and discarded (%(default)s)"
    p.add_argument("--context", type=float, default=5.0, help=text)
    args = _run_options(p, batch_size=8, repeatable=True).parse_args(argv)
    names = ["bundle"] if args.bundle else ["train_config", "model_file"]
    given = [getattr(args, name) or [] for name in names]
    if any(len(files) != len(args.output_dir) for files in given):
        p.error("give --bundle, or --train_config and --model_file, for each --output_dir")
    from espnet2_ext.infer.class_folder import infer_class_folder

    for out, *files in zip(args.output_dir, *given):
        one = argparse.Namespace(**{**vars(args), **dict(zip(names, files))})
        more = _run_arguments(one, "asked" if args.queries else "classes")
        infer_class_folder(args.data_dir, out, queries=args.queries, chunk=args.chunk, context=args.context, **more)


def class_queries(argv: list[str] | None = None) -> None:
    """Measure the mean query of each class, of a query model trained from weak labels, in its recordings."""
    p = Parser(description=class_queries.__doc__)
    p.add_argument("--train_config", required=True)
    p.add_argument("--model_file", required=True, help="its weights; class_queries.npz is written beside them")
    p.add_argument("--table", required=True, type=Path, help="table of the training's recordings")
    p.add_argument("--bank", required=True, type=Path, help="clip bank of their sounds")
    text = "table and clip bank of further recordings, on which the presence score is calibrated"
    p.add_argument("--held_out", nargs=2, type=Path, metavar=("TABLE", "BANK"), help=text)
    p.add_argument("--most", type=int, default=40, help="stretches of a class (%(default)s)")
    text = "recordings of --held_out, where it is given, that presence is calibrated on; 0: none (%(default)s)"
    p.add_argument("--mixtures", type=int, default=100, help=text)
    add_device(p)
    a = p.parse_args(argv)
    from espnet2_ext.infer.folder import ModelFiles
    from espnet2_ext.infer.vectors.calibrate import write_class_queries
    from espnet2_ext.infer.vectors.recordings import Recordings

    model, held_out = ModelFiles(None, a.train_config, a.model_file, a.device), a.held_out and Recordings(*a.held_out)
    print(write_class_queries(model, Recordings(a.table, a.bank), held_out, a.most, a.mixtures))


def tag_inference(argv: list[str] | None = None) -> None:
    """Tag every clip of a bank: tags.npz and, with frames, activity.npz.

    The model is a trained tagger, or a separator that tags; labels.tsv lies beside its weights.
    """
    p = Parser(description=tag_inference.__doc__)
    p.add_argument("--bank", required=True, help="clip bank, such as dump/test")
    p.add_argument("--output_dir", required=True)
    p.add_argument("--frames", action="store_true", help="write the frame-wise activity as well (activity.npz)")
    args = _run_options(p, batch_size=16).parse_args(argv)
    from espnet2_ext.infer.tagger import tag_bank

    tag_bank(args.bank, args.output_dir, frames=args.frames, **_run_arguments(args, "tags"))


def tag_anchors(argv: list[str] | None = None) -> None:
    """Write where in each clip of a bank each of its classes is most active, for drawing anchors."""
    p = Parser(description=tag_anchors.__doc__)
    p.add_argument("--bank", required=True, help="clip bank, such as dump/train")
    p.add_argument("--out", required=True, help="the table, such as EXP/anchors_train.npz")
    p.add_argument("--segment", type=float, default=2.0, help="length of a segment in seconds (%(default)s)")
    args = _run_options(p, batch_size=16).parse_args(argv)
    from espnet2_ext.infer.tagger import find_anchors

    find_anchors(args.bank, args.out, segment=args.segment, **_run_arguments(args, "tags"))


def _run_options(p: argparse.ArgumentParser, batch_size: int, repeatable: bool = False) -> argparse.ArgumentParser:
    """Which model, and how it runs."""
    add_model(p, repeatable=repeatable)
    add_batch_size(p, batch_size)
    add_device(p, precision=True)
    add_model_workers(p)
    return p


def _run_arguments(args: argparse.Namespace, use: str) -> dict:
    """What every inference takes, from the options of `_run_options`; `use`: see `ModelFiles`."""
    from espnet2_ext.infer.folder import ModelFiles, Workers

    return {
        "model": ModelFiles(args.bundle, args.train_config, args.model_file, args.device, use, args.precision),
        "batch_size": args.batch_size,
        "workers": Workers(args.num_workers, args.scheduler),
    }


# ---- published checkpoints -----------------------------------------------------------------------

CONVERT = """Turn a published checkpoint into weights for a training's `--init_param`, or into a model.

    espnet2-ext convert --network hts_at PUBLIC.ckpt -o hts_at.pth
    espnet2-ext convert --network st_sed_sep PUBLIC.ckpt [--tagger HTSAT.ckpt] \\
        --config conf/train_qsep_st_sed_sep_2048.yaml -o BUNDLE.zip

A tagger's names begin with `net.`: `--init_param hts_at.pth` starts its training there, `--init_param
hts_at.pth:net:query_net` makes it the query network of a separator. ST-SED-SEP's begin with `extractor.net.`, those of
its tagger with `query_net.`; the tagger is that of the same checkpoint, or with `--tagger` that of another one. A
tagger of another rate, such as CNN14 at 16 kHz: `--sample_rate 16000 --high 8000`.

The second command writes a bundle, which `espnet2-ext separate --bundle BUNDLE.zip` and `--zero_shot` take as it is.
"""
NETWORKS = ("hts_at", "cnn14", "st_sed_sep")
TAGGERS = NETWORKS[:2]
FRONT = {
    "sample_rate": "tagger's sample rate, if not 32 kHz",
    "low": "tagger's lowest mel frequency, if not that of 32 kHz",
    "high": "tagger's highest mel frequency, if not that of 32 kHz",
}


def convert(argv: list[str] | None = None) -> None:
    """Convert published checkpoints."""
    p = Parser(description=CONVERT, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--network", required=True, choices=NETWORKS, help="what the checkpoint holds")
    p.add_argument("checkpoint", type=Path, metavar="PUBLIC.ckpt")
    for name, text in FRONT.items():
        p.add_argument(f"--{name}", type=float, metavar="HZ", help=text)
    text = "the checkpoint of ST-SED-SEP's HTS-AT, if it is in another file"
    p.add_argument("--tagger", type=Path, metavar="HTSAT.ckpt", help=text)
    text = "the separator's YAML (sizes and signal of its networks), needed for a bundle"
    p.add_argument("--config", type=Path, metavar="YAML", help=text)
    text = "for a bundle: the classes that its tagger knows (default: none are listed)"
    p.add_argument("--labels", type=Path, metavar="labels.tsv", help=text)
    p.add_argument("-o", "--output", type=Path, required=True, metavar="OURS.pth|BUNDLE.zip")
    args = p.parse_args(argv)
    front = {k: v for k in FRONT if (v := getattr(args, k)) is not None}
    _check_conversion(p, args, front)
    import torch

    from espnet2_ext.core.public import convert_cnn14, convert_hts_at, convert_st_sed_sep, convert_tagger
    from espnet2_ext.core.weights import load, writing
    from espnet2_ext.util.files import atomic_path

    parts = {
        "hts_at": {"net": convert_hts_at},
        "cnn14": {"net": convert_cnn14},
        "st_sed_sep": {"extractor.net": convert_st_sed_sep, "query_net": convert_tagger},
    }[args.network]
    sources = [(args.checkpoint, prefix, fn) for prefix, fn in parts.items()]
    if args.tagger:
        sources[1:] = [(args.tagger, "query_net", convert_hts_at)]
    public = {path: load(path, what="checkpoint of PyTorch") for path in {path for path, *_ in sources}}
    weights, counts, whole = {}, [], args.output.suffix == ".zip"
    for path, prefix, fn in sources:
        try:
            part = fn(public[path], **front)
        except DataError as e:
            raise DataError(f"{path}: {e}") from e
        weights |= {f"{prefix}.{name}": value for name, value in part.items()}
        counts.append(f"{len(part)} tensors under {prefix}")
        if whole and not part:
            raise DataError(f"{path}: holds no tagger, which a bundle needs: --tagger HTSAT.ckpt")
    if whole:
        origin = " and ".join(path.name for path in (args.checkpoint, args.tagger) if path)
        _bundle(args, weights, origin)
    else:
        with atomic_path(args.output) as tmp, writing(args.output):
            torch.save(weights, tmp)
    print(f"{args.output}: {', '.join(counts)}")


def _check_conversion(p: argparse.ArgumentParser, args: argparse.Namespace, front: dict) -> None:
    """Usage errors of `convert`, and files that do not exist (DataError)."""
    whole, is_tagger = args.output.suffix == ".zip", args.network in TAGGERS
    if front and not is_tagger:
        p.error(f"--{next(iter(front))} is for {' and '.join(TAGGERS)}")
    for option in ("config", "labels"):
        if getattr(args, option) and not whole:
            p.error(f"--{option} is for a bundle, -o NAME.zip; got -o {args.output}")
    if whole and is_tagger:
        p.error(f"a bundle, -o {args.output}, is made of --network st_sed_sep; a tagger's weights go into -o NAME.pth")
    if whole and not args.config:
        p.error("a bundle takes --config, the separator's YAML")
    if args.tagger and is_tagger:
        p.error("--tagger is for --network st_sed_sep")
    for path in (args.checkpoint, args.tagger, args.config, args.labels):
        if path and not path.is_file():
            raise DataError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")


def _bundle(args: argparse.Namespace, weights: dict, origin: str) -> None:
    from espnet2_ext.errors import BundleError
    from espnet2_ext.infer.pack import bundle_weights
    from espnet2_ext.tasks.qsep import QSepTask
    from espnet2_ext.util.config import read_config

    if "extractor" not in read_config(args.config):
        raise BundleError(f"{args.config}: is not a separator's YAML (it has no extractor)")
    config = vars(QSepTask.get_parser().parse_args(["--config", str(args.config)]))
    try:
        bundle_weights(config, weights, args.labels, args.output, origin)
    except BundleError as e:
        raise BundleError(f"{args.config}: {e}") from e
