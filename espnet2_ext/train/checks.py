"""Checks before a training: one batch and one step, and a trained classifier for a separator."""

import argparse
import inspect
import logging
from pathlib import Path

import torch
from espnet2.tasks.abs_task import AbsTask
from espnet2.torch_utils.model_summary import model_summary
from espnet2.train.distributed_utils import DistributedOption
from torch import Tensor, nn

from espnet2_ext.build import plain_class
from espnet2_ext.errors import DataError, refusing
from espnet2_ext.train.checkpoints import read_weights
from espnet2_ext.util.documents import mapping, read_yaml


def check(task: type[AbsTask], args: argparse.Namespace) -> None:
    """Take the first step of a training in this process, and log what each array of the batch holds.

    Args:
        task: with `start_model(args)`, the model as a training begins.

    Raises:
        DataError: from `start_model` and `check_sum`, or a loss that is not finite.
    """
    args.num_workers = 0
    torch.manual_seed(args.seed)
    model = task.start_model(args).train()
    logging.info("%s", model_summary(model).partition("Model summary:")[2].strip())
    factory = task.build_iter_factory(args, DistributedOption(), "train")
    keys, batch = next(iter(factory.build_iter(1)))
    for name, x in batch.items():
        rms = x.float().square().mean().sqrt()
        logging.info("%s: %s %s, from %.3g to %.3g, RMS %.3g", name, list(x.shape), x.dtype, x.min(), x.max(), rms)
    if getattr(factory.drawer, "sums", True):
        check_sum(keys, batch)
    loss, stats, _ = model(**batch, utt_id=keys)
    loss.backward()
    logging.info("first step: %s", ", ".join(f"{k} {float(v):.3f}" for k, v in stats.items()))
    if not loss.isfinite():
        raise DataError(f"the loss of the first step is {float(loss)}")
    valid = task.build_iter_factory(args, DistributedOption(), "valid")
    logging.info("validation: %d batches", len(valid.build_iter(1)))


def check_sum(keys: list[str], batch: dict[str, Tensor]) -> None:
    """Refuse targets that do not sum to the mixture (DataError).

    Args:
        batch: `speech_mix` and `speech_ref1`, ..., [B, T] each. Mixtures with an absent target and
            batches without targets pass.
    """
    refs = [x for name, x in batch.items() if name.startswith("speech_ref") and not name.endswith("_lengths")]
    if not refs:
        return
    refs = torch.stack(refs)
    there = (refs.abs().amax(-1) > 0).all(0)
    error = (refs.sum(0) - batch["speech_mix"]).abs().amax(-1) * there
    if (error > 1e-5 * batch["speech_mix"].abs().amax(-1)).any():
        raise DataError(f"{keys[int(error.argmax())]}: targets do not sum to the mixture")


HOW = "train one first: the same command with --part classifier and another --output_dir"


def require_classifier(args: argparse.Namespace, part: str, classifier: nn.Module) -> None:
    """Make sure that `args.classifier_file` holds weights for `classifier`, a model's `part`, and load them later.

    The file is put into ESPnet's own `init_param`, which is read as a training begins and not
    when its model is loaded for use.

    Raises:
        DataError: there is none, or it is of another configuration or of other classes; both are named.
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
    compare_configs(args, path, part)
    compare_weights(classifier.state_dict(), path, part)
    entry = f"{path}:{part}:{part}"
    if entry not in args.init_param:
        args.init_param = [*args.init_param, entry]
    logging.info("classifier: %s", path)


def compare_configs(args: argparse.Namespace, path: str, part: str) -> None:
    """Refuse a classifier of other classes, networks or frames (DataError with both values)."""
    config = Path(path).parent / "config.yaml"
    with refusing(f"{config}: is not the configuration of a classifier"):
        found = describe(argparse.Namespace(**mapping(read_yaml(config), config)), part)
    for name, ours in describe(args, part).items():
        if ours != found[name]:
            raise DataError(f"--classifier_file {path}: its {name} is {found[name]}, that of this training {ours}")


def describe(args: argparse.Namespace, part: str) -> dict:
    """What must agree between a classifier, `part` of a model, and a separator that it judges."""
    name, conf = getattr(args, part), getattr(args, f"{part}_conf")
    classifier = plain_class(part, name, trusted=True)
    encoder = plain_class("encoder", args.encoder, trusted=True)
    frames = {**_defaults(encoder), **args.encoder_conf}
    if "n_fft" not in frames:  # no STFT: the model's own
        frames = {"n_fft": 512, "hop_length": 128, **args.model_conf}
    return {
        "classes": list(args.class_names),
        part: name,
        f"{part}_conf": _plain({**_defaults(classifier), **conf}),
        "STFT": {k: frames.get(k) for k in ("n_fft", "hop_length", "window")},
        "sample_rate": frames.get("sample_rate", args.sample_rate),
    }


def compare_weights(expected: dict[str, Tensor], path: str, part: str) -> None:
    """Refuse a file without whole weights of this classifier (DataError)."""
    state = read_weights(path, "--classifier_file")
    found = {k.removeprefix(f"{part}."): v for k, v in state.items() if k.startswith(f"{part}.")}
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
