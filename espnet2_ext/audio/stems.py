"""Stem files, `.stem.mp4`: the mixture and its stems as the audio streams of one MP4 file.

They are read with PyAV, which carries FFmpeg's libraries; no program of FFmpeg is needed. The
order of the streams is MUSDB18's (Rafii et al., "The MUSDB18 corpus for music separation", 2017).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soxr

from espnet2_ext.errors import DataError

STREAMS = ("mixture", "drums", "bass", "other", "vocals")
SUFFIX = ".stem.mp4"
_SLACK = 4096  # samples by which a stream may fall short of the length in its header


def stem_blocks(path: Path | str, stems: Sequence[str] = STREAMS) -> Iterator[tuple[str, np.ndarray, int]]:
    """Decode some streams of a stem file, block by block, in one pass over the file.

    Yields:
        Stem, float32 [T, C] with full scale 1.0, and the rate in Hz.

    Raises:
        DataError: naming the file: missing, other than five sounds in it, bytes that cannot be
            decoded, a stream that ends early, no package `av`.
    """
    av = _load_av()
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file")
    try:
        with av.open(str(path)) as file:
            streams = list(file.streams.audio)
            if len(streams) != len(STREAMS):
                raise DataError(
                    f"{path}: {len(streams)} audio streams where {len(STREAMS)} are expected: {', '.join(STREAMS)}"
                )
            wanted = {streams[STREAMS.index(name)].index: name for name in stems}
            yield from _decode(av, file, path, wanted)
    except av.error.FFmpegError as e:
        raise DataError(f"{path}: cannot be decoded: {e.strerror or e}") from e


def _decode(av, file, path, wanted: dict[int, str]) -> Iterator[tuple[str, np.ndarray, int]]:
    chosen = [file.streams[i] for i in wanted]
    planes = {i: av.AudioResampler(format="fltp") for i in wanted}  # floats, a channel a row
    got = dict.fromkeys(wanted, 0)
    for packet in file.demux(chosen):
        for frame in packet.decode():
            i = packet.stream_index
            frames = [frame] if frame.format.name == "fltp" else planes[i].resample(frame)
            for part in frames:
                x = part.to_ndarray().T
                got[i] += len(x)
                yield wanted[i], x, part.sample_rate
    for stream in chosen:
        length = int((stream.duration or 0) * stream.time_base * stream.rate)
        if got[stream.index] < max(length - _SLACK, 1):
            name, end = wanted[stream.index], got[stream.index]
            raise DataError(f"{path}: stream {name} ends at sample {end} of {length}")


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


def _load_av():
    try:
        import av
    except ImportError as e:
        raise DataError("stem files need the package av: pip install av") from e
    return av
