"""Zips of others, with parts as files that can seek; NumPy's files, `.npy` and `.npz`: the one reader and writer.

Nothing in them is executed, and what a header declares is compared with the file before anything is allocated.
"""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike

from espnet2_ext.errors import DataError
from espnet2_ext.util.files import atomic_path

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


_BROKEN = (ValueError, OSError, EOFError, KeyError, TypeError, SyntaxError, TokenError, RecursionError, OverflowError)
_DENSE = 64  # a compressed array is at most so many times as large as its part of the file


def read_npy(path: str | os.PathLike, mmap: bool = False, error: type[DataError] = DataError) -> np.ndarray:
    """The array of a `.npy` file.

    Args:
        mmap: a read-only map of the file in place of a copy.

    Raises:
        error: no such file, not a whole array, one of objects.
    """
    _check_file(path, error)
    try:
        with open(path, "rb") as f:
            _check_header(f, os.fstat(f.fileno()).st_size)
        array = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
        return array.view(np.ndarray)  # the map stays alive; plain indexing is twice as fast
    except _BROKEN as e:
        raise error(f"{path}: is not a whole .npy file ({e})") from e


def read_npz(
    source: str | os.PathLike | BinaryIO,
    names: Sequence[str] = (),
    error: type[DataError] = DataError,
    hint: str = "",
    where: object = None,
) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` file by name, each checked against its checksum.

    Args:
        source: a path, or a file that can seek. where: what messages call it.
        names: those that must be in it. hint: what to do where there is no such file.

    Raises:
        error: no such file, not whole, without one of `names`.
    """
    if not hasattr(source, "read"):
        _check_file(source, error, hint)  # pyright: ignore[reportArgumentType]
        with open(source, "rb") as file:  # pyright: ignore[reportArgumentType, reportCallIssue]
            return read_npz(file, names, error, hint, where or source)
    arrays: dict[str, np.ndarray] = {}
    try:
        z = open_zip(source)  # pyright: ignore[reportArgumentType]
        for info in z.infolist():
            if info.compress_type != zipfile.ZIP_STORED and info.file_size > _DENSE * info.compress_size:
                raise ValueError(f"{info.filename} declares {info.file_size} bytes")
            with z.open(info) as f:
                _check_header(f, info.file_size)
            with z.open(info) as f:
                arrays[info.filename.removesuffix(".npy")] = np.lib.format.read_array(f, allow_pickle=False)
                if f.read(1):  # at the end the checksum is compared
                    raise ValueError(f"{info.filename} goes on behind its array")
    except (*_BROKEN, *BROKEN) as e:
        raise error(f"{where}: is not a whole .npz file ({e})") from e
    if missing := [name for name in names if name not in arrays]:
        raise error(f"{where}: expected the arrays {' and '.join(names)}, got {list(arrays)}, no {missing[0]}")
    return arrays


def read_arrays(path: str | os.PathLike, error: type[DataError] = DataError) -> list[np.ndarray]:
    """The arrays of a `.npy` file that several were saved into, one after the other; raises as `read_npy`."""
    _check_file(path, error)
    try:
        with open(path, "rb") as f:
            arrays, size = [], os.fstat(f.fileno()).st_size
            while not arrays or f.tell() < size:
                start = f.tell()
                _check_header(f, size, last=False)
                f.seek(start)
                arrays.append(np.lib.format.read_array(f, allow_pickle=False))
            return arrays
    except _BROKEN as e:
        raise error(f"{path}: is not a whole .npy file ({e})") from e


def write_npy(path: str | os.PathLike, array: np.ndarray, *more: np.ndarray) -> None:
    """Write a `.npy` file whole; `np.load` gives `array`, `read_arrays` gives `more` as well."""
    with atomic_path(path) as tmp, open(tmp, "wb") as f:
        for one in (array, *more):
            np.save(f, _plain(one), allow_pickle=False)


def write_npz(path: str | os.PathLike, arrays: Mapping[str, ArrayLike]) -> None:
    """Write a `.npz` file whole."""
    with atomic_path(path) as tmp, open(tmp, "wb") as f:
        _save_npz(f, arrays)


def npz_bytes(arrays: Mapping[str, ArrayLike]) -> bytes:
    """What a `.npz` file holds."""
    file = io.BytesIO()
    _save_npz(file, arrays)
    return file.getvalue()


def _save_npz(file: BinaryIO, arrays: Mapping[str, ArrayLike]) -> None:
    plain: dict[str, Any] = {name: _plain(array) for name, array in arrays.items()}
    np.savez(file, **plain)


def write_npy_rows(path: str | os.PathLike, shape: tuple[int, int], tables: Iterable[np.ndarray]) -> None:
    """Write tables, one under the other and each padded with zeros to the right, as a `.npy` file; one is held."""
    with atomic_path(path) as tmp, open(tmp, "wb") as f:  # not a map of it: on a full disk that ends in SIGBUS
        for n, table in enumerate(tables):
            if n == 0:
                descr = np.lib.format.dtype_to_descr(table.dtype)
                header = {"descr": descr, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(f, header)
            f.write(np.pad(table, ((0, 0), (0, shape[1] - table.shape[1]))).tobytes())


def _plain(array: ArrayLike) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.hasobject:
        raise TypeError("an array of objects would be pickled")
    return array


def _check_file(path: str | os.PathLike, error: type[DataError], hint: str = "") -> None:
    if not os.path.isfile(path):
        what = "is not a file" if os.path.exists(path) else "no such file"
        raise error(f"{path}: {what}{hint and f'; {hint}'}")


def _check_header(f: Any, size: int, last: bool = True) -> None:
    """Refuse an array of objects, or one whose declared size is not that of what follows (ValueError)."""
    version = np.lib.format.read_magic(f)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"format {version} is unknown")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(f)
    if dtype.hasobject or not dtype.itemsize:
        raise ValueError(f"it holds {'objects' if dtype.hasobject else 'nothing'}, not numbers")
    end = f.tell() + prod(map(int, shape)) * dtype.itemsize
    if any(n < 0 for n in shape) or end > size or (last and end < size):
        raise ValueError(f"its header promises {list(shape)} {dtype}, which is not what the file holds")
