"""tools/setup.sh with stand-in Pythons: what it finds, makes, redoes and says."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ["awk", "bash", "cat", "cksum", "cp", "df", "dirname", "hostname", "mkdir", "mv", "rm"]
TOOLS += ["sleep", "tail", "tr"]

# A Python whose version test succeeds, whose `-m venv` copies itself, and whose pip keeps a log.
FAKE = """#!/usr/bin/env bash
case "$*" in
  *"version_info"*) exit 0 ;;
  *"find_spec"*) exit ${HAS_PACKAGE:-1} ;;
  -V) echo "Python 3.12.99" ;;
  "-m venv --clear"*)
    rm -rf "$4"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; echo venv >>"$CALLS" ;;
  *"pip"*)
    echo "pip ${*: -1}" >>"$CALLS"; echo "pip said this"
    sleep ${PIP_SECONDS:-0}; exit ${PIP:-0} ;;
esac
"""


class Checkout:
    """A copy of the set-up script in an otherwise empty project, with its own PATH and home."""

    def __init__(self, top: Path):
        self.root, self.bin, self.calls = top / "project", top / "bin", top / "calls"
        (self.root / "tools").mkdir(parents=True)
        self.bin.mkdir()
        shutil.copy(ROOT / "tools/setup.sh", self.root / "tools")
        shutil.copy(ROOT / "setup.py", self.root)
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        (self.bin / "env").symlink_to(shutil.which("env"))
        self.calls.touch()
        self.env = {"PATH": str(self.bin), "HOME": str(top), "CALLS": str(self.calls)}

    def python(self, path: str, body: str = FAKE) -> Path:
        target = self.bin.parent / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(body)
        target.chmod(0o755)
        return target

    def start(self, **env: str) -> subprocess.Popen:
        return subprocess.Popen(
            [str(self.root / "tools/setup.sh")],
            env=self.env | env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def setup(self, **env: str) -> tuple[int, str, str]:
        process = self.start(**env)
        out, err = process.communicate(timeout=180)
        return process.returncode, out.strip(), err

    def said(self) -> list[str]:
        return self.calls.read_text().split("\n")[:-1]


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def test_no_python_says_what_is_missing_and_how_to_get_it(checkout):
    status, out, err = checkout.setup()
    assert (status, out) == (1, "")
    for words in ("no working Python 3.12 or 3.13", "apt install", "pyenv install", "PYTHON="):
        assert words in err
    assert not (checkout.root / ".venv").exists()


def test_a_shim_that_does_not_run_is_passed_over_for_pyenvs_version(checkout):
    checkout.python("bin/python3.12", "#!/usr/bin/env bash\necho 'not found' >&2; exit 127\n")
    checkout.python(".pyenv/versions/3.13.0/bin/python")
    status, out, err = checkout.setup()
    assert status == 0 and out == str(checkout.root / ".venv/bin/python")
    assert "versions/3.13.0/bin/python" in err and "7 GB" in err


def test_a_named_python_is_used_or_refused_by_name(checkout):
    other = checkout.python("elsewhere/python")
    assert checkout.setup(PYTHON=str(other))[0] == 0
    checkout.python("old/python", "#!/usr/bin/env bash\nexit 1\n")
    shutil.rmtree(checkout.root / ".venv")
    status, _, err = checkout.setup(PYTHON=str(checkout.bin.parent / "old/python"))
    assert status == 1 and "old/python is not a working Python" in err


def test_second_time_does_nothing(checkout):
    checkout.python("bin/python3.12")
    checkout.setup()
    calls = checkout.said()
    assert calls == ["venv", "pip pip", f"pip {checkout.root}[test]"]
    status, out, err = checkout.setup()
    assert (status, out, err) == (0, str(checkout.root / ".venv/bin/python"), "")
    assert checkout.said() == calls


def test_changed_setup_py_installs_again_into_the_same_venv(checkout):
    checkout.python("bin/python3.12")
    checkout.setup()
    with open(checkout.root / "setup.py", "a") as f:
        f.write("# another dependency\n")
    checkout.setup()
    assert [c.split()[0] for c in checkout.said()] == ["venv", "pip", "pip", "pip", "pip"]


def test_failed_install_shows_pips_words_and_is_redone(checkout):
    checkout.python("bin/python3.12")
    status, out, err = checkout.setup(PIP="1")
    assert (status, out) == (1, "")
    assert "pip said this" in err and "install.log" in err
    status, out, err = checkout.setup()
    assert status == 0 and "broken off" in err
    assert checkout.said().count("venv") == 2
    assert not (checkout.root / ".venv.lock").exists()


def test_killed_install_is_redone(checkout):
    checkout.python("bin/python3.12")
    first = checkout.start(PIP_SECONDS="20")
    while "pip pip" not in checkout.said():
        time.sleep(0.02)
    os.killpg(first.pid, 9)
    first.wait()
    status, _, err = checkout.setup()
    assert status == 0 and "broken off" in err


def test_two_at_once_install_once(checkout):
    checkout.python("bin/python3.12")
    both = [checkout.start(PIP_SECONDS="0.3") for _ in range(2)]
    outs = [p.communicate(timeout=180)[0].strip() for p in both]
    assert outs == [str(checkout.root / ".venv/bin/python")] * 2
    assert checkout.said().count("venv") == 1


def test_active_environment_with_the_package_is_used_as_it_is(checkout):
    active = checkout.python("active/bin/python")
    status, out, err = checkout.setup(VIRTUAL_ENV=str(active.parents[1]), HAS_PACKAGE="0")
    assert (status, out, err) == (0, str(active), "")
    assert not (checkout.root / ".venv").exists()


def test_active_environment_without_the_package_is_left_alone(checkout):
    checkout.python("bin/python3.12")
    active = checkout.python("active/bin/python")
    status, out, err = checkout.setup(CONDA_PREFIX=str(active.parents[1]))
    assert status == 0 and out == str(checkout.root / ".venv/bin/python")
    assert "does not have espnet2_ext" in err


def test_a_foreign_venv_that_does_not_work_is_not_removed(checkout):
    checkout.python("bin/python3.12")
    (checkout.root / ".venv").mkdir()
    (checkout.root / ".venv/mine").touch()
    status, _, err = checkout.setup()
    assert status == 1 and "Move it away" in err
    assert (checkout.root / ".venv/mine").exists()
