"""Tags of every clip of a bank.

`tags.npz`: keys [N], the clips' ids in the bank's order; clipwise [N, K], probabilities. And when
frames are asked for, `activity.npz`: keys; frame [sum of L, K], probabilities of all clips one
after another; indptr [N + 1], where each begins; edges [sum of (L + 1)], where the frames of each
begin and end, in samples (those of clip n from indptr[n] + n on); fs.
"""

import functools
import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from espnet2_ext.data.bank.bank import ClipBank, bank_key
from espnet2_ext.errors import DataError
from espnet2_ext.infer.tagger import TagFiles, hear_clips
from espnet2_ext.infer.work import VERSION, digest_of, is_done
from espnet2_ext.util.files import atomic_path, write_text
from espnet2_ext.util.parallel import map_parts


def tag_bank(
    bank_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    model: TagFiles,
    *,
    frames: bool = False,
    batch_size: int = 16,
    num_workers: int = 1,
    scheduler: str | None = None,
) -> None:
    """Tag every clip of a bank; what is there already, of the same model and clips, stays.

    Args:
        frames: write `activity.npz` too.
        batch_size: clips of one length that go through the network together.
        num_workers: processes with a model each; 1 works here, on all cores.
        scheduler: address of a Dask scheduler.

    Writes:
        `tags.npz` and perhaps `activity.npz` (see above); `about.json` last.

    Raises:
        DataError: files of the model that are missing or do not fit the bank; frames asked of a
            network that has none.
    """
    if batch_size < 1:
        raise DataError(f"batch_size must be 1 or more, not {batch_size}")
    bank, out = ClipBank(bank_dir), Path(output_dir)
    if not len(bank):
        raise DataError(f"{bank.path}: holds no clips, there is nothing to tag")
    stamp = digest_of(VERSION, model.digest(), bank_key(bank), frames)
    files = [out / "tags.npz"] + [out / "activity.npz"] * frames
    if is_done(out / "about.json", stamp, *files):
        logging.info("%s: is there", files[0])
        return
    for old in ("about.json", "activity.npz"):
        (out / old).unlink(missing_ok=True)
    fn = functools.partial(
        tag_part, model=asdict(model), bank_dir=str(bank_dir), frames=frames, batch_size=batch_size, stamp=stamp
    )
    parts = map_parts(
        fn,
        range(len(bank)),
        out / "parts",
        part_size=part_size(len(bank)),
        desc="tagging",
        num_workers=num_workers,
        scheduler=scheduler,
    )
    _join(parts, bank, out, frames)
    about = {"digest": stamp, "keys": len(bank), "bank": str(bank_dir), "model": model.digest(), **bank_key(bank)}
    write_text(out / "about.json", json.dumps(about) + "\n")
    shutil.rmtree(out / "parts")


def part_size(clips: int) -> int:
    """Clips of a part, of which a stop loses one at most: a 32nd of all, but 8 to 256."""
    return min(max(-(-clips // 32), 8), 256)


def tag_part(
    items: Sequence[int], path: Path, *, model: dict, bank_dir: str, frames: bool, batch_size: int, stamp: str
) -> None:
    """Tag the rows `items` of a bank into the arrays of `path`; `stamp` tells what they are of."""
    bank, listener = ClipBank(bank_dir), TagFiles(**model).load()
    listener.check(bank)
    heard: list = [None] * len(items)
    for at, one in hear_clips(listener, bank, items, batch_size):
        heard[at] = one if frames else one._replace(frame=None, edges=None)
    arrays = {"clipwise": np.stack([h.clip for h in heard])}
    if frames:
        if heard[0].frame is None:
            raise DataError(f"{model['model_file']}: this network's tags have no frames")
        arrays |= {
            "frame": np.concatenate([h.frame for h in heard]),
            "edges": np.concatenate([h.edges for h in heard]),
            "lengths": np.array([len(h.frame) for h in heard]),
        }
    with open(path, "wb") as f:
        np.savez(f, **arrays)


def _join(parts: Sequence[Path], bank: ClipBank, out: Path, frames: bool) -> None:
    keys = np.array([bank.id(i) for i in range(len(bank))])
    _save(out / "tags.npz", keys=keys, clipwise=_of(parts, "clipwise"))
    if frames:
        indptr = np.concatenate([[0], np.cumsum(_of(parts, "lengths"))])
        _save(
            out / "activity.npz",
            keys=keys,
            frame=_of(parts, "frame"),
            indptr=indptr,
            edges=_of(parts, "edges"),
            fs=np.int64(bank.fs),
        )


def _of(parts: Sequence[Path], name: str) -> np.ndarray:
    loaded = []
    for part in parts:
        with np.load(part) as z:
            loaded.append(z[name])
    return np.concatenate(loaded)


def _save(path: Path, **arrays: np.ndarray) -> None:
    with atomic_path(path) as tmp, open(tmp, "wb") as f:
        np.savez(f, **arrays)
