"""Loudness of sounds by ITU-R BS.1770-4 (K-weighting and gating), measured with pyloudnorm."""

import functools
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from espnet2_ext.data.bank.bank import ClipBank, bank_digest
from espnet2_ext.errors import DataError
from espnet2_ext.util.arrays import read_npy, write_npy
from espnet2_ext.util.files import make_once, verified
from espnet2_ext.util.parallel import map_parts, part_of

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
