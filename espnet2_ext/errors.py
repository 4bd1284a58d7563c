"""Errors that a user can mend; entry points print their text without a traceback."""

import contextlib
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
