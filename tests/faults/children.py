"""Commands run in forked children of a process that has imported everything: a start costs 20 ms, not 6 s.

A child has its own session, folder, log, limits of time and memory, and on demand an audit of what it opens, calls and
fetches. Workers that it starts belong to its session, so that nothing outlives it unnoticed.
"""

import gc
import importlib
import os
import pickle
import resource
import signal
import struct
import sys
import time
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
RAISED = 99  # status of a child whose error reached the top
MODULES = """app.server cli.app cli.bundles cli.data cli.infer cli.score cli.separate cli.train cli.papers data.validate
data.bank.archive data.bank.shards data.bank.per_clip data.mixtures.draw data.mixtures.render data.mixtures.from_songs
infer.pack infer.jobs infer.query_folder infer.class_folder infer.tagger infer.vectors.features infer.vectors.find
infer.vectors.calibrate infer.vectors.adapt infer.class_separator infer.query_separator scores.score scores.tagging
report.page report.results recipe.qsep recipe.weak recipe.tag papers.tables papers.sweep papers.fill audio.optional
tasks.qsep tasks.weak tasks.tagging train.checks train.experiment asteroid_ext""".split()
WATCHED = set(
    """os.system os.exec os.posix_spawn subprocess.Popen socket.connect socket.getaddrinfo urllib.Request
webbrowser.open os.rename os.remove os.rmdir os.symlink os.link os.mkdir shutil.rmtree""".split()
)


class Outcome(NamedTuple):
    """How a child ended. what: accepted, refused or FAULT. text: the last line, or why it is a fault."""

    what: str
    text: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0  # at most, above those of the process that it was forked from
    cpu: float = 0.0  # seconds


def load() -> None:
    """Import all that commands import, before the first child is forked."""
    sys.path.insert(0, str(ROOT))
    import av  # noqa: F401
    import h5py  # noqa: F401
    import librosa  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import midirenderer  # noqa: F401
    import pretty_midi  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import torch

    torch.set_num_threads(1)
    for name in MODULES:
        importlib.import_module(f"espnet2_ext.{name}")
    for task in ("qsep:QSepTask", "weak:WeakLabelTask", "tagging:TaggingTask"):
        module, _, name = task.partition(":")
        getattr(importlib.import_module(f"espnet2_ext.tasks.{module}"), name).get_parser()
    gc.collect()
    gc.freeze()  # what is never collected stays shared with the children


class Child:
    """A forked child at work.

    Args:
        work: called there; or the words of a command of espnet2-ext.
        cwd, log: folder and file of its output. megabytes: that it may take. setup: called first, such as more limits.
        audit: file that gets a line for everything that `WATCHED` names and for each file opened for writing.
    """

    def __init__(
        self,
        work: Callable[[], None] | Sequence[str],
        cwd: Path,
        log: Path,
        megabytes: int = 3000,
        setup: Callable[[], None] | None = None,
        audit: Path | None = None,
    ):
        self.log, self.begin = log, time.monotonic()
        self.status: int | None = None
        self.usage = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.base = _pages(1)
        begun, begin = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = RAISED
            try:
                self._prepare(cwd, log, megabytes, audit)
                os.close(begin)
                status = _call(work, setup)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        os.close(begin)
        os.read(begun, 1)  # until it is ready
        os.close(begun)

    def _prepare(self, cwd: Path, log: Path, megabytes: int, audit: Path | None) -> None:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        os.chdir(cwd)
        Path("/proc/self/clear_refs").write_text("5")  # the peak of memory counts from here
        resource.setrlimit(resource.RLIMIT_AS, (_pages(0) + (megabytes << 20),) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.modules["__main__"] = types.ModuleType("__main__")  # workers would import the harness again
        if audit:
            watch(audit)

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within `seconds`."""
        until, pause = time.monotonic() + seconds, 0.002
        while self.status is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.status, self.usage = os.waitstatus_to_exitcode(status), usage
            elif time.monotonic() >= until:
                return False
            else:
                time.sleep(min(pause, max(until - time.monotonic(), 0)))
                pause = min(pause * 1.3, 0.05)
        return True

    def session(self) -> list[int]:
        """Its processes that are alive, itself first."""
        return _session(self.pid)

    def end(self) -> None:
        """Kill what is left of it."""
        for pid in self.session():
            _kill(pid, signal.SIGKILL)
        self.wait(10)

    def outcome(self, seconds: float) -> Outcome:
        """Wait for its end and judge it. A hang, a crash, a traceback and a refusal without a reason are faults."""
        if not self.wait(seconds):
            where = "; ".join(_stack(p) for p in self.session()[:2])
            self.end()
            return Outcome("FAULT", f"hang: not done after {seconds:g} s {where}", seconds)
        took = time.monotonic() - self.begin
        above = self.usage.ru_maxrss / 1024 - self.base / 2**20
        cpu = self.usage.ru_utime + self.usage.ru_stime
        lines = [v for v in self.log.read_text("utf-8", "replace").replace("\r", "\n").split("\n") if v.strip()]
        last = lines[-1][:300] if lines else ""
        what = "accepted" if self.status == 0 else "refused"
        if self.status < 0:
            what, last = "FAULT", f"crash: {signal.Signals(-self.status).name} {last}"
        elif any(v.startswith("Traceback (most recent") or "Exception ignored" in v for v in lines):
            what, last = "FAULT", f"traceback: {last} {_place(lines)}"
        elif self.status and not any(w in v for v in lines[-12:] for w in ("error:", "stopped;", "problem", "ERROR")):
            what, last = "FAULT", f"status {self.status} without a reason: {last}"
        return Outcome(what, last, took, max(above, 0.0), cpu)


def _call(work: Callable[[], None] | Sequence[str], setup: Callable[[], None] | None) -> int:
    from espnet2_ext.cli.main import main, run

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as the command does

    if setup:
        setup()
    try:
        run(work) if callable(work) else main([str(v) for v in work])
    except SystemExit as e:
        if e.code is None or isinstance(e.code, int):
            return e.code or 0
        print(e.code, file=sys.stderr)
        return 1
    return 0


def _session(leader: int) -> list[int]:
    """Processes of a session that are alive, its leader first."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[3] == str(leader) and fields[0] not in "ZX":
                found.append(int(name))
    return sorted(found, key=lambda pid: (pid != leader, pid))


def _pages(field: int) -> int:
    """Bytes of this process: 0 of its address space, 1 in memory."""
    return int(Path("/proc/self/statm").read_text().split()[field]) * resource.getpagesize()


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _stack(pid: int) -> str:
    try:
        return f"({Path(f'/proc/{pid}/wchan').read_text()})"
    except OSError:
        return ""


def _place(lines: list[str]) -> str:
    """The innermost place of a traceback that is in the package."""
    places = [v.strip() for v in lines if v.strip().startswith("File ") and "espnet2_ext" in v]
    return f"[{places[-1].rpartition('espnet2_ext/')[2]}]" if places else ""


def watch(path: Path) -> None:
    """From now on, write down what `WATCHED` names and what is opened for writing; there is no way back."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

    def hook(event: str, args: tuple) -> None:
        is_written = event == "open" and isinstance(args[2], int) and args[2] & writing
        if is_written or event in WATCHED:
            what = args[0] if args and isinstance(args[0], (str, bytes, os.PathLike)) else args
            os.write(fd, f"{event}\t{what!r}\n".encode())

    sys.addaudithook(hook)


def lanes(number: int, do: Callable[[int], object], jobs: int) -> Iterator[tuple[int, object]]:
    """Yield (n, do(n)) for n from 0 to `number`, as they are done, by `jobs` forked copies of this process."""
    todo, give = os.pipe()
    done, report = os.pipe()
    for _ in range(jobs):
        if os.fork() == 0:
            os.close(give)
            os.close(done)
            while len(token := os.read(todo, 4)) == 4:
                n = struct.unpack("<I", token)[0]
                try:
                    found = do(n)
                except BaseException:  # of the harness itself
                    found = RuntimeError(traceback.format_exc()[-3000:])
                data = pickle.dumps((n, found))
                try:
                    os.write(report, struct.pack("<I", len(data)) + data)  # less than PIPE_BUF: whole
                except BrokenPipeError:
                    break
            os._exit(0)
    os.close(todo)
    os.close(report)
    if os.fork() == 0:  # feeds the lanes, however many tokens there are
        os.close(done)
        try:
            for n in range(number):
                os.write(give, struct.pack("<I", n))
        finally:
            os._exit(0)
    os.close(give)
    with open(done, "rb") as f:
        while len(head := f.read(4)) == 4:
            n, found = pickle.loads(f.read(struct.unpack("<I", head)[0]))
            if isinstance(found, BaseException):
                raise found
            yield n, found
    for _ in range(jobs + 1):
        os.wait()
