"""Files that are complete or absent, and results that are made once.

A result that is made once is one or more files with a record beside them, a JSON file such as `bank.json`. The record
holds the key (a version, digests of the inputs, settings) and whatever else is found on the way. It is removed before
the work and written after it, so a result with a record is whole. How to use it, in place of an own check and an own
digest:

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
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from espnet2_ext.errors import DataError
from espnet2_ext.util.locks import hold, is_temporary, temporary

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


def shipped(name: str) -> Path:
    """The project's folder `egs2` or `conf`: in the installed package, or at the top of a checkout.

    Raises:
        FileNotFoundError: it is in neither.
    """
    package = Path(__file__).resolve().parents[1]
    for top in (package, package.parent):
        if (top / name).is_dir():
            return top / name
    raise FileNotFoundError(f"{package}: the package was installed without its folder {name}")


# ---- results that are made once ------------------------------------------------------------------


def make_once(
    record: str | os.PathLike,
    key: dict,
    make: Callable[[], dict | None],
    files: Iterable[str | os.PathLike] = (),
    *,
    redo: bool = False,
) -> dict:
    """Call `make()` unless `record` says that it was done for the same `key`; other runs are kept out meanwhile.

    Args:
        record: JSON file of the result, written last.
        key: plain values that decide the result.
        make: writes the result; what it returns is added to the record.
        files: files of the result; where one is missing, the result is made again.
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
            return write_record(record, key, make() or {})
    logging.info("%s: up to date, skipped", record)
    return found


def made(record: str | os.PathLike, key: dict, files: Iterable[str | os.PathLike] = ()) -> dict | None:
    """What `record` holds, if it was written for `key` and all `files` exist; None otherwise."""
    found = read_record(record)
    same = bool(found) and all(found.get(k, _MISSING) == v for k, v in _json(key).items())
    return found if same and all(os.path.exists(f) for f in files) else None


def read_record(record: str | os.PathLike) -> dict:
    """Content of a record; empty where there is none or it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(Path(record).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def write_record(record: str | os.PathLike, key: dict, found: dict | None = None) -> dict:
    """Write `key` and `found` as the JSON file `record`; what was written."""
    content = _json({**key, **(found or {})})
    write_text(record, json.dumps(content, indent=1) + "\n")
    return content


# ---- digests -------------------------------------------------------------------------------------


def digest(*facts) -> str:
    """blake2b-128 of plain values as hex digits: text, numbers, lists, dictionaries, paths, dataclasses, arrays."""
    return hashlib.blake2b(encode(facts), digest_size=16).hexdigest()


def file_digest(path: str | os.PathLike) -> str:
    """blake2b-128 of a file's bytes, as hex digits."""
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
