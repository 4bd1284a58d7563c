"""Frames of MPEG audio (MP3): a walk from header to header, where no header says how many there are.

Formats: ISO/IEC 11172-3 and 13818-3, clause 2.4.2.3; the Xing or Info frame of encoders.
"""

import functools
import io
import re
from typing import BinaryIO, NamedTuple

from espnet2_ext.audio.files import Survey, read_at
from espnet2_ext.errors import DataError

_SAME = 0xFFFE0C00  # of a frame's header: sync, version, layer, rate
_KBITS = {  # (version 1, layer): kbit/s of the codes 1 to 14
    (True, 1): range(32, 449, 32),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_KBITS[False, 3] = _KBITS[False, 2]
_SYNC = re.compile(rb"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff][\x10-\xef]")  # how a frame begins
_RUN = 4  # frames in a row that are no accident
_JUNK = 1 << 20  # bytes between frames that are searched for the next


class _Kind(NamedTuple):
    """What all frames of a stream share; `sizes`: bytes by code of the bit rate and padding (0: none)."""

    rate: int
    channels: int
    samples: int
    sizes: tuple[int, ...]


@functools.lru_cache(maxsize=64)
def _kind(key: int) -> _Kind | None:
    version, layer, code = key >> 19 & 3, 4 - (key >> 17 & 3), key >> 10 & 3
    if key >> 21 != 0x7FF or version == 1 or layer == 4 or code == 3:
        return None
    rate = (44100, 48000, 32000)[code] >> {3: 0, 2: 1, 0: 2}[version]
    samples = 384 if layer == 1 else 1152 if layer == 2 or version == 3 else 576
    sizes = [0, 0]
    for kbits in _KBITS[version == 3, layer]:
        for padding in (0, 1):
            slots = samples // (32 if layer == 1 else 8) * kbits * 1000 // rate + padding
            sizes.append(slots * 4 if layer == 1 else slots)
    return _Kind(rate, 1 if key & 1 else 2, samples, (*sizes, 0, 0))


class _Frames:
    """The frames of a file, one after the other."""

    def __init__(self, file: BinaryIO, end: int):
        self.file, self.end, self.base, self.held = file, end, 0, b""

    def bytes(self, at: int, num: int) -> bytes:
        """Bytes at an offset, fewer at the end."""
        skip = at - self.base
        if not 0 <= skip <= len(self.held) - num:
            self.base, skip = at, 0
            self.held = read_at(self.file, at, max(0, min(max(num, 1 << 18), self.end - at)))
        return self.held[skip : skip + num]

    def frame(self, at: int) -> tuple[int, int]:
        """Key of the frame that begins here, and its bytes; 0 where there is none."""
        head = int.from_bytes(self.bytes(at, 4), "big")
        key = head & _SAME | (head >> 6 & 3 == 3)
        kind = _kind(key)
        return (key, kind.sizes[head >> 11 & 30 | head >> 9 & 1]) if kind else (0, 0)

    def is_run(self, at: int) -> bool:
        """Whether frames of one kind follow one another from here, to the end or long enough."""
        first, size = self.frame(at)
        for _ in range(_RUN - 1):
            at += size
            if not size or at >= self.end:
                break
            key, size = self.frame(at)
            size *= key == first
        return size > 0

    def next_run(self, at: int, limit: int) -> int | None:
        """Where frames go on from `at`, past tags and junk."""
        while at < min(self.end, limit):
            head = self.bytes(at, 32)
            if (size := id3_size(head)) or (size := _ape_size(head)):
                at, limit = at + size, limit + size
            elif self.is_run(at):
                return at
            else:
                self.bytes(at + 1, 4)
                sync = _SYNC.search(self.held, at + 1 - self.base)
                at = self.base + (sync.start() if sync else max(len(self.held) - 2, 1))
        return None


def is_frame(head: bytes) -> bool:
    """Whether `head`, of 4 bytes or more, begins as a frame does."""
    word = int.from_bytes(head[:4], "big")
    return len(head) >= 4 and _kind(word & _SAME) is not None and word >> 12 & 15 < 15


def frame_size(head: bytes) -> int:
    """Bytes of the frame that begins with `head`, or 0."""
    return _Frames(io.BytesIO(head), len(head)).frame(0)[1]


def id3_size(head: bytes) -> int:
    """Bytes of the ID3v2 tag that begins with `head`, or 0."""
    if head[:3] != b"ID3" or len(head) < 10 or max(head[6:10]) > 127:
        return 0
    return 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]) + (10 if head[5] & 16 else 0)


def _ape_size(head: bytes) -> int:
    return 32 + int.from_bytes(head[12:16], "little") if head[:8] == b"APETAGEX" else 0


def _end_of_frames(file: BinaryIO, size: int) -> int:
    """Where the tags at the end begin."""
    if read_at(file, max(0, size - 128), 3) == b"TAG":
        size -= 128
    foot = read_at(file, max(0, size - 32), 32)
    return size - min(size, _ape_size(foot) - (0 if foot[23:24] >= b"\x80" else 32)) if _ape_size(foot) else size


def survey(file: BinaryIO, at: int, size: int) -> Survey | None:
    """Survey of an MPEG stream from offset `at`; None where there is no frame.

    All frames are counted. Where a Xing or Info frame says another number, the decoder gets one that is true.

    Raises:
        DataError: parts of different rates or channels.
    """
    frames = _Frames(file, _end_of_frames(file, size))
    first = frames.next_run(at, at + _JUNK)
    if first is None:
        return None
    key, length = frames.frame(first)
    spans, count, cut = _walk(frames, first, key)
    left, notes = frames.end - spans[-1][1], ()
    if cut:
        notes = ("ends within a frame of MPEG audio, it may be truncated",)
    elif left > 4096:
        notes = (f"its last {left} bytes are no MPEG audio",)
    if not count:
        return Survey(notes=notes)
    info = bytearray(frames.bytes(first, length))
    if (tag := max(info[:64].find(b"Xing"), info[:64].find(b"Info"))) >= 0:
        spans[0] = first + length, spans[0][1]
        count -= 1
    whole = sum(end - start for start, end in spans)
    if tag < 0 or not info[tag + 7] & 1:
        return Survey([spans], notes, frames=count * _kind(key).samples, claim=whole * 64 + _JUNK)
    said, sized = (int.from_bytes(info[tag + i : tag + i + 4], "big") for i in (8, 12))
    if count == said or (count < said and info[tag + 7] & 2 and sized > frames.end - first):
        return Survey()  # the second one is truncated, which the decoder finds
    info[tag + 8 : tag + 12] = count.to_bytes(4, "big")
    if info[tag + 7] & 2:
        info[tag + 12 : tag + 16] = (length + whole).to_bytes(4, "big")
    delay = tag + 120 + 21  # of LAME's tag: 12 bits that say what to leave out in front, 12 at the end
    if count > said and info[tag + 7] & 15 == 15 and len(info) > delay + 3:
        info[delay + 1] &= 0xF0
        info[delay + 2] = 0
    if abs(count - said) > 1:  # some encoders count the header
        notes += (f"its header says {said} frames of MPEG audio, it holds {count}: read to the end",)
    return Survey([[bytes(info), *spans]], notes)


def _walk(frames: _Frames, at: int, first: int) -> tuple[list[tuple[int, int]], int, bool]:
    """Where frames follow one another, how many they are, and whether the last one is cut off."""
    same, mono, sizes = first & _SAME, first & 1, _kind(first).sizes
    spans, start, count = [], at, 0
    while True:
        head = int.from_bytes(frames.bytes(at, 4), "big")
        if head & _SAME == same and (head >> 6 & 3 == 3) == mono and (size := sizes[head >> 11 & 30 | head >> 9 & 1]):
            if at + size <= frames.end:
                at += size
                count += 1
                continue
            return [*spans, (start, at)], count, True
        spans.append((start, at))
        start = frames.next_run(at, at + _JUNK)
        if start is None:
            return spans, count, False
        if (other := frames.frame(start)[0]) != first:
            rates = ", ".join(f"{_kind(k).rate} Hz with {_kind(k).channels} channel(s)" for k in (first, other))
            raise DataError(f"is joined of sounds of different kinds ({rates}): split it, or convert it to one rate")
        at = start
