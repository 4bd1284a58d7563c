"""Keep a part of a training list back for validation; which clips depends on their ids alone."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from espnet2_ext.data.tables import Clip, read_clips, write_clips
from espnet2_ext.errors import DataError


def hold_out(
    whole: str | os.PathLike,
    train: str | os.PathLike,
    held: str | os.PathLike,
    *,
    share: float,
    most: int | None = None,
    seed: int = 0,
) -> tuple[int, int]:
    """Split the clips of the folder `whole` between the folders `train` and `held`.

    A clip is held out when the hash of its recording and `seed` falls below `share`. Two segments
    of a recording (AudioSet: its id of 11 characters, `_`, a start time) stay together.

    Args:
        most: lower the share so that about this many clips are held out at most.

    Returns:
        Numbers of clips for training and held out.

    Raises:
        DataError: no or a broken list, a share outside of (0, 1), a side without any clip.
    """
    if not 0 < share < 1:
        raise DataError(f"the share to hold out is {share}, it must lie between 0 and 1")
    source = Path(whole) / "clips.tsv"
    total = sum(1 for _ in read_clips(source))
    if most is not None and total:
        share = min(share, most / total)
    counts = []
    for folder, side in ((train, False), (held, True)):
        path = Path(folder) / "clips.tsv"
        counts.append(sum(1 for _ in _side(source, share, seed, side)))
        if not counts[-1]:
            raise DataError(f"{source}: of its {total} clips none is left for {path}")
        write_clips(path, _side(source, share, seed, side))
    return counts[0], counts[1]


def _side(source: Path, share: float, seed: int, held: bool) -> Iterator[Clip]:
    return (c for c in read_clips(source) if (position(c.id, seed) < share) == held)


def position(id_: str, seed: int = 0) -> float:
    """Where a clip stands in [0, 1): the same for all segments of a recording."""
    recording, _, number = id_.rpartition("_")
    name = recording if len(recording) >= 11 and number.isdecimal() else id_
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
