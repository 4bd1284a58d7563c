"""A trained classifier for a separator: found, compared with the training's configuration, and checked."""

import argparse
import inspect
import logging
from pathlib import Path

from torch import Tensor, nn

from espnet2_ext.build import plain_class
from espnet2_ext.errors import DataError, refusing
from espnet2_ext.train.checkpoints import read_weights
from espnet2_ext.util.documents import mapping, read_yaml

HOW = "train one first: the same command with --part classifier and another --output_dir"
PREFIX = "classifier."


def require_classifier(args: argparse.Namespace, classifier: nn.Module) -> None:
    """Make sure that `args.classifier_file` holds weights for `classifier`, and load them later.

    The file is put into ESPnet's own `init_param`, which is read as a training begins and not
    when its model is loaded for use.

    Raises:
        DataError: there is none, or it is of another configuration or of other classes; both
            are named.
    """
    path = args.classifier_file
    if path is None:
        raise DataError(
            f"strategy {args.strategy} needs --classifier_file, a trained classifier ({HOW}); strategy joint needs none"
        )
    if ":" in str(path):
        raise DataError(f"--classifier_file {path}: ESPnet takes no path with a colon")
    for needed in (Path(path), Path(path).parent / "config.yaml"):
        if not needed.is_file():
            raise DataError(f"--classifier_file {path}: no file {needed}; {HOW}")
    compare_configs(args, path)
    compare_weights(classifier.state_dict(), path)
    entry = f"{path}:classifier:classifier"
    if entry not in args.init_param:
        args.init_param = [*args.init_param, entry]
    logging.info("classifier: %s", path)


def compare_configs(args: argparse.Namespace, path: str) -> None:
    """Refuse a classifier of other classes, networks or frames (DataError with both values)."""
    config = Path(path).parent / "config.yaml"
    with refusing(f"{config}: is not the configuration of a classifier"):
        found = describe(argparse.Namespace(**mapping(read_yaml(config), config)))
    for name, ours in describe(args).items():
        if ours != found[name]:
            raise DataError(f"--classifier_file {path}: its {name} is {found[name]}, that of this training {ours}")


def describe(args: argparse.Namespace) -> dict:
    """What must agree between a classifier and a separator that it judges."""
    classifier = plain_class("classifier", args.classifier, trusted=True)
    encoder = plain_class("encoder", args.encoder, trusted=True)
    frames = {**_defaults(encoder), **args.encoder_conf}
    if "n_fft" not in frames:  # no STFT: the model's own
        frames = {"n_fft": 512, "hop_length": 128, **args.model_conf}
    return {
        "classes": list(args.class_names),
        "classifier": args.classifier,
        "classifier_conf": _plain({**_defaults(classifier), **args.classifier_conf}),
        "STFT": {k: frames.get(k) for k in ("n_fft", "hop_length", "window")},
        "sample_rate": frames.get("sample_rate", args.sample_rate),
    }


def compare_weights(expected: dict[str, Tensor], path: str) -> None:
    """Refuse a file without whole weights of this classifier (DataError)."""
    state = read_weights(path, "--classifier_file")
    found = {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}
    if not found:
        raise DataError(
            f"--classifier_file {path}: holds no weights of a classifier; give weights "
            "alone, such as valid.loss.best.pth"
        )
    wrong = [
        k for k in {**expected, **found} if k not in found or k not in expected or found[k].shape != expected[k].shape
    ]
    if wrong:
        raise DataError(
            f"--classifier_file {path}: these weights are of another classifier; they "
            f"differ in {', '.join(wrong[:3])}{', ...' if wrong[3:] else ''}"
        )


def _defaults(cls: type) -> dict:
    return {k: p.default for k, p in inspect.signature(cls).parameters.items() if p.default is not p.empty}


def _plain(x: object) -> object:
    """Tuples as lists, as a YAML gives them."""
    if isinstance(x, dict):
        return {k: _plain(v) for k, v in x.items()}
    return [_plain(v) for v in x] if isinstance(x, list | tuple) else x
