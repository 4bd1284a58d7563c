"""Names of experiments: the YAML's name and the options that tell one experiment from another of the same YAML."""

from pathlib import Path
from typing import NamedTuple


def option_tag(*args: str) -> str:
    """What options for a training add to an experiment's name: `--lr 1 --seed=2` is `_lr1_seed2`."""
    return " ".join(args).replace("--", "_").translate(str.maketrans("", "", " |=/"))


def config_name(config: str) -> str:
    """A YAML's name without folder and suffix."""
    return Path(config).name.removesuffix(".yaml")


def query_tag(config: str, args: str = "") -> str:
    """Name of a query experiment, whose folder is `qsep_NAME`."""
    return config_name(config) + option_tag(args)


def tagger_tag(config: str, args: str = "") -> str:
    """Name of a tagger's experiment, whose folder is `tag_NAME`."""
    return (config_name(config) + option_tag(args)).removeprefix("tag_")


def bundle_tag(bundle: str) -> str:
    """Name of the experiment that uses a trained model: a bundle or a query experiment's folder."""
    return Path(bundle).name.removesuffix(".zip").removeprefix("qsep_")


class WeakTags(NamedTuple):
    """Names of the experiments of one run on weak labels; folders are `weak_SEPARATOR_LABELTYPE` and
    `weak_CLASSIFIER_classifier_LABELTYPE`."""

    separator: str
    classifier: str


def weak_tags(
    config: str,
    *,
    weak_tag: str = "",
    weak_args: str = "",
    classifier_args: str = "",
    separator_args: str = "",
    trainer: str = "espnet",
    strategy: str = "fixed",
    trials: int = 1,
) -> WeakTags:
    """Names of the separators and classifiers that the options of `weak.sh` make.

    Args:
        strategy: that of the options or else of the YAML; empty: fixed.
        trials: several are told apart by their seeds, and the best of them is named after that.
    """
    if weak_tag:
        return WeakTags(weak_tag, weak_tag)
    best = "" if trials == 1 else "_best"
    classifier = config_name(config) + best + option_tag(weak_args + classifier_args)
    separator = classifier + option_tag(separator_args)
    end = "" if trainer == "espnet" else f"_{trainer}"
    kind = "" if strategy in ("", "fixed") else f"_{strategy}"
    return WeakTags(separator + end + kind, classifier + end)
