"""Mini-batches of rendered pairs for ESPnet's trainer (`iterator_type: task`)."""

import logging
import signal
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet2.train.collate_fn import CommonCollateFn

from espnet2_ext.core.mixing import Pair, PairDrawer, holds
from espnet2_ext.errors import DataError

NOT_SEQUENCE = ("label1", "label2")


def batch_bounds(n: int, batch_size: int, world_size: int) -> list[tuple[int, int]]:
    """(first, end) of the global batches of `n` items in order, each item in one of them.

    Each process takes every `world_size`-th item of each batch, so that all have the same number
    of batches, as the trainer needs; a last batch with fewer items than processes is joined to the
    one before it.

    Raises:
        DataError: fewer items, or a batch size smaller, than processes.
    """
    if min(n, batch_size) < world_size:
        raise DataError(
            f"{n} pairs in batches of {batch_size} are too few for {world_size} processes: each"
            f" needs one of every batch (the batch size counts over all processes)"
        )
    ends = list(range(batch_size, n, batch_size)) + [n]
    if len(ends) > 1 and ends[-1] - ends[-2] < world_size:
        del ends[-2]
    return list(zip([0, *ends[:-1]], ends, strict=True))


class PairIterFactory(AbsIterFactory):
    """Draws and renders pairs in the loader's workers; the data does not depend on their number.

    Training (`drawer` given): an epoch is `num_iters_per_epoch * batch_size` pairs; pair i of
    epoch e is drawn with `default_rng([seed, e, i])`, so an epoch can be repeated exactly, after a
    resume as well. Validation (`pairs` given): the rows in order, each once.

    As everywhere in ESPnet, `batch_size` counts over all processes; a process takes the items
    `rank::world_size` of each batch. Workers stay alive from one epoch to the next, and nothing is
    drawn from the global random state.

    Args:
        preprocess: called with (key, {"pair": Pair}), a `QSepPreprocessor`.
        batch_size: items of a global batch.
        drawer: for training.
        num_iters_per_epoch: training batches of an epoch; None: as many as show each clip once
            on average.
        pairs: rows for validation, with clip ids or rows of the bank.
        collate_fn: None: ESPnet's, with the labels not taken as sequences.
        seed, num_workers, pin_memory: as in ESPnet.
        rank, world_size: of this process.

    Raises:
        DataError: too few pairs for the processes.
    """

    def __init__(
        self,
        preprocess: Callable,
        *,
        batch_size: int,
        drawer: PairDrawer | None = None,
        num_iters_per_epoch: int | None = None,
        pairs: Sequence[Pair] | None = None,
        collate_fn: Callable | None = None,
        seed: int = 0,
        num_workers: int = 0,
        pin_memory: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ):
        if (drawer is None) == (pairs is None):
            raise ValueError("give either a drawer (training) or pairs (validation)")
        if pairs is None:
            if num_iters_per_epoch is None:
                num_iters_per_epoch = max(1, len(drawer.bank) // (2 * batch_size))
            n, items = num_iters_per_epoch * batch_size, _Drawn(drawer, preprocess, seed)
        else:
            n, items = len(pairs), _Listed(pairs, preprocess)
        self.drawer, self.rank, self.world_size = drawer, rank, world_size
        bounds = batch_bounds(n, batch_size, world_size)
        self.batches = _Batches([range(a + rank, b, world_size) for a, b in bounds])
        self.loader = torch.utils.data.DataLoader(
            items,
            batch_sampler=self.batches,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory,
            collate_fn=_Collate(collate_fn or CommonCollateFn(0.0, 0, NOT_SEQUENCE)),
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # the loader's own draw must not touch the global state
        )

    def build_iter(self, epoch: int, shuffle: bool | None = None) -> "EpochBatches":
        """Batches of an epoch (counted from 1, as in ESPnet). `shuffle` has no meaning here."""
        return EpochBatches(self, epoch)


class EpochBatches:
    """(keys, batch) of one epoch; says in the log which classes were drawn when all are out."""

    def __init__(self, factory: PairIterFactory, epoch: int):
        self.factory, self.epoch = factory, epoch

    def __len__(self) -> int:
        return len(self.factory.batches)

    def __iter__(self) -> Iterator[tuple[list[str], dict[str, torch.Tensor]]]:
        self.factory.batches.epoch = self.epoch
        drawer = self.factory.drawer
        counts = None if drawer is None else ClassCounts(drawer.bank)
        for pairs, keys, batch in self.factory.loader:
            if counts is not None:
                counts.add(pairs)
            yield keys, batch
        if counts is not None:
            f = self.factory
            logging.info("epoch %d, process %d of %d: %s", self.epoch, f.rank, f.world_size, counts)
            logging.debug("epoch %d: queries by class: %s", self.epoch, counts.table())


class ClassCounts:
    """How often each class was asked for, and how often what was asked for was not there."""

    def __init__(self, bank):
        self.bank, self.queries, self.absent = bank, np.zeros(bank.num_classes, np.int64), 0
        self.possible = np.array([len(bank.clips_of(k)) > 0 for k in range(bank.num_classes)])

    def add(self, pairs: Sequence[Pair]) -> None:
        """Count rows that hold rows of the bank."""
        for pair in pairs:
            for clip, k in ((pair.clip1, pair.class1), (pair.clip2, pair.class2)):
                self.queries[k] += 1
                self.absent += not holds(self.bank, clip, k)

    def table(self) -> str:
        """All counts, as one line."""
        known = np.flatnonzero(self.possible)
        return ", ".join(f"{self.bank.classes[k].name} {self.queries[k]}" for k in known)

    def __str__(self) -> str:
        n = self.queries[self.possible]
        rare, often = (self.bank.classes[np.flatnonzero(self.possible)[i]].name
                       for i in (n.argmin(), n.argmax()))  # fmt: skip
        return (
            f"{n.sum()} queries of {np.count_nonzero(n)} of {len(n)} classes, {n.min()} ({rare}) to"
            f" {n.max()} ({often}) each, median {np.median(n):g}; {self.absent} asked for silence"
        )


class _Batches:
    """Batches of (epoch, item); the one place where the loader learns of the epoch."""

    def __init__(self, batches: list[range]):
        self.batches, self.epoch = batches, 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch
        return ([(epoch, i) for i in batch] for batch in self.batches)


class _Drawn(torch.utils.data.Dataset):
    def __init__(self, drawer, preprocess, seed):
        self.drawer, self.preprocess, self.seed = drawer, preprocess, seed

    def __getitem__(self, item):
        epoch, i = item
        key = f"e{epoch:04d}-{i:08d}"
        pair = self.drawer.draw(np.random.default_rng([self.seed, epoch, i]), id=key)
        return pair, (key, self.preprocess(key, {"pair": pair}))


class _Listed(torch.utils.data.Dataset):
    def __init__(self, pairs, preprocess):
        self.pairs, self.preprocess = list(pairs), preprocess

    def __getitem__(self, item):
        pair = self.pairs[item[1]]
        return pair, (pair.id, self.preprocess(pair.id, {"pair": pair}))


class _Collate:
    def __init__(self, collate_fn):
        self.collate_fn = collate_fn

    def __call__(self, items):
        keys, batch = self.collate_fn([item for _, item in items])
        return [pair for pair, _ in items], keys, batch


def _start_worker(_: int) -> None:
    """Leave Ctrl-C to the main process, which ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
