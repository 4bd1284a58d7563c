"""Sound that another package reads.

PyAV, which carries FFmpeg's libraries: what libsndfile does not read, and stem files, `.stem.mp4`. h5py: packed
waveforms, an HDF5 file with the datasets `audio_name` [clip] and `waveform` [clip, sample], read by rows.
"""

import functools
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soxr

from espnet2_ext.audio.files import BLOCK, RATES, SECONDS, MissingAudio, open_file
from espnet2_ext.errors import DataError

_SLACK = 4096  # samples by which a stream may fall short of the length in its header
_CLOSED = {"protocol_whitelist": "none"}  # a file cannot name another one, or an address


def open_av(file: BinaryIO | str, name: str, demuxer: str | None = None):
    """An open container of PyAV; `name` is for messages, `demuxer` the only format that is tried.

    Raises:
        DataError: no package `av`, not such a container.
    """
    try:
        import av
    except ImportError as e:
        raise DataError(f"{name}: to read it, the package av is needed: pip install av") from e
    try:
        return av.open(file, format=demuxer, container_options=_CLOSED)
    except (av.error.FFmpegError, OSError, ValueError) as e:
        raise DataError(f"{name}: cannot be decoded: {getattr(e, 'strerror', None) or e}") from e


def decode(container, streams: Collection[int], name: str) -> Iterator[tuple[int, np.ndarray, int]]:
    """Decode streams of an open container, given by their numbers, in one pass.

    Yields:
        Number of the stream, float32 [T, C] with full scale 1.0, and the rate in Hz.

    Raises:
        DataError: damage, or a stream that ends before the length in its header; both name the place.
    """
    import av

    chosen = [container.streams[i] for i in streams]
    if any(stream.codec_context is None for stream in chosen):
        raise DataError(f"{name}: cannot be decoded: unknown codec")
    planes = {i: av.AudioResampler(format="fltp") for i in streams}  # floats, a channel a row
    got, rates = dict.fromkeys(streams, 0), {}
    try:
        for packet in container.demux(chosen):
            i = packet.stream_index
            for frame in packet.decode():
                for part in [frame] if frame.format.name == "fltp" else planes[i].resample(frame):
                    x = part.to_ndarray().T
                    if rates.setdefault(i, (part.sample_rate, x.shape[1])) != (part.sample_rate, x.shape[1]):
                        raise DataError(f"{name}: its rate or channels change at sample {got[i]}")
                    got[i] += len(x)
                    yield i, x, part.sample_rate
    except (av.error.FFmpegError, ValueError) as e:
        if isinstance(e, DataError):
            raise
        raise DataError(f"{name}: damaged after sample {max(got.values())}: {getattr(e, 'strerror', None) or e}") from e
    for stream in chosen if container.format.name.startswith("mov") else ():  # others estimate their length
        length = int((stream.duration or 0) * stream.time_base * stream.rate)
        if got[stream.index] < max(length - _SLACK, 1):
            raise DataError(f"{name}: stream {stream.index} ends at sample {got[stream.index]} of {length}")


# of a stem file, in the order of MUSDB18 (Rafii et al., "The MUSDB18 corpus for music separation", 2017)
STREAMS = ("mixture", "drums", "bass", "other", "vocals")
SUFFIX = ".stem.mp4"


def stem_blocks(path: Path | str, stems: Sequence[str] = STREAMS) -> Iterator[tuple[str, np.ndarray, int]]:
    """Decode some streams of a stem file, block by block, in one pass over the file.

    Yields:
        Stem, float32 [T, C] with full scale 1.0, and the rate in Hz.

    Raises:
        DataError: naming the file: missing, other than five sounds in it, bytes that cannot be
            decoded, a stream that ends early, no package `av`.
    """
    with open_file(path) as bytes_, open_av(bytes_, str(path)) as file:
        streams = list(file.streams.audio)
        if len(streams) != len(STREAMS):
            raise DataError(
                f"{path}: {len(streams)} audio streams where {len(STREAMS)} are expected: {', '.join(STREAMS)}"
            )
        wanted = {streams[STREAMS.index(name)].index: name for name in stems}
        yield from ((wanted[i], x, rate) for i, x, rate in decode(file, wanted, str(path)))


def read_stems(path: Path | str, stems: Sequence[str] = STREAMS) -> tuple[dict[str, np.ndarray], int]:
    """Whole streams as they are: {stem: float32 [T, C]} and their rate in Hz.

    Raises:
        DataError: as `stem_blocks`.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in stems}
    rates = set()
    for name, x, rate in stem_blocks(path, stems):
        parts[name].append(x)
        rates.add(rate)
    if len(rates) != 1:
        raise DataError(f"{path}: streams of different rates: {sorted(rates)}")
    return {name: np.concatenate(blocks) for name, blocks in parts.items()}, rates.pop()


def read_mono_stems(path: Path | str, fs: int, stems: Sequence[str] = STREAMS) -> dict[str, np.ndarray]:
    """Streams as the mean of their channels at `fs` Hz, resampled (soxr HQ) while they are decoded,
    so that memory holds no more than the result: {stem: float32 [T]}.

    Raises:
        DataError: as `stem_blocks`.
    """
    resamplers: dict[str, soxr.ResampleStream] = {}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in stems}
    for name, x, rate in stem_blocks(path, stems):
        if name not in resamplers:
            resamplers[name] = soxr.ResampleStream(rate, fs, 1, dtype="float32", quality="HQ")
        mono = np.ascontiguousarray(x.mean(axis=1, dtype=np.float32))
        parts[name].append(resamplers[name].resample_chunk(mono))
    for name, stream in resamplers.items():
        parts[name].append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    return {name: np.concatenate(blocks) for name, blocks in parts.items()}


PACKED = (".h5", ".hdf5")
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
