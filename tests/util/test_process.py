"""How processes end: signals at any moment, limits, readers that have gone, and the line for each error."""

import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from espnet2_ext.errors import DataError, explain

RUN = "from espnet2_ext.cli.main import run\n"


def start(code: str, **options) -> subprocess.Popen:
    command = [sys.executable, "-c", RUN + textwrap.dedent(code)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize(
    "error, line",
    [
        (DataError("a.tsv: line 3"), "a.tsv: line 3"),
        (OSError(errno.ENOSPC, "No space left on device", "a.npy"), "a.npy: No space left on device; make room"),
        (OSError(errno.EMFILE, "Too many open files", "a.wav"), "a.wav: Too many open files; allow more (ulimit -n)"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x"), "x: No such file or directory"),
        (ChildProcessError("a worker process died"), "a worker process died"),
        (MemoryError(), "out of memory"),
        (RuntimeError("[enforce fail at x.cc:672] . unexpected pos 832 vs 726"), "a file could not be written whole"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory: DefaultCPUAllocator"),
        (RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed."), "a worker process that loads data"),
        (RuntimeError("DataLoader worker (pid 3) is killed by signal: Bus error."), "shared memory (/dev/shm) is full"),
        (RuntimeError("unable to allocate shared memory(shm) for file </torch_1>"), "shared memory (/dev/shm) is full"),
        (RuntimeError("Too many open files. Communication with the workers is"), "too many open files"),
        (RuntimeError("[/pytorch/gloo/pair.cc:1] Connection closed by peer [::1]"), "another process of this training"),
    ],
)
def test_what_a_user_can_mend_is_a_line(error, line):
    assert explain(error).startswith(line) and "\n" not in explain(error)


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("shapes differ"), TypeError("x"), AssertionError()])
def test_errors_of_ours_keep_their_traceback(error):
    assert explain(error) is None


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_no_import_can_catch_a_signal(number, status):
    child = start(
        """
        import time
        def main():
            try:
                print("now", flush=True)
                time.sleep(60)
            except BaseException:  # as an import does, and raises something else
                raise ImportError("cannot import name") from None
        run(main)
        """
    )
    child.stdout.readline()
    child.send_signal(number)
    assert child.communicate()[1] == "stopped; run again to resume\n" and child.returncode == status


def test_a_signal_ends_the_workers_too():
    child = start(
        """
        import multiprocessing, time
        def main():
            workers = [multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,)) for _ in range(2)]
            for w in workers:
                w.start()
            print(*(w.pid for w in workers), flush=True)
            time.sleep(60)
        run(main)
        """
    )
    pids = [int(word) for word in child.stdout.readline().split()]
    child.send_signal(signal.SIGTERM)
    assert child.wait(10) == 143
    child.communicate()
    assert len(pids) == 2 and not any(Path(f"/proc/{pid}/cmdline").is_file() and is_running(pid) for pid in pids)


def is_running(pid: int) -> bool:
    return " Z" not in Path(f"/proc/{pid}/stat").read_text()


def test_signals_wait_for_what_must_not_be_cut():
    child = start(
        """
        import os, signal
        from espnet2_ext.util.process import signals_wait
        def main():
            with signals_wait():
                os.kill(os.getpid(), signal.SIGINT)
                print("done", flush=True)
            print("never", flush=True)
        run(main)
        """
    )
    assert child.communicate() == ("done\n", "stopped; run again to resume\n") and child.returncode == 130


def test_a_command_ends_with_its_driver(tmp_path):
    """A step's Python, which a shell script has started, ends though the script hears of nothing."""
    (tmp_path / "step.py").write_text(
        RUN + "import os, time\nrun(lambda: (print(os.getpid(), flush=True), time.sleep(60)))\n"
    )
    script = f"{sys.executable} {tmp_path}/step.py; true"
    code = f"from espnet2_ext.recipe import steps\nrun(lambda: steps.run(['bash', '-c', {script!r}]))"
    driver = start(code)
    pid = int(driver.stdout.readline())
    driver.kill()
    driver.communicate()
    until = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and is_running(pid):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_more_files_may_be_open():
    code = "import resource; run(lambda: print(*resource.getrlimit(resource.RLIMIT_NOFILE)))"
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    child = start(code, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard)))
    assert child.communicate()[0].split()[0] == str(min(hard, 65536) if hard != resource.RLIM_INFINITY else 65536)


def test_a_limit_of_open_files_is_a_line():
    code = "run(lambda: [open('/dev/null') for _ in range(99)])"
    child = start(code, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))
    err = child.communicate()[1]
    assert err == "error: /dev/null: Too many open files; allow more (ulimit -n), or use fewer at a time\n"
    assert child.returncode == 1


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["separate", "--help"], ["validate-data", "--help"]])
def test_a_reader_that_has_gone_is_no_error(args):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "espnet2_ext", *args]
    child = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert child.stderr == "" and child.returncode in (0, 141)  # argparse hides it


def test_what_cannot_be_raised_is_shown_if_it_is_an_error_of_ours():
    code = """
        class Gone:
            def __init__(self, error):
                self.error = error
            def __del__(self):
                raise self.error
        run(lambda: Gone(RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed.")))
        run(lambda: Gone(TypeError("ours")))
        """
    assert "DataLoader" not in (err := start(code).communicate()[1]) and "TypeError: ours" in err
