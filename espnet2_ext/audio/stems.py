"""Stem files, `.stem.mp4`: the mixture and its stems as the audio streams of one MP4 file.

The order of the streams is MUSDB18's (Rafii et al., "The MUSDB18 corpus for music separation", 2017).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soxr

from espnet2_ext.audio.pyav import decode, open_av
from espnet2_ext.audio.view import open_file
from espnet2_ext.errors import DataError

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
