"""How a command ends when a package is missing, or with an error of our own."""

import pytest

from espnet2_ext.cli import main as end
from espnet2_ext.errors import DataError


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
