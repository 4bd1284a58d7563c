"""What the tasks share: objects from a YAML's names, checked options, and a training's end."""

import argparse
import contextlib
import functools
import inspect
import multiprocessing
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from espnet2.enh.loss.wrappers.abs_wrapper import AbsLossWrapper
from espnet2.schedulers.abs_scheduler import AbsValEpochStepScheduler
from espnet2.tasks import abs_task
from espnet2.tasks.abs_task import AbsTask
from espnet2.train.class_choices import ClassChoices
from espnet2.utils import config_argparse
from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import int_or_none, str2bool, str2pair_str, str2triple_str, str_or_none
from torch.optim.optimizer import register_optimizer_step_post_hook

from espnet2_ext import registry
from espnet2_ext.build import construct, make
from espnet2_ext.core.devices import need_gpus
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.tables import read_labels, write_labels
from espnet2_ext.enh.choices import PluginChoices, table
from espnet2_ext.errors import FAULTS, DataError, refusing, told
from espnet2_ext.train.checkpoints import describe, goes_on, whole_checkpoints
from espnet2_ext.util.config import read_config
from espnet2_ext.util.documents import check, mapping, short
from espnet2_ext.util.files import TRAINED
from espnet2_ext.util.locks import hold
from espnet2_ext.util.process import as_worker, explain, watched

find = functools.partial(registry.espnet_class, trusted=True)  # the YAML of a training is the user's own


CRITERION = {"name": str, "conf?": (dict, None), "wrapper?": str, "wrapper_conf?": (dict, None)}
TYPES = {int: "a whole number", int_or_none: "a whole number or null", float: "a number", str2bool: "true or false"}
TYPES |= {str: "text", str_or_none: "text or null", str2triple_str: "three words", str2pair_str: "two words"}
ENDS = {"best_model_criterion": 3, "early_stopping_criterion": 3, "val_scheduler_criterion": 2}  # number of words
MANY = 1_000_000
LIMITS = {name: (1, MANY) for name in ("batch_size", "valid_batch_size", "max_epoch", "accum_grad", "log_interval")}
LIMITS |= {"num_iters_per_epoch": (1, 100 * MANY), "num_workers": (0, 1000), "ngpu": (0, 1000)}
LIMITS |= {"seed": (0, 2**32 - 1), "patience": (0, MANY), "keep_nbest_models": (0, MANY), "sample_rate": (1, MANY)}
LIMITS |= {name: (1, 2**40) for name in ("batch_bins", "valid_batch_bins")} | {"nbest_averaging_interval": (0, MANY)}


def choices(*kinds: str) -> list[ClassChoices]:
    """ESPnet's tables of such kinds, for `class_choices_list`: their options take class paths, too."""
    return [PluginChoices(table(kind), find) for kind in kinds]


class ConfigParser(config_argparse.ArgumentParser):
    """ESPnet's parser with a `--config` that may `include` others, see `read_config`; its values are checked."""

    @classmethod
    def of(cls, parser: config_argparse.ArgumentParser) -> "ConfigParser":
        """ESPnet's parser, made one of these."""
        parser.__class__ = cls
        return parser

    def parse_known_args(self, args=None, namespace=None):
        """As ESPnet's.

        Raises:
            DataError: naming the YAML and its key, or the option: an unknown one, a value of another type or size.
        """
        with refusing("options"):  # a YAML text in an option that is none
            path = argparse.ArgumentParser.parse_known_args(self, args, namespace)[0].config
        if path is not None:
            config, actions = read_config(path), {action.dest: action for action in self._actions}
            if unknown := sorted(config.keys() - actions.keys()):
                raise DataError(f"{path}: unknown key {', '.join(unknown)}")
            self.set_defaults(**{key: self._checked(path, actions[key], value) for key, value in config.items()})
        found, rest = argparse.ArgumentParser.parse_known_args(self, args, namespace)
        for name, (least, most) in LIMITS.items():
            for value in flat([getattr(found, name, None)]):
                if value is not None and not least <= value <= most:
                    raise DataError(f"{found.config or '--'}: key {name}: must be {least} to {most}, not {value}")
        return found, rest

    def _checked(self, path: str, action: argparse.Action, value: Any) -> Any:
        """The value of a YAML's key, if it is what the option takes."""
        where, many = f"{path}: key {action.dest}", action.nargs in ("+", "*") or isinstance(action.nargs, int)
        if action.dest in ENDS:
            for row in value if isinstance(value, list) and value and isinstance(value[0], list) else [value]:
                good = isinstance(row, list) and len(row) == ENDS[action.dest] and all(isinstance(v, str) for v in row)
                if not good or row[0] not in ("train", "valid") or row[2:] not in ([], ["min"], ["max"]):
                    raise DataError(f"{where}: expected such as [valid, loss, min], not {short(row)}")
            return value
        if action.dest == "criterions":
            return check(value, [CRITERION], where)
        if isinstance(action, NestedDictAction):
            return {} if value is None else mapping(value, where)
        if not (many or isinstance(action, argparse._AppendAction)) or not isinstance(value, list):
            return self._one(where, action, value)
        if isinstance(action.nargs, int) and len(value) != action.nargs or (not value and action.nargs == "+"):
            raise DataError(f"{where}: expected {action.nargs if action.nargs != '+' else 'some'} values, got {value}")
        return [self._one(where, action, v) for v in value]

    def _one(self, where: str, action: argparse.Action, value: Any) -> Any:
        if value is None and (action.default is None or action.type is str_or_none):
            return None
        if isinstance(value, list) and action.type in (str2triple_str, str2pair_str):
            size = 3 if action.type is str2triple_str else 2
            return check(value, [str], where) if len(value) == size else self._one(where, action, str(value))
        text = value if isinstance(value, str) else str(value)
        try:
            if isinstance(value, list | dict | None):
                raise ValueError
            found = action.type(text) if action.type else value
            if found != found or (action.choices is not None and found not in action.choices):
                raise ValueError
        except (ValueError, TypeError, ArithmeticError, LookupError):
            among = (
                f"one of {', '.join(map(str, action.choices))}" if action.choices else TYPES.get(action.type, "a value")
            )
            raise DataError(f"{where}: expected {among}, not {short(value)}") from None
        return value if found == value else found


def flat(values: Any) -> Iterator[Any]:
    """What is in nested lists."""
    for value in values:
        yield from flat(value) if isinstance(value, list | tuple) else [value]


def build_criterion(entry: dict, default_wrapper: str, **given) -> AbsLossWrapper:
    """An entry of a YAML's `criterions`, `{name, conf, wrapper, wrapper_conf}`, in its wrapper.

    Args:
        given: arguments of the criterion that the task knows.
    """
    check(entry, CRITERION, "criterions")
    criterion = make(find, "criterion", entry["name"], entry.get("conf"), **given)
    wrapper = entry.get("wrapper", default_wrapper)
    return make(find, "loss_wrapper", wrapper, entry.get("wrapper_conf"), criterion=criterion)


def config_of(args: argparse.Namespace) -> str:
    """What messages call a training's configuration."""
    return getattr(args, "config", None) or "options"


@contextlib.contextmanager
def first_step(args: argparse.Namespace, steps: list | tuple = ()) -> Iterator[None]:
    """What goes wrong inside while there are no `steps` is a DataError that names the configuration.

    Raises:
        DataError: that, or one of a loader's worker, in one line.
    """
    try:
        yield
    except FAULTS as e:
        if not isinstance(e, DataError) and explain(e):  # a worker that was killed, memory that is full
            raise
        unknown = isinstance(e, KeyError) and " is not found: " in str(e)  # a criterion that names no figure
        if isinstance(e, DataError) and "\n" not in str(e) or steps and not (unknown or isinstance(e, DataError)):
            raise
        where = "" if isinstance(e, DataError) else f"{config_of(args)}: does not train: "
        raise DataError(f"{where}{told(e)}") from e


def check_fits(args: argparse.Namespace, bank: ClipBank, kind: str, key: str, have: int) -> None:
    """Refuse a bank whose rate or number of classes, `have`, is not what `{kind}_conf` says as `key` (DataError)."""
    parameter = inspect.signature(find(kind, getattr(args, kind))).parameters.get(key)
    value = getattr(args, f"{kind}_conf").get(key, parameter.default if parameter else have)
    if value != have:
        raise DataError(f"{bank.path}: its {key} is {have}, but {value} in {kind}_conf of {config_of(args)}")


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


def check_schedule(args: argparse.Namespace) -> None:
    """Make the optimiser and the schedule of a training for one weight, and go through the first of its epochs.

    Raises:
        DataError: `optim_conf` or `scheduler_conf` with a key or value that they do not take; see `fit_schedule`.
    """
    with refusing(f"{config_of(args)}: scheduler_conf of {args.scheduler}"):
        fit_schedule(args)
    optimizers, schedulers = abs_task.optim_classes, abs_task.scheduler_classes
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    where = f"{config_of(args)}: optim_conf of {args.optim}"
    optimizer = construct(optimizers[args.optim], args.optim_conf, where, params=[weight])
    if args.scheduler is None:
        return
    where, cls = f"{config_of(args)}: scheduler_conf of {args.scheduler}", schedulers[args.scheduler]
    scheduler = construct(cls, args.scheduler_conf, where, optimizer=optimizer)
    values = [1.0] if issubclass(cls, AbsValEpochStepScheduler) else []
    with refusing(where), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(min(args.max_epoch, 100, args.scheduler_conf.get("total_steps", 101) - 1)):
            optimizer.step()
            scheduler.step(*values)


@contextlib.contextmanager
def training(args: argparse.Namespace) -> Iterator[None]:
    """Around `main_worker`: checkpoints are written whole, and the process group is closed.

    A process that ESPnet has started ends with the one that started it, and on an error with a line.

    Raises:
        DataError: see `check_schedule` and `whole_checkpoints`; whatever values of the configuration set off before the
            first step.
    """
    alone = multiprocessing.parent_process() is None
    if not alone:  # one of several processes, which ESPnet has started
        as_worker()
    steps: list[bool] = []
    hook = register_optimizer_step_post_hook(lambda *_: steps or steps.append(True))
    try:
        check_schedule(args)
        with whole_checkpoints(args), first_step(args, steps):
            yield
    except Exception as e:
        if alone or (text := explain(e)) is None:
            raise
        print(f"error: {text}", file=sys.stderr, flush=True)
        os._exit(1)
    finally:  # ESPnet leaves the group open, and some processes then abort at their end
        hook.remove()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


@contextlib.contextmanager
def working(args: argparse.Namespace) -> Iterator[None]:
    """Around a whole training: no other run works in its folder, and processes that are stopped do not hold it up.

    Raises:
        DataError: another run is working in the folder; more GPUs than there are.
    """
    need_gpus(args.ngpu)
    several = args.dist_launcher or args.dist_world_size or {"WORLD_SIZE", "SLURM_PROCID"} & os.environ.keys()
    with hold(*([] if several or not args.output_dir else [args.output_dir])):
        (Path(args.output_dir or "") / TRAINED).unlink(missing_ok=True)
        with watched(lambda: [p.pid for p in multiprocessing.active_children() if p.pid] if args.ngpu > 1 else []):
            yield


def train(task: type[AbsTask], cmd: list[str] | None = None) -> None:
    """Train, or go on with `--resume true`.

    Raises:
        DataError: the training ended without a usable checkpoint.
    """
    args = task.get_parser().parse_args(cmd)
    with working(args):
        task.main(args=args)
    if args.dry_run or args.collect_stats:
        return
    if not (Path(args.output_dir) / "checkpoint.pth").exists():
        raise DataError(
            f"{args.output_dir}: training ended without a checkpoint "
            "(no step was taken, or every gradient was invalid; see its log)"
        )
    describe(args.output_dir)


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
