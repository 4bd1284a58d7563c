"""What the tasks share: objects from a YAML's names, checked options, and a training's end."""

import argparse
import contextlib
import functools
import inspect
import logging
import multiprocessing
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import torch
from espnet2.enh.loss.wrappers.abs_wrapper import AbsLossWrapper
from espnet2.schedulers.abs_scheduler import AbsValEpochStepScheduler
from espnet2.tasks import abs_task
from espnet2.tasks.abs_task import AbsTask
from espnet2.train.class_choices import ClassChoices
from torch.optim.optimizer import register_optimizer_step_post_hook

from espnet2_ext import registry
from espnet2_ext.build import construct, make
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.tables import read_labels, write_labels
from espnet2_ext.enh.adapt import PluginChoices, table
from espnet2_ext.errors import DataError, explain, refusing, told
from espnet2_ext.tasks.options import CRITERION
from espnet2_ext.train import step
from espnet2_ext.train.checkpoints import describe, goes_on, whole_checkpoints
from espnet2_ext.train.experiment import need_gpus
from espnet2_ext.train.muon import MuonAdamW
from espnet2_ext.util.documents import check
from espnet2_ext.util.files import TRAINED
from espnet2_ext.util.locks import hold
from espnet2_ext.util.process import as_worker, watched

abs_task.optim_classes.setdefault("muon", MuonAdamW)
abs_task.scheduler_classes.setdefault("warmuphalvinglr", step.WarmupHalvingLR)
Model = TypeVar("Model", bound=torch.nn.Module)
find = functools.partial(registry.espnet_class, trusted=True)  # the YAML of a training is the user's own


def choices(*kinds: str) -> list[ClassChoices]:
    """ESPnet's tables of such kinds, for `class_choices_list`: their options take class paths, too."""
    return [PluginChoices(table(kind), find) for kind in kinds]


def build_criterion(entry: dict, default_wrapper: str, **given) -> AbsLossWrapper:
    """An entry of a YAML's `criterions`, `{name, conf, wrapper, wrapper_conf}`, in its wrapper.

    Args:
        given: arguments of the criterion that the task knows.

    Raises:
        DataError: an unknown name or key; a criterion of a noise or of dereverberated speech, which no model estimates.
    """
    check(entry, CRITERION, "criterions")
    for key in ("is_noise_loss", "is_dereverb_loss"):
        if (entry.get("conf") or {}).get(key):
            raise DataError(f"criterions: {entry['name']}: {key}: the models estimate sounds alone; leave it out")
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
    except (OSError, ImportError):
        raise
    except Exception as e:
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


def options(parser: argparse.ArgumentParser, cmd: list[str] | None) -> argparse.Namespace:
    """A training's options; its log shows what `--log_level` says."""
    args = parser.parse_args(cmd)
    logging.getLogger().setLevel(args.log_level)
    return args


def frozen(model: Model, args: argparse.Namespace) -> Model:
    """The model, without gradients where `--freeze_param` says (parts or weights, by name), with steps as in
    `train.step`.

    Raises:
        DataError: a name that the model does not have; see `step.prepare`.
    """
    for name in getattr(args, "freeze_param", []):
        weights = [p for key, p in model.named_parameters() if f"{key}.".startswith(f"{name}.")]
        if not weights:
            parts = ", ".join(key for key, part in model.named_children() if [*part.parameters()])
            raise DataError(f"--freeze_param {name}: the model has no weights of this name; its parts: {parts}")
        for p in weights:
            p.requires_grad_(False)
    step.prepare(model, args)
    return model


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


def fuse_optimizer(args: argparse.Namespace) -> None:
    """Let Adam and AdamW take their step in one kernel, of other rounding, where `optim_conf` does not say how."""
    known = {"fused", "foreach", "differentiable"} & args.optim_conf.keys()
    if abs_task.optim_classes[args.optim] in (torch.optim.Adam, torch.optim.AdamW) and not known:
        args.optim_conf = {**args.optim_conf, "fused": True}


def check_schedule(args: argparse.Namespace) -> None:
    """Make the optimiser and the schedule of a training for one weight, and go through the first of its epochs.

    `args` get what the training sets itself, see `fit_schedule` and `fuse_optimizer`.

    Raises:
        DataError: `optim_conf` or `scheduler_conf` with a key or value that they do not take; see `fit_schedule`.
    """
    with refusing(f"{config_of(args)}: scheduler_conf of {args.scheduler}"):
        fit_schedule(args)
    fuse_optimizer(args)
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
    args = options(task.get_parser(), cmd)
    with working(args):
        task.main(args=args)
    if args.dry_run:
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
