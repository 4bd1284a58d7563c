"""Zips of others: opened so that nothing in them is larger than it says, and parts of them as files that can seek."""

import io
import os
import struct
import zipfile
import zlib
from typing import Any, BinaryIO

BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
    OverflowError,
)  # of `zipfile`
MOST_DIRECTORY = 1 << 23  # bytes of a table of contents: about 100,000 parts
DENSE = 10  # a compressed member that is opened as a file has at most so many times its bytes


class _Guarded(io.RawIOBase):
    """A file of which a single read gives `most` bytes, or refuses; 0: any number."""

    def __init__(self, file: BinaryIO, most: int):
        self.file, self.most = file, most

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET and offset < 0:
            raise zipfile.BadZipFile("a part lies before the file's beginning")
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def read(self, size: int = -1) -> bytes:
        if self.most and size > self.most:
            raise zipfile.BadZipFile(f"its table of contents has {size} bytes")
        return self.file.read(size)


def open_zip(file: BinaryIO, most: int = MOST_DIRECTORY) -> zipfile.ZipFile:
    """A zip in which no name is used twice and whose parts together are not larger than the file.

    Args:
        most: bytes of its table of contents, before that is read.

    Raises:
        those of `BROKEN`: another one, or no zip.
    """
    guarded = _Guarded(file, most)
    archive = zipfile.ZipFile(guarded)  # pyright: ignore[reportArgumentType]
    guarded.most = 0
    infos = archive.infolist()
    if sum(info.compress_size for info in infos) > file.seek(0, os.SEEK_END):
        raise zipfile.BadZipFile("its parts declare more bytes than the file holds")
    if len({info.filename for info in infos}) < len(infos):
        raise zipfile.BadZipFile("two parts have one name")
    for info in infos:
        if info.external_attr & 0x10 and info.file_size:  # PyTorch's reader skips it then
            raise zipfile.BadZipFile(f"{info.filename!r} is both a folder and a file")
        stored = info.compress_type == zipfile.ZIP_STORED
        if info.flag_bits & 1 or not (stored or info.compress_type == zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(f"{info.filename!r} is encrypted, or compressed in a way that is not read")
        if stored and info.file_size != info.compress_size:
            raise zipfile.BadZipFile(f"{info.filename!r} declares another size than it has")
    return archive


class _Part(io.RawIOBase):
    """Bytes `start` to `start + size` of a file, as a file."""

    def __init__(self, file: Any, start: int, size: int):
        self.file, self.start, self.size, self.at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        self.at = max(0, base + offset)
        return self.at

    def readinto(self, buffer) -> int:
        self.file.seek(self.start + self.at)
        view = memoryview(buffer)[: max(0, self.size - self.at)]
        done = self.file.readinto(view)
        self.at += done
        return done


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member as bytes, not more of them than it declares, its checksum checked."""
    info = archive.getinfo(name)
    with archive.open(info) as f:
        data = f.read(info.file_size)
    if len(data) != info.file_size:
        raise zipfile.BadZipFile(f"{name!r} declares another size than it has")
    return data


def open_member(archive: zipfile.ZipFile, name: str, check: bool = True) -> BinaryIO:
    """A member of an `open_zip` as a file that can seek; in memory only where it is compressed.

    Args:
        check: compare its checksum, which reads it once.

    Raises:
        those of `BROKEN`: a wrong checksum, one that is compressed as numbers cannot be.
    """
    fp: Any = archive.fp  # a `_Guarded`
    info, file = archive.getinfo(name), fp.file
    if info.compress_type != zipfile.ZIP_STORED:
        if info.file_size > DENSE * info.compress_size + (1 << 20):
            raise zipfile.BadZipFile(f"{name!r} unpacks to {info.file_size} bytes, more than {DENSE} times its own")
        return io.BytesIO(read_member(archive, name))
    if check:
        with archive.open(name) as f:
            while f.read(1 << 20):
                pass
    file.seek(info.header_offset + 26)  # two lengths; after 30 bytes in all the texts follow
    lengths = file.read(4)
    start = info.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    return io.BufferedReader(_Part(file, start, info.file_size), 1 << 20)
