"""Inference over many sounds: one mechanism for test sets, users' folders and clip banks.

A `Job` is the part that differs: what a model does with the sounds of one part. `run_job` divides the sounds into
parts and gives them to this or several processes, each of which loads the model once. A part is a file that is
complete or absent, so an interrupted run resumes; outputs of the same model and data are not made again.
"""

import functools
import logging
import multiprocessing
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from espnet2_ext.data.outputs import TABLES, Part, read_part, remove_old, write_part
from espnet2_ext.errors import DataError
from espnet2_ext.util.files import file_digest, made, verified
from espnet2_ext.util.parallel import map_parts
from espnet2_ext.util.tables import read_scp

VERSION = 1  # of what is written; another one makes everything anew


@dataclass(frozen=True)
class ModelFiles:
    """Where a model is (a bundle, or `config.yaml` and weights), where and in which precision it runs.

    use: what as: `queries` (a query separator), `classes` (a class separator), `asked` (a query separator that is asked
        for its classes) or `tags` (a tagger).
    """

    bundle: str | None = None
    train_config: str | None = None
    model_file: str | None = None
    device: str = "auto"
    use: str = "queries"
    precision: str = "fp32"

    def load(self):
        """The `Separator`, `WeakSeparator` or `TaggerInference`, once per process (until a file changes)."""
        stats = [os.stat(f) for f in (self.bundle, self.train_config, self.model_file) if f]
        return _load(self, tuple((s.st_mtime_ns, s.st_size) for s in stats))

    def digest(self) -> str:
        """Digest of the files' content, which decides the answers.

        Raises:
            DataError: neither a bundle nor both other files, or a file that does not exist.
        """
        files = [self.bundle] if self.bundle else [self.train_config, self.model_file]
        if not all(files):
            raise DataError("which model? Give --bundle, or --train_config and --model_file")
        for file in files:
            if not Path(file).is_file():
                raise DataError(f"{file}: no such file")
        lower = [self.precision] if self.precision != "fp32" else []
        return " ".join([*(file_digest(file) for file in files), *lower])


@functools.lru_cache(maxsize=1)
def _load(files: ModelFiles, stats: tuple):
    import torch

    from espnet2_ext.infer.weights import at_precision

    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)  # the worker processes are what runs side by side
    if files.use == "queries":
        from espnet2_ext.infer.query_separator import Separator as Model
    elif files.use == "asked":
        from espnet2_ext.infer.class_separator import AskedSeparator as Model
    elif files.use == "classes":
        from espnet2_ext.infer.class_separator import WeakSeparator as Model
    else:
        from espnet2_ext.infer.tagger import TaggerInference as Model
    if files.bundle:
        model = Model.from_bundle(files.bundle, files.device)
    else:
        model = Model.from_exp(files.train_config, files.model_file, device=files.device)
    return at_precision(model, files.precision)


@dataclass(frozen=True)
class Workers:
    """Who does the work: `num_workers` processes with a model each (1: this one, on all cores), or a Dask scheduler."""

    num_workers: int | None = 1
    scheduler: str | None = None


HERE = Workers()  # this process, on all cores


class Job(Protocol):
    """What is done with a part's sounds: a frozen dataclass of plain values, as it is sent to worker processes.

    desc: name for the progress bar.
    """

    desc: str

    def answer(self, model, items: Sequence) -> tuple[dict, dict[str, np.ndarray]]:
        """Run `model` on `items`; returns facts (plain values) and arrays of the part, and may write archives."""


def run_job(
    job: Job,
    items: Sequence,
    parts_dir: Path,
    *,
    size: int,
    model: ModelFiles,
    stamp: Sequence | dict,
    workers: Workers,
) -> list[Part]:
    """Do `job` for all `items`; the parts in their order. Parts of the same job, items and `stamp` are reused.

    Args:
        size: items of a part.
        stamp: what the job and the items do not say of model and data, such as digests of files.

    Raises:
        DataError: from the job, or see `map_parts`.
    """
    fn = functools.partial(_answer_part, job=job, model=model, stamp=stamp)
    return [
        read_part(path) for path in map_parts(fn, items, parts_dir, part_size=size, desc=job.desc, **asdict(workers))
    ]


def _answer_part(items: Sequence, path: Path, *, job: Job, model: ModelFiles, stamp: Sequence | dict) -> None:
    write_part(path, *job.answer(model.load(), items))


def end_job(parts_dir: Path, *folders: Path) -> None:
    """Remove the parts, and the tables of each archive in `folders`, once the outputs made of them are complete."""
    for folder in folders:
        remove_old(folder, TABLES)
    shutil.rmtree(parts_dir, ignore_errors=True)


# ---- what jobs share -----------------------------------------------------------------------------


def part_size(n: int, least: int = 8, most: int = 64) -> int:
    """Items of a part: a 32nd of all `n`, within limits; a function of `n` alone, so that parts stay the same."""
    return min(max(-(-n // 32), least), most)


def check_batch_size(batch_size: int) -> None:
    """Raise a DataError for a batch size below 1."""
    if batch_size < 1:
        raise DataError(f"batch_size must be 1 or more, not {batch_size}")


def read_table(path: Path) -> dict[str, str]:
    """An scp that must not be empty (DataError)."""
    table = read_scp(rendered(path))
    if not table:
        raise DataError(f"{path}: is empty")
    return table


def rendered(path: Path) -> Path:
    """A table of a data folder, as it was rendered where it was."""
    return verified(path, path.with_name("list.json"))


def folder_digest(data_dir: Path) -> str:
    """Digest of `list.json`, where there is one: what the references do not say of a rendered folder's sounds."""
    path = data_dir / "list.json"
    return file_digest(path) if path.exists() else ""


def up_to_date(record: Path, key: dict, *files: Path) -> bool:
    """Whether `files` were made for `key`, as `record` says; then it is logged."""
    found = made(record, key, files) is not None
    if found:
        logging.info("%s: up to date, skipped", files[0])
    return found
