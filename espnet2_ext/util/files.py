"""Files that are complete or absent."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on failure.

    The parent folder is made. The content is flushed to disk before the rename, so that neither a
    kill nor a full disk leaves a part of a file under the final name. The temporary name keeps the
    suffix, because many writers choose their format by it.

    Raises:
        OSError: what the file system said, for example a full disk; nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".tmp-{secrets.token_hex(4)}-{path.name}")
    try:
        yield tmp
        with open(tmp, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(tmp, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            tmp.unlink()


@contextlib.contextmanager
def locked(path: str | os.PathLike, *, wait: bool = True, shared: bool = False) -> Iterator[int]:
    """Hold the file `path`, made if need be, for this process alone; yield its descriptor, which a child may inherit.

    On a file system without locks nobody is kept out.

    Args:
        wait: for another process that holds it, or else raise.
        shared: other processes may hold it too, if they share it.

    Raises:
        BlockingIOError: without `wait`, another process holds it.
    """
    import fcntl

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as f:
        try:
            fcntl.flock(f, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError:
            pass  # a file system without locks
        yield f.fileno()


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
