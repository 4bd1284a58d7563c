"""Decoding with PyAV, which carries FFmpeg's libraries: what libsndfile does not read. No FFmpeg program is run."""

from collections.abc import Collection, Iterator
from typing import BinaryIO

import numpy as np

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
