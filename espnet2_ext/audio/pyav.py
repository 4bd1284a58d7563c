"""Decoding with PyAV, which carries FFmpeg's libraries: what libsndfile does not read, and stem files, `.stem.mp4`."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soxr

from espnet2_ext.audio.files import open_file
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
