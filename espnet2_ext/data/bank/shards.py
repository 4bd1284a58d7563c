"""What a clip is like, and how a clip bank stores it: shards, and what its tables say of each clip (see `bank.py`)."""

import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from espnet2_ext.audio.flac import encode_flac, seek_points, to_int16
from espnet2_ext.audio.read import MissingAudio, ark_header, open_sound, resample, to_mono
from espnet2_ext.audio.sound import scale_note
from espnet2_ext.data.bank.bank import INDEX, SUFFIX, SUMMED, block_sums, shard_path
from espnet2_ext.data.tables import Clip, ClipRows, Entry
from espnet2_ext.errors import DataError
from espnet2_ext.util.binary import read_npz, write_npz
from espnet2_ext.util.files import atomic_path
from espnet2_ext.util.parallel import map_parts, part_of
from espnet2_ext.util.tables import tsv_line

LINES = "lines"  # array of a part: its lines of the manifest, as bytes


@dataclass(frozen=True)
class Settings:
    """How a bank is stored. fs: rate in Hz; format: flac or pcm16; clips_per_shard: listed clips of a
    file, which is also the unit of work; 0: a 64th of all, but 16 to 4096, so that a small set keeps
    many cores busy and a large one does not fall into many files."""

    fs: int = 32000
    format: str = "flac"
    clips_per_shard: int = 0

    def __post_init__(self):
        if self.format not in SUFFIX or self.fs <= 0 or self.clips_per_shard < 0:
            raise DataError(f"no such storage: {self}; formats are {', '.join(SUFFIX)}")

    def sized(self, clips: int) -> "Settings":
        """The same with a number of clips a shard that suits `clips` where none was given."""
        return replace(self, clips_per_shard=self.clips_per_shard or part_of(clips, 64, 16, 4096))


DEFAULT = Settings()


class Shard:
    """A shard that is written: sounds are appended to `file`; number: of the shard in its bank."""

    def __init__(self, file: BinaryIO, number: int, settings: Settings):
        self.file, self.number, self.settings = file, number, settings
        self._index: list[tuple[int, int, int, int]] = []
        self._envelopes, self._seeks, self._sums = [], [], []
        self._clipped, self._rest = 0, b""
        np.empty(
            31 << 20, np.uint8
        )  # freed at once: glibc then keeps what arrays below it leave: no page faults a clip

    def add(self, key: str, x: np.ndarray, fs: int) -> None:
        """Append the clip `key`: mono float [T] at `fs` Hz, resampled once with soxr HQ, 16 bit."""
        x = resample(x, fs, self.settings.fs)
        self._clipped += bool(x.max(initial=0) > 1 or x.min(initial=0) < -1)
        pcm = to_int16(x)
        head, data, points = b"", pcm.tobytes(), np.zeros(0, np.uint32)
        if self.settings.format == "flac":
            data = encode_flac(pcm, self.settings.fs)
            head, points = ark_header(key, len(data)), seek_points(data, len(pcm), self.settings.fs)
        else:
            whole = (len(self._rest) + len(data)) // SUMMED * SUMMED
            self._rest += data
            self._sums.append(block_sums(self._rest[:whole]))
            self._rest = self._rest[whole:]
        self._index.append((self.number, self.file.tell() + len(head), len(data), len(pcm)))
        self.file.write(head + data)
        self._seeks.append(points)
        self._envelopes.append(envelope_db(pcm, self.settings.fs))

    def tables(self) -> dict[str, np.ndarray | int]:
        """What the bank's tables say of the shard: `index`, `envelope`, `seek`, `sums`, and `clipped`, a number."""
        return {
            "index": np.array(self._index, INDEX),
            "clipped": self._clipped,
            "envelope": _padded(self._envelopes, np.uint8),
            "seek": _padded(self._seeks, np.uint32),
            "sums": np.concatenate([*self._sums, block_sums(self._rest)]),
        }


def _padded(rows: list[np.ndarray], dtype: type) -> np.ndarray:
    """Stack rows of differing length; zeros behind the shorter ones."""
    table = np.zeros((len(rows), max(map(len, rows), default=0)), dtype)
    for n, row in enumerate(rows):
        table[n, : len(row)] = row
    return table


def envelope_db(pcm: np.ndarray, fs: int) -> np.ndarray:
    """Mean square of each 100 ms of int16 [T] as uint8: dB of full scale + 120, floored at 0.

    Segment k is samples k fs / 10 to (k + 1) fs / 10 (rounded down); the last one may be shorter.
    """
    num = -(-len(pcm) * 10 // fs)
    edges = np.arange(num + 1) * fs // 10
    edges[-1] = len(pcm)
    squares = pcm.astype(np.float64)
    np.multiply(squares, squares, out=squares)
    power = np.add.reduceat(squares, edges[:-1]) / np.diff(edges) / 2.0**30
    return np.clip(np.rint(10 * np.log10(power + 1e-12)) + 120, 0, 255).astype(np.uint8)


# ---- what a clip is like --------------------------------------------------------------------------


@dataclass(frozen=True)
class Limits:
    """When a clip is bad. min_seconds: shorter is `short`. silence_db: `silent` is what stays below
    this level (dB of full scale, mean square without its mean) in each 100 ms of the mono sound."""

    min_seconds: float = 0.5
    silence_db: float = -60.0


LIMITS = Limits()


def examine(clip: Clip, limits: Limits, mono: list[np.ndarray] | None = None) -> Entry:
    """Decode one clip and say what it is; never raises for what the sound is like.

    Args:
        mono: takes the mean of its channels, block by block: float32 [T].
    """

    def entry(status, detail="", rate=0, shape=(0, 0), digest=""):
        detail = " ".join(detail.split())
        return Entry(clip.id, status, rate, shape[1], shape[0], digest, clip.labels, clip.source, detail)

    if not clip.source:
        return entry("missing", "not found among the audio given")
    rate, shape = 0, (0, 0)
    try:
        sound = open_sound(clip.source)
        level, digest, channels = Level(sound.fs, limits.silence_db), SoundHash(), sound.channels
        for x in sound.blocks():
            block = level.add(x)
            if np.isfinite(level.peak):
                digest.add(x)
            if mono is not None:
                mono.append(block)
        rate, shape = sound.fs, (level.samples, channels)
    except MissingAudio as e:
        return entry("missing", str(e))
    except DataError as e:
        return entry("corrupt", str(e))
    if not level.samples:
        return entry("corrupt", "holds no samples", rate, shape)
    if not np.isfinite(level.peak):
        return entry("corrupt", "holds NaN or infinity", rate, shape)
    if note := scale_note(level.peak):
        return entry("corrupt", note, rate, shape)
    found = rate, shape, digest.hex()
    if level.samples < limits.min_seconds * rate:
        status, details = "short", [f"{level.samples / rate:.3f} s"]
    elif not level.is_loud and (loudest := level.loudest_db()) < limits.silence_db:
        status, details = "silent", [f"loudest 100 ms at {loudest:.1f} dB"]
    else:
        status, details = "ok", []
    return entry(status, "; ".join([*details, *sound.notes]), *found)


class SoundHash:
    """blake2b-128 of float samples as int16, channels interleaved, block by block."""

    def __init__(self):
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, x: np.ndarray) -> None:
        """Add `[T, C]`."""
        self._hash.update(to_int16(x).data)

    def hex(self) -> str:
        """32 hex digits."""
        return self._hash.hexdigest()


class Level:
    """Level of a recording that is added block by block: the sums of each 100 ms of its mono sound are kept.

    Attributes:
        samples: of a channel. peak: highest absolute sample, NaN or infinity where there is one.
        is_loud: `loudest_db` is above `enough`, whatever follows; from there on no sums are kept.
    """

    def __init__(self, fs: int, enough: float = np.inf):
        self.hop, self.samples, self.peak, self.is_loud = max(1, fs // 10), 0, 0.0, False
        self._enough = 2 * self.hop * 10 ** (enough / 10)  # with room for rounding
        self._sums: list[np.ndarray] = []  # [2, N]: of the samples, and of their squares
        self._rest = np.zeros(0)

    def add(self, x: np.ndarray) -> np.ndarray:
        """Add `[T, C]`; returns the mean of the channels, float32 [T]."""
        self.samples += len(x)
        self.peak = float(np.maximum(self.peak, np.maximum(x.max(initial=0), -x.min(initial=0))))  # NaN stays
        mono = to_mono(x)
        if self.is_loud or not np.isfinite(self.peak):
            return mono
        joined = np.concatenate([self._rest, mono])
        whole = joined[: len(joined) // self.hop * self.hop].reshape(-1, self.hop)
        sums = _sums(whole)
        self._sums.append(sums)
        self._rest = joined[whole.size :]
        # the mean of all leaves no less of 100 ms than their own mean does
        self.is_loud = bool((sums[1] - sums[0] ** 2 / self.hop).max(initial=0) > self._enough)
        return mono

    def loudest_db(self) -> float:
        """Level of the loudest 100 ms in dB of full scale (mean square, mean of all removed)."""
        sums = np.concatenate([*self._sums, _sums(self._rest[None])], axis=1)
        mean = np.float32(sums[0].sum() / max(self.samples, 1)).astype(np.float64)
        lengths = np.full(sums.shape[1], self.hop)
        lengths[-1] = len(self._rest)
        power = (sums[1] - 2 * mean * sums[0] + lengths * mean**2).max()
        return float(10 * np.log10(max(power, 0.0) / max(min(self.hop, self.samples), 1) + 1e-12))


def _sums(rows: np.ndarray) -> np.ndarray:
    return np.stack([rows.sum(1), np.einsum("nt,nt->n", rows, rows)])


# ---- parts ----------------------------------------------------------------------------------------


def make_parts(
    rows: ClipRows, folder: Path, limits: Limits, settings: Settings | None, *, part_size=None, **work
) -> list[Path]:
    """The parts of a scan, in `folder`; with settings those of the bank that `folder` lies in, one for each shard."""
    fn, size = functools.partial(scan_part, limits=limits), part_size or part_of(len(rows), 128, 8, 512)
    if settings:
        settings = settings.sized(len(rows))
        fn, size = functools.partial(fn, settings=settings), settings.clips_per_shard
    return map_parts(fn, rows, folder, part_size=size, **work)


def scan_part(clips: ClipRows, path: Path, *, limits: Limits, settings: Settings | None = None) -> None:
    """Write the manifest's lines of `clips` to `BANK/FOLDER/path`; with settings their shard before, and its tables."""
    if settings is None:
        return write_npz(path, {LINES: _lines(examine(clip, limits) for clip in clips)})
    bank, number, entries = path.parent.parent, clips.first // settings.clips_per_shard, []
    with atomic_path(shard_path(bank, number, settings.format)) as audio, open(audio, "wb") as f:
        shard = Shard(f, number, settings)
        for clip in clips:
            mono: list[np.ndarray] = []
            entries.append(examine(clip, limits, mono))
            if entries[-1].status == "ok":
                shard.add(clip.id, np.concatenate(mono), entries[-1].rate)
    write_npz(path, {LINES: _lines(entries), **shard.tables()})


def read_part(part: Path, names: Sequence[str] = (LINES,)) -> dict[str, np.ndarray]:
    """The arrays of a part; one that is damaged is removed (DataError), so that the next run makes it anew."""
    try:
        return read_npz(part, names)
    except DataError as e:
        part.unlink(missing_ok=True)
        raise DataError(f"{e}; removed, run again to make it anew") from None


def _lines(entries: Iterable[Entry]) -> np.ndarray:
    text = "".join(tsv_line((*e[:6], ",".join(e.labels), *e[7:])) for e in entries)
    return np.frombuffer(text.encode(), np.uint8)
