"""Where sound comes from and goes to, and another rate, a block at a time: memory does not depend on the length."""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import soundfile
import soxr

from espnet2_ext.audio.files import BLOCK
from espnet2_ext.audio.optional import Row
from espnet2_ext.audio.read import open_sound
from espnet2_ext.audio.sound import Sound, reason
from espnet2_ext.errors import DataError

KEPT = {"PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 32, "DOUBLE": 64}  # bits a sample
FORMATS = {".wav": "WAV", ".w64": "W64", ".flac": "FLAC"}
WAV_LIMIT = (1 << 32) - (1 << 16)  # bytes of sound that a WAV's 32-bit sizes can hold, with room


class Source(Protocol):
    """A recording: `frames` samples of `channels` channels at `fs` Hz, stored as `subtype`."""

    name: str
    fs: int
    channels: int
    frames: int
    subtype: str

    def blocks(self, dtype: str = "float32") -> Iterator[np.ndarray]:
        """Yield `[T', C]` from the start; each call starts anew."""


class ArraySource:
    """A recording in memory: `[T, C]`."""

    subtype = "FLOAT"

    def __init__(self, x: np.ndarray, fs: int, name: str = "the array"):
        self.x, self.fs, self.name = x, fs, name
        self.frames, self.channels = x.shape

    def blocks(self, dtype: str = "float32") -> Iterator[np.ndarray]:
        for i in range(0, self.frames, BLOCK):
            yield self.x[i : i + BLOCK].astype(dtype, copy=False)


def open_source(ref: str | Path) -> Sound | Row:
    """The recording behind a path or another reference (see `read`), checked for sound in it; its notes are logged.

    Raises:
        DataError: as `open_sound`; no samples in it.
    """
    source = open_sound(ref)
    if not source.frames:
        raise DataError(f"{ref}: holds no sound (0 samples)")
    for note in source.notes:
        logging.warning("%s: %s; %.2f s are read", ref, note, source.frames / source.fs)
    return source


class Resampler:
    """`soxr` HQ over a stream `[T, C]`; equal to resampling the whole at once, delay removed."""

    def __init__(self, fs_in: int, fs_out: int, channels: int):
        self.soxr = None if fs_in == fs_out else soxr.ResampleStream(fs_in, fs_out, channels)
        self.channels = channels

    def run(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield `blocks` at the other rate, the last samples in a block of their own."""
        if self.soxr is None:
            yield from blocks
            return
        for x in blocks:
            yield self.soxr.resample_chunk(np.ascontiguousarray(x))
        yield self.soxr.resample_chunk(np.zeros((0, self.channels), np.float32), last=True)


class Measured(NamedTuple):
    """rms: of the mean of the channels over the whole recording; peak: highest absolute sample."""

    rms: float
    peak: float


def measure(source: Source) -> Measured:
    """Level of a recording, in one pass.

    Raises:
        DataError: NaN or infinity in it (names the place), or damage.
    """
    energy, peak, done = 0.0, 0.0, 0
    for x in source.blocks():
        top = float(np.abs(x).max())
        if not np.isfinite(top):
            at = done + int(np.argmin(np.isfinite(x).all(1)))
            raise DataError(
                f"{source.name}: a sample that is not a number or infinite at {at / source.fs:.3f} s (sample {at})"
            )
        mono = x.mean(1, dtype=np.float64)
        energy += float(mono @ mono)
        peak = max(peak, top)
        done += len(x)
    return Measured((energy / max(done, 1)) ** 0.5, peak)


class OutputType(NamedTuple):
    format: str
    subtype: str

    def held(self, x: np.ndarray) -> np.ndarray:
        """The nearest to `x`, float64, that a file of this type can hold."""
        if self.subtype in ("FLOAT", "DOUBLE"):
            return x.astype(np.float32 if self.subtype == "FLOAT" else np.float64).astype(np.float64)
        scale = 2.0 ** (KEPT[self.subtype] - 1)
        return np.clip(np.rint(x * scale), -scale, scale - 1) / scale


class Sink(Protocol):
    """Takes estimates in order."""

    def held(self, x: np.ndarray) -> np.ndarray:
        """The nearest to `x` `[T', C]` float64 that it can keep (rounded and clipped)."""

    def write(self, x: np.ndarray, asked: np.ndarray) -> None:
        """Take what it can hold of `asked`."""


class ArraySink:
    """Collects into `out` `[T, C]`, float32."""

    def __init__(self, out: np.ndarray):
        self.out, self.done = out, 0

    def held(self, x: np.ndarray) -> np.ndarray:
        return x.astype(np.float32).astype(np.float64)

    def write(self, x: np.ndarray, asked: np.ndarray) -> None:
        self.out[self.done : self.done + len(x)] = x
        self.done += len(x)


class LastSink:
    """Keeps the last block `[T', C]`, rounded as one of `kind`."""

    def __init__(self, kind: OutputType):
        self.held = kind.held

    def write(self, x: np.ndarray, asked: np.ndarray) -> None:
        self.last = x


def adding_up(
    mix: np.ndarray, asked: Sequence[np.ndarray], sinks: Sequence[Sink], rest: Sink
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """What of estimates and residual is written so that they add up to the mixture, all `[T, C]` float64.

    The residual is what the rounded estimates leave. What it cannot hold itself (beyond full scale, or finer than its
    last bit) goes back to the estimates, which take of it what they can.

    Returns:
        Estimates, residual, and the residual before it was rounded.
    """
    kept = [sink.held(x) for sink, x in zip(sinks, asked, strict=True)]
    left = mix - sum(kept)
    residual = rest.held(left)
    for i, sink in enumerate(sinks):
        missing = (mix - residual) - sum(kept)
        if not missing.any():
            break
        kept[i] = sink.held(kept[i] + missing)
    return kept, residual, left


def output_type(path: str | Path, source: Source, subtype: str | None = None) -> OutputType:
    """How `path` is written.

    The suffix gives the format (.wav, .w64, .flac). Sample type: `subtype` where given, else the input's own when it is
    one of PCM_16, PCM_24, PCM_32, FLOAT and DOUBLE, else PCM_16 (FLAC holds integers up to 24 bits: PCM_24 in place of
    the wider ones). A WAV of more than 4 GB is written as RF64, its standard extension.

    Raises:
        DataError: a suffix or sample type that cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise DataError(f"{path}: the output must end in {', '.join(FORMATS)}")
    kind = FORMATS[suffix]
    if subtype is None:
        subtype = source.subtype if source.subtype in KEPT else "PCM_16"
        if kind == "FLAC" and subtype != "PCM_16":
            subtype = "PCM_24"
    if subtype not in KEPT or not soundfile.check_format(kind, subtype):
        raise DataError(
            f"{path}: cannot be written as {subtype}; known: {', '.join(KEPT)}"
            + (" (FLAC: PCM_16, PCM_24)" if kind == "FLAC" else "")
        )
    if kind == "FLAC" and source.channels > 8:
        raise DataError(f"{path}: FLAC holds up to 8 channels, not {source.channels}; take .wav")
    size = source.frames * source.channels * KEPT[subtype] // 8
    if kind == "WAV" and size > WAV_LIMIT:
        kind = "RF64"
    return OutputType(kind, subtype)


def check_space(path: str | Path, source: Source, subtype: str, copies: int = 1) -> None:
    """Raise a DataError when `copies` outputs of this size cannot fit the disk of `path`."""
    need = copies * source.frames * source.channels * KEPT[subtype] // 8
    folder = Path(path).absolute().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if need > free:
        raise DataError(f"{path}: {need / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free")


def comment_of(path: Path) -> str:
    """The comment of a sound file that `FileSink` wrote, of a W64 file that beside it; empty: none.

    Raises:
        OSError: no sound file, or one that cannot be read.
    """
    if path.suffix.lower() == ".w64":
        return path.with_name(f"{path.name}.json").read_text(encoding="utf-8")
    try:
        with soundfile.SoundFile(os.fsencode(path)) as f:
            return f.comment
    except soundfile.SoundFileError as e:
        raise OSError(f"{path}: {reason(e)}") from e


class FileSink:
    """Writes a sound file; what it gets is what its type can hold (`held`), so that what was written is known exactly.

    Args:
        path: the file to write; `name`: what messages call it. comment: a text for its tag, which W64 has not.

    `clipped` counts the samples that did not fit, `peak` is the highest absolute sample asked for.
    """

    def __init__(self, path: Path, name: str, fs: int, channels: int, kind: OutputType, comment: str = ""):
        self.name, self.kind = name, kind
        self.clipped, self.total, self.peak = 0, 0, 0.0
        try:
            self.file = soundfile.SoundFile(os.fsencode(path), "w", fs, channels, kind.subtype, format=kind.format)
            if comment and kind.format != "W64":
                self.file.comment = comment
        except soundfile.SoundFileError as e:
            raise OSError(f"{name}: cannot be written ({reason(e)})") from e

    def held(self, x: np.ndarray) -> np.ndarray:
        return self.kind.held(x)

    def write(self, x: np.ndarray, asked: np.ndarray) -> None:
        self.total += x.size
        self.peak = max(self.peak, float(np.abs(asked).max(initial=0.0)))
        data = x.astype(np.float32) if self.kind.subtype == "FLOAT" else x
        if self.kind.subtype.startswith("PCM"):
            scale = 2.0 ** (KEPT[self.kind.subtype] - 1)
            y = asked * scale  # `held` rounds half to even: -scale - 0.5 to -scale, scale - 0.5 to scale
            self.clipped += int(np.count_nonzero((y < -scale - 0.5) | (y >= scale - 0.5)))
            wide = 16 if self.kind.subtype == "PCM_16" else 32  # libsndfile takes the top bits of a 32-bit integer
            data = (x * 2.0 ** (wide - 1)).astype(np.int16 if wide == 16 else np.int32)
        try:
            self.file.write(data)
        except (soundfile.SoundFileError, AssertionError) as e:
            raise OSError(f"{self.name}: writing failed; is the disk full? ({reason(e)})") from e

    def close(self) -> None:
        """Finish the file; warn when samples were clipped."""
        try:
            self.file.close()
        except soundfile.SoundFileError as e:
            raise OSError(f"{self.name}: writing failed; is the disk full? ({reason(e)})") from e
        if self.clipped:
            logging.warning(
                "%s: %d of %d samples (%.3g %%) beyond full scale were clipped, the highest at "
                "%.2f; a WAV of samples of the type FLOAT keeps them",
                self.name,
                self.clipped,
                self.total,
                100 * self.clipped / self.total,
                self.peak,
            )

    def abandon(self) -> None:
        """Let go of the file, whatever its state; after `close` this does nothing."""
        with contextlib.suppress(soundfile.SoundFileError):
            self.file.close()
