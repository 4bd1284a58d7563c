"""Files that are complete or absent, and results that are made once.

A result that is made once is one or more files with a record beside them, a JSON file such as `bank.json`. The record
holds the key (a version, digests of the inputs, settings) and whatever else is found on the way. It is removed before
the work and written after it, so a result with a record is whole. It also holds checksums of itself and of the files;
who reads one of those asks `verified`. How to use it, in place of an own check and an own digest:

    def archive(data_dir, out_dir, fs):
        key = {"version": 1, "manifest_digest": file_digest(data_dir / "manifest.tsv"), "fs": fs}
        return make_once(out_dir / "bank.json", key, lambda: _archive(data_dir, out_dir, fs), [out_dir / "index.npy"])

`_archive` writes the files (long work in parts: `util.parallel.map_parts`, which resumes where it was stopped) and
returns a dictionary for the record, or None. Where a key would be long, its digest does: `{"digest": digest(...)}`.
A change of what is written for the same inputs raises the version in the key. `made` and `write_record` are the two
halves, for results that do not fit one call; `util.locks.hold` keeps a second run out of a folder.
"""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from espnet2_ext.errors import DataError
from espnet2_ext.util.locks import hold, is_temporary, temporary

CHANGED = "changed since it was made, as its checksum shows; run the step that makes it again"
TRAINED = ".trained"  # record in a model's folder, of the texts that describe the model
_SUMS = "checksums"  # in a record: of files beside it by name, and of the record itself
_SOUND = (".ark", ".pcm")
_MISSING = object()
_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}  # a file cannot be written


# ---- files ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on failure.

    The parent folder is made. The content is flushed to disk before the rename, so that neither a
    kill nor a full disk leaves a part of a file under the final name. The temporary name keeps the
    suffix, because many writers choose their format by it.

    Raises:
        OSError: what the file system said, for example a full disk, also where a library says something else; nothing
            is left behind.
    """
    path = Path(path)
    if is_temporary(path):  # one of a part: renamed by who asked for it
        yield path
        return
    with temporary(path) as tmp:
        try:
            yield tmp
            with open(tmp, "rb+") as f:
                os.fsync(f.fileno())
            os.replace(tmp, path)
        except Exception as e:
            if reason := _no_room(e, tmp):
                raise OSError(reason.errno, reason.strerror, str(path)) from e
            raise


def _no_room(error: BaseException, tmp: Path) -> OSError | None:
    """The file system's own reason why `tmp` could not be written, if that is what `error` comes from."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _WRITING:
            return cause if cause.filename in (None, tmp, str(tmp)) else None
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, (DataError, OSError)):
        return None
    try:  # libraries do not say
        with open(tmp, "ab") as f:
            f.write(bytes(2**20))
            f.flush()
            os.fsync(f.fileno())
    except OSError as e:
        return e if e.errno in _WRITING else None
    return None


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` (UTF-8) to `path` through `atomic_path`."""
    with atomic_path(path) as tmp:
        tmp.write_text(text, encoding="utf-8")


# ---- results that are made once ------------------------------------------------------------------


def make_once(
    record: str | os.PathLike,
    key: dict,
    make: Callable[[], dict | None],
    files: Iterable[str | os.PathLike] = (),
    *,
    more: Callable[[], Iterable[str | os.PathLike]] = tuple,
    redo: bool = False,
) -> dict:
    """Call `make()` unless `record` says that it was done for the same `key`; other runs are kept out meanwhile.

    Args:
        record: JSON file of the result, written last.
        key: plain values that decide the result.
        make: writes the result; what it returns is added to the record.
        files: files of the result; where one is missing, the result is made again.
        more: called after `make`: further files for `write_record`, which results of earlier versions may lack.
        redo: make it again in any case.

    Returns:
        What the record holds.

    Raises:
        DataError: another run is working in the record's folder.
    """
    found = None if redo else made(record, key, files)
    if found is None:
        with hold(Path(record).parent):
            Path(record).unlink(missing_ok=True)
            return write_record(record, key, make() or {}, [*files, *more()])
    logging.info("%s: up to date, skipped", record)
    return found


def made(record: str | os.PathLike, key: dict, files: Iterable[str | os.PathLike] = ()) -> dict | None:
    """What `record` holds, if it was written for `key`, all `files` exist, and none that it knows changed; or None."""
    content, sums = _load(record)
    if not content or any(content.get(k, _MISSING) != v for k, v in _json(key).items()):
        return None
    if not all(os.path.exists(f) for f in files):
        return None
    for name, known in sums.items():
        file = Path(record).parent / name
        if not file.exists() or checksum(file) != known:
            logging.warning("%s: %s since it was made; is made again", file, "changed" if file.exists() else "removed")
            return None
    return content


def read_record(record: str | os.PathLike) -> dict:
    """Content of a record; empty where there is none, or one that cannot be read or changed."""
    return _load(record)[0]


def write_record(
    record: str | os.PathLike, key: dict, found: dict | None = None, files: Iterable[str | os.PathLike] = ()
) -> dict:
    """Write `key` and `found` as the JSON file `record`, with checksums of itself and of `files`; key and found."""
    content, folder = _json({**key, **(found or {})}), Path(record).parent
    sums = {name: checksum(folder / name, anew=True) for name in sorted(os.path.relpath(f, folder) for f in files)}
    write_text(record, json.dumps({**content, _SUMS: {**sums, "": _sum_of(content, sums)}}, indent=1) + "\n")
    return content


def verified(file: str | os.PathLike, record: str | os.PathLike, error: type[DataError] = DataError) -> Path:
    """The path of `file`, if it is as it was when `record` was written; otherwise `error`.

    Where there is no record, or one of an earlier version, without checksums, nothing is known against the file.
    """
    if not os.path.isfile(record):
        return Path(file)
    content, sums = _load(record)
    if not content:
        raise error(f"{record}: {CHANGED}")
    known = sums.get(os.path.relpath(file, Path(record).parent))
    if known and os.path.isfile(file) and checksum(file) != known:
        raise error(f"{file}: {CHANGED}")
    return Path(file)


def unsealed(value, where: object, error: type[DataError] = DataError):
    """A value of a JSON file; of a record, as `write_record` writes it, its content.

    Raises:
        error: the record changed.
    """
    if (found := _opened(value)) is None:
        raise error(f"{where}: {CHANGED}")
    return found[0]


def _opened(value) -> tuple[Any, dict] | None:
    """Content and files' checksums of a record, if it is as it was written; any other value, without checksums."""
    sums = value.get(_SUMS) if isinstance(value, dict) else None
    if not isinstance(sums, dict) or "" not in sums:
        return value, {}
    content, files = dict(value), dict(sums)
    del content[_SUMS]
    return (content, files) if files.pop("") == _sum_of(content, files) else None


def verified_text(file: str | os.PathLike, error: type[DataError] = DataError) -> Path:
    """As `verified`, for a text in the folder of a trained model."""
    record = Path(file).with_name(TRAINED)
    try:
        return verified(file, record, error)
    except error as e:
        raise error(f"{e}; or remove {record} to use it as it is") from None


def _load(record: str | os.PathLike) -> tuple[dict, dict]:
    """Content and files' checksums of a record; both empty where it cannot be read or changed."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = _opened(json.loads(Path(record).read_text(encoding="utf-8"))) if os.path.isfile(record) else None
        if found and isinstance(found[0], dict):
            return found
    return {}, {}


def _sum_of(content: dict, sums: dict) -> str:
    return f"{zlib.crc32(encode([content, sums])):08x}"


def checksum(file: str | os.PathLike, *, anew: bool = False) -> str:
    """Bytes of a file and CRC-32 of its content, `BYTES-CRC`; of an archive of sound, which has its own, bytes alone.

    A file that was read for it is not read again in this process while it stays, unless `anew`.
    """
    stat = os.stat(file)
    if not os.path.isfile(file):
        return "a pipe, a device or a folder"  # which may have no end
    if os.fspath(file).endswith(_SOUND):
        return f"{stat.st_size}"
    settled = not anew and abs(time.time() - stat.st_mtime) > 2  # clocks of file systems tick slowly
    read = _crc if settled else _crc.__wrapped__
    return f"{stat.st_size}-{read(os.path.abspath(file), stat.st_ino, stat.st_size, stat.st_mtime_ns):08x}"


@functools.lru_cache(maxsize=4096)
def _crc(file: str, *stat: int) -> int:
    crc = 0
    with open(file, "rb") as f:
        while block := f.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc


# ---- digests -------------------------------------------------------------------------------------


def digest(*facts) -> str:
    """blake2b-128 of plain values as hex digits: text, numbers, lists, dictionaries, paths, dataclasses, arrays."""
    return hashlib.blake2b(encode(facts), digest_size=16).hexdigest()


def file_digest(path: str | os.PathLike) -> str:
    """blake2b-128 of a file's bytes, as hex digits. Raises a DataError for a pipe or a device, which have no end."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise DataError(f"{path}: is not a regular file")
    with open(path, "rb") as f:
        return hashlib.file_digest(f, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def encode(value) -> bytes:
    """JSON of plain values with sorted keys.

    Raises:
        TypeError: anything else; a digest rests on it, so nothing vague is let in.
    """
    return json.dumps(value, sort_keys=True, default=_plain).encode()


def _json(content: dict) -> dict:
    return json.loads(json.dumps(content, default=_plain))  # as it is read again: lists for tuples


def _plain(value):
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if tolist := getattr(value, "tolist", None):  # numpy scalars and arrays
        return tolist()
    raise TypeError(f"a digest is of plain values only, not of {type(value).__name__}")
