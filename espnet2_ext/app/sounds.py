"""Recordings that the page holds: what was sent to it, and what was made of that, in a folder of the program."""

import contextlib
import functools
import hashlib
import itertools
import shutil
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from espnet2_ext.app.pictures import draw
from espnet2_ext.audio.files import SUFFIXES
from espnet2_ext.audio.flac import to_int16
from espnet2_ext.audio.sound import Sound
from espnet2_ext.audio.streams import KEPT, FileSink, check_space, open_source, output_type
from espnet2_ext.errors import DataError

PIECE = 1 << 20  # bytes that are read at a time
HEAD = 44  # bytes before the samples of a WAV
ROOM = 1 << 28  # bytes that stay free on the disk


@dataclass(frozen=True)
class Limits:
    """Of a sound that is sent: bytes, and seconds."""

    bytes: int
    seconds: float


@dataclass(frozen=True)
class Kept:
    """A sound in the folder.

    title: what its sender calls it, a text that is shown and names no file of ours. source: to see and to hear; of one
    that is decoded from its start only, a copy in 16 bits.
    """

    id: str
    path: Path
    title: str
    source: Sound
    notes: tuple[str, ...] = ()

    def about(self) -> dict:
        """What the page knows of it."""
        s = self.source
        facts = {"seconds": s.frames / s.fs, "fs": s.fs, "channels": s.channels, "subtype": s.subtype}
        return {"id": self.id, "title": self.title, "notes": self.notes, **facts}

    def remove(self) -> None:
        """Remove its files."""
        for path in (self.path, self.source.path):
            path.unlink(missing_ok=True)


class Sounds:
    """The sounds of a page.

    Args:
        folder: where they lie, and nothing else does.
    """

    def __init__(self, folder: Path, limits: Limits):
        self.folder, self.limits = folder, limits
        self._kept: dict[str, Kept] = {}
        self._lock, self._numbers = threading.Lock(), itertools.count(1)
        self.picture = functools.lru_cache(maxsize=256)(self._picture)  # some 100 kB each

    def new_path(self, suffix: str) -> Path:
        """A name in the folder that was never used."""
        return self.folder / f"{next(self._numbers)}{suffix}"

    def take(self, read: Callable[[int], bytes], size: int, title: str) -> tuple[Kept, bool]:
        """Keep the sound that the next `size` bytes are, and whether it was here already.

        Raises:
            DataError: beyond the limits, no sound, damaged, or not all of it came; nothing is left of it.
        """
        title = cleaned(title)
        self._check_size(size, title)
        suffix = PurePosixPath(title).suffix.lower()
        path, sums, left = self.new_path(suffix if suffix in SUFFIXES else ""), hashlib.blake2b(digest_size=8), size
        try:
            with open(path, "wb") as f:
                while left and (data := read(min(left, PIECE))):
                    f.write(data)
                    sums.update(data)
                    left -= len(data)
            if left:
                raise DataError(f"{title}: only {size - left} of {size} bytes came; send it again")
            with self._lock:
                found = self._kept.get(sums.hexdigest())
            if found is not None:
                path.unlink()
                return found, True
            kept = self._add(sums.hexdigest(), path, title, self.limits.seconds)
            return kept, kept.path != path
        except BaseException as e:
            path.unlink(missing_ok=True)
            if isinstance(e, DataError):
                raise DataError(str(e).replace(str(path), title)) from e
            raise

    def _check_size(self, size: int, title: str) -> None:
        if size > self.limits.bytes:
            raise DataError(
                f"{title}: has {size / 1e9:.2f} GB; the page takes {self.limits.bytes / 1e9:g} GB (--max_gb)"
            )
        if size + ROOM > (free := shutil.disk_usage(self.folder).free):
            raise DataError(f"{title}: has {size / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free in {self.folder}")

    def add(self, path: Path, title: str) -> Kept:
        """Keep a sound that was made in the folder."""
        return self._add(path.stem, path, title)

    def _add(self, name: str, path: Path, title: str, most: float = float("inf")) -> Kept:
        source = open_source(path)
        if (seconds := source.frames / source.fs) > most:
            text = f"is {seconds / 3600:.2f} h long; the page takes {most / 3600:g} h (--max_hours)"
            raise DataError(f"{title}: {text}, the command `espnet2-ext separate` any length")
        notes = tuple(note.replace(str(path), title) for note in source.notes)
        kept = Kept(name, path, title, source if source.subtype in KEPT else self._copy(source), notes)
        with self._lock:
            found = self._kept.setdefault(name, kept)
        if found is not kept:  # the same came at the same time
            kept.remove()
            return found
        try:
            self.picture(name, 0, kept.source.frames)  # decodes all of it, so that damage is found
        except BaseException:
            self.drop(name)
            raise
        return kept

    def _copy(self, source: Sound) -> Sound:
        path = self.new_path(".wav")
        kind = output_type(path, source, "PCM_16")
        check_space(path, source, kind.subtype)
        sink = FileSink(path, source.name, source.fs, source.channels, kind)
        try:
            for x in source.blocks("float64"):
                held = sink.held(x)
                sink.write(held, held)
            sink.close()
            return open_source(path)
        except BaseException:
            sink.abandon()
            path.unlink()
            raise

    def titled(self, text: str) -> str:
        """A message with titles in place of the files of the folder."""
        for kept in sorted(self.all(), key=lambda kept: -len(str(kept.path))):
            text = text.replace(str(kept.path), kept.title)
        return text

    def get(self, name: str) -> Kept:
        """Raises a KeyError where it is not kept."""
        with self._lock:
            return self._kept[name]

    def drop(self, name: str) -> None:
        """Forget a sound and remove its file; of one that is not kept, nothing."""
        with self._lock:
            kept = self._kept.pop(name, None)
        if kept is not None:
            kept.remove()

    def all(self) -> list[Kept]:
        """In the order in which they came."""
        with self._lock:
            return list(self._kept.values())

    def _picture(self, name: str, start: int, end: int) -> bytes:
        return draw(self.get(name).source, start, end)


def cleaned(title: str) -> str:
    """A title that is fit to be shown: the last part of a path, printable, at most 120 characters."""
    text = "".join(c for c in title.replace("\\", "/").rpartition("/")[2] if c.isprintable()).strip()
    return (text or "a sound") if len(text) <= 120 else f"{text[:80]}...{text[-37:]}"


# ---- to listen -----------------------------------------------------------------------------------


class Wav:
    """A sound as the bytes of a WAV of 16 bits, of which any part can be made: browsers play it, whatever it is.

    More than two channels become their mean.
    """

    def __init__(self, source: Sound):
        self.source, self.channels = source, source.channels if source.channels <= 2 else 1
        self.width = 2 * self.channels
        self.size = HEAD + source.frames * self.width

    def head(self) -> bytes:
        fs, most = self.source.fs, 0xFFFFFFFF
        sizes = min(self.size - 8, most), min(self.size - HEAD, most)
        form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, self.channels, fs, fs * self.width, self.width, 16)
        return struct.pack("<4sI4s", b"RIFF", sizes[0], b"WAVE") + form + struct.pack("<4sI", b"data", sizes[1])

    def blocks(self, start: int, end: int) -> Iterator[bytes]:
        """Bytes `start` to `end`."""
        if start < HEAD:
            yield self.head()[start:end]
        first, skip = divmod(max(0, start - HEAD), self.width)
        left = end - max(start, HEAD)
        if left <= 0:
            return
        with contextlib.closing(self.source.blocks(start=first)) as blocks:
            for x in blocks:
                x = x if x.shape[1] == self.channels else x.mean(1, dtype=np.float32)
                data = to_int16(x).tobytes()[skip : skip + left]
                yield data
                skip, left = 0, left - len(data)
                if left <= 0:
                    return
