"""Train the model and loss of a weak-label YAML with Asteroid and PyTorch Lightning.

`python -m espnet2_ext.bin.weak_train_asteroid` takes the options of `weak_train`; data, batches and
steps are the same. `config.yaml`, the best and the latest weights lie in the output folder as after
ESPnet's training, so what reads the one reads the other.
"""

import argparse
import functools
import logging
from pathlib import Path

import torch
from espnet2.schedulers.abs_scheduler import AbsBatchStepScheduler
from espnet2.tasks import abs_task
from espnet2.train.distributed_utils import DistributedOption
from espnet2.utils.yaml_no_alias_safe_dump import yaml_no_alias_safe_dump

from espnet2_ext.cli.run import run
from espnet2_ext.errors import DataError
from espnet2_ext.tasks.common import fit_schedule
from espnet2_ext.tasks.weak import WeakLabelTask
from espnet2_ext.util.files import write_text


def get_parser():
    """The options of `weak_train`, and Lightning's."""
    parser = WeakLabelTask.get_parser()
    group = parser.add_argument_group("Lightning")
    group.add_argument("--devices", type=int, default=1, help="Processes, one a device")
    group.add_argument("--accelerator", default="auto", help="auto, cpu, gpu, ...")
    return parser


def main(cmd: list[str] | None = None) -> None:
    """Train, or go on with `--resume true`; errors as in `WeakLabelTask.prepare`."""
    from espnet2_ext.asteroid_ext import ModelSystem, export_weights, fit

    args = get_parser().parse_args(cmd)
    WeakLabelTask.check_required_command_args(args)
    lightning = {k: vars(args).pop(k) for k in ("devices", "accelerator")}
    fit_schedule(args)
    model = WeakLabelTask.start_model(args)
    (optimizer,) = WeakLabelTask.build_optimizers(args, model)
    loader = functools.partial(load, args, {})
    system = ModelSystem(model, optimizer, loader, schedule(args, optimizer), args.seed)
    _, monitor, mode = args.best_model_criterion[0]
    best = fit(
        system,
        args.output_dir,
        max_epochs=args.max_epoch,
        patience=args.patience,
        monitor=f"val_{monitor}",
        mode=mode,
        keep=most(args.keep_nbest_models),
        resume=args.resume,
        gradient_clip_val=args.grad_clip,
        accumulate_grad_batches=args.accum_grad,
        **lightning,
    )
    if system.global_rank == 0:
        if not best.is_file():
            raise DataError(f"{args.output_dir}: training ended without a checkpoint")
        write_text(
            Path(args.output_dir) / "config.yaml", yaml_no_alias_safe_dump(vars(args), indent=4, sort_keys=False)
        )
        export_weights(best, Path(args.output_dir) / f"valid.{monitor}.best.pth")
        export_weights(best.with_name("last.ckpt"), Path(args.output_dir) / "latest.pth")
        logging.info("best checkpoint: %s", best)


def load(args: argparse.Namespace, factories: dict, mode: str, epoch: int):
    """The batches of this process: those that ESPnet's trainer would take."""
    if mode not in factories:
        option = DistributedOption(distributed=torch.distributed.is_initialized())
        factories[mode] = WeakLabelTask.build_iter_factory(args, option, mode)
    return factories[mode].build_iter(epoch)


def schedule(args: argparse.Namespace, optimizer: torch.optim.Optimizer) -> dict | None:
    """The YAML's schedule as Lightning takes it."""
    if args.scheduler is None:
        return None
    cls = abs_task.scheduler_classes[args.scheduler]
    interval = "step" if issubclass(cls, AbsBatchStepScheduler) else "epoch"
    return {"scheduler": cls(optimizer, **args.scheduler_conf), "interval": interval}


def most(keep: int | list[int]) -> int:
    """ESPnet's `keep_nbest_models` as a number."""
    return max(keep) if isinstance(keep, list) else keep


if __name__ == "__main__":
    run(main)
