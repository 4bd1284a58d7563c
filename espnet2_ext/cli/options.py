"""Options that several commands share, each defined once; a command adds the groups that it needs to its parser."""

import argparse
import logging
import os

from espnet2_ext.errors import DataError
from espnet2_ext.util.names import STARTER, bundle_file

BUNDLE_VARIABLE = "ESPNET2_EXT_BUNDLE"
DEFAULT = f"${BUNDLE_VARIABLE}, or else {STARTER}, the model in the package"  # for the help
A_BUNDLE = "model bundle: a file (.zip), a folder with one, or OWNER/NAME of huggingface.co"


def add_workers(p: argparse.ArgumentParser, *, scheduler: bool = True) -> None:
    """`--num_workers` and `--scheduler` of work on files: one process per core, or a Dask cluster."""
    p.add_argument("--num_workers", type=int, help="processes (default: one per core)")
    if scheduler:
        _add_scheduler(p)


def add_storage(p: argparse.ArgumentParser) -> None:
    """`--fs`, `--format` and `--clips_per_shard` of a clip bank; read by `storage`."""
    from espnet2_ext.data.bank.shards import DEFAULT, SUFFIX

    p.add_argument("--fs", type=int, default=DEFAULT.fs, help="rate in Hz")
    text = "flac: half the disk; pcm16: far less CPU"
    p.add_argument("--format", choices=SUFFIX, default=DEFAULT.format, help=text)
    text = "clips per file; 0: by their number"
    p.add_argument("--clips_per_shard", type=int, default=DEFAULT.clips_per_shard, help=text)


def storage(a: dict):
    """The `Settings` of a clip bank, from options that are taken out of `a`."""
    from espnet2_ext.data.bank.shards import Settings

    return Settings(a.pop("fs"), a.pop("format"), a.pop("clips_per_shard"))


def add_model_workers(p: argparse.ArgumentParser) -> None:
    """`--num_workers` and `--scheduler` of work with a model: one process with all cores is the default."""
    text = "processes, each with its own model and one core; 1: this process, with all cores (%(default)s)"
    p.add_argument("--num_workers", type=int, default=1, help=text)
    _add_scheduler(p)


def _add_scheduler(p: argparse.ArgumentParser) -> None:
    p.add_argument("--scheduler", help="address of a Dask scheduler, instead of local processes")


def add_device(p: argparse.ArgumentParser, precision: bool = False) -> None:
    """`--device` and, where a command takes it, `--precision`; `infer` resolves them."""
    text = "auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ... (%(default)s)"
    p.add_argument("--device", default="auto", help=text)
    if precision:
        text = "of the wide linear layers: int8 or bf16 to be faster, auto: what the processor does well (%(default)s)"
        p.add_argument("--precision", choices=("auto", "fp32", "bf16", "int8"), default="fp32", help=text)


def add_batch_size(p: argparse.ArgumentParser, default: int) -> None:
    """`--batch_size` of inference; a batch holds recordings of one length."""
    text = "recordings in a batch, all of one length (%(default)s)"
    p.add_argument("--batch_size", type=int, default=default, help=text)


class BundleFile(argparse.Action):
    """Stores the file of the bundle that is named, see `hub.located`; a type's DataError would become a usage error."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Raises a BundleError where there is none; None stays."""
        setattr(namespace, self.dest, values and _located(values))


class BundleFiles(BundleFile):
    """The same of an option that may be repeated: a list."""

    def __call__(self, parser, namespace, values, option_string=None):
        """As the parent's."""
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or []), _located(values)])


def _located(name: str) -> str:
    from espnet2_ext.infer.exchange.hub import located

    return located(name)


def add_bundle(p: argparse.ArgumentParser) -> None:
    """`--bundle` of the commands that have a default; read by `bundle_path`."""
    p.add_argument("--bundle", action=BundleFile, help=f"{A_BUNDLE}; default: {DEFAULT}")


def add_model(p: argparse.ArgumentParser, *, repeatable: bool = False, default: str = "") -> None:
    """Which model: `--bundle`, or `--train_config` with `--model_file`; read by `model_files`.

    Args:
        p: gets the options.
        repeatable: each may be given several times, one per model.
        default: for the help: where the bundle is taken from when no model is named.
    """
    action = "append" if repeatable else "store"
    text = A_BUNDLE + (f"; default: {default}" if default else "")
    p.add_argument("--bundle", action=BundleFiles if repeatable else BundleFile, help=text)
    p.add_argument("--train_config", action=action, help="instead of a bundle: config.yaml of the experiment")
    text = "with its weights, such as valid.loss.best.pth (weak labels: or a Lightning .ckpt)"
    p.add_argument("--model_file", action=action, help=text)


def bundle_path(given: str | None) -> str:
    """The bundle named on the command line, else by the environment, else the model in the package.

    Raises:
        DataError: none is named, and the package has none.
    """
    if given or (named := os.environ.get(BUNDLE_VARIABLE)):
        return given or _located(named)
    if not os.path.exists(path := bundle_file(STARTER)):
        raise DataError(
            f"which model? Name a bundle with --bundle MODEL.zip, or set {BUNDLE_VARIABLE} to its path; "
            "`espnet2-ext pack` makes one from a training"
        )
    return path


def log_starter(info: dict) -> None:
    """Say so where a model is the one in the package, with what it was trained on (`info`: see `OpenBundle.about`)."""
    if info["path"] == bundle_file(STARTER):
        logging.info("this is the model in the package, %s; --bundle names another", trained_words(info))


def trained_words(info: dict) -> str:
    """`trained_on` of bundle.yaml in words."""
    found = info.get("trained_on") or "data that its bundle does not name"
    if isinstance(found, dict):
        parts = {"clips": "{} clips", "hours": "{} h", "set": "of the set {}"}
        found = ", ".join(text.format(found[k]) for k, text in parts.items() if k in found) or str(found)
    return f"trained on {found}"


def model_files(p: argparse.ArgumentParser, args: argparse.Namespace) -> list[tuple[str | None, ...]]:
    """(bundle, train_config, model_file) of each model named with the options of `add_model`; none named: empty.

    What does not belong together ends the command with a usage error.
    """
    bundles, configs, weights = (_as_list(getattr(args, n)) for n in ("bundle", "train_config", "model_file"))
    if bundles and (configs or weights):
        p.error("give either --bundle, or --train_config and --model_file")
    if len(configs) != len(weights):
        p.error("--train_config and --model_file belong together: give both for each model")
    return [(bundle, None, None) for bundle in bundles] or [(None, *pair) for pair in zip(configs, weights)]


def _as_list(value: str | list[str] | None) -> list[str]:
    return value if isinstance(value, list) else [value] if value else []


def add_split(p: argparse.ArgumentParser) -> None:
    """Shares and seed of the split of a user's own sounds."""
    p.add_argument("--valid_share", type=float, default=0.1, help="part of each class for validation (%(default)s)")
    p.add_argument("--test_share", type=float, default=0.1, help="part of each class for the test (%(default)s)")
    p.add_argument("--seed", type=int, default=0, help="seed of the split (%(default)s)")


def add_frames(p: argparse.ArgumentParser) -> None:
    """Frame and hop of frame labels."""
    p.add_argument("--n_fft", type=int, default=512, help="frame of the labels in samples (%(default)s)")
    p.add_argument("--hop", type=int, default=128, help="hop of the labels in samples (%(default)s)")
