"""How a command ends when a package is missing, or with an error of our own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import espnet2_ext.bin
from espnet2_ext.cli import main as end
from espnet2_ext.cli import train
from espnet2_ext.errors import DataError
from espnet2_ext.util.locks import hold


def failing(error: Exception):
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    "module, words",
    [
        ("yaml", "needs the package pyyaml"),
        ("h5py", "pip install h5py"),
        ("espnet2.tasks.abs_task", "needs the package espnet,"),
    ],
)
def test_a_missing_package_is_named_without_a_traceback(module, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        end.run(failing(ModuleNotFoundError(f"No module named {module!r}", name=module)))
    assert stopped.value.code == 1
    assert words in capsys.readouterr().err


def test_old_python_without_espnet_is_told_which_python_has_it(monkeypatch):
    monkeypatch.setattr(end.sys, "version_info", (3, 11, 7))
    assert "needs Python 3.12 or 3.13" in end.missing_package("espnet2")
    assert "needs Python" not in end.missing_package("yaml")


def test_modules_of_our_own_keep_their_traceback():
    error = ModuleNotFoundError("No module named 'espnet2_ext.nowhere'", name="espnet2_ext.nowhere")
    with pytest.raises(ModuleNotFoundError):
        end.run(failing(error))


def test_what_the_user_can_mend_is_a_plain_message(capsys):
    with pytest.raises(SystemExit) as stopped:
        end.run(failing(DataError("x.tsv: no such file")))
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "error: x.tsv: no such file\n"


def test_a_second_training_in_a_folder_is_refused_before_espnet_is_imported(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "_task", None)  # a call would fail
    with hold(tmp_path), pytest.raises(DataError, match=f"another run is still working in {tmp_path}"):
        train.qsep_train(["--output_dir", str(tmp_path)])


@pytest.mark.skipif(sys.platform != "linux", reason="what libgomp of PyTorch's Linux builds reports")
@pytest.mark.parametrize("own, heard", [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_every_entry_point_lets_idle_threads_sleep(own, heard):
    modules = [f"espnet2_ext.bin.{p.stem}" for p in Path(espnet2_ext.bin.__file__).parent.glob("[a-z]*.py")]
    assert len(modules) == 10
    code = (
        "import importlib, sys\n"
        f"for name in [*{modules}, 'espnet2_ext.__main__']: importlib.import_module(name)\n"
        "assert 'torch' not in sys.modules\n"  # which reads it when it is imported
        "from espnet2_ext.cli.main import run\n"
        "run(lambda: __import__('torch'))"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    env |= {"OMP_DISPLAY_ENV": "TRUE", "PYTHONPATH": os.pathsep.join(sys.path), **own}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert f"OMP_WAIT_POLICY = '{heard}'" in done.stderr
