"""Parts: made once, gone on with, made anew; processes and a Dask cluster that lose workers."""

import concurrent.futures
import functools
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from espnet2_ext.errors import DataError, explain
from espnet2_ext.util import parallel, process
from espnet2_ext.util.documents import read_json
from espnet2_ext.util.parallel import map_parts

ERRORS = {e.__name__: e for e in (DataError, OSError, RuntimeError)}


def square(items, path, *, log=None, power=2):
    if log:
        with open(log, "a") as f:
            f.write(f"{items[0]}\n")
    path.write_text(" ".join(str(v**power) for v in items))


def fail_on(items, path, *, bad, error):
    if bad in items:
        raise ERRORS[error](f"item {bad}")
    path.write_text("x")


def end_process(items, path):
    os._exit(9)


def fill_memory(items, path):
    resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))
    bytearray(2**40)


def slow(items, path, *, log):
    with open(f"{log}-{items[0]}-{time.time_ns()}", "w") as f:
        f.write(str(os.getpid()))
    time.sleep(0.3)
    path.write_text(",".join(map(str, items)))


def texts(paths):
    return [p.read_text() for p in paths]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_parts_in_order(tmp_path, workers):
    paths = map_parts(square, range(5), tmp_path / "p", part_size=2, num_workers=workers)
    assert [p.name for p in paths] == ["000000", "000001", "000002"]
    assert texts(paths) == ["0 1", "4 9", "16"]
    assert not list((tmp_path / "p").glob(".tmp-*"))


def test_nothing_is_made_twice_and_changes_start_anew(tmp_path):
    log = tmp_path / "log"
    step = functools.partial(square, log=str(log))

    def go(step=step, items=(1, 2, 3), size=1):
        log.write_text("")
        out = texts(map_parts(step, items, tmp_path / "p", part_size=size, num_workers=1))
        return out, log.read_text().split()

    assert go() == (["1", "4", "9"], ["1", "2", "3"])
    assert go() == (["1", "4", "9"], [])
    (tmp_path / "p" / "000001").unlink()
    assert go() == (["1", "4", "9"], ["2"])
    cubes = functools.partial(square, log=str(log), power=3)
    assert go(cubes) == (["1", "8", "27"], ["1", "2", "3"])
    assert go(cubes, (1, 2)) == (["1", "8"], ["1", "2"])
    assert not (tmp_path / "p" / "000002").exists()
    assert go(cubes, (1, 2), 2) == (["1 8"], ["1"])


def test_no_items(tmp_path):
    assert map_parts(square, [], tmp_path, part_size=2) == []


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("error", ERRORS)
def test_first_error_is_raised_and_finished_parts_stay(tmp_path, workers, error):
    step = functools.partial(fail_on, bad=3, error=error)
    with pytest.raises(ERRORS[error], match="item 3"):
        map_parts(step, range(5), tmp_path, part_size=1, num_workers=workers)
    names = {p.name for p in tmp_path.glob("0*")}
    assert "000000" in names and "000003" not in names
    assert not list(tmp_path.glob(".tmp-*"))


def test_dead_worker_is_told(tmp_path):
    with pytest.raises(ChildProcessError, match="run again"):
        map_parts(end_process, range(4), tmp_path, part_size=1, num_workers=2)


def test_a_server_of_workers_that_was_killed_is_told(tmp_path, monkeypatch):
    def closed(*_, **__):
        raise EOFError("unexpected EOF")

    monkeypatch.setattr(concurrent.futures.ProcessPoolExecutor, "submit", closed)
    with pytest.raises(ChildProcessError, match="run again"):
        map_parts(end_process, range(4), tmp_path, part_size=1, num_workers=2)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
def test_a_worker_that_is_killed_or_stopped_ends_the_work_and_it_goes_on(tmp_path, number, monkeypatch):
    monkeypatch.setattr(process, "_PATIENCE", 1)
    step, parts = functools.partial(slow, log=str(tmp_path / "log")), tmp_path / "p"
    hit: list[float] = []

    def hurt():
        wait_for(lambda: len(list(parts.glob("0*"))) >= 2)
        pids = [int(p.read_text() or 0) for p in sorted(tmp_path.glob("log-*"))]
        hit.append(time.monotonic())
        os.kill(pids[-1], number)

    thread = threading.Thread(target=hurt)
    thread.start()
    with pytest.raises(ChildProcessError, match="run again to resume"):
        map_parts(step, range(40), parts, part_size=1, num_workers=2)
    thread.join()
    assert time.monotonic() - hit[0] < 10
    pids = {int(p.read_text() or 0) for p in tmp_path.glob("log-*")}
    wait_for(lambda: not any(pid and Path(f"/proc/{pid}").exists() for pid in pids))
    assert texts(map_parts(step, range(40), parts, part_size=20, num_workers=1)) == [
        ",".join(map(str, range(n, n + 20))) for n in (0, 20)
    ]
    assert sorted(p.name for p in parts.iterdir()) == ["000000", "000001", "plan.json"]


def test_a_worker_out_of_memory_is_told_in_a_line(tmp_path):
    with pytest.raises(MemoryError) as failed:
        map_parts(fill_memory, range(2), tmp_path, part_size=1, num_workers=2)
    assert explain(failed.value).startswith("out of memory")


def test_vague_settings_are_refused(tmp_path):
    with pytest.raises(TypeError, match="plain values"):
        map_parts(functools.partial(square, log=object()), [1], tmp_path, part_size=1)


def test_second_process_is_refused_and_a_killed_one_is_cleared(tmp_path):
    """A parent that is killed takes its workers with it and leaves no part under a final name."""
    code = f"""
        import functools, sys
        sys.path[:0] = {sys.path!r}
        from pathlib import Path
        from test_parallel import slow
        from espnet2_ext.util.parallel import map_parts
        step = functools.partial(slow, log={str(tmp_path / "log")!r})
        map_parts(step, range(20), {str(tmp_path / "p")!r}, part_size=1, num_workers=2)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    parts = tmp_path / "p"
    wait_for(lambda: len(list(parts.glob("0*"))) >= 2)
    step = functools.partial(slow, log=str(tmp_path / "log"))
    with pytest.raises(DataError, match="another run is still working in"):
        map_parts(step, range(20), parts, part_size=1, num_workers=1)
    child.send_signal(signal.SIGKILL)
    child.wait()
    pids = {int(p.read_text()) for p in tmp_path.glob("log-*")}
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    done = {p.name: p.stat().st_mtime_ns for p in parts.glob("0*")}
    assert 2 <= len(done) < 20
    for old in tmp_path.glob("log-*"):
        old.unlink()
    paths = map_parts(step, range(20), parts, part_size=1, num_workers=4)
    assert texts(paths) == [str(n) for n in range(20)]
    assert all((parts / name).stat().st_mtime_ns == t for name, t in done.items())
    assert len(list(tmp_path.glob("log-*"))) == 20 - len(done)


def test_ctrl_c_ends_with_130_and_leaves_no_worker(tmp_path):
    code = f"""
        import functools, sys
        sys.path[:0] = {sys.path!r}
        from test_parallel import slow
        from espnet2_ext.cli.main import run
        from espnet2_ext.util.parallel import map_parts
        step = functools.partial(slow, log={str(tmp_path / "log")!r})
        run(lambda: map_parts(step, range(99), {str(tmp_path / "p")!r}, part_size=1, num_workers=2))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: len(list((tmp_path / "p").glob("0*"))) >= 2)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: to all processes of the command
    assert "run again to resume" in child.communicate(timeout=300)[1]
    assert child.returncode == 130
    pids = {int(p.read_text() or 0) for p in tmp_path.glob("log-*")}
    wait_for(lambda: not any(pid and Path(f"/proc/{pid}").exists() for pid in pids))
    assert not list((tmp_path / "p").glob(".tmp-*"))


def wait_for(condition, seconds=60):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "waited too long"
        time.sleep(0.02)


def test_dask_error_of_bad_input_is_raised_once(tmp_path):
    distributed = pytest.importorskip("distributed")
    step = functools.partial(fail_on, bad=2, error="DataError")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        with pytest.raises(DataError, match="item 2"):
            map_parts(step, range(4), tmp_path, part_size=1, scheduler=cluster.scheduler_address)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "127.0.0.1", "nonsense://x:1", "tcp://x:y"])
def test_scheduler_that_does_not_answer(tmp_path, monkeypatch, address):
    pytest.importorskip("distributed")
    monkeypatch.setattr(parallel, "_ANSWER", 0.5)
    begin = time.monotonic()
    with pytest.raises(DataError, match=f"--scheduler {address}: no Dask scheduler answers"):
        map_parts(square, [1], tmp_path, part_size=1, scheduler=address)
    assert time.monotonic() - begin < 10


def test_scheduler_that_dies_or_stops(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(parallel, "_LOOK", 0.2)
    monkeypatch.setattr(parallel, "_ANSWER", 1.0)
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--no-dashboard"]
    for number in (signal.SIGKILL, signal.SIGSTOP):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = str(s.getsockname()[1])
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        scheduler = subprocess.Popen([*command, "--port", port], stderr=subprocess.PIPE, text=True, env=env)
        try:
            while "Scheduler at" not in scheduler.stderr.readline():
                assert scheduler.poll() is None
            threading.Timer(1.0, scheduler.send_signal, [number]).start()
            with pytest.raises(ChildProcessError, match="the Dask scheduler was lost; run again to resume"):
                map_parts(square, [1], tmp_path / "p", part_size=1, scheduler=f"tcp://127.0.0.1:{port}")
        finally:
            scheduler.kill()
            scheduler.communicate()


def test_plan_is_readable(tmp_path):
    map_parts(square, [1], tmp_path, part_size=1, num_workers=1)
    assert set(read_json(tmp_path / "plan.json")) == {"digest"}
