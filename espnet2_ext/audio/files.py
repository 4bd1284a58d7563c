"""Files of sound: which they are by their suffixes, and one seen through pieces of it, so that a decoder finds a header
that is true."""

import bisect
import errno
import functools
import itertools
import logging
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from espnet2_ext.errors import DataError

RATES = (1000, 768_000)  # Hz: from slow biosignals to the fastest converters; a wrong header is beyond
SECONDS = 7 * 24 * 3600  # a week
BLOCK = 1 << 16  # samples a read

Piece = bytes | tuple[int, int]  # bytes of its own, or what lies from one offset to another in the file
_READ = 1 << 20
_NOT_THE_FILE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT)


class MissingAudio(DataError):
    """The file, member or row that a reference names does not exist."""


class Survey(NamedTuple):
    """What the bytes of a sound file say of it, without decoding.

    parts: pieces of each of the sounds that follow one another; None: the file as it is. frames: samples of the whole,
    where the decoder cannot know. claim: a size in bytes to pretend, for a decoder that ends where it expects the end.
    demuxer: FFmpeg's name of a container that libsndfile does not read. notes: what a user should know.
    """

    parts: list[list[Piece]] | None = None
    notes: tuple[str, ...] = ()
    frames: int = 0
    claim: int = 0
    demuxer: str = ""


class View:
    """A file to read, made of pieces of `file`; a `claim` above its size is what it gives as its size."""

    def __init__(self, file: BinaryIO, pieces: list[Piece], claim: int = 0):
        self.file, self.pieces, self.at = file, pieces, 0
        self.ends = list(itertools.accumulate(len(p) if isinstance(p, bytes) else p[1] - p[0] for p in pieces))
        self.size = max(claim, self.ends[-1])

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = max(0, offset + (0, self.at, self.size)[whence])
        return self.at

    def close(self) -> None:
        self.file.close()

    __del__ = close

    def tell(self) -> int:
        return self.at

    def read(self, num: int = -1) -> bytes:
        num = self.size - self.at if num < 0 else num
        found = []
        while num > 0 and self.at < self.ends[-1]:
            n = bisect.bisect_right(self.ends, self.at)
            piece, left = self.pieces[n], self.ends[n] - self.at
            take = min(num, left)
            if isinstance(piece, bytes):
                data = piece[len(piece) - left :][:take]
            else:
                self.file.seek(piece[1] - left)
                data = self.file.read(take)
            if not data:
                break
            found.append(data)
            self.at += len(data)
            num -= len(data)
        if num and self.at >= self.size - 128 > self.ends[-1]:  # where a tag could be, were the claim true
            found.append(bytes(min(num, self.size - self.at)))
            self.at += len(found[-1])
        return b"".join(found)

    def readinto(self, buffer) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def open_file(path: str | os.PathLike) -> BinaryIO:
    """A regular file, open for reading.

    Raises:
        MissingAudio: no such file. DataError: a folder, a pipe or a device, or what the system says against it.
        OSError: what is no fault of the file: too many open files, no memory, a server that is away.
    """
    try:
        mode = os.stat(path).st_mode  # before it is opened: a pipe would wait for its other end
        if stat.S_ISREG(mode):
            return open(path, "rb")
    except (FileNotFoundError, NotADirectoryError):
        raise MissingAudio(f"{path}: no such file") from None
    except (OSError, ValueError) as e:
        if getattr(e, "errno", None) in _NOT_THE_FILE:
            raise
        raise DataError(f"{path}: cannot be read: {getattr(e, 'strerror', None) or e}") from e
    if stat.S_ISDIR(mode):
        raise DataError(f"{path}: is a folder, not a sound file")
    what = "pipe" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"
    raise DataError(f"{path}: is a {what}, not a regular file; sound is read more than once: save it to a file first")


def read_at(file: BinaryIO, at: int, num: int) -> bytes:
    """At most `num` bytes from offset `at`."""
    file.seek(at)
    return file.read(num)


def find_all(file: BinaryIO, needle: bytes, at: int, end: int) -> Iterator[int]:
    """Offsets in [at, end) at which `needle` begins."""
    held = b""
    while at < end:
        block = read_at(file, at, min(_READ, end - at))
        if not block:
            return
        data, base = held + block, at - len(held)
        place = data.find(needle)
        while place >= 0:
            yield base + place
            place = data.find(needle, place + 1)
        held, at = data[-len(needle) + 1 :], at + len(block)


NATIVE = frozenset(
    ".wav .wave .bwf .rf64 .w64 .flac .ogg .oga .opus .mp3 .mp2 .mpga .aif .aiff .aifc .au .snd .caf .voc .sph .nist "
    ".ircam .sf .svx .8svx .iff .avr .paf .pvf .xi .sds .wve .htk .mat4 .mat5 .mpc2k .sd2 .wavex".split()
)
WITH_AV = frozenset(
    ".m4a .m4b .mp4 .m4v .mov .3gp .3g2 .aac .webm .weba .mkv .mka .wma .wmv .asf .avi .flv .mpg .mpeg .mts .m2ts .amr "
    ".ac3 .eac3 .wv .ape .ogv .spx".split()
)
SUFFIXES = NATIVE | WITH_AV

KNOWN = "WAV, FLAC, Ogg, MP3, AIFF, CAF, AU; with the package av also MP4 (m4a), WebM and other video"


def sound_files(folder: Path, more: Iterable[str] = ()) -> list[Path]:
    """Files of a folder with a suffix of sound or of `more`, sorted; others are counted in a line of the log."""
    names = [p for p in sorted(folder.iterdir()) if not p.is_dir() and not p.name.startswith(".")]
    found = [p for p in names if p.is_file() and p.suffix.lower() in SUFFIXES.union(more)]
    left_out(folder, set(names).difference(found))
    return found


def left_out(folder: object, paths: Iterable[str | os.PathLike]) -> None:
    """Count in a line of the log the files of a folder that are not read, by suffix."""
    counts = Counter(_kind_of(os.fspath(path)) for path in paths)
    if counts:
        listed = ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()))
        _warn_once(f"{folder}: left out, no known suffix of a sound file: {listed}")


def _kind_of(path: str) -> str:
    suffix = os.path.splitext(path)[1].lower()
    return "broken link" if suffix in SUFFIXES and not os.path.exists(path) else suffix or os.path.basename(path)


@functools.cache
def _warn_once(text: str) -> None:
    logging.warning("%s", text)
