"""Work over many files, in parts that are complete or absent."""

import concurrent.futures
import concurrent.futures.process
import contextlib
import functools
import hashlib
import itertools
import logging
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

from espnet2_ext.errors import DataError
from espnet2_ext.util.files import atomic_path, encode, made, write_record
from espnet2_ext.util.locks import hold, remove
from espnet2_ext.util.process import as_worker, ctrl_c_is_ours, end_processes, signals_wait, watched

_DIED = "a worker process died (killed, or out of memory); run again to resume, perhaps with fewer workers"
_LOST = "the Dask scheduler was lost; run again to resume"
_LOOK, _ANSWER = 5.0, 15.0  # seconds: between looks where nothing ends, and that a Dask scheduler has to answer


def map_parts(
    fn: Callable[[Sequence, Path], None],
    items: Sequence,
    parts_dir: str | os.PathLike,
    *,
    part_size: int,
    num_workers: int | None = None,
    scheduler: str | None = None,
    desc: str = "",
) -> list[Path]:
    """Call `fn(part_items, tmp_path)` for each run of `part_size` items; `fn` writes `tmp_path`.

    A part that is written is renamed to `parts_dir/000000` and so on; a complete one is not
    made again, so a call that was stopped resumes. `plan.json` holds a digest of the items
    and of `fn` with its `functools.partial` arguments: when that differs, all parts are made again.
    `fn` may be started more than once on a part (a lost worker), so it must depend on nothing else.

    Args:
        fn: importable by name (or a `functools.partial` of one): it is sent to other processes.
        items: plain values (text, numbers, tuples, dataclasses); they are sent along.
        num_workers: local processes; None: one per core. 0 or 1: in this process.
        scheduler: address of a Dask scheduler; its workers must see the same files and folder.
        desc: name for the progress bar.

    Returns:
        The parts' paths, in order of the items.

    Raises:
        Exception: the first one that `fn` raised; parts that are done stay.
        ChildProcessError: a worker process died, or the Dask scheduler.
        DataError: another run works in `parts_dir`, or the Dask scheduler is out of reach.
    """
    parts_dir = Path(parts_dir).resolve()
    parts_dir.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(items), part_size)
    paths = [parts_dir / f"{n:06d}" for n in range(len(starts))]
    plan, key = parts_dir / "plan.json", {"digest": _digest([_settings(fn), part_size], items)}
    with hold(parts_dir):
        if made(plan, key) is None:
            plan.unlink(missing_ok=True)
            for old in parts_dir.iterdir():
                if re.fullmatch(r"\d{6,}", old.name):
                    remove(old)
            write_record(plan, key)
        todo = [n for n, path in enumerate(paths) if not path.exists()]
        if todo:
            jobs = ((items[starts[n] : starts[n] + part_size], paths[n]) for n in todo)
            left = sum(min(part_size, len(items) - starts[n]) for n in todo)
            with (
                _progress(desc or parts_dir.name, len(items), len(items) - left) as bar,
                _pool(num_workers, scheduler, len(todo), fn) as (pool, width, look),
            ):
                _drive(pool, width, look, fn, jobs, bar)
    return paths


def part_of(items: int, parts: int, least: int, most: int) -> int:
    """Items of a part: all of them in about `parts` equal ones, but `least` to `most` in each."""
    return min(max(-(-items // parts), least), most)


def cores() -> int:
    """Cores that this process may use."""
    with contextlib.suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _drive(pool, width: int, look: Callable[[], None], fn: Callable, jobs: Iterator, bar) -> None:
    """Keep `width` jobs under way; raise the first error once what is under way has ended.

    look: called where nothing ends for a while; raises if nothing will.
    """
    pending: dict = {}
    cwd = os.getcwd()
    try:
        while True:
            for items, path in itertools.islice(jobs, width - len(pending)):
                pending[pool.submit(_make_part, fn, items, path, cwd)] = len(items)
            if not pending:
                break
            done, _ = concurrent.futures.wait(pending, _LOOK, return_when=concurrent.futures.FIRST_COMPLETED)
            if not done:
                look()
            for future in done:
                if error := future.result():
                    raise error
                bar.update(pending.pop(future))
    except concurrent.futures.process.BrokenProcessPool:
        raise ChildProcessError(_DIED) from None
    except concurrent.futures.CancelledError:
        raise ChildProcessError(_LOST) from None
    finally:
        for future in pending:
            future.cancel()


def _make_part(fn: Callable, items: Sequence, path: Path, cwd: str) -> DataError | None:
    """Make one part. Bad input is returned, not raised: no scheduler should try it again."""
    if os.getcwd() != cwd:
        os.chdir(cwd)  # a Dask worker was started elsewhere; relative references mean ours
    if path.exists():
        return None
    try:
        with atomic_path(path) as tmp:
            fn(items, tmp)
    except DataError as e:
        return e
    return None


@contextlib.contextmanager
def _pool(num_workers: int | None, scheduler: str | None, num_jobs: int, fn: Callable):
    """Yield an executor, how many jobs to keep under way, and what looks after them (see `_drive`)."""
    if scheduler:
        with _dask(scheduler) as client:
            pool = client.get_executor(retries=3, pure=False)
            yield pool, max(64, 4 * sum(client.nthreads().values())), _Look(client)
        return
    workers = min(cores() if num_workers is None else num_workers, num_jobs)
    if workers <= 1:
        yield _Inline(), 1, _nothing
        return
    # forked from a clean server: this process may hold threads, which do not survive a fork
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_unwrap(fn).__module__])
    resource_tracker.ensure_running()  # which does not leave blocked signals as they are
    with ctrl_c_is_ours():
        forkserver.ensure_running()
    pool = _Processes(workers, context, initializer=as_worker)
    processes = pool._processes
    with watched(lambda: list(processes)):
        try:
            yield pool, 2 * workers, _nothing
        except BaseException as e:
            if isinstance(e, ChildProcessError) or not isinstance(e, Exception):
                end_processes(list(processes.values()))
            pool.shutdown(cancel_futures=True)
            raise
        pool.shutdown()


class _Processes(concurrent.futures.ProcessPoolExecutor):
    def submit(self, *args, **options) -> concurrent.futures.Future:
        with signals_wait():  # it may start a process, which must be known before a signal ends it
            try:
                return super().submit(*args, **options)
            except (EOFError, ConnectionError) as e:  # what starts them was killed
                raise concurrent.futures.process.BrokenProcessPool(str(e)) from e


def _nothing() -> None:
    """Processes here are looked after by `watched`."""


class _Inline:
    """An executor that runs a job when it is submitted."""

    def submit(self, fn: Callable, *args) -> concurrent.futures.Future:
        future: concurrent.futures.Future = concurrent.futures.Future()
        try:
            future.set_result(fn(*args))
        except Exception as e:
            future.set_exception(e)
        return future


@contextlib.contextmanager
def _dask(address: str) -> Iterator[Any]:
    try:
        from distributed import Client, KilledWorker
        from distributed.comm.addressing import parse_address, parse_host_port
        from distributed.comm.registry import get_backend
    except ImportError:
        raise DataError("a scheduler address needs dask[distributed]: pip install it") from None
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what it says of a lost connection are tracebacks
    try:
        scheme, place = parse_address(address)
        get_backend(scheme)  # a client of an address that is none does not end
        if scheme in ("tcp", "tls"):
            parse_host_port(place)
        client = Client(address, timeout=_ANSWER, set_as_default=False)
    except (OSError, ValueError) as e:
        raise DataError(f"--scheduler {address}: no Dask scheduler answers: {e}") from e
    try:
        yield client
    except KilledWorker as e:
        raise ChildProcessError(f"one part ended several Dask workers: {e}; run again to resume") from e
    finally:
        with contextlib.suppress(Exception):  # one that is gone
            client.close(timeout=2)


class _Look:
    """Called now and then: raises where the Dask scheduler does not answer, and reports once that it has no workers."""

    def __init__(self, client: Any):
        self.client, self.reported = client, False

    def __call__(self) -> None:
        try:
            found = self.client.sync(self.client.scheduler.identity, callback_timeout=_ANSWER)
        except (OSError, RuntimeError) as e:
            raise ChildProcessError(_LOST) from e
        if not found["workers"] and not self.reported:
            logging.warning("the Dask scheduler has no workers; waiting for one")
        self.reported = not found["workers"]


def _progress(desc: str, total: int, done: int):
    from tqdm import tqdm

    return tqdm(total=total, initial=done, desc=desc, mininterval=0.5)


def _unwrap(fn: Callable) -> Callable:
    return _unwrap(fn.func) if isinstance(fn, functools.partial) else fn


def _settings(fn: Callable) -> list:
    """What of `fn` decides its result: its name and the arguments bound to it."""
    if isinstance(fn, functools.partial):
        return [*_settings(fn.func), list(fn.args), fn.keywords]
    return [f"{fn.__module__}.{fn.__qualname__}"]


def _digest(settings: list, items: Sequence) -> str:
    h = hashlib.blake2b(encode(settings), digest_size=16)
    for start in range(0, len(items), 1000):
        h.update(encode(list(items[start : start + 1000])))
    return h.hexdigest()
