"""What every command shares: one way to end."""

import contextlib
import ctypes
import logging
import os
import platform
import sys
from collections.abc import Callable

from espnet2_ext.errors import DataError

# malloc.h of glibc: M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD, M_ARENA_MAX
_MALLOPT = {-4: 0, -1: 2**31 - 1, -2: 2**26, -8: 1}


ASTEROID = ("asteroid", "asteroid_filterbanks", "pytorch_lightning")
PACKAGES = {"espnet2": "espnet", "yaml": "pyyaml", "pytorch_lightning": "pytorch-lightning", "sklearn": "scikit-learn"}
OPTIONAL = {"h5py", "dask", "distributed", "dask_jobqueue"}  # extras of setup.py


def keep_memory() -> None:
    """Let the process keep the memory that it frees, and take it in large pages.

    By default, Linux maps every large tensor anew and clears it page by page; where page faults
    are dear (virtual machines), that takes several times as long as a training step itself. Call
    it before PyTorch makes its first tensor. Elsewhere than on glibc it does nothing.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read by PyTorch's allocator
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            for option, value in _MALLOPT.items():
                libc.mallopt(option, value)


def run(main: Callable) -> None:
    """Run `main()`; end with a plain message and a status other than zero when it fails.

    A `DataError`, an `OSError` (a missing file, a full disk) or a package that is not installed is the
    user's to mend: a plain message is printed, status 1. Ctrl-C ends with 130. Anything else is an error
    of this program and keeps its traceback.
    """
    keep_memory()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s: %(message)s")
    try:
        main()
    except KeyboardInterrupt:
        print("stopped; run again to resume", file=sys.stderr)
        os._exit(130)  # worker processes are left to the pools' own clean-up at their parent's end
    except (DataError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as e:
        top = (e.name or "").partition(".")[0]
        if top in ("", "espnet2_ext"):
            raise
        print(f"error: {missing_package(top)}", file=sys.stderr)
        sys.exit(1)


def missing_package(module: str) -> str:
    """What to tell a user without the package of `module`."""
    package = PACKAGES.get(module, module)
    text = f"this command needs the package {package}, which is not installed"
    if package in OPTIONAL:
        return f"{text}: pip install {package}"
    old = f" (ESPnet needs Python 3.12 or 3.13, this is {platform.python_version()})"
    needs_more = sys.version_info < (3, 12) and module in ("espnet2", "torchaudio", *ASTEROID)
    return f"{text}; `pip install espnet2_ext` without --no-deps installs it{old if needs_more else ''}"
