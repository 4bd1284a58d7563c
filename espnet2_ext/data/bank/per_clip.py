"""What is known of each clip of a bank: where its classes are most active, and how loud it is.

A table of anchors, which a tagger makes, is an `.npz` of one bank and one segment length: `indptr` int64 [clips + 1]
and `classes` int32 say which classes each clip has, `start` int64 where the best segment of each begins, in samples;
`num`, its length; `fs`; `manifest_hash` of the bank and `labels_hash` of its list of classes; `model`, the tagger's
digest.
"""

import functools
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from espnet2_ext.data.bank.bank import ClipBank, bank_digest, bank_key
from espnet2_ext.errors import DataError, refusing
from espnet2_ext.util.binary import read_npy, read_npz, write_npy, write_npz
from espnet2_ext.util.files import make_once, verified
from espnet2_ext.util.parallel import map_parts, part_of

ARRAYS = ("indptr", "classes", "start", "num", "fs", "manifest_hash", "labels_hash", "model")
_EQUAL = 1 - 1e-6  # sums of equal activities differ in the last bits, which must not decide


def best_starts(activity: np.ndarray, edges: np.ndarray, samples: int, num: int) -> np.ndarray:
    """Start of the `num` samples in which the mean activity of each class is highest.

    The mean over a segment is piecewise linear in the segment's place, so the best one begins or
    ends on an edge. The first of equals.

    Args:
        activity: [L, K], 0 or more, constant from edge to edge.
        edges: [L + 1] ascending, in samples.
        samples: length of the clip; where it is not longer than `num`, the start is 0.

    Returns:
        int64 [K].
    """
    last = max(samples - num, 0)
    edges = np.asarray(edges, np.float64)
    starts = np.unique(np.clip(np.rint([*edges, *(edges - num), last]), 0, last)).astype(np.int64)
    whole = np.vstack([np.zeros(activity.shape[1]), np.cumsum(np.diff(edges)[:, None] * activity, axis=0)])
    total = _at(whole, edges, starts + num) - _at(whole, edges, starts)
    return starts[np.argmax(total >= total.max(axis=0) * _EQUAL, axis=0)]


def _at(values: np.ndarray, edges: np.ndarray, places: np.ndarray) -> np.ndarray:
    """`values` [L + 1, K], given at `edges`, at `places` [N] between them: [N, K]."""
    right = np.clip(np.searchsorted(edges, places), 1, len(edges) - 1)
    width = np.maximum(edges[right] - edges[right - 1], 1e-9)
    share = np.clip((places - edges[right - 1]) / width, 0, 1)[:, None]
    return (1 - share) * values[right - 1] + share * values[right]


def write_anchors(path: str | os.PathLike, bank: ClipBank, start: np.ndarray, num: int, model: str) -> None:
    """Write a table.

    Args:
        start: [sum of the clips' numbers of classes], in the order of the bank's labels.
    """
    classes = [bank.labels(i) for i in range(len(bank))]
    indptr = np.cumsum([0, *map(len, classes)])
    if len(start) != indptr[-1]:
        raise ValueError(f"{len(start)} starts for {indptr[-1]} labels")
    arrays = {
        "indptr": indptr,
        "classes": np.concatenate(classes).astype(np.int32),
        "start": np.asarray(start, np.int64),
    }
    write_npz(path, arrays | {"num": num, "model": model} | bank_key(bank))


class AnchorTable:
    """A table as `PairDrawer` takes it: `anchors(clip, class, num)`.

    It is pickled as its path.

    Attributes:
        num: length of the segments in samples. fs: in Hz. model: digest of the tagger.
        key: `bank_key` of the bank.

    Raises:
        DataError: no such file, or not such a table.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        found = read_npz(path, ARRAYS)
        self._indptr, self._classes, self._start = starts = [found[n] for n in ARRAYS[:3]]
        with refusing(f"{path}: is not a table of anchors"):
            self.num, self.fs, self.model = int(found["num"]), int(found["fs"]), str(found["model"])
        self.key = {"fs": self.fs} | {n: str(found[n]) for n in ARRAYS if n.endswith("_hash")}
        whole = all(v.ndim == 1 and v.dtype.kind in "iu" for v in starts) and len(self._indptr)
        ends = self._indptr if whole and min(self.num, self.fs) > 0 else [1]
        if ends[0] or not len(self._classes) == len(self._start) == ends[-1] or (np.diff(ends) < 0).any():
            raise DataError(f"{path}: is not a table of anchors: its arrays do not fit together")

    def __reduce__(self):
        return AnchorTable, (self.path,)

    def check(self, bank: ClipBank, num: int | None = None) -> None:
        """Refuse a bank that the table was not made of, or segments of another length.

        Raises:
            DataError: naming the table and what differs.
        """
        theirs = bank_key(bank)
        if self.key != theirs or len(bank) + 1 != len(self._indptr):
            differ = ", ".join(f"{k} {v}, the bank {theirs[k]}" for k, v in self.key.items() if v != theirs[k])
            raise DataError(f"{self.path}: was made of other clips or classes than {bank.path} holds ({differ})")
        if num is not None and num != self.num:
            raise DataError(
                f"{self.path}: its segments are {self.num / self.fs:g} s long, but {num / bank.fs:g} s are requested"
            )

    def __call__(self, clip: int, k: int, num: int) -> int | None:
        """Start of the best segment of class `k` in a clip, in samples.

        None, so that another rule decides, where the clip has no such label, or for another length
        than that of the table (a query may have its own).
        """
        if num != self.num:
            return None
        first, end = self._indptr[clip], self._indptr[clip + 1]
        found = np.flatnonzero(self._classes[first:end] == k)
        return int(self._start[first + found[0]]) if len(found) else None


VERSION = 1
GATE = 0.4  # seconds of a gating block

log = logging.getLogger(__name__)


def _meter(fs: int, block: float = GATE):
    try:
        import pyloudnorm
    except ImportError as e:
        raise DataError("loudness needs pyloudnorm: pip install pyloudnorm") from e
    # of its filters, the one that keeps to the standard's curve at any rate
    return pyloudnorm.Meter(fs, filter_class="DeMan", block_size=block)


def loudness(x: np.ndarray, fs: int) -> float:
    """Loudness of a mono sound in LUFS; minus infinity when it is silent.

    A sound of a gating block (400 ms) or more: integrated, gated loudness. A shorter one, of which the standard says
    nothing: the same without gates, -0.691 + 10 log10 of the mean square of the whole K-weighted sound. Silent is what
    has no block above the absolute gate of -70 LUFS, where a shorter sound is one block.

    Args:
        x: [T] samples, full scale 1.0. fs: rate in Hz.

    Raises:
        ValueError: no samples, more than one channel, NaN or infinity.
        DataError: pyloudnorm is not installed.
    """
    x = np.asarray(x, np.float64)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise ValueError(f"expected finite samples [T], got shape {x.shape}")
    if len(x) >= GATE * fs:
        return float(_meter(fs).integrated_loudness(x))
    one_block = _meter(fs, len(x) / fs)
    return float(one_block.integrated_loudness(np.append(x, 0.0)))  # not shorter than its block


def bank_loudness(bank: ClipBank, **work) -> np.ndarray:
    """Loudness of every clip of a bank: float64 [N] in LUFS, minus infinity for silent ones.

    Kept beside the bank as `loudness.npy`, with the record `loudness.json`. Silent clips are reported.

    Args:
        work: `num_workers` and `scheduler` of `map_parts`.

    Raises:
        DataError: pyloudnorm is not installed; a clip cannot be decoded.
    """
    key = {"version": VERSION, "bank": bank_digest(bank), "clips": len(bank)}
    path = bank.path / "loudness.npy"

    def measure() -> None:
        _meter(bank.fs)  # a missing package is reported before the work begins
        parts = map_parts(
            functools.partial(measure_part, bank=os.path.abspath(bank.path), about=key),
            list(range(len(bank))),
            bank.path / ".loudness",
            part_size=part_of(len(bank), 64, 16, 1024),
            desc=f"loudness {bank.path.name}",
            **work,
        )
        write_npy(path, np.concatenate([read_npy(part) for part in parts]))

    make_once(path.with_suffix(".json"), key, measure, [path])
    shutil.rmtree(bank.path / ".loudness", ignore_errors=True)
    return _report(path, bank)


def measure_part(rows: Sequence[int], path: Path, *, bank: str, about: dict) -> None:
    """Write the loudness of some rows to `path`; `about` only counts in the plan's digest."""
    clips = ClipBank(bank)
    write_npy(path, np.array([loudness(clips.read(i), clips.fs) for i in rows]))


def _report(path: Path, bank: ClipBank) -> np.ndarray:
    levels = read_npy(verified(path, path.with_suffix(".json")))
    if levels.shape != (len(bank),) or levels.dtype != np.float64 or np.isnan(levels).any():
        raise DataError(f"{path}: is not the loudness of {len(bank)} clips; remove it and run again")
    silent = np.flatnonzero(~np.isfinite(levels))
    if len(silent):
        names = ", ".join(bank.id(i) for i in silent[:5]) + (", ..." if len(silent) > 5 else "")
        log.warning("%s: %d silent clips are left out (%s)", bank.path, len(silent), names)
    return levels
