"""From a YAML to its model with random weights, and to a process that measures it."""

import argparse
import concurrent.futures
import multiprocessing
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from espnet2_ext.errors import DataError
from espnet2_ext.infer.weights import pick_device
from espnet2_ext.tasks.qsep import QSepTask
from espnet2_ext.tasks.tagging import TaggingTask
from espnet2_ext.tasks.weak import WeakLabelTask
from espnet2_ext.util.config import read_config

TASKS = {"qsep": QSepTask, "weak": WeakLabelTask, "tag": TaggingTask}
WEAK_KEYS = {"label_type", "classifier", "separator"}
# Of mixtures with lambda 5: Pishdadian et al., "Finding Strength in Weakness", table II.
WEAK_CLASSES = ["car_horn", "dog_bark", "gun_shot", "jackhammer", "siren"]
WEAK_PRIOR = [0.26, 0.36, 0.27, 0.40, 0.40]


@dataclass(frozen=True)
class Options:
    """What is measured, and how often.

    `seconds`: of a mixture. For weak labels, `batch` mixtures of `clip` seconds make a training
    step, and `song` is the length of a whole song in seconds.
    """

    seconds: float = 10.0
    repeats: int = 5
    threads: int = 1
    device: str = "auto"
    train: bool = True
    batch: int = 10
    clip: float = 4.0
    song: float = 210.0

    def start(self) -> torch.device:
        """Set the number of threads; the device."""
        torch.set_num_threads(self.threads)
        return pick_device(self.device)


def kind_of(path: str | Path) -> str:
    """`weak` (separation from weak labels), `tag` (a tagger) or `qsep` (by query), by its keys.

    Raises:
        DataError: no such file, or none with keys and values.
    """
    conf = read_config(path)
    if WEAK_KEYS & conf.keys():
        return "weak"
    return "tag" if "query_net" in conf and "extractor" not in conf else "qsep"


def build(path: str | Path, device: torch.device, *more: str) -> tuple[nn.Module, object]:
    """The model of a YAML with random weights, in evaluation mode, and its arguments.

    Args:
        more: options of the task that the YAML is for, put behind its own.

    Raises:
        DataError: no such file, or what the task refuses.
    """
    task = TASKS[kind_of(path)]
    args = task.get_parser().parse_args(["--config", str(path), "--output_dir", "unused", *more])
    if task is WeakLabelTask:
        _name_classes(args)
    torch.manual_seed(0)
    return task.build_model(args).to(device).eval(), args


def _name_classes(args: argparse.Namespace) -> None:
    """What a training would read from its table of mixtures."""
    if args.class_names is None:
        args.class_names, args.frame_prior = WEAK_CLASSES, WEAK_PRIOR


def name_of(path: str | Path) -> str:
    """Short name of a YAML."""
    return Path(path).stem.removeprefix("train_").removeprefix("qsep_")


def noise(batch: int, seconds: float, fs: int, device: torch.device, seed: int = 0) -> Tensor:
    """`[B, T]`."""
    g = torch.Generator().manual_seed(seed)
    return (0.1 * torch.randn(batch, round(seconds * fs), generator=g)).to(device)


def apart(measured: Callable[..., dict], *args, prepare: Callable | None) -> dict:
    """`measured(*args)` in a new process, so that its memory is the model's alone.

    Args:
        prepare: called there first.

    Raises:
        DataError: also when the process was killed, for want of memory as a rule.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context, prepare) as pool:
        try:
            return pool.submit(measured, *args).result()
        except BrokenProcessPool as e:
            raise DataError(f"{args[0]}: the measuring process was killed (out of memory?)") from e
