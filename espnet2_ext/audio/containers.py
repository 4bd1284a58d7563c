"""What a sound file's header says against the file's size: from its first bytes, its chunks and pages, undecoded."""

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from espnet2_ext.audio import mpeg
from espnet2_ext.audio.files import Piece, Survey, find_all, read_at
from espnet2_ext.errors import DataError

_4GB = 1 << 32
# rates and block sizes that the header of a FLAC frame has codes for (RFC 9639, section 9.1)
FLAC_RATES = (88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)
FLAC_SIZES = {192: 1} | {576 << k: 2 + k for k in range(4)} | {256 << k: 8 + k for k in range(8)}
_LONGER = ("its header says that it is longer, it may be truncated",)
_DEMUXERS = (  # where, what, FFmpeg's name: containers that libsndfile does not read, or not with every codec
    *((4, mark, "mov") for mark in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (0, b"\x30\x26\xb2\x75", "asf"),
    (8, b"AVI ", "avi"),
    (0, b"FLV\x01", "flv"),
    (0, b"\0\0\1\xba", "mpeg"),
    *((0, mark, name) for mark, name in ((b"#!AMR", "amr"), (b"\x0b\x77", "ac3"), (b"wvpk", "wv"), (b"MAC ", "ape"))),
    *((0, mark, name) for mark, name in ((b"OggS", "ogg"), (b"caff", "caf"), (b"BW64", "wav"))),
)


class _Form(NamedTuple):
    """A file of chunks: where the first begins, how a size is written, which chunk is the sound, to what it is padded,
    and whether libsndfile itself stops at the file's end."""

    first: int
    code: str
    sound: bytes
    pad: int
    lenient: bool


_FORMS = {
    b"RIFF": _Form(12, "<I", b"data", 2, True),
    b"RIFX": _Form(12, ">I", b"data", 2, True),
    b"RF64": _Form(12, "<I", b"data", 2, False),
    b"FORM": _Form(12, ">I", b"SSND", 2, True),
    b"caff": _Form(8, ">q", b"data", 1, False),
}


def survey(file: BinaryIO, size: int, name: str) -> Survey:
    """What the bytes of a sound file of `size` bytes say of it; `name` is asked for a suffix of MPEG audio.

    Raises:
        DataError: parts that cannot be read as one sound.
    """
    at, head = 0, read_at(file, 0, 189)
    while head[:3] == b"ID3" and (tag := mpeg.id3_size(head)):
        at += tag
        head = read_at(file, at, 189)
    demuxer = _demuxer(head)
    if head[:4] in _FORMS and (head[:4] != b"RIFF" or head[8:12] == b"WAVE"):
        found = _chunks(file, at, size, _FORMS[head[:4]])
    elif head[:4] == b".snd" and len(head) >= 12:
        start, claimed = struct.unpack(">II", head[4:12])
        found = _sized(file, size, at + start, claimed, at + 8, ">I", lenient=False, top=at)
    elif head[:4] == b"fLaC":
        found = _flac(file, at, size)
    elif head[:4] == b"OggS":
        found = _ogg(file, at, size)
    elif head[8:12] == b"AVI " and at + 8 + int.from_bytes(head[4:8], "little") > size:
        found = Survey(notes=_LONGER)
    elif head[:4] == b"\x1a\x45\xdf\xa3":
        found = _matroska(file, at, size)
    elif mpeg.is_frame(head) or name.lower().endswith((".mp3", ".mp2", ".mpga")):
        found = mpeg.survey(file, at, size) or Survey([[(0, size)]])  # without its name, libsndfile looks at the bytes
    else:
        found = Survey()
    return found._replace(demuxer=demuxer)


def _demuxer(head: bytes) -> str:
    for at, mark, name in _DEMUXERS:
        if head[at : at + len(mark)] == mark:
            return name
    if head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xF6 == 0xF0:
        return "aac"
    return "mpegts" if head[:1] == b"G" and head[188:] == b"G" else ""


# ---- chunks: WAV, RF64, AIFF, CAF; AU ------------------------------------------------------------


def _chunks(file: BinaryIO, at: int, size: int, form: _Form) -> Survey:
    wide = {}
    for name, field, start, claimed in _walk(file, at + form.first, size, form):
        if name == b"ds64":
            wide = {"field": start + 8, "code": "<q", "claimed": int.from_bytes(read_at(file, start + 8, 8), "little")}
        if name == form.sound:
            place = {"field": field, "code": form.code, "claimed": claimed}
            place |= wide if claimed == _4GB - 1 else {}
            return _sized(file, size, start, form=form, lenient=form.lenient, top=at, **place)
    return Survey()  # the decoder says what is missing


def _walk(file: BinaryIO, at: int, size: int, form: _Form, most: int = 10000) -> Iterator[tuple[bytes, int, int, int]]:
    """Name, offset of the size, offset and size of each chunk."""
    width = struct.calcsize(form.code)
    for _ in range(most):
        head = read_at(file, at, 4 + width)
        if len(head) < 4 + width:
            return
        [claimed] = struct.unpack(form.code, head[4:])
        yield head[:4], at + 4, at + 4 + width, claimed
        at += 4 + width + max(claimed, 0)
        at += -at % form.pad


def _is_end(file: BinaryIO, at: int, size: int, form: _Form | None) -> bool:
    """Whether the file ends here, or goes on with chunks to its end."""
    if size - at < 8:
        return True
    if form is None:
        return False
    for name, _, start, claimed in _walk(file, at, size, form):
        if not all(32 <= c < 127 for c in name) or not 0 <= claimed <= size - start:
            return False
        if size - start - claimed < 8:
            return True
    return False


def _sized(
    file: BinaryIO,
    size: int,
    start: int,
    claimed: int,
    field: int,
    code: str,
    lenient: bool,
    form: _Form | None = None,
    top: int = 0,
) -> Survey:
    """Survey of sound from `start`, whose header says that it is `claimed` bytes long, at the offset `field`."""
    rest = size - start
    if rest <= 0:
        return Survey()
    if 0 < claimed <= rest and any(_is_end(file, start + claimed + pad, size, form) for pad in (0, claimed & 1)):
        return Survey()
    if claimed == 0 and form and _is_end(file, start, size, form):
        return Survey()  # there is no sound
    endless = claimed <= 0 or 0x7FFFF000 <= claimed <= 0x80000000 or claimed in range(_4GB - 4096, _4GB)
    if 0 < claimed <= rest and not (endless or (size > _4GB and form is _FORMS[b"RIFF"])):
        return Survey(notes=(f"{rest - claimed} bytes that its header does not name follow the sound",))
    notes = ()
    if not endless:
        notes = (f"header and file size disagree ({claimed} bytes of sound, {rest} are there), it may be truncated",)
        if claimed <= rest:
            notes = ("its sizes have wrapped at 4 GB: read to the end",)
            tail = (rest - claimed) % _4GB
            rest -= tail if tail < 1 << 16 else 0
    if claimed < rest and rest >= _4GB - 1 and form is _FORMS[b"RIFF"]:
        return Survey([_as_rf64(file, top, field, start, rest)], notes)
    if lenient and claimed > rest:
        return Survey(notes=notes)
    value = struct.pack(code, min(rest, _4GB - 1) if code[1] == "I" else rest)
    return Survey([[(top, field), value, (field + len(value), size)]], notes)


def _as_rf64(file: BinaryIO, top: int, field: int, start: int, rest: int) -> list[Piece]:
    """Pieces of a WAV with the sizes that its own 32 bits cannot hold."""
    sizes = struct.pack("<4sIqqqI", b"ds64", 28, start - top + rest + 28, rest, 0, 0)
    head = b"RF64\xff\xff\xff\xffWAVE" + sizes
    return [head, (top + 12, field), b"\xff" * 4, (start, start + rest)]


# ---- FLAC, Ogg -----------------------------------------------------------------------------------


def _flac(file: BinaryIO, at: int, size: int) -> Survey:
    info = read_at(file, at, 42)
    starts = list(find_all(file, info[:12], at + 1, size)) if len(info) == 42 else []  # of one encoder
    if starts:
        notes = (f"is joined of {len(starts) + 1} FLAC streams: read to the end",)
        return Survey([[(a, b)] for a, b in zip([at, *starts], [*starts, size])], notes)
    said = int.from_bytes(info[21:26], "big") & (1 << 36) - 1 if len(info) == 42 else 0
    _check_rate(file, at, info)
    most = int.from_bytes(info[15:18], "big") or 1 << 16  # bytes of the largest frame
    tail = max(at, size - most - 1024)  # and of tags behind it
    held = _end_of_frames(read_at(file, tail, size - tail), int.from_bytes(info[10:12], "big")) if said else 0
    if held <= said:
        return Survey()
    zero = bytes([info[21] & 0xF0, 0, 0, 0, 0])  # no length: the decoder goes on to the end
    notes = (f"its header says {said} samples, its last frame ends at {held}: read to the end",)
    return Survey([[(at, at + 21), zero, (at + 26, size)]], notes)


def _check_rate(file: BinaryIO, at: int, info: bytes) -> None:
    """Refuse a stream whose header says another rate than its first frame: that has a checksum (DataError)."""
    at, last, said = at + 4, False, int.from_bytes(info[18:21], "big") >> 4
    while not last and (block := read_at(file, at, 4)):
        last = bool(block[0] & 0x80)
        at += 4 + int.from_bytes(block[1:], "big")
    head = read_at(file, at, 9)
    if len(head) == 9 and head[:2] in (b"\xff\xf8", b"\xff\xf9") and (rate := _rate_of_frame(head)) not in (0, said):
        raise DataError(f"damaged: its header says {said} Hz, its sound {rate} Hz")


def _rate_of_frame(head: bytes) -> int:
    """Rate in Hz of the first frame of a stream, from the 9 bytes that it begins with; 0 where they do not say it."""
    code, tail = head[2] & 15, head[5 + {6: 1, 7: 2}.get(head[2] >> 4, 0) :]
    if 1 <= code <= len(FLAC_RATES):
        return FLAC_RATES[code - 1]
    words = int.from_bytes(tail[:2], "big")
    return {12: tail[0] * 1000, 13: words, 14: words * 10}.get(code, 0)


def _end_of_frames(tail: bytes, block: int) -> int:
    """Number of samples up to the end of the last frame whose header is found in the `tail` of a FLAC file, or 0.

    Args:
        block: samples of a frame, as the stream's own header says (its largest block).
    """
    sizes = {code: size for size, code in FLAC_SIZES.items()}
    at = len(tail)
    while (at := tail.rfind(b"\xff", 0, at)) >= 0:
        head = tail[at : at + 16]
        if len(head) < 6 or head[1] & 0xFE != 0xF8 or head[2] & 0xF0 == 0 or head[3] & 1:
            continue
        lead = 8 - (head[4] ^ 0xFF).bit_length()  # ones that the coded number begins with
        more = max(lead, 1)
        number = head[4] & (0xFF >> (lead + 1))
        for byte in head[5 : 4 + more]:
            number = number << 6 | byte & 0x3F
        code, place = head[2] >> 4, 4 + more
        wide = code - 5 if code in (6, 7) else 0
        size = int.from_bytes(head[place : place + wide], "big") + 1 if wide else sizes.get(code, 0)
        place += wide + {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
        if len(head) > place and crc8(head[:place]) == head[place]:
            return number + size if head[1] & 1 else number * block + size
    return 0


def crc8(data: bytes) -> int:
    """Checksum of the header of a FLAC frame."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = ((crc << 1) ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
    return crc


def _ogg(file: BinaryIO, at: int, size: int) -> Survey:
    starts, after = [at], _page_end(file, at)
    for page in find_all(file, b"OggS\x00\x02", at + 1, size):
        if page != after:  # streams side by side begin in pages that follow one another
            starts.append(page)
        after = _page_end(file, page)
    tail = max(at, size - (1 << 17))
    block = read_at(file, tail, size - tail)
    last = block.rfind(b"OggS\x00")
    notes = ()
    if last < 0 or not block[last + 5] & 4 or _page_end(file, tail + last) > size:
        notes = ("its last page is not marked as its end, it may be truncated",)
    if len(starts) == 1:
        return Survey(notes=notes)
    notes = (f"is joined of {len(starts)} Ogg streams: read to the end", *notes)
    return Survey([[(a, b)] for a, b in zip(starts, [*starts[1:], size])], notes)


def _page_end(file: BinaryIO, at: int) -> int:
    head = read_at(file, at, 27 + 255)
    return at + 27 + head[26] + sum(head[27 : 27 + head[26]]) if len(head) >= 27 else at


# ---- Matroska, WebM ------------------------------------------------------------------------------


def _matroska(file: BinaryIO, at: int, size: int) -> Survey:
    """The first element is the header; the second one, the segment, holds all the rest."""
    at = _element(file, at)[1]
    start, end = _element(file, at)
    return Survey(notes=_LONGER if end > size > start else ())


def _element(file: BinaryIO, at: int) -> tuple[int, int]:
    """Where the content of an element with an identifier of 4 bytes begins and ends (0: it does not say)."""
    head = read_at(file, at + 4, 8)
    width = 9 - (head[0] if head else 0).bit_length()
    value = int.from_bytes(head[:width], "big") & (1 << 7 * width) - 1
    start = at + 4 + width
    return start, 0 if value == (1 << 7 * width) - 1 else start + value
