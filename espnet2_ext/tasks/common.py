"""What the tasks share: objects from a YAML's names, checked options, and a training's end."""

import argparse
import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

import torch
from espnet2.enh.loss.wrappers.abs_wrapper import AbsLossWrapper
from espnet2.tasks.abs_task import AbsTask
from espnet2.train.class_choices import ClassChoices
from espnet2.utils import config_argparse

from espnet2_ext import registry
from espnet2_ext.build import make
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.tables import read_labels, write_labels
from espnet2_ext.enh.choices import PluginChoices, table
from espnet2_ext.errors import DataError
from espnet2_ext.train.checkpoints import goes_on, whole_checkpoints
from espnet2_ext.util.config import read_config

find = functools.partial(registry.espnet_class, trusted=True)  # the YAML of a training is the user's own


def choices(*kinds: str) -> list[ClassChoices]:
    """ESPnet's tables of such kinds, for `class_choices_list`: their options take class paths, too."""
    return [PluginChoices(table(kind), find) for kind in kinds]


class ConfigParser(config_argparse.ArgumentParser):
    """ESPnet's parser with a `--config` that may `include` others, see `read_config`."""

    @classmethod
    def of(cls, parser: config_argparse.ArgumentParser) -> "ConfigParser":
        """ESPnet's parser, made one of these."""
        parser.__class__ = cls
        return parser

    def parse_known_args(self, args=None, namespace=None):
        parse = argparse.ArgumentParser.parse_known_args
        path = parse(self, args, namespace)[0].config
        if path is not None:
            try:
                config = read_config(path)
            except DataError as e:
                self.error(str(e))
            if unknown := sorted(config.keys() - {action.dest for action in self._actions}):
                self.error(f"{path}: unknown key {', '.join(unknown)}")
            self.set_defaults(**config)
        return parse(self, args, namespace)


def build_criterion(entry: dict, default_wrapper: str, **given) -> AbsLossWrapper:
    """An entry of a YAML's `criterions`, `{name, conf, wrapper, wrapper_conf}`, in its wrapper.

    Args:
        given: arguments of the criterion that the task knows.
    """
    criterion = make(find, "criterion", entry["name"], entry.get("conf"), **given)
    wrapper = entry.get("wrapper", default_wrapper)
    return make(find, "loss_wrapper", wrapper, entry.get("wrapper_conf"), criterion=criterion)


def require(args: argparse.Namespace, *names: str) -> None:
    """Refuse training without an option (DataError that names it)."""
    for name in names:
        if getattr(args, name) is None:
            raise DataError(f"--{name} is needed for training (command line or YAML)")


def fit_schedule(args: argparse.Namespace) -> None:
    """Let a schedule of one cycle last as long as the training where its length is not given.

    Raises:
        DataError: neither its length nor that of an epoch is known, or it ends too early.
    """
    if args.scheduler != "onecyclelr" or "epochs" in args.scheduler_conf:
        return
    total, steps = args.scheduler_conf.get("total_steps"), None
    if args.num_iters_per_epoch is not None:
        steps = args.max_epoch * (args.num_iters_per_epoch // args.accum_grad)
    if total is None and steps is None:
        raise DataError("scheduler onecyclelr: --num_iters_per_epoch or total_steps in scheduler_conf is needed")
    if total is not None and steps is not None and total < steps:
        raise DataError(
            f"scheduler_conf: total_steps {total} ends before the training, which "
            f"takes {steps} steps; left out, it lasts as long"
        )
    args.scheduler_conf = {**args.scheduler_conf, "total_steps": total or steps}


@contextlib.contextmanager
def training(args: argparse.Namespace) -> Iterator[None]:
    """Around `main_worker`: checkpoints are written whole, and the process group is closed.

    Raises:
        DataError: see `fit_schedule`.
    """
    fit_schedule(args)
    try:
        with whole_checkpoints():
            yield
    finally:  # ESPnet leaves the group open, and some processes then abort at their end
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def train(task: type[AbsTask], cmd: list[str] | None = None) -> None:
    """Train, or go on with `--resume true`.

    Raises:
        DataError: the training ended without a usable checkpoint.
    """
    args = task.get_parser().parse_args(cmd)
    task.main(args=args)
    if args.dry_run or args.collect_stats:
        return
    if not (Path(args.output_dir) / "checkpoint.pth").exists():
        raise DataError(
            f"{args.output_dir}: training ended without a checkpoint "
            "(no step was taken, or every gradient was invalid; see its log)"
        )


def keep_classes(args: argparse.Namespace, bank: ClipBank, *, write: bool = True) -> None:
    """Write `labels.tsv` of the training's classes into its folder, for those who use the weights.

    Raises:
        DataError: a training that goes on was begun with other classes.
    """
    path = Path(args.output_dir) / "labels.tsv"
    if goes_on(args) and path.is_file() and [c.mid for c in read_labels(path)] != [c.mid for c in bank.classes]:
        raise DataError(f"{path}: the training was begun with other classes than those of {bank.path}")
    if write:
        write_labels(path, bank.classes)
