"""`espnet2-ext pack`, its siblings of the recipes, `calibrate`, `info` and `classes`: bundles made and described."""

import logging
import os
import re
import textwrap
from pathlib import Path

from espnet2_ext.cli.options import A_BUNDLE, DEFAULT, BundleFile, add_device, add_model, bundle_path
from espnet2_ext.errors import DataError
from espnet2_ext.util.names import Parser, bundle_file

PARTS = ("encoder", "extractor", "query_net", "query_grad", "separator", "decoder", "classifier", "label_type")
SHOWN = 50  # names of classes that `info` prints


def pack(argv: list[str] | None = None) -> None:
    """Pack a training into a bundle, or a bundle anew."""
    p = Parser(description=pack.__doc__)
    p.add_argument("--train_config", help="config.yaml of the experiment")
    p.add_argument("--model_file", help="weights, such as valid.loss.ave.pth")
    text = "labels.tsv of the training data; not for weak labels, whose config.yaml names the classes"
    p.add_argument("--labels", help=text)
    text = "instead of an experiment: a bundle, whose model, classes and facts are taken over"
    p.add_argument("--bundle", action=BundleFile, help=text)
    p.add_argument("--info", help="YAML with trained_on, results and other facts")
    p.add_argument("--name", help="default: the name of the experiment's folder")
    text = "model card in Markdown, which `info` prints: what comes before its first `## ` heading, with --card all"
    p.add_argument("--card", help=text)
    text = "weights in half precision on disk: half the size; computation stays in single precision"
    p.add_argument("--half", action="store_true", help=text)
    p.add_argument("-o", "--output", help="a .zip file")
    text = "in place of -o: a folder for huggingface.co, with the bundle and a README.md (its model card)"
    p.add_argument("--hub", metavar="DIR", help=text)
    args = p.parse_args(argv)
    if bool(args.output) == bool(args.hub):
        p.error("give -o, or --hub")
    model = (args.train_config, args.model_file)
    if bool(args.bundle) == any(model) or any(model) != all(model) or (args.bundle and args.labels):
        p.error("give --train_config and --model_file (with --labels), or --bundle")
    from espnet2_ext.infer.bundle import CARD, read_config
    from espnet2_ext.infer.exchange import hub
    from espnet2_ext.infer.pack import rewrite, write_bundle
    from espnet2_ext.util.documents import read_text

    extra = {} if args.info is None else read_config(args.info)
    if args.name:
        extra["name"] = args.name
    more = {CARD: read_text(args.card).encode()} if args.card else {}
    out = args.output or os.path.join(args.hub, hub.BUNDLE)
    if args.bundle:
        info = rewrite(args.bundle, out, extra, args.half, more)
    else:
        info = write_bundle(*model, args.labels, out, extra, args.half, more)
    size = f"{info['parameters']} parameters, {info['classes']} classes, {info['fs']} Hz"
    logging.info("%s: %s, %s, %.2f MB", out, info["name"], size, os.path.getsize(out) / 1e6)
    if args.hub:
        hub.write_page(args.hub)
        logging.info("to publish it: hf upload OWNER/%s %s", info["name"], args.hub)


def unpack(argv: list[str] | None = None) -> None:
    """Write what a training needs to begin with the model of a bundle: config.yaml and model.pth."""
    p = Parser(description=unpack.__doc__)
    p.add_argument("bundle", action=BundleFile, help="of a query separator")
    p.add_argument("--config", required=True, help="YAML of the training; its networks are replaced by the bundle's")
    p.add_argument("-o", "--output", required=True, help="folder")
    args = p.parse_args(argv)
    from espnet2_ext.infer.pack import unpack as write

    write(args.bundle, args.config, args.output)


def export(argv: list[str] | None = None) -> None:
    """Write a query separator as ONNX: its query encoder and its separator, which run without PyTorch."""
    p = Parser(description=export.__doc__)
    p.add_argument("bundle", action=BundleFile, help="of a CaRE-SEP")
    p.add_argument("-o", "--output", required=True, help="folder for query.onnx and separator.onnx")
    p.add_argument("--queries", type=int, default=1, help="that a run of the separator answers (%(default)s)")
    args = p.parse_args(argv)
    from espnet2_ext.infer.exchange import export as onnx
    from espnet2_ext.infer.query_separator import Separator

    separator = Separator.from_bundle(args.bundle, "cpu")
    for path in onnx.export(separator, args.output, args.queries):
        logging.info("%s: opset %d, %.1f MB", path, onnx.OPSET, os.path.getsize(path) / 1e6)
    frames = round(10 * separator.fs / separator.hop) + 1
    found = onnx.parity(separator, args.output, frames, repeats=3)
    text = (
        "masks of 10 s differ from PyTorch's by %.1e at most; query and masks take %.2f s with PyTorch, %.2f with ONNX"
    )
    logging.info(text, *found)


def info(argv: list[str] | None = None) -> None:
    """Describe a bundle, on standard output."""
    p = Parser(description=info.__doc__)
    p.add_argument("bundle", nargs="?", action=BundleFile, help=f"{A_BUNDLE}; default: {DEFAULT}")
    p.add_argument("--card", action="store_true", help="print the model card, and nothing else")
    args = p.parse_args(argv)
    path = bundle_path(args.bundle)
    from espnet2_ext.infer.bundle import open_bundle
    from espnet2_ext.util.documents import dump_yaml

    with open_bundle(path) as bundle:
        sizes, model_hash, card = bundle.sizes(), bundle.model_hash, bundle.card()
    if args.card and not card:
        raise DataError(f"{path}: holds no model card")
    if args.card:
        return print(card, end="")
    weights = (
        f"{sizes.tensors} tensors, {sizes.numbers:,} numbers, {sizes.size / 1e6:.1f} MB" if sizes else "not counted"
    )
    parts = {k: bundle.config[k] for k in PARTS if k in bundle.config}
    shown = {"bundle": path, **bundle.info, **parts, "weights": weights, "model_hash": model_hash}
    print(dump_yaml(shown), end="")
    names = [label.name for label in bundle.labels]
    more = f"; and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    print("labels: " + ("; ".join(names[:SHOWN]) or "none") + more)
    if card:
        print("card:\n" + short_card(card))


def short_card(card: str) -> str:
    """The beginning of a model card, indented: without its YAML, up to the first `## `; the other sections by name."""
    text = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)
    first, *others = re.split(r"^## ", text, flags=re.MULTILINE)
    names = "; ".join(part.partition("\n")[0].strip() for part in others)
    more = f"\n\nMore (info --card): {names}" if names else ""
    return textwrap.indent(first.strip() + more, "  ")


def classes(argv: list[str] | None = None) -> None:
    """List the classes of a model; of a query model those that `--query class:NAME` can name, with their sounds."""
    p = Parser(description=classes.__doc__)
    p.add_argument("bundle", nargs="?", action=BundleFile, help=f"{A_BUNDLE}; default: {DEFAULT}")
    path = bundle_path(p.parse_args(argv).bundle)
    from espnet2_ext.infer.bundle import open_bundle

    with open_bundle(path) as bundle:
        known, labels, task = bundle.class_queries(), bundle.labels, bundle.info["task"]
    if known is None:
        print("\n".join(label.name for label in labels))
        if task == "qsep":
            logging.info("no --query class:NAME can be asked: `espnet2-ext calibrate` makes their queries")
        return
    width = max(map(len, known.names))
    for name, count, spread in zip(known.names, known.count, known.spread):
        print(f"{name:<{width}}  {count:6d} sounds  spread {spread:.3g}")


def calibrate(argv: list[str] | None = None) -> None:
    """Measure what a query model was trained on, and put it into its bundle: the mean query of each class, for `--query
    class:NAME`; how far sounds lie from them, so that `separate` warns of a query that is unlike all of them; how
    likely a sound is there, from mixtures with and without it, for `separate` and `find`."""
    p = Parser(description=calibrate.__doc__)
    p.add_argument("bundle", type=bundle_file, help="model bundle (.zip)")
    p.add_argument("--bank", required=True, help="clip bank of its training, such as dump/train")
    text = "clip bank of sounds of the same classes that it was not trained on (default: the halves of --bank)"
    p.add_argument("--held_out", help=text)
    p.add_argument("--most", type=int, default=100, help="clips of a class that are measured (%(default)s)")
    text = "of presence, of clips of --held_out, where it is given; 0: none (%(default)s)"
    p.add_argument("--mixtures", type=int, default=200, help=text)
    p.add_argument("-o", "--output", help="a .zip file (default: the bundle itself)")
    add_device(p)
    args = p.parse_args(argv)
    if args.most < 1 or args.mixtures < 0:
        p.error("--most must be 1 or more, --mixtures 0 or more")
    from espnet2_ext.infer.vectors import calibrate as calibration

    given = (args.bundle, args.bank, args.held_out, args.output, args.most, args.device, args.mixtures)
    found = calibration.calibrate(*given)
    text = f"{len(found.names)} classes, {found.count.sum()} sounds; far: distance above {found.far:.2f}"
    logging.info("%s: %s", args.output or args.bundle, text)
    if found.presence is not None:
        logging.info("%s: presence: %s", args.output or args.bundle, found.presence.words())


# ---- of recipes -------------------------------------------------------------------------------------


def qsep_pack(argv: list[str] | None = None) -> None:
    """Pack a scored query experiment: one file with all that using the model needs."""
    p = Parser(description=qsep_pack.__doc__)
    p.add_argument("--exp_dir", required=True, help="experiment, with config.yaml")
    p.add_argument("--model_file", required=True, help="weights, such as valid.loss.best.pth")
    p.add_argument("--train_bank", required=True, help="clip bank of the training")
    text = "scored outputs, whose scores go along; repeatable"
    p.add_argument("--inference_dir", action="append", default=[], help=text)
    p.add_argument("-o", "--output", required=True, help="a .zip file")
    text = "clip bank of the validation: the bundle gets class queries and a presence score, as of `calibrate`"
    p.add_argument("--held_out", help=text)
    p.add_argument("--most", type=int, default=20, help="for them: clips of a class that are embedded (%(default)s)")
    p.add_argument("--mixtures", type=int, default=100, help="and mixtures that it is calibrated on (%(default)s)")
    add_device(p)
    a = p.parse_args(argv)
    from espnet2_ext.infer.scored import pack_experiment

    if a.held_out:
        from espnet2_ext.infer.folder import ModelFiles
        from espnet2_ext.infer.vectors.calibrate import Clips, write_class_queries

        model = ModelFiles(None, str(Path(a.exp_dir) / "config.yaml"), a.model_file, a.device)
        try:
            write_class_queries(model, Clips(a.train_bank), Clips(a.held_out), a.most, a.mixtures)
        except DataError as e:
            logging.warning("%s: is not calibrated: %s", a.output, e)
    outputs = {Path(d).name: d for d in a.inference_dir}
    pack_experiment(a.exp_dir, a.model_file, outputs, a.output, a.train_bank)
    print(a.output)


def weak_pack(argv: list[str] | None = None) -> None:
    """Pack scored weak-label experiments, each into one file to separate with."""
    p = Parser(description=weak_pack.__doc__)
    p.add_argument("exp_dirs", nargs="+", metavar="EXP", help="gets EXP/NAME.zip, NAME its own")
    p.add_argument("--model_file", default="valid.loss.best.pth", help="its weights (%(default)s)")
    p.add_argument("--test_set", action="append", default=[], help="whose scores go along; repeatable")
    a = p.parse_args(argv)
    from espnet2_ext.infer.scored import pack_experiment

    for exp in map(Path, a.exp_dirs):
        out = exp / f"{exp.absolute().name}.zip"
        pack_experiment(exp, exp / a.model_file, {t: exp / f"inference_{t}" for t in a.test_set}, out)
        print(out)


def qsep_describe(argv: list[str] | None = None) -> None:
    """Write into a folder of scores which trained model they are of, and whether it is zero-shot."""
    p = Parser(description=qsep_describe.__doc__)
    p.add_argument("--exp_dir", required=True, help="gets config.yaml and model.json")
    p.add_argument("--labels", required=True, help="labels.tsv of the test set")
    add_model(p)
    a = p.parse_args(argv)
    from espnet2_ext.data.tables import read_labels
    from espnet2_ext.infer.bundle import read_bundle, read_config
    from espnet2_ext.infer.folder import ModelFiles
    from espnet2_ext.train.experiment import describe_model

    ModelFiles(a.bundle, a.train_config, a.model_file).digest()  # says which file is missing
    if a.bundle:
        config, _, classes, info = read_bundle(a.bundle, weights=False)
    else:
        config, classes, info = read_config(a.train_config), [], {}
    about = describe_model(a.exp_dir, a.bundle or a.model_file, config, classes, info, read_labels(a.labels))
    print(f"zero-shot: {about['facts']['zero-shot']}")
