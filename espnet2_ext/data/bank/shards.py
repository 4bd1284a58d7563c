"""How a clip bank stores sound: shards, and what its tables say of each clip in them (see `bank.py`)."""

from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np

from espnet2_ext.audio.flac import encode_flac, seek_points, to_int16
from espnet2_ext.audio.read import ark_header, resample
from espnet2_ext.data.bank.bank import INDEX, SUFFIX, SUMMED, block_sums
from espnet2_ext.errors import DataError
from espnet2_ext.util.parallel import part_of


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
