"""The clip bank: prepared clips of one rate in a few large files, any crop at random."""

import functools
import hashlib
import os
from pathlib import Path

import numpy as np
import soundfile

from espnet2_ext.audio.flac import BLOCK, STRIDE, decode_flac, decode_frames
from espnet2_ext.data.tables import Label, read_labels
from espnet2_ext.errors import DataError
from espnet2_ext.util.binary import read_npy
from espnet2_ext.util.documents import read_fields
from espnet2_ext.util.files import CHANGED, encode, file_digest, verified

VERSION = 1
SUFFIX = {"flac": "ark", "pcm16": "pcm"}
INDEX = np.dtype([("shard", "<u2"), ("offset", "<u8"), ("nbytes", "<u4"), ("samples", "<u4")])
_INFO = {"version": int, "format": str, "fs": int, "classes": int, "clips": int, "seconds": float, "manifest_hash": str}
SUMMED = 8192  # bytes of a pcm16 shard for each number in `sums.npy`
_OPEN_SHARDS = 512  # kept open; the usual limit is 1024 files a process
_MEAN_SQUARE = np.where(np.arange(256) == 0, 0, 10.0 ** ((np.arange(256) - 120) / 10)).astype("f4")


def tables(format: str) -> tuple[str, ...]:
    """Names of the `.npy` tables of a bank."""
    classes = "labels.indptr", "labels.indices", "clips.indptr", "clips.indices"
    return ("index", "ids", *classes, "envelope") + (("seek",) if format == "flac" else ())


def block_sums(data: bytes) -> np.ndarray:
    """Sum of each `SUMMED` bytes as 64-bit words, the last ones padded with zeros: uint64 [blocks]."""
    padded = data + bytes(-len(data) % SUMMED)
    return np.frombuffer(padded, "<u8").reshape(-1, SUMMED // 8).sum(axis=1)


def shard_path(folder: str | os.PathLike, n: int, format: str) -> Path:
    """Where shard `n` of a bank lies."""
    return Path(folder) / f"audio.{n:05d}.{SUFFIX[format]}"


class ClipBank:
    """A folder written by `espnet2_ext.data.bank.archive`, read without holding it.

    Tables are memory maps, so processes share them; an object is pickled as its path, and files are
    opened by the process that reads. Rows are sorted by clip id (as bytes). `seek.npy` [clips, S]
    holds the offset in its clip of every fourth FLAC frame, 0 where there is none. What changed
    since the bank was made is noticed: tables when they are opened, FLAC by its frames' checksums,
    pcm16 by `sums.npy`: of all shards' `block_sums`, one shard after another, the sums up to each.

    Args:
        path: the folder, `dump/<set>`.

    Attributes:
        fs: rate in Hz. num_classes: K. classes: list of `Label`, K of them. info: `bank.json`.
        related: bool [K, K], a class with itself, its ancestors and descendants.

    Raises:
        DataError: `bank.json` is missing (the bank is not whole), or tables changed or do not fit together.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._load()

    def __reduce__(self):
        return type(self), (self.path,)

    def __len__(self) -> int:
        return len(self._index)

    def id(self, i: int) -> str:
        """Identifier of row `i`."""
        return self._ids[i].decode()

    def index_of(self, id: str) -> int:
        """Row of the clip `id`. Raises DataError for an unknown one."""
        key = id.encode()
        if 0 < len(key) <= self._ids.dtype.itemsize:
            i = int(np.searchsorted(self._ids, np.array(key, self._ids.dtype)))
            if i < len(self._ids) and self._ids[i] == key:
                return i
        raise DataError(f"{self.path}: no clip {id!r}")

    def num_samples(self, i: int) -> int:
        """Length of row `i` in samples."""
        return int(self._index[i]["samples"])

    def labels(self, i: int) -> np.ndarray:
        """Class rows of clip `i`, ascending: int32 [classes of the clip]."""
        return self._of("labels", i)

    def clips_of(self, k: int) -> np.ndarray:
        """Clip rows of class `k`, ascending: int64 [clips of the class]."""
        return self._of("clips", k)

    def envelope(self, i: int) -> np.ndarray:
        """Mean square of each 100 ms of row `i`, float32 [ceil(10 samples / fs)].

        It is kept in steps of 1 dB from -119 dB; what lies below is 0.
        """
        num = -(-self.num_samples(i) * 10 // self.fs)
        return _MEAN_SQUARE[self._envelope[i, :num]]

    def read(self, i: int, start: int = 0, num: int | None = None) -> np.ndarray:
        """Samples `start` to `start + num` of row `i`: float32 [num], full scale 1.0.

        Past the clip's end there are zeros. num None: up to the end.

        Raises:
            DataError: naming shard and clip, when the bytes cannot be read or decoded.
        """
        row = self._index[self._row(int(i))].item()
        total, start = row[3], int(start)
        num = max(total - start, 0) if num is None else int(num)
        if start < 0 or num < 0:
            raise ValueError(f"start {start} and num {num} must not be negative")
        have = max(min(num, total - start), 0)
        x = self._samples(i, row, start, have) if have else np.zeros(0, np.float32)
        return x if have == num else np.pad(x, (0, num - have))

    @functools.cached_property
    def related(self) -> np.ndarray:
        """bool [K, K]: True where two classes are the same, or one is an ancestor of the other."""
        table = np.eye(self.num_classes, dtype=bool)
        for label in self.classes:
            table[label.index, list(label.related)] = True
        return table | table.T

    def _samples(self, i: int, row: tuple[int, int, int, int], start: int, num: int) -> np.ndarray:
        """A crop of row `i`, whose entry of the index is `row`."""
        try:
            return (self._from_pcm if self._seek is None else self._from_flac)(i, row, start, num)
        except (OSError, EOFError, soundfile.SoundFileError) as e:
            raise DataError(f"{self._shard(row[0])}: clip {self.id(i)}: {e}") from e

    def _from_pcm(self, i: int, row: tuple[int, int, int, int], start: int, num: int) -> np.ndarray:
        """Read the blocks that hold a crop, and compare their checksum where the bank has some."""
        shard, first = row[0], row[1] + 2 * start
        a, b = first // SUMMED, -(-(first + 2 * num) // SUMMED)
        at, size = self._blocks[shard]
        data = self._bytes(shard, a * SUMMED, min(b * SUMMED, size) - a * SUMMED)
        if self._sums is not None:
            words = np.frombuffer(data if len(data) % 8 == 0 else data + bytes(-len(data) % 8), "<u8")
            if int(np.add.reduce(words)) != (int(self._sums[at + b]) - int(self._sums[at + a])) % (1 << 64):
                raise EOFError(f"{CHANGED} (remove {self.path / 'bank.json'} first)")
        x = np.frombuffer(data, "<i2", num, first - a * SUMMED).astype(np.float32)
        x *= np.float32(2**-15)
        return x

    def _from_flac(self, i: int, row: tuple[int, int, int, int], start: int, num: int) -> np.ndarray:
        """Read the frames that a crop needs, by the table of some frames' places, and decode."""
        shard, offset, nbytes, samples = row
        step = BLOCK * STRIDE
        first, end = start // step, -(-(start + num) // step)
        a = int(self._seek[i, first])
        b = int(self._seek[i, end]) if end * step < samples else 0
        if a and num < samples:
            data = self._bytes(shard, offset + a, (b or nbytes) - a)
            x = decode_frames(data, first * STRIDE, samples, self.fs, start, num)
            if x is not None:
                return x
        x = decode_flac(self._bytes(shard, offset, nbytes))
        if len(x) != samples:
            raise EOFError(f"decodes to {len(x)} samples where {samples} are expected")
        return x[start : start + num]

    def _shard(self, shard: int) -> Path:
        return shard_path(self.path, shard, self.info["format"])

    def _bytes(self, shard: int, offset: int, nbytes: int) -> bytes:
        """Read at a place, without a position that forks or threads would share."""
        fd = self._files.get(shard)
        if fd is not None:
            data = os.pread(fd, nbytes, offset)
        else:
            fd = os.open(self._shard(shard), os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = os.pread(fd, nbytes, offset)
            finally:
                if len(self._files) >= _OPEN_SHARDS or self._files.setdefault(shard, fd) != fd:
                    os.close(fd)
        if len(data) != nbytes:
            raise EOFError("the file is cut off")
        return data

    def __del__(self):
        for fd in self.__dict__.get("_files", {}).values():
            os.close(fd)

    def _row(self, i: int) -> int:
        if not -len(self) <= i < len(self):
            raise IndexError(f"{self.path}: row {i} of {len(self)}")
        return i

    def _of(self, table: str, i: int) -> np.ndarray:
        ptr = self._tables[f"{table}.indptr"]
        return np.asarray(self._tables[f"{table}.indices"][ptr[i] : ptr[i + 1]])

    def _load(self) -> None:
        self._files: dict[int, int] = {}
        self.info = read_fields(self.path / "bank.json", _INFO, hint="make the clip bank again")
        if self.info["version"] != VERSION or self.info["format"] not in SUFFIX or self.info["fs"] < 1:
            raise DataError(f"{self.path}/bank.json: not a bank of version {VERSION}: make it again")
        self.fs, self.num_classes = self.info["fs"], self.info["classes"]
        record = self.path / "bank.json"
        self.classes: list[Label] = read_labels(verified(self.path / "labels.tsv", record))
        names = tables(self.info["format"]) + ("sums",) * ("summed" in self.info)
        files = {name: verified(self.path / f"{name}.npy", record) for name in names}
        self._tables = {name: read_npy(file, mmap=True) for name, file in files.items()}
        self._index, self._ids = self._tables["index"], self._tables["ids"]
        self._envelope = self._tables["envelope"]
        self._seek, self._sums = self._tables.get("seek"), self._tables.get("sums")
        self._check()

    def _check(self) -> None:
        n, t = self.info["clips"], self._tables
        for name, of in (("labels", n), ("clips", self.num_classes)):
            ptr = t[f"{name}.indptr"]
            if ptr.shape != (of + 1,) or ptr.dtype.kind not in "iu":
                raise DataError(f"{self.path}: table {name}.indptr does not fit bank.json ({n} clips)")
        fits = {
            "index": self._index.dtype == INDEX and self._index.shape == (n,),
            "ids": self._ids.dtype.kind == "S" and self._ids.shape == (n,),
            "envelope": self._envelope.ndim == 2 and len(self._envelope) == n,
            "labels.indices": t["labels.indices"].shape == (t["labels.indptr"][-1],),
            "clips.indices": t["clips.indices"].shape == (t["clips.indptr"][-1],),
            "labels": len(self.classes) == self.num_classes,
            "seek": self._seek is None or (self._seek.ndim == 2 and len(self._seek) == n),
        }
        ends = np.append(np.flatnonzero(np.diff(self._index["shard"])), n - 1) if n else []
        blocks, self._blocks = 0, {}  # shard: its first block in `sums`, its bytes
        for shard, offset, nbytes, _ in self._index[ends].tolist():
            self._blocks[shard] = blocks, offset + nbytes
            blocks += -(-(offset + nbytes) // SUMMED)
        fits["sums"] = self._sums is None or (self._sums.shape == (blocks + 1,) and self._sums.dtype == np.uint64)
        for name, good in fits.items():
            if not good:
                raise DataError(f"{self.path}: table {name} does not fit bank.json ({n} clips)")
        for shard, (_, size) in self._blocks.items():
            path = self._shard(shard)
            if not path.is_file() or path.stat().st_size < size:
                raise DataError(f"{path}: missing or cut off")


def bank_key(bank: ClipBank) -> dict:
    """What lists, anchors and tags of a bank rest on: rate, clips and classes, not its place."""
    return {
        "fs": bank.fs,
        "manifest_hash": bank.info["manifest_hash"],
        "labels_hash": file_digest(Path(bank.path) / "labels.tsv"),
    }


def bank_digest(bank: ClipBank) -> str:
    """Digest of a bank's rate, clips and classes, wherever it lies: blake2b-128 as hex digits."""
    return hashlib.blake2b(encode(bank_key(bank)), digest_size=16).hexdigest()
