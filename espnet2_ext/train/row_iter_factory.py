"""Mini-batches of rows that are drawn, for ESPnet's trainer (`iterator_type: task`).

`RowIterFactory` is what the tasks share; pairs for separation and excerpts for taggers are in `clip_data`.
"""

import contextlib
import logging
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet2.train.collate_fn import CommonCollateFn

from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.errors import LOADER_DIED, DataError
from espnet2_ext.util.process import watched

SHARED = "/dev/shm"  # through which workers hand over their batches


def batch_bounds(n: int, batch_size: int, world_size: int, what: str = "pairs") -> list[tuple[int, int]]:
    """(first, end) of the global batches of `n` items in order, each item in one of them.

    Each process takes every `world_size`-th item of each batch, so that all have the same number of batches, as the
    trainer needs; a last batch with fewer items than processes is joined to the one before it.

    Raises:
        DataError: fewer items, or a batch size smaller, than processes; `what` names the items.
    """
    if min(n, batch_size) < world_size:
        raise DataError(
            f"{n} {what} in batches of {batch_size} are too few for {world_size} processes: each"
            f" needs one of every batch (the batch size counts over all processes)"
        )
    ends = list(range(batch_size, n, batch_size)) + [n]
    if len(ends) > 1 and ends[-1] - ends[-2] < world_size:
        del ends[-2]
    return list(zip([0, *ends[:-1]], ends, strict=True))


class RowIterFactory(AbsIterFactory):
    """Draws and renders rows in the loader's workers; the data does not depend on their number.

    Training (`drawer` given): an epoch is `num_iters_per_epoch * batch_size` rows; row i of epoch e
    is `drawer.draw(default_rng([seed, e, i]), id=key)`, so an epoch can be repeated exactly, after
    a resume as well. Validation (`rows` given): the rows in order, each once.

    As everywhere in ESPnet, `batch_size` counts over all processes; a process takes the items `rank::world_size` of
    each batch. Workers stay alive from one epoch to the next, and nothing is drawn from the global random state.

    A subclass says what a row is: `name`, its key in the data that `preprocess` gets; `clips`, how
    many clips of the bank are in one; `not_sequence`, the arrays that have no length; `counts`, what
    counts the classes that an epoch draws.

    Args:
        preprocess: called with (key, {name: row}).
        batch_size: items of a global batch.
        drawer: for training; has `bank` and `draw`.
        num_iters_per_epoch: training batches of an epoch; None: as many as show each clip once on average.
        rows: for validation, with an `id` each.
        collate_fn: None: ESPnet's, with `not_sequence`.
        seed, num_workers, pin_memory: as in ESPnet. dtype: of the batches' numbers.
        rank, world_size: of this process.

    Raises:
        DataError: too few rows for the processes.
    """

    name: str
    clips: int
    not_sequence: tuple[str, ...]
    counts: type["ClassCounts"]

    def __init__(
        self,
        preprocess: Callable,
        *,
        batch_size: int,
        drawer=None,
        num_iters_per_epoch: int | None = None,
        rows: Sequence | None = None,
        collate_fn: Callable | None = None,
        seed: int = 0,
        num_workers: int = 0,
        pin_memory: bool = False,
        dtype: torch.dtype = torch.float32,
        rank: int = 0,
        world_size: int = 1,
    ):
        if (drawer is None) == (rows is None):
            raise ValueError(f"give either a drawer (training) or {self.name}s (validation)")
        if rows is None:
            if num_iters_per_epoch is None:
                num_iters_per_epoch = max(1, len(drawer.bank) // (self.clips * batch_size))
            n = num_iters_per_epoch * batch_size
            items = _Drawn(drawer, preprocess, self.name, seed)
        else:
            n, items = len(rows), _Listed(rows, preprocess, self.name)
        self.drawer, self.rank, self.world_size, self.dtype = drawer, rank, world_size, dtype
        self.through_pipes = False  # whether batches come so
        bounds = batch_bounds(n, batch_size, world_size, f"{self.name}s")
        self.batches = _Batches([range(a + rank, b, world_size) for a, b in bounds])
        self.loader = torch.utils.data.DataLoader(
            items,
            batch_sampler=self.batches,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory,
            collate_fn=_Collate(collate_fn or CommonCollateFn(0.0, 0, self.not_sequence), 2 * num_workers * world_size),
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # the loader's own draw must not touch the global state
        )

    @classmethod
    def of_task(cls, args, iter_options, **source) -> "RowIterFactory":
        """As `build_task_iter_factory` of a task makes it, for this process's share of the batches.

        Args:
            args, iter_options: what ESPnet gives to that method.
            source: the arguments that say where rows come from.
        """
        split = iter_options.distributed and torch.distributed.is_initialized()
        return cls(
            iter_options.preprocess_fn,
            batch_size=iter_options.batch_size,
            collate_fn=iter_options.collate_fn,
            seed=args.seed,
            num_workers=args.num_workers,
            pin_memory=args.ngpu > 0,
            dtype=getattr(torch, args.train_dtype),
            rank=torch.distributed.get_rank() if split else 0,
            world_size=torch.distributed.get_world_size() if split else 1,
            **source,
        )

    def workers(self) -> list[int]:
        """Process ids of the loader's workers, while they are alive."""
        return [w.pid for w in getattr(getattr(self.loader, "_iterator", None), "_workers", ())]

    def batches_of_epoch(self) -> Iterator[tuple]:
        """(rows, keys, batch) of the epoch that the batches were set to; see `EpochBatches`."""
        try:
            for found in self.loader:
                if isinstance(found, Exception):
                    raise found
                yield found
        except (ConnectionError, EOFError) as e:  # as its batch was to be fetched
            raise ChildProcessError(LOADER_DIED) from e

    def tensors(self, batch: dict) -> dict[str, torch.Tensor]:
        """A batch as it is used; the first that came without shared memory is reported."""
        if not self.through_pipes and any(isinstance(x, np.ndarray) for x in batch.values()):
            self.through_pipes = True
            text = "%s: %.0f MB are free, too little for batches of %.1f MB from %d workers, which are sent through "
            text += "pipes instead, a little slower (Docker: --shm-size=2g)"
            sizes = (shutil.disk_usage(SHARED).free, sum(x.nbytes for x in batch.values()))
            logging.warning(text, SHARED, *(n / 2**20 for n in sizes), self.loader.num_workers)
        batch = {k: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for k, x in batch.items()}
        return {k: x.to(self.dtype) if x.is_floating_point() else x for k, x in batch.items()}

    def build_iter(self, epoch: int, shuffle: bool | None = None) -> "EpochBatches":
        """Batches of an epoch (counted from 1, as in ESPnet). `shuffle` has no meaning here."""
        return EpochBatches(self, epoch)


class EpochBatches:
    """(keys, batch) of one epoch; says in the log which classes were drawn when all are out.

    Raises:
        DataError, OSError: of a worker, as it was raised there.
        ChildProcessError, RuntimeError: a worker was killed; see `errors.explain`.
    """

    def __init__(self, factory: RowIterFactory, epoch: int):
        self.factory, self.epoch = factory, epoch

    def __len__(self) -> int:
        return len(self.factory.batches)

    def __iter__(self) -> Iterator[tuple[list[str], dict[str, torch.Tensor]]]:
        self.factory.batches.epoch = self.epoch
        f = self.factory
        counts = None if f.drawer is None else f.counts(f.drawer.bank)
        with watched(f.workers) if f.loader.num_workers else contextlib.nullcontext():
            for rows, keys, batch in f.batches_of_epoch():
                if counts is not None:
                    counts.add(rows)
                yield keys, f.tensors(batch)
        if counts is not None:
            logging.info("epoch %d, process %d of %d: %s", self.epoch, f.rank, f.world_size, counts)
            logging.debug("epoch %d: %s by class: %s", self.epoch, counts.what, counts.table())


class ClassCounts:
    """How often each class was drawn."""

    what = "clips"

    def __init__(self, bank):
        self.bank, self.drawn = bank, np.zeros(bank.num_classes, np.int64)
        self.possible = np.array([len(bank.clips_of(k)) > 0 for k in range(bank.num_classes)])

    def add(self, rows: Sequence) -> None:
        """Count the labels of rows with a `clip`, a row of the bank."""
        for row in rows:
            self.drawn[self.bank.labels(row.clip)] += 1

    def table(self) -> str:
        """All counts, as one line."""
        known = np.flatnonzero(self.possible)
        return ", ".join(f"{self.bank.classes[k].name} {self.drawn[k]}" for k in known)

    def __str__(self) -> str:
        n = self.drawn[self.possible]
        rare, often = (self.bank.classes[np.flatnonzero(self.possible)[i]].name for i in (n.argmin(), n.argmax()))
        return (
            f"{n.sum()} {self.what} of {np.count_nonzero(n)} of {len(n)} classes, {n.min()}"
            f" ({rare}) to {n.max()} ({often}) each, median {np.median(n):g}"
        )


def multi_hot(bank: ClipBank, row: int) -> np.ndarray:
    """float32 [K], 1 at the classes of a clip of the bank."""
    label = np.zeros(bank.num_classes, np.float32)
    label[bank.labels(row)] = 1.0
    return label


class _Batches:
    """Batches of (epoch, item); the one place where the loader learns of the epoch."""

    def __init__(self, batches: list[range]):
        self.batches, self.epoch = batches, 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch
        return ([(epoch, i) for i in batch] for batch in self.batches)


class _Rows(torch.utils.data.Dataset):
    """Items as they are rendered; in a worker, what is wrong with one is the item, so that it is raised as it was."""

    def __getitem__(self, item):
        try:
            return self.render(*item)
        except (DataError, OSError, MemoryError) as e:
            if torch.utils.data.get_worker_info() is None:
                raise
            return e


class _Drawn(_Rows):
    def __init__(self, drawer, preprocess, name, seed):
        self.drawer, self.preprocess, self.name, self.seed = drawer, preprocess, name, seed

    def render(self, epoch, i):
        key = f"e{epoch:04d}-{i:08d}"
        row = self.drawer.draw(np.random.default_rng([self.seed, epoch, i]), id=key)
        return row, (key, self.preprocess(key, {self.name: row}))


class _Listed(_Rows):
    def __init__(self, rows, preprocess, name):
        self.rows, self.preprocess, self.name = list(rows), preprocess, name

    def render(self, _, i):
        row = self.rows[i]
        return row, (row.id, self.preprocess(row.id, {self.name: row}))


class _Collate:
    """(rows, keys, batch), the batch as arrays where `copies` of it do not fit into shared memory, or an exception."""

    def __init__(self, collate_fn, copies):
        self.collate_fn, self.copies = collate_fn, copies

    def __call__(self, items):
        if failed := [item for item in items if isinstance(item, Exception)]:
            return failed[0]
        keys, batch = self.collate_fn([item for _, item in items])
        if torch.utils.data.get_worker_info() is not None:
            with contextlib.suppress(OSError):  # systems without it
                if shutil.disk_usage(SHARED).free < self.copies * sum(x.nbytes + 4096 for x in batch.values()):
                    batch = {k: x.numpy() for k, x in batch.items()}
        return [row for row, _ in items], keys, batch


def _start_worker(_: int) -> None:
    """Leave Ctrl-C to the main process, which ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
