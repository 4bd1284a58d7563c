"""How processes end: on a signal at once, and with their parent."""

import contextlib
import ctypes
import logging
import os
import select
import shutil
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from espnet2_ext.util.locks import remove_unfinished

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
STOPPED = "stopped; run again to resume"
_DRIVER = "ESPNET2_EXT_DRIVER"  # pipe of the recipe that runs this command, see `driver_pipe`
_PATIENCE = 4  # seconds that a worker may be stopped
_FILES = 65536  # open files are allowed up to this number, or the system's own limit


# ---- signals -------------------------------------------------------------------------------------


@contextlib.contextmanager
def ends_on_signals() -> Iterator[None]:
    """While this lasts, Ctrl-C, SIGTERM and SIGHUP end the process at once, with its worker processes and a line.

    Nothing is raised, so that no import and no library can catch it; unfinished files are removed. Signals that are
    ignored (`nohup`) stay so.
    """
    owner, before = os.getpid(), {}

    def end(number: int, _) -> None:
        if os.getpid() == owner:  # and not a fork of it
            end_children()
            remove_unfinished()
            release()
            with contextlib.suppress(OSError):
                os.write(2, f"{STOPPED}\n".encode())
        os._exit(STATUS[signal.Signals(number)])

    with contextlib.suppress(ValueError):  # only the main thread may
        for number in STATUS:
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def signals_wait() -> Iterator[None]:
    """Hold back the signals that end a process, until what happens meanwhile is done (such as the start of another)."""
    came, before = [], {}
    with contextlib.suppress(ValueError):  # only the main thread may
        for number in STATUS:  # not a mask: other threads would take them
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came[:1]:
            os.kill(os.getpid(), number)


@contextlib.contextmanager
def ctrl_c_is_ours() -> Iterator[None]:
    """Processes that are started while this lasts, and theirs, never get Ctrl-C: this one ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ---- parents and children ------------------------------------------------------------------------


def end_children(patience: float = 1.0) -> None:
    """End the processes that `multiprocessing` has started here: by SIGTERM, and SIGKILL where that does not help."""
    multiprocessing = sys.modules.get("multiprocessing")
    with contextlib.suppress(Exception):  # in a signal's handler, anything may be under way
        children = multiprocessing.active_children() if multiprocessing else []
        end_processes(children, patience)


def release(patience: float = 0.5) -> None:
    """Give back what `multiprocessing` holds in the system, as at the end of Python, which is not waited for."""
    if util := sys.modules.get("multiprocessing.util"):
        thread = threading.Thread(target=util._run_finalizers, args=(0,), daemon=True)
        thread.start()  # in a signal's handler, it may need what the main thread has locked
        thread.join(patience)
        config = sys.modules["multiprocessing.process"].current_process()._config
        shutil.rmtree(config.get("tempdir") or "", ignore_errors=True)


def no_more_of_workers() -> None:
    """Let the end of other processes pass without an exception: PyTorch raises one for each of a loader's workers."""
    with contextlib.suppress(ValueError):  # only the main thread may
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def end_processes(processes: Iterable, patience: float = 1.0) -> None:
    """End `multiprocessing` processes: by SIGTERM, and after `patience` seconds by SIGKILL."""
    processes, until = list(processes), time.monotonic() + patience
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        process.kill()


def as_worker() -> None:
    """Make this process a worker: it ends with its parent, however that ends, and at once on SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: _end_worker())
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    import multiprocessing.connection

    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    _end_worker()


def _end_worker() -> None:
    remove_unfinished()
    os._exit(1)  # SystemExit would be caught by the pool


def end_with_parent() -> None:
    """For `preexec_fn`: the process gets SIGTERM when its parent ends (Linux)."""
    if _PRCTL:
        _PRCTL(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


# looked up before a fork, where nothing may be loaded any more
_PRCTL = ctypes.CDLL(None).prctl if sys.platform.startswith("linux") else None


def driver_pipe() -> tuple[dict[str, str], int]:
    """Environment and descriptor for a step whose commands, at any depth, shall end when this process does."""
    global _pipe
    if _pipe is None:
        _pipe = os.pipe()
    return {_DRIVER: f"{_pipe[0]}:{os.fstat(_pipe[0]).st_ino}"}, _pipe[0]


_pipe: tuple[int, int] | None = None


def follow_driver() -> None:
    """End on a signal when the recipe that has started this command is gone."""
    descriptor, _, inode = os.environ.get(_DRIVER, "").partition(":")
    with contextlib.suppress(OSError, ValueError):
        found = os.fstat(int(descriptor))
        if stat.S_ISFIFO(found.st_mode) and found.st_ino == int(inode):  # inherited, and not another file

            def follow() -> None:
                os.read(int(descriptor), 1)  # nothing is ever written
                os.kill(os.getpid(), signal.SIGTERM)

            threading.Thread(target=follow, daemon=True).start()


@contextlib.contextmanager
def watched(pids: Callable[[], Iterable[int]]) -> Iterator[None]:
    """Kill those of `pids()` that somebody has stopped (SIGSTOP), as the others would wait for them for ever."""
    over = threading.Event()

    def watch() -> None:
        seconds: dict[int, int] = {}
        while not over.wait(1.0):
            for pid in list(pids()):
                seconds[pid] = seconds.get(pid, 0) + 1 if _is_stopped(pid) else 0
                if seconds[pid] == _PATIENCE:
                    logging.error("worker process %d was stopped (SIGSTOP) and is ended", pid)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _is_stopped(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")
    return False


# ---- limits ---------------------------------------------------------------------------


def allow_open_files() -> None:
    """Raise the limit of open files as far as a user may."""
    import resource

    with contextlib.suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def reader_is_gone() -> bool:
    """Whether standard output or error is a pipe that nobody reads any more (`| head`)."""
    ends = select.poll()
    for descriptor in (1, 2):
        ends.register(descriptor, 0)
    return any(found & select.POLLERR for _, found in ends.poll(0))
