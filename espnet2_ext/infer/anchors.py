"""Anchors from a trained tagger: for each clip and class the segment where it is heard best.

CaRE-SEP paper, section 2.1, and spec: the frame-wise activity of the class, smoothed over the
segment's length, is highest there.
"""

import functools
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from espnet2_ext.data.bank.anchors import AnchorTable, best_starts, write_anchors
from espnet2_ext.data.bank.bank import ClipBank, bank_key
from espnet2_ext.errors import DataError
from espnet2_ext.infer.tag_bank import part_size
from espnet2_ext.infer.tagger import Listener, TagFiles, hear_clips
from espnet2_ext.infer.work import VERSION, digest_of
from espnet2_ext.util.parallel import map_parts

HOPS = 4  # places a segment's length that are tried with a network whose tags have no time


def find_anchors(
    bank_dir: str | os.PathLike,
    path: str | os.PathLike,
    model: TagFiles,
    *,
    segment: float,
    batch_size: int = 16,
    num_workers: int = 1,
    scheduler: str | None = None,
) -> None:
    """Write the table of a bank's anchors; one of the same model, clips and length stays.

    Args:
        path: the table, `.npz`; see `AnchorTable`.
        segment: seconds.
        batch_size: clips of one length (or windows) that go through the network together.
        num_workers: processes with a model each; 1 works here, on all cores.
        scheduler: address of a Dask scheduler.

    Raises:
        DataError: files of the model that are missing or do not fit the bank.
    """
    bank, path = ClipBank(bank_dir), Path(path)
    num = round(segment * bank.fs)
    if num < 1 or batch_size < 1:
        raise DataError(
            f"segment must be longer than one sample and batch_size 1 or more; got {segment} s and {batch_size}"
        )
    digest = digest_of(VERSION, model.digest())
    if _is_there(path, bank, num, digest):
        logging.info("%s: is there", path)
        return
    parts_dir = path.with_name(f"{path.name}.parts")
    fn = functools.partial(
        anchor_part,
        model=asdict(model),
        bank_dir=str(bank_dir),
        num=num,
        batch_size=batch_size,
        stamp=[digest, bank_key(bank)],
    )
    parts = map_parts(
        fn,
        range(len(bank)),
        parts_dir,
        part_size=part_size(len(bank)),
        desc="anchors",
        num_workers=num_workers,
        scheduler=scheduler,
    )
    write_anchors(path, bank, np.concatenate([_read(part) for part in parts]), num, digest)
    shutil.rmtree(parts_dir)


def _is_there(path: Path, bank: ClipBank, num: int, model: str) -> bool:
    if not path.exists():
        return False
    try:
        table = AnchorTable(path)
        table.check(bank, num)
    except DataError:
        return False
    return table.model == model


def _read(part: Path) -> np.ndarray:
    with open(part, "rb") as f:
        return np.load(f)


def anchor_part(
    items: Sequence[int], path: Path, *, model: dict, bank_dir: str, num: int, batch_size: int, stamp: list
) -> None:
    """Starts of the rows `items` of a bank, a label each, as an array in `path`."""
    bank, listener = ClipBank(bank_dir), TagFiles(**model).load()
    listener.check(bank)
    starts = [np.zeros(len(bank.labels(row)), np.int64) for row in items]
    long = [at for at, row in enumerate(items) if bank.num_samples(row) > num and len(starts[at])]
    rows = [items[at] for at in long]
    for i, best in _best(listener, bank, rows, num, batch_size):
        starts[long[i]] = best
    with open(path, "wb") as f:
        np.save(f, np.concatenate([np.zeros(0, np.int64), *starts]))


def _best(listener: Listener, bank: ClipBank, rows: list[int], num: int, batch_size: int):
    """(position in `rows`, start of each of the clip's labels)."""
    if rows and listener.hear(bank.read(rows[0])[None]).frame is None:
        for i, row in enumerate(rows):
            yield i, _best_window(listener, bank, row, num, batch_size)
        return
    for i, heard in hear_clips(listener, bank, rows, batch_size):
        row = rows[i]
        yield i, best_starts(heard.frame[:, bank.labels(row)], heard.edges, bank.num_samples(row), num)


def _best_window(listener: Listener, bank: ClipBank, row: int, num: int, batch_size: int) -> np.ndarray:
    """Of windows of the segment's length, the one with the highest tag of each label."""
    wave = bank.read(row)
    last = len(wave) - num
    starts = np.append(np.arange(0, last, max(1, num // HOPS)), last)
    tags = np.concatenate(
        [
            listener.hear(np.stack([wave[s : s + num] for s in starts[i : i + batch_size]])).clip
            for i in range(0, len(starts), batch_size)
        ]
    )
    return starts[tags[:, bank.labels(row)].argmax(axis=0)]
