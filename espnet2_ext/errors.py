"""Errors, and those that a user can mend as lines in place of tracebacks."""

import contextlib
import errno
import re
from collections.abc import Iterator


class DataError(ValueError):
    """Bad input: the message names the file, line or key, and says what was expected."""


class BundleError(DataError):
    """A model bundle or checkpoint that does not fit what is asked of it."""


class PluginError(DataError):
    """A package that a model needs and that is not installed, or that the user does not allow."""


@contextlib.contextmanager
def refusing(where: object) -> Iterator[None]:
    """What somebody else's values set off inside is a DataError that begins with `where`."""
    try:
        yield
    except (PluginError, OSError, ImportError):  # of the machine
        raise
    except Exception as e:  # whatever values of a wrong type, size or shape do in code that does not look at them
        raise DataError(f"{where}: {told(e)}") from e


def told(e: BaseException) -> str:
    """An error in one line; of one that came from a loader's worker, its own."""
    lines = str(e).strip().splitlines() or [type(e).__name__]
    if "Original Traceback (most recent call last):" in lines:
        return re.sub(r"^[\w.]+: ", "", lines[-1])
    if isinstance(e, KeyError) and isinstance(e.args[0], str):
        return f"{e.args[0]} is missing" if e.args[0].isidentifier() else e.args[0]
    return lines[0]


_HINTS = {
    errno.ENOSPC: "make room, then run again to resume",
    errno.EDQUOT: "make room, then run again to resume",
    errno.EMFILE: "allow more (ulimit -n), or use fewer at a time",
    errno.ENFILE: "end other programs, or use fewer at a time",
}
_AGAIN = "run again to resume"
LOADER_DIED = f"a worker process that loads data died (killed, or out of memory); {_AGAIN}"
# what PyTorch says, and what it means
_MEANINGS = {
    "received 0 items of ancdata": "too many open files; allow more (ulimit -n)",
    "Too many open files": "too many open files; allow more (ulimit -n)",
    "unexpected pos": f"a file could not be written whole; is its disk full, or gone? {_AGAIN}",  # torch.save
    "Bus error": f"shared memory (/dev/shm) is full; {_AGAIN}, perhaps with fewer --num_workers",
    "shared memory": f"shared memory (/dev/shm) is full; {_AGAIN}, perhaps with fewer --num_workers",
    "DataLoader worker": LOADER_DIED,
    "deserialization of the task graph": "the Dask scheduler runs in another environment than this command",
    "out of memory": "",
    "can't allocate memory": "",
    "Connection closed by peer": f"another process of this training ended, see its log; {_AGAIN}",
    "Connection reset by peer": f"another process of this training ended, see its log; {_AGAIN}",
    "Broken pipe": f"another process of this training ended, see its log; {_AGAIN}",
}


def explain(error: BaseException) -> str | None:
    """The line that tells a user of an error; None for an error of this program, which keeps its traceback."""
    text, kind = " ".join(str(error).split()), type(error).__name__
    if isinstance(error, DataError):
        return str(error)
    if isinstance(error, OSError):
        name = (
            error.filename2 if error.filename2 is not None else error.filename
        )  # of a renaming: the file that was wanted
        name = "" if name is None else f"{name}: "
        hint = _HINTS.get(error.errno or 0)
        return (f"{name}{error.strerror}" if error.strerror else text) + (f"; {hint}" if hint else "")
    if isinstance(error, MemoryError):
        return f"out of memory{f': {text}' if text else ''}"
    if kind in ("ProcessExitedException", "ProcessRaisedException"):
        return f"a training's process ended early ({text.splitlines()[0]}); {_AGAIN}"
    if isinstance(error, RuntimeError):
        for words, meaning in _MEANINGS.items():
            if words in text:
                return meaning or f"out of memory: {text[:200]}"
    return None
