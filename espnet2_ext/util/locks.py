"""Locks: the folders of a run, and files that are being written, which go when the process ends."""

import contextlib
import fcntl
import functools
import inspect
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from espnet2_ext.errors import DataError

_TMP = ".tmp-"  # begins the names of what is being written
_DAY = 86400.0
_HELD = "ESPNET2_EXT_HELD"  # folders, one a line, that the run holds of which this process is a part
_INHERITED = frozenset(os.environ.get(_HELD, "").split("\n"))
_swept: set[str] = set()  # folders that this process has cleared
_unfinished: set[str] = set()  # files of this process, removed when it ends on a signal


# ---- folders -------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(path: str | os.PathLike, *, wait: bool = True, shared: bool = False) -> Iterator[int]:
    """Hold the file `path`, made for it, for this process alone; yield its descriptor, which a child may inherit.

    On a file system without locks nobody is kept out.

    Args:
        wait: for another process that holds it, or else raise.
        shared: other processes may hold it too, if they share it.

    Raises:
        BlockingIOError: without `wait`, another process holds it.
    """
    folder, ours = Path(path).parent, False
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    while not ours:  # the one that held it before may have removed it
        with open(path, "a") as f:
            try:
                fcntl.flock(f, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise
            except OSError:
                pass  # a file system without locks
            ours = _is_same(path, f.fileno())
            if ours:
                try:
                    yield f.fileno()
                finally:
                    with contextlib.suppress(OSError):
                        if shared:
                            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises for the others that share it
                        os.unlink(path)
                        if is_new:
                            folder.rmdir()  # where nothing was written


def _is_same(path: str | os.PathLike, descriptor: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    return False


@contextlib.contextmanager
def hold(*places: str | os.PathLike, shared: bool = False, files: bool = False) -> Iterator[list[int]]:
    """Keep other runs that ask for it out of folders, which are made, by a file `.lock` in each.

    Commands that are started meanwhile are part of this run: what it holds is theirs. Yields the locks' descriptors;
    a child that inherits them holds the places after the end of this process, too.

    Args:
        shared: other runs may hold the folders too, if they share them. One that cannot be written is not locked.
        files: the places are files, each with a lock `.lock-NAME` beside it.

    Raises:
        DataError: another run holds one of them.
    """
    names = dict.fromkeys(os.path.realpath(p) for p in places)
    locks, ours = [], [name for name in names if name not in _INHERITED]
    with contextlib.ExitStack() as held:
        for name in map(Path, ours):
            try:
                lock = name.with_name(f".lock-{name.name[-50:]}") if files else name / ".lock"
                locks.append(held.enter_context(locked(lock, wait=False, shared=shared)))
            except BlockingIOError:
                doing = "writing" if files else "working in"
                raise DataError(f"another run is still {doing} {name}; wait for it or end it first") from None
            except OSError:
                if not shared:
                    raise
            if not shared:
                sweep(name.parent if files else name)
        before = os.environ.get(_HELD)
        os.environ[_HELD] = "\n".join(filter(None, [before, *ours]))
        try:
            yield locks
        finally:
            os.environ.pop(_HELD) if before is None else os.environ.__setitem__(_HELD, before)


def holding(argument: str, *, file: bool = False) -> Callable[[Callable], Callable]:
    """For a function: while it works, it holds the folder, or the file, that its argument of this name is; see `hold`.

    The function raises a DataError where another run holds it.
    """

    def decorate(function: Callable) -> Callable:
        arguments = inspect.signature(function)

        @functools.wraps(function)
        def alone(*args, **options):
            with hold(arguments.bind(*args, **options).arguments[argument], files=file):
                return function(*args, **options)

        return alone

    return decorate


# ---- temporary files ------------------------------------------------------------------------------


@contextlib.contextmanager
def temporary(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """Yield a new file beside `path`, or a folder, that is removed at the end; `sweep` does so after a kill."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.abspath(path.parent) not in _swept:
        sweep(path.parent)
    lock, same = -1, False
    while not same:  # it may be taken for abandoned before it is locked
        tmp = path.with_name(f"{_TMP}{secrets.token_hex(4)}-{path.name[-50:]}")
        if folder:
            tmp.mkdir()
        with unfinished(tmp):
            lock = os.open(tmp, os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                with contextlib.suppress(OSError):
                    fcntl.flock(lock, fcntl.LOCK_EX)
                same = _is_same(tmp, lock)
                if same:
                    yield tmp
            finally:
                remove(tmp)
                os.close(lock)


def is_temporary(path: Path) -> bool:
    """Whether a path is one that `temporary` has given."""
    return path.name.startswith(_TMP)


def sweep(folder: str | os.PathLike) -> None:
    """Remove the temporary files and folders of processes that were killed.

    Where the file system has no locks, those that are a day old are taken for abandoned.
    """
    _swept.add(os.path.abspath(folder))
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(_TMP):
                with contextlib.suppress(OSError):
                    _remove_abandoned(Path(folder) / name)


def _remove_abandoned(path: Path) -> None:
    lock = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pass  # its writer is at work
    except OSError:
        if time.time() - path.stat().st_mtime > _DAY:
            remove(path)
    else:
        remove(path)
    finally:
        os.close(lock)


@contextlib.contextmanager
def unfinished(path: str | os.PathLike) -> Iterator[None]:
    """Have a file or folder removed should a signal end this process while this lasts."""
    _unfinished.add(os.fspath(path))
    try:
        yield
    finally:
        _unfinished.discard(os.fspath(path))


def remove_unfinished() -> None:
    """Remove what `unfinished` names."""
    for path in list(_unfinished):
        remove(path)


def remove(path: str | os.PathLike) -> None:
    """Remove a file or a folder, if it exists."""
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        Path(path).unlink(missing_ok=True)
