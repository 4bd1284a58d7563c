"""Steps of a recipe: subprocesses that end with everything they started, logged and followed; what a step needs."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from espnet2_ext.errors import DataError
from espnet2_ext.util.documents import read_text
from espnet2_ext.util.files import read_record
from espnet2_ext.util.process import STATUS, STOPPED, driver_pipe, end_with_parent, signals_wait

TAIL = 20  # lines of a log that are shown after a failure
_PATIENCE = 10.0  # seconds that a step's workers are given to end
_LOGS = 9  # logs of earlier runs that are kept


class Stopped(BaseException):
    """A signal asks the recipe to end."""

    def __init__(self, number: int):
        super().__init__(f"signal {number}")
        self.number = number


class StepFailed(Exception):
    """A step ended with a status other than zero."""

    def __init__(self, status: int, command: Sequence[str], more: str = ""):
        super().__init__(f"status {status} from: {' '.join(command)}{more}")
        self.status = status


def log(text: str) -> None:
    """A line with the time."""
    print(time.strftime("%Y-%m-%dT%H:%M:%S"), text, flush=True)


def end(main: Callable[[], None]) -> None:
    """Run `main`; a failed step ends the process with its own status, a signal with that of the signal."""
    for number in STATUS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup asks for
            signal.signal(number, _stop)
    try:
        main()
    except StepFailed as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(e.status)
    except Stopped as e:
        log(STOPPED)
        sys.exit(STATUS[signal.Signals(e.number)])


def _stop(number: int, _) -> None:
    raise Stopped(number)


def run(
    command: Sequence[str],
    *,
    log_file: Path | None = None,
    show: str | None = "",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    keep_open: Sequence[int] = (),
) -> None:
    """Run a step in a process group of its own; it also ends when this process is killed.

    Args:
        log_file: gets all output; the logs of earlier runs are kept as NAME.1.log and so on.
        show: with a log file, the lines in which this pattern is found are printed as they come; None: none.
        cwd: folder to run in.
        env: more variables of the environment.
        keep_open: file descriptors that the step inherits, such as locks.

    Raises:
        StepFailed: the status is not zero.
        Stopped: a signal came; the step and its workers have ended.
    """
    with contextlib.ExitStack() as opened:
        output = None
        if log_file:
            log_file.parent.mkdir(parents=True, exist_ok=True)
            rotate(log_file)
            output = opened.enter_context(open(log_file, "w"))
        follow, pipe = driver_pipe()
        process = None
        try:
            with signals_wait():  # no signal between the start of a process and its name
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT if output else None,
                    env={**os.environ, **follow, **(env or {})},
                    cwd=cwd,
                    process_group=0,  # so that all its workers hear a signal
                    pass_fds=(*keep_open, pipe),
                    preexec_fn=end_with_parent,
                )
            if log_file and show is not None:
                for line in _follow(log_file, process):
                    if re.search(show, line):
                        print(line, flush=True)
            status = process.wait()
        except BaseException as e:
            if process is not None:
                _end_group(process, e.number if isinstance(e, Stopped) else signal.SIGTERM)
            raise
    if status:
        more = ""
        if log_file:
            lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
            more = "\n".join([f"\nThe last lines of {log_file}:", *lines])
        raise StepFailed(status if status > 0 else 128 - status, command, more)


def rotate(path: Path) -> None:
    """Keep the log of the run before as NAME.1.log, that as NAME.2.log and so on."""
    names = [path, *(path.with_suffix(f".{n}.log") for n in range(1, _LOGS + 1))]
    for older, newer in reversed(list(zip(names[1:], names))):
        if newer.exists():
            os.replace(newer, older)


def _follow(path: Path, process: subprocess.Popen) -> Iterator[str]:
    """Whole lines of a growing file until the process has ended."""
    begun = ""
    with open(path, encoding="utf-8", errors="replace") as f:
        while True:
            ended = process.poll() is not None
            for text in f:
                begun += text
                if begun.endswith("\n"):
                    yield begun[:-1]
                    begun = ""
            if ended:
                break
            time.sleep(0.2)
    if begun:
        yield begun


def _end_group(process: subprocess.Popen, number: int) -> None:
    """Send a signal to a step and its workers; kill those that have not ended in time."""
    for other in STATUS:
        signal.signal(other, signal.SIG_IGN)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM if number == signal.SIGHUP else number)
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            process.poll()
            os.killpg(process.pid, 0)  # raises once the last one has ended
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)


def need(path: Path, stage: int) -> None:
    """Refuse to go on without what an earlier stage makes."""
    if not path.exists():
        raise DataError(f"{path} is not there; run stage {stage} first")


def value_of(path: Path, key: str) -> str:
    """Value of a key in one of the small JSON files beside the data; empty where it has none."""
    return read_record(path).get(key, "")


def need_rendered(folder: Path, made_from: Path, key: str) -> None:
    """Refuse mixtures of a folder that are not those of `made_from`, where that is kept; key: of their digest."""
    need(folder / "list.json", 4)
    if made_from.exists() and value_of(folder / "list.json", key) != value_of(made_from, key):
        raise DataError(f"{folder} holds other mixtures than {made_from} lists; run stage 4 again")


def number_of_classes(bank: Path) -> int:
    """Classes in the label table of an archive."""
    need(bank / "labels.tsv", 3)
    return read_text(bank / "labels.tsv").count("\n") - 1
