"""Training, the checks before it, and a copy of a recipe to begin with: `espnet2-ext qsep-train` and its siblings.

Options are ESPnet's with those of a task, and each command is one function of a task's class; the
task is imported when its command runs.
"""

import argparse
import importlib
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet2_ext.cli.main import PROG
from espnet2_ext.errors import DataError
from espnet2_ext.util.locks import hold
from espnet2_ext.util.names import Parser, shipped

TASKS = {
    "qsep": "qsep:QSepTask",
    "weak": "weak:WeakLabelTask",
    "qweak": "qweak:QueryWeakTask",
    "tag": "tagging:TaggingTask",
}


def _task(name: str) -> type:
    module, _, cls = TASKS[name].partition(":")
    return getattr(importlib.import_module(f"espnet2_ext.tasks.{module}"), cls)


def _train(name: str, argv: list[str] | None) -> None:
    p = Parser(add_help=False)
    p.add_argument("--ngpu", default="0")
    p.add_argument("--output_dir", default="")
    args = p.parse_known_args(argv)[0]
    with hold(*[args.output_dir] * os.path.isdir(args.output_dir), shared=True):
        pass  # another run is told of before ESPnet is imported, which may take minutes; and so are missing GPUs
    if args.ngpu.isdecimal():
        from espnet2_ext.train.experiment import need_gpus

        need_gpus(int(args.ngpu))
    task = _task(name)
    from espnet2_ext.tasks.common import train

    train(task, argv)


def qsep_train(argv: list[str] | None = None) -> None:
    """Train a query-based separator with ESPnet's trainer."""
    _train("qsep", argv)


def weak_train(argv: list[str] | None = None) -> None:
    """Train a classifier or a separator from weak labels with ESPnet's trainer."""
    _train("weak", argv)


def qweak_train(argv: list[str] | None = None) -> None:
    """Train a query-based separator, or its encoder and tags alone, from weak labels with ESPnet's trainer."""
    _train("qweak", argv)


def tag_train(argv: list[str] | None = None) -> None:
    """Train a tagger with ESPnet's trainer."""
    _train("tag", argv)


def _check(name: str, argv: list[str] | None) -> None:
    task = _task(name)
    from espnet2_ext.tasks.common import check_schedule, first_step, options
    from espnet2_ext.train.checks import check

    args = options(task.get_parser(), argv)
    check_schedule(args)
    with first_step(args):
        check(task, args)


def qsep_check(argv: list[str] | None = None) -> None:
    """Check data and model before `qsep-train`, whose options it takes."""
    _check("qsep", argv)


def tag_check(argv: list[str] | None = None) -> None:
    """Check data and network before `tag-train`, whose options it takes."""
    _check("tag", argv)


def keep_best(argv: list[str] | None = None) -> None:
    """Of trainings that differ in their seed, keep the one of the lowest validation loss."""
    p = Parser(description=keep_best.__doc__)
    p.add_argument("trials", nargs="+", metavar="TRIAL", help="folder of a training")
    p.add_argument("--exp_dir", required=True, help="beside them: becomes a link to the best")
    text = "the weights whose loss counts, or latest.pth (%(default)s)"
    p.add_argument("--model_file", default="valid.loss.best.pth", help=text)
    args = p.parse_args(argv)
    from espnet2_ext.train import experiment

    print(experiment.keep_best(args.exp_dir, args.trials, args.model_file))


def weak_train_asteroid(argv: list[str] | None = None) -> None:
    """Train the model and loss of a weak-label YAML with Asteroid and PyTorch Lightning.

    Takes the options of `weak-train`; data, batches and steps are the same. `config.yaml`, the
    best and the latest weights lie in the output folder as after ESPnet's training, so what reads
    the one reads the other. `--resume true` resumes.

    Raises:
        DataError: as in `WeakLabelTask.prepare`, or the training ended without a checkpoint.
    """
    task = _task("weak")
    from espnet2_ext import asteroid_ext
    from espnet2_ext.tasks.common import check_schedule, options, working
    from espnet2_ext.tasks.options import LIGHTNING
    from espnet2_ext.train.checkpoints import describe
    from espnet2_ext.util.documents import dump_yaml
    from espnet2_ext.util.files import write_text

    parser = task.get_parser()
    parser.unread = (*LIGHTNING, *parser.unread)
    group = parser.add_argument_group("Lightning")
    group.add_argument("--devices", type=int, default=1, help="Number of processes, one per device")
    group.add_argument("--accelerator", default="auto", help="auto, cpu, gpu, ...")
    args = options(parser, argv)
    task.check_required_command_args(args)
    sys.argv[0] = shutil.which(PROG) or sys.argv[0]  # Lightning starts its other processes with it
    lightning = {k: vars(args).pop(k) for k in ("devices", "accelerator")}
    check_schedule(args)
    model = task.start_model(args)
    (optimizer,) = task.build_optimizers(args, model)
    system = asteroid_ext.ModelSystem(model, optimizer, _Loader(task, args), _schedule(args, optimizer), args.seed)
    phase, value, mode = args.best_model_criterion[0]
    stop_phase, stop_value, stop_mode = args.early_stopping_criterion
    out, keep = Path(args.output_dir), args.keep_nbest_models
    with working(args):
        best = asteroid_ext.fit(
            system,
            out,
            max_epochs=args.max_epoch,
            patience=args.patience,
            monitor=asteroid_ext.figure(phase, value),
            mode=mode,
            stop=(asteroid_ext.figure(stop_phase, stop_value), stop_mode),
            keep=max(keep) if isinstance(keep, list) else keep,
            resume=args.resume,
            gradient_clip_val=args.grad_clip,
            accumulate_grad_batches=args.accum_grad,
            **lightning,
        )
    if system.global_rank == 0:
        if not best.is_file():
            raise DataError(f"{out}: training ended without a checkpoint")
        write_text(out / "config.yaml", dump_yaml(vars(args), indent=4, allow_unicode=False))
        describe(out)
        asteroid_ext.export_weights(best, out / f"{phase}.{value}.best.pth")
        asteroid_ext.export_weights(best.with_name("last.ckpt"), out / "latest.pth")
        logging.info("best checkpoint: %s", best)


class _Loader:
    """`loader(mode, epoch)`: the batches of this process that ESPnet's trainer would take."""

    def __init__(self, task: type, args: argparse.Namespace):
        self.task, self.args, self.factories = task, args, {}

    def __call__(self, mode: str, epoch: int):
        import torch
        from espnet2.train.distributed_utils import DistributedOption

        if mode not in self.factories:  # made when the processes have found each other
            option = DistributedOption(distributed=torch.distributed.is_initialized())
            self.factories[mode] = self.task.build_iter_factory(self.args, option, mode)
        return self.factories[mode].build_iter(epoch)


def _schedule(args: argparse.Namespace, optimizer) -> dict | None:
    """The YAML's schedule as Lightning takes it."""
    from espnet2.schedulers.abs_scheduler import AbsBatchStepScheduler
    from espnet2.tasks import abs_task

    from espnet2_ext.asteroid_ext import figure

    if args.scheduler is None:
        return None
    cls = abs_task.scheduler_classes[args.scheduler]
    interval = "step" if issubclass(cls, AbsBatchStepScheduler) else "epoch"
    made = {"scheduler": cls(optimizer, **args.scheduler_conf), "interval": interval}
    if args.scheduler == "reducelronplateau":
        made["monitor"] = figure(*args.val_scheduler_criterion)
    return made


_MADE = shutil.ignore_patterns("data", "dump", "exp", "downloads")  # by runs in a checkout
_SETUP = shutil.ignore_patterns("setup.sh", "start")  # for new recipes in a checkout
_TEMPLATES = {"qsep": ("qsep1", "tag1"), "weak": ("weak1",)}  # end of a recipe's name -> folders of its drivers


def recipes() -> list[str]:
    """Names of the recipes."""
    return sorted(path.parent.name for path in shipped("egs2").glob("*/run.sh"))


def copy_recipe(name: str, folder: Path) -> Path:
    """Copy a recipe with its drivers and all of `conf`, links as files.

    Raises:
        DataError: no such recipe, or `folder` exists.
    """
    if name not in recipes():
        raise DataError(f"no recipe {name}; there is {', '.join(recipes())}")
    if folder.exists():
        raise DataError(f"{folder} exists already: name another folder")
    egs2 = shipped("egs2")
    shutil.copytree(egs2 / name, folder, ignore=_MADE)
    for template in ("common", *_TEMPLATES[name.rpartition("_")[2]]):  # where the package holds no links
        shutil.copytree(egs2 / "TEMPLATE" / template, folder, ignore=_SETUP, dirs_exist_ok=True)
    shutil.copytree(shipped("conf"), folder / "conf", dirs_exist_ok=True)
    for script in [*folder.rglob("*.sh"), *folder.rglob("*.pl")]:
        script.chmod(0o755)  # which a wheel may have lost
    return folder


def recipe(argv: Sequence[str]) -> None:
    """`espnet2-ext recipe NAME [FOLDER]`."""
    p = Parser(description=f"Copy a recipe's folder to work in: {', '.join(recipes())}.")
    p.add_argument("name", help="recipe, such as audioset_qsep")
    p.add_argument("folder", nargs="?", type=Path, help="new folder (default: the recipe's name, here)")
    args = p.parse_args(argv)
    folder = copy_recipe(args.name, args.folder or Path(args.name))
    print(f"{folder}: now cd {folder} && ./run.sh --help")
