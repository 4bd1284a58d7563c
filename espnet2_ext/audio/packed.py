"""Packed waveforms: an HDF5 file with the datasets `audio_name` [clip] and `waveform` [clip, sample], read by rows."""

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from espnet2_ext.audio.files import MissingAudio, open_file
from espnet2_ext.audio.sound import BLOCK, RATES, SECONDS
from espnet2_ext.errors import DataError

SUFFIXES = (".h5", ".hdf5")
_PACKED = 1100  # times that compression can make zeros smaller


class Row:
    """A row as a sound of one channel; see `sound.Sound`.

    Raises:
        MissingAudio: no such file or row. DataError: no packed file, no rate.
    """

    channels, subtype = 1, "PCM_16"

    def __init__(self, ref: str, path: str, row: int, fs: int = 0):
        self.name, self.path, self.row, self.notes = ref, Path(path), row, []
        self.wave, own = _open(os.path.abspath(path), os.getpid(), _stamp(path))
        self.fs, self.frames = fs or own, self.wave.shape[1]
        if not self.fs:
            raise DataError(f"{ref}: the file has no attribute sample_rate; give the rate")
        if not RATES[0] <= self.fs <= RATES[1]:
            raise DataError(f"{ref}: a rate of {self.fs} Hz; sound of {RATES[0]} to {RATES[1]} Hz is read")
        if row >= self.wave.shape[0]:
            raise MissingAudio(f"{ref}: the file has {self.wave.shape[0]} rows")

    def blocks(self, dtype: str = "float32", start: int = 0, size: int = BLOCK) -> Iterator[np.ndarray]:
        """As `sound.Sound.blocks`."""
        for at in range(start, self.frames, size):
            try:
                x = self.wave[self.row, at : at + size]
            except (OSError, KeyError, RuntimeError) as e:
                raise DataError(f"{self.name}: cannot be decoded: {e}") from e
            scale = np.float32(32768 if x.dtype == np.int16 else 1)
            yield (x.astype(np.float32) / scale)[:, None].astype(dtype, copy=False)

    def read(self, start: int = 0, num: int | None = None) -> np.ndarray:
        """As `sound.Sound.read`."""
        num = max(0, self.frames - start if num is None else num)
        return next(self.blocks("float32", start, num), None) if num and start < self.frames else _NONE


_NONE = np.zeros((0, 1), np.float32)


def packed_names(path: str) -> tuple[list[str], bool]:
    """Name of each row, and whether the file says its rate.

    Raises:
        DataError: not a packed file.
    """
    wave, rate = _open(os.path.abspath(path), os.getpid(), _stamp(path))
    names = _dataset(wave.file, "audio_name", path, 1)
    if names.dtype.kind not in "SO" or len(names) != len(wave):
        raise DataError(f"{path}: audio_name is {names.dtype} {names.shape}, not a name for each of {len(wave)} rows")
    try:
        return [v.decode() if isinstance(v, bytes) else str(v) for v in names[:]], rate > 0
    except (OSError, ValueError) as e:
        raise DataError(f"{path}: audio_name cannot be read: {e}") from e


def _stamp(path: str) -> int:
    with open_file(path) as f:
        return os.fstat(f.fileno()).st_mtime_ns


@functools.lru_cache(maxsize=4)
def _open(path: str, pid: int, mtime_ns: int) -> tuple:
    """The waveform dataset and the rate (0: unknown). One a process: a handle outlives no fork."""
    try:
        import h5py
    except ImportError as e:
        raise DataError(f"{path}: to read it, the package h5py is needed: pip install h5py") from e
    try:
        file = h5py.File(path, "r")
        rate = int(file.attrs.get("sample_rate", 0))
    except (OSError, KeyError, ValueError, TypeError, OverflowError, RuntimeError) as e:
        raise DataError(f"{path}: not a packed file (HDF5 with audio_name, waveform): {e}") from e
    wave = _dataset(file, "waveform", path, 2)
    if wave.dtype not in (np.int16, np.float32):
        raise DataError(f"{path}: waveform is {wave.dtype} {wave.shape}, not int16 [clip, sample]")
    if rate and wave.shape[1] > SECONDS * rate:
        raise DataError(f"{path}: waveform has rows of {wave.shape[1]} samples, more than {SECONDS} s")
    return wave, rate


def _dataset(file, name: str, path: str, ndim: int):
    """A dataset whose bytes lie in the file itself, and are no more than the file can hold."""
    import h5py

    try:
        if not isinstance(file.get(name, getlink=True), h5py.HardLink | type(None)):
            raise DataError(f"{path}: {name} lies in another file; only what lies in the file itself is read")
        data = file[name]
        if not isinstance(data, h5py.Dataset) or data.ndim != ndim:
            raise DataError(f"{path}: {name} is not a dataset of {ndim} dimension(s)")
        if data.external or data.is_virtual:
            raise DataError(f"{path}: {name} lies in another file; only what lies in the file itself is read")
        declared = data.size * data.dtype.itemsize
        chunk = int(np.prod(data.chunks or (0,), dtype=object)) * data.dtype.itemsize
    except DataError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as e:
        raise DataError(f"{path}: not a packed file (audio_name, waveform): {name}: {e}") from e
    size = os.stat(path).st_size
    if max(declared, chunk) > size * (_PACKED if data.compression or data.chunks else 1):
        raise DataError(f"{path}: {name} declares {declared} bytes, more than a file of {size} bytes can hold")
    return data
