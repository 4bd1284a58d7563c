"""The one opener of sound: a file, or a part of one, decoded to its end a block at a time.

libsndfile decodes what it reads; PyAV (package `av`) the sound of MP4, WebM and other containers. Where a header cannot
be trusted, lengths are counted; memory does not depend on the length.
"""

import collections
import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import soundfile

from espnet2_ext.audio.containers import survey
from espnet2_ext.audio.files import BLOCK, KNOWN, RATES, SECONDS, Piece, Survey, View, open_file
from espnet2_ext.audio.optional import decode, open_av
from espnet2_ext.errors import DataError

CHANNELS = 256
OVER = 16.0  # a peak this far above full scale is another scale, not a loud sound

_ENDLESS = 1 << 60  # libsndfile's length of a stream whose header gives none is above
_HELD = 1 << 24  # bytes of an entry of an archive that are held in memory rather than read again
_WHOLE = 1 << 24  # samples of all channels that are decoded at once
_NO_REASON = (1, 2, 7)  # libsndfile's errors that say "no such file" or the like of one that is there


class Stream(soundfile.SoundFile):
    """A `SoundFile` that does not seek after each read.

    The parent does so to keep two file positions together; in FLAC that decodes a frame again.
    """

    def seekable(self) -> bool:
        """Say no, so that the parent leaves the position alone; `seek` itself works."""
        return False


class Place(NamedTuple):
    """A file, or its bytes from `start` to `end`."""

    path: str
    start: int = 0
    end: int | None = None

    def open(self) -> BinaryIO | View:
        """The bytes, as a file to read.

        Raises:
            MissingAudio, DataError: as `open_file`; a file that ends before `end`.
        """
        file = open_file(self.path)
        if self.end is None:
            return file
        if os.fstat(file.fileno()).st_size < self.end:
            file.close()
            raise DataError(f"{self.path}: ends before byte {self.end}")
        if self.end - self.start > _HELD:
            return View(file, [(self.start, self.end)])
        with file:
            file.seek(self.start)
            return io.BytesIO(file.read(self.end - self.start))


class Sound:
    """The sound of a file.

    fs: Hz. subtype: libsndfile's name of the sample type, or of the codec. notes: what a user should know: that it may
    be truncated, that its header is wrong. `frames`, its samples, are counted where no header can be trusted.

    Args:
        place: where its bytes lie. name: for messages.
        sized: whether the place ends where the sound does.

    Raises:
        MissingAudio: no such file. DataError: what is no sound, a rate, channels or a length beyond the limits.
    """

    def __init__(self, place: Place, name: str | None = None, sized: bool = True):
        self.place, self.name, self.path = place, name or place.path, Path(place.path)
        self._entry: bytes | None = None
        self._found = self._survey() if sized else Survey()
        self.notes, self._parts = list(self._found.notes), self._found.parts or [None]
        self._stream: int | None = None  # number of the stream, where PyAV decodes
        self._held: Stream | None = None
        try:
            self._open_all()
        except _Refused as e:
            if not self._found.demuxer:
                raise DataError(f"{self.name}: cannot be decoded: {e}") from e.__cause__
            self._probe()
        if not RATES[0] <= self.fs <= RATES[1]:
            raise DataError(f"{self.name}: its header says {self.fs} Hz; sound of {RATES[0]} to {RATES[1]} Hz is read")
        if not 1 <= self.channels <= CHANNELS:
            raise DataError(f"{self.name}: its header says {self.channels} channels; 1 to {CHANNELS} are read")
        self._check_length(self._frames or 0)

    def _bytes(self) -> BinaryIO | View:
        """The bytes, as a file; a small part of a file is read once."""
        if self._entry is not None:
            return io.BytesIO(self._entry)
        file = self.place.open()
        if isinstance(file, io.BytesIO):
            self._entry = file.getvalue()
        return file

    def _survey(self) -> Survey:
        with contextlib.closing(self._bytes()) as file:
            try:
                size = file.seek(0, os.SEEK_END)
                if not size:
                    raise DataError("is empty (0 bytes)")
                return survey(file, size, self.place.path)
            except (DataError, OSError) as e:
                raise DataError(f"{self.name}: {reason(e)}") from e

    def _open(self, pieces: list[Piece] | None) -> Stream:
        whole = pieces is None and self.place.end is None and not self.place.start
        file = self._bytes()
        try:
            if whole:  # by its name, which libsndfile goes by where the bytes leave it in doubt
                file.close()
                return Stream(os.fsencode(self.place.path))
            return Stream(file if pieces is None else View(file, pieces, self._found.claim))
        except (soundfile.SoundFileError, TypeError) as e:
            raise _Refused(reason(e)) from e

    def _open_all(self) -> None:
        """Open the first part, and look at the others."""
        frames = 0
        for pieces in reversed(self._parts):
            self._held = f = self._open(pieces)
            kind = f.samplerate, f.channels
            if frames and kind != (self.fs, self.channels):
                raise DataError(f"{self.name}: is joined of sounds of different rates or channels: split it")
            (self.fs, self.channels), self.subtype = kind, f.subtype
            frames += f.frames
        self._frames: int | None = self._found.frames or (frames if frames < _ENDLESS else None)

    def _probe(self) -> None:
        """What PyAV says of the file."""
        with self._container() as container:
            sounds = container.streams.audio
            if not sounds:
                raise DataError(f"{self.name}: holds no sound, only {len(container.streams)} other stream(s)")
            if len(sounds) > 1:
                self.notes.append(f"holds {len(sounds)} sounds, the first is read")
            self._stream, self._frames = sounds[0].index, None
            first = next(decode(container, [self._stream], self.name), None)
            if first is None:
                raise DataError(f"{self.name}: holds no sound (0 samples)")
            self.fs, self.channels = first[2], first[1].shape[1]
            self.subtype = sounds[0].codec_context.name.upper()

    @contextlib.contextmanager
    def _container(self) -> Iterator:
        with contextlib.closing(self._bytes()) as file, open_av(file, self.name, self._found.demuxer) as container:
            yield container

    @property
    def frames(self) -> int:
        """Samples of a channel."""
        if self._frames is None:
            collections.deque(self.blocks(), maxlen=0)
        return self._frames or 0

    def blocks(self, dtype: str = "float32", start: int = 0, size: int = BLOCK) -> Iterator[np.ndarray]:
        """Yield `[T, C]`, at most `size` samples each, from sample `start` to the end, full scale 1.0; each call anew.

        Raises:
            DataError: damage, or an end before the length in the header; the place is named.
        """
        decoded = self._from_sndfile if self._stream is None else self._from_av
        skip = 0
        for done, x in decoded(dtype, start, size):
            self._check_length(done)
            skip = start - (done - len(x))
            if skip < len(x):
                yield x[max(skip, 0) :]

    def read(self, start: int = 0, num: int | None = None) -> np.ndarray:
        """Samples from `start`, at most `num`, in memory: float32 `[T, C]`. Raises as `blocks`."""
        known = self._frames is not None
        want = max(0, self._frames - start) if known else (1 << 62)
        want = want if num is None else min(num, want)
        parts, left = [], want
        for x in self.blocks("float32", start, max(1, min(want, _WHOLE // self.channels))) if want else ():
            parts.append(x[:left])
            left -= len(parts[-1])
            if not left and num is not None:
                break
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.zeros((0, self.channels), np.float32)

    def _from_sndfile(self, dtype: str, start: int, size: int) -> Iterator[tuple[int, np.ndarray]]:
        """Samples so far, and a block of them."""
        done, total = 0, self._frames if self._frames is not None else 1 << 62
        for pieces in self._parts:
            file, self._held = self._held or self._open(pieces), None
            with file:
                try:
                    if start and len(self._parts) == 1 and not self._found.claim and self._frames is not None:
                        done = min(start, total)
                        file.seek(done)
                    while done < total and len(x := file.read(min(size, total - done), dtype=dtype, always_2d=True)):
                        done += len(x)
                        yield done, x
                except soundfile.SoundFileError as e:
                    raise self._damaged(done, reason(e)) from e
        if self._frames is None:
            self._frames = done
        elif done < total:
            raise self._damaged(done, "it ends there")

    def _from_av(self, dtype: str, start: int, size: int) -> Iterator[tuple[int, np.ndarray]]:
        done, held, wait = 0, [], 0
        with self._container() as container:
            for _, x, _ in decode(container, [self._stream], self.name):
                held.append(x)
                wait += len(x)
                if wait >= BLOCK:
                    done += wait
                    yield done, np.ascontiguousarray(np.concatenate(held), dtype)
                    held, wait = [], 0
        if held:
            done += wait
            yield done, np.ascontiguousarray(np.concatenate(held), dtype)
        self._frames = done

    def _damaged(self, done: int, why: str) -> DataError:
        told = f"; its header says {self._frames / self.fs:.2f} s" if self._frames is not None else ""
        return DataError(f"{self.name}: damaged at {done / self.fs:.2f} s (sample {done}: {why}{told})")

    def _check_length(self, frames: int) -> None:
        if frames > SECONDS * self.fs:
            days = frames / self.fs / 86400
            raise DataError(f"{self.name}: {days:.1f} days long by its header; up to {SECONDS // 86400} days are read")


class _Refused(DataError):
    """libsndfile's reason not to open a file."""


def reason(error: Exception) -> str:
    """What went wrong, in words: of libsndfile, the system, or ours."""
    if getattr(error, "code", None) in _NO_REASON:
        return f"not a known format ({KNOWN})"
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or error
    return str(text).strip().rstrip(".").removeprefix("Error : ")


def scale_note(peak: float) -> str:
    """What to say of a recording whose highest absolute sample is so far above full scale that it is no level; or ''.

    Integers written as floats are the usual cause.
    """
    if not OVER < peak < np.inf:
        return ""
    return f"samples reach {peak:.6g} where full scale is 1: integers written as floats? divide them by 32768"
