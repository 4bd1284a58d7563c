"""Folders that one run holds, and temporary files that outlive a kill until the next start."""

import errno
import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from espnet2_ext.errors import DataError
from espnet2_ext.util import files, locks
from espnet2_ext.util.files import atomic_path, write_text
from espnet2_ext.util.locks import hold, holding, locked, temporary

HOLD = "import sys; from espnet2_ext.util.locks import hold\nwith hold(sys.argv[1], shared=len(sys.argv) > 2): pass"
WRITE = """
import sys, time
from espnet2_ext.util.files import atomic_path
with atomic_path(sys.argv[1]) as tmp:
    tmp.write_text("half")
    print(tmp.name, flush=True)
    time.sleep(60)
"""


def other(*args: object, inherit: bool = False) -> subprocess.CompletedProcess:
    """Another process that wants to hold a folder: one of another run, or one that this run has started."""
    env = os.environ if inherit else {k: v for k, v in os.environ.items() if k != "ESPNET2_EXT_HELD"}
    return subprocess.run([sys.executable, "-c", HOLD, *map(str, args)], capture_output=True, text=True, env=env)


def test_a_folder_is_held_by_one_run(tmp_path):
    before = dict(os.environ)
    with hold(tmp_path / "a", tmp_path / "b"):
        done = other(tmp_path / "b")
        assert f"another run is still working in {tmp_path}/b; wait" in done.stderr and done.returncode
        assert other(tmp_path / "b", inherit=True).returncode == 0  # a step of this run
        with pytest.raises(DataError, match="still working in"):
            with hold(tmp_path / "c", tmp_path / "a"):
                pass
    assert other(tmp_path / "b").returncode == 0 and dict(os.environ) == before


def test_readers_share_and_writers_do_not(tmp_path):
    with hold(tmp_path / "a", shared=True):
        assert other(tmp_path / "a", "shared").returncode == 0
        assert "still working" in other(tmp_path / "a").stderr


def test_files_are_held_one_by_one(tmp_path):
    with hold(tmp_path / "a.zip", files=True):
        assert [p.name for p in tmp_path.iterdir()] == [".lock-a.zip"]
        assert other(tmp_path / "b.zip").returncode == 0
        with pytest.raises(DataError, match=f"still writing {tmp_path}/a.zip; wait"):
            with hold(tmp_path / "a.zip", files=True):
                pass
    assert not list(tmp_path.iterdir())


def test_a_function_holds_what_its_argument_names(tmp_path):
    @holding("out")
    def work(what, out="x"):
        assert (tmp_path / "a/.lock").exists() and "still working" in other(tmp_path / "a").stderr
        return what

    assert work(1, tmp_path / "a") == work(1, out=tmp_path / "a") == 1
    assert not list(tmp_path.iterdir())  # a folder without content is no result


def test_without_locks_nobody_is_kept_out(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    (tmp_path / ".tmp-1-new").touch()
    (tmp_path / ".tmp-1-old").touch()
    os.utime(tmp_path / ".tmp-1-old", (0, 0))
    monkeypatch.setattr(locks.fcntl, "flock", none)
    with locked(tmp_path / "x", wait=False), locked(tmp_path / "x", wait=False):
        write_text(tmp_path / "a", "whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".tmp-1-new", "a"]


def test_what_a_killed_process_was_writing_is_swept_and_a_living_ones_is_not(tmp_path, monkeypatch):
    killed, living = (
        subprocess.Popen([sys.executable, "-c", WRITE, str(tmp_path / name)], stdout=subprocess.PIPE, text=True)
        for name in ("killed", "living")
    )
    left, kept = killed.stdout.readline().strip(), living.stdout.readline().strip()
    killed.kill()
    killed.wait()
    assert (tmp_path / left).read_text() == "half"
    write_text(tmp_path / "other", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([kept, "other"])
    living.kill()
    living.communicate()
    monkeypatch.setattr(locks, "_swept", set())  # of the next process
    write_text(tmp_path / "other", "")
    assert [p.name for p in tmp_path.iterdir()] == ["other"]


def test_temporary_folders_go_with_their_content(tmp_path, monkeypatch):
    left = tmp_path / ".tmp-00-folder"
    left.mkdir()
    (left / "1.flac").touch()
    with temporary(tmp_path / "folder", folder=True) as folder:
        (folder / "x").touch()
        locks.sweep(tmp_path)
        assert list(tmp_path.iterdir()) == [folder] and (folder / "x").exists()
    assert not list(tmp_path.iterdir())


def test_the_longest_names_can_be_written(tmp_path):
    for name in ("x" * 255, "ü" * 127, "x" * 250 + ".flac"):
        write_text(tmp_path / name, name)
        assert (tmp_path / name).read_text(encoding="utf-8") == name
    assert len(list(tmp_path.iterdir())) == 3


# ---- disks that cannot take a file -----------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_write_that_fails_names_the_file(tmp_path, number):
    with pytest.raises(OSError) as failed:
        with atomic_path(tmp_path / "a.npy"):
            raise OSError(number, os.strerror(number))  # as a write without a name does
    assert failed.value.errno == number and failed.value.filename == str(tmp_path / "a.npy")
    assert not list(tmp_path.iterdir())


def test_a_library_that_does_not_say_why_is_asked(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError) as failed:
        with atomic_path(tmp_path / "a.pth"):
            monkeypatch.setattr(files, "open", full, raising=False)
            raise RuntimeError("unexpected pos 832 vs 726")
    assert failed.value.errno == errno.ENOSPC and failed.value.filename == str(tmp_path / "a.pth")
    monkeypatch.undo()
    with pytest.raises(RuntimeError, match="another reason"):
        with atomic_path(tmp_path / "a.pth"):
            raise RuntimeError("another reason")


def test_an_error_hidden_by_a_later_one_is_found(tmp_path):
    with pytest.raises(OSError, match="a.pth") as failed:
        with atomic_path(tmp_path / "a.pth"):
            try:
                raise OSError(errno.EIO, "Input/output error")
            finally:
                raise RuntimeError("unexpected pos 832 vs 726")
    assert failed.value.errno == errno.EIO


def test_a_signal_removes_what_is_unfinished(tmp_path):
    code = WRITE.replace("import sys, time", "import sys, time\nfrom espnet2_ext.cli.main import run\ndef main():", 1)
    head, _, rest = code.partition("def main():\n")
    code = head + "def main():\n" + "".join(f"    {line}\n" for line in rest.splitlines()) + "run(main)\n"
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
        command = [sys.executable, "-c", code, str(tmp_path / "a")]
        default = functools.partial(signal.signal, number, signal.SIG_DFL)  # where the tests run under nohup, too
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=default)
        assert Path(tmp_path / child.stdout.readline().strip()).exists()
        child.send_signal(number)
        assert child.communicate()[1] == "stopped; run again to resume\n" and child.returncode == status
        assert not list(tmp_path.iterdir())
