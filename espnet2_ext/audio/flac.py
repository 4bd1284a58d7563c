"""16-bit FLAC in memory: writing it, and decoding a part of it without libsndfile's seek.

libsndfile seeks in a FLAC stream by decoding trial frames, from the bytes of the whole clip. Each
frame says in its header which one it is, so a table of a few frames' places is enough to read and
decode just the frames that a crop touches, as a small file of their own.
Format: RFC 9639, sections 8.2 (streaminfo) and 9.1 (frame header).
"""

import functools
import io

import numpy as np
import soundfile

from espnet2_ext.audio.containers import FLAC_RATES, FLAC_SIZES, crc8
from espnet2_ext.audio.sound import Stream

BLOCK = 4096  # samples a frame: what libFLAC takes at the level used here
STRIDE = 4  # every so many frames one has its place in the table
_WHOLE = 1 << 24  # frames decoded at once; a lying header cannot ask for more memory than this


def pull(file: Stream, num: int) -> np.ndarray:
    """Read at most `num` frames from where `file` stands: float32 [T, C], T <= num."""
    parts, got = [], 0
    while got < num:
        part = file.read(min(num - got, _WHOLE), dtype="float32", always_2d=True)
        if not len(part):
            break
        parts.append(part)
        got += len(part)
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros((0, file.channels), np.float32)


def to_int16(x: np.ndarray) -> np.ndarray:
    """Round float samples [...] (full scale 1.0) to int16 [...]; what lies outside is clipped."""
    x = np.asarray(x)
    y = x * np.asarray(32768, x.dtype if x.dtype.kind == "f" else np.float64)  # exact
    np.rint(y, out=y)
    return np.clip(y, -32768, 32767, out=y).astype("<i2")


def to_int24(x: np.ndarray) -> np.ndarray:
    """Round float samples [...] to 24 bits, the upper ones of int32 [...]; what lies outside is clipped."""
    y = np.rint(np.asarray(x, np.float64) * 2**23)
    return np.clip(y, -(2**23), 2**23 - 1).astype("<i4") << 8


def encode_flac(pcm: np.ndarray, fs: int) -> bytes:
    """Encode samples [T] or [T, C] at `fs` Hz as a FLAC file: int16, or int32 as 24 bits."""
    out = io.BytesIO()
    subtype = "PCM_16" if pcm.dtype.itemsize == 2 else "PCM_24"
    soundfile.write(out, pcm, fs, format="FLAC", subtype=subtype)
    return out.getvalue()


def decode_flac(data: bytes) -> np.ndarray:
    """Decode a whole mono FLAC file held in memory: float32 [T].

    Raises:
        soundfile.LibsndfileError: bytes that cannot be decoded.
    """
    with Stream(io.BytesIO(data)) as f:
        return pull(f, f.frames)[:, 0]


def seek_points(data: bytes, samples: int, fs: int) -> np.ndarray:
    """Offsets of frames 0, STRIDE, 2 STRIDE ... in a mono FLAC file of `samples`: uint32 [S].

    0 stands for a frame that was not found (a stream of another block size). All of a frame's
    header is known beforehand, so it is found by a search for 6 bytes or more.
    """
    points = np.zeros(-(-samples // (BLOCK * STRIDE)), np.uint32)
    at = 0
    for n in range(len(points)):
        at = data.find(_frame_start(n * STRIDE, samples, fs), at)
        if at < 0:
            break
        points[n] = at
    return points


def decode_frames(data: bytes, frame: int, samples: int, fs: int, start: int, num: int) -> np.ndarray | None:
    """Decode samples `start` to `start + num` of a clip from a part of its frames.

    Args:
        data: bytes that begin with frame number `frame` of a mono clip of `samples`.
        start: counted in the whole clip.

    Returns:
        float32 [num], or None where this cannot be done and the whole clip must be decoded.
    """
    if not _parts_decode():
        return None
    first = start // BLOCK
    at = data.find(_frame_start(first, samples, fs)) if first > frame else 0
    if at < 0:
        return None
    skip = start - first * BLOCK
    try:
        with Stream(io.BytesIO(_streaminfo(fs, skip + num) + data[at:])) as f:
            x = pull(f, skip + num)[skip:, 0]
    except soundfile.SoundFileError:
        return None
    return x if len(x) == num else None


def _streaminfo(fs: int, samples: int) -> bytes:
    """The start of a mono 16-bit FLAC file that holds no other metadata."""
    fields = fs << 44 | 15 << 36 | samples
    sizes = BLOCK.to_bytes(2, "big") * 2 + bytes(6)
    return b"fLaC" + bytes([0x80, 0, 0, 34]) + sizes + fields.to_bytes(8, "big") + bytes(16)


@functools.lru_cache(maxsize=4096)
def _frame_start(number: int, samples: int, fs: int) -> bytes:
    """Header of frame `number` of a mono 16-bit stream of `samples`, CRC-8 included."""
    size = min(BLOCK, samples - number * BLOCK)
    size_code = FLAC_SIZES.get(size, 6 if size <= 256 else 7)
    size_tail = (size - 1).to_bytes(size_code - 5, "big") if size_code in (6, 7) else b""
    if fs in FLAC_RATES:
        rate_code, rate_tail = 1 + FLAC_RATES.index(fs), b""
    elif fs % 1000 == 0 and fs <= 255000:
        rate_code, rate_tail = 12, bytes([fs // 1000])
    elif fs % 10 == 0:
        rate_code, rate_tail = 14, (fs // 10 & 0xFFFF).to_bytes(2, "big")
    else:
        rate_code, rate_tail = 13, (fs & 0xFFFF).to_bytes(2, "big")
    head = bytes([0xFF, 0xF8, size_code << 4 | rate_code, 0x08])
    raw = head + _coded_number(number) + size_tail + rate_tail
    return raw + bytes([crc8(raw)])


def _coded_number(n: int) -> bytes:
    """UTF-8-like code of a frame number, up to 36 bits (the rule goes on past Unicode)."""
    if n < 0x80:
        return bytes([n])
    tail = []
    room = 0x3F  # largest number that fits into the first byte beside its length mark
    while n > room:
        tail.append(0x80 | (n & 0x3F))
        n >>= 6
        room = 0x1F if len(tail) == 1 else room >> 1
    mark = (0xFF << (7 - len(tail))) & 0xFF
    return bytes([mark | n, *reversed(tail)])


@functools.cache
def _parts_decode() -> bool:
    """Whether this libsndfile decodes a stream that begins past frame 0 (tried once a process)."""
    pcm = ((np.arange(20000) * 7919) % 60013 - 30000).astype(np.int16)
    data = encode_flac(pcm, 32000)
    at = data.find(_frame_start(2, 20000, 32000))
    try:
        with Stream(io.BytesIO(_streaminfo(32000, 5000) + data[at:])) as f:
            x = pull(f, 5000)[:, 0]
    except soundfile.SoundFileError:
        return False
    return at > 0 and np.array_equal(x * 32768, pcm[8192:13192])
