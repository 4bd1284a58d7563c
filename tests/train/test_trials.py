"""Which of several trainings is kept."""

import json

import pytest

from espnet2_ext.cli.train import keep_best as main
from espnet2_ext.errors import DataError
from espnet2_ext.train.experiment import describe_trials, keep_best, validation_loss


def line(epoch: int, loss: str) -> str:
    return f"INFO: {epoch}epoch results: [train] loss=0.1, [valid] frame=9.0, loss={loss}, time=1\n"


@pytest.fixture
def trial(tmp_path):
    def make(name: str, *losses: str):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "train.log").write_text("".join(line(n, v) for n, v in enumerate(losses, 1)))
        return folder

    return make


def test_the_loss_is_that_of_the_weights(trial):
    folder = trial("a", "3.5", "1.25e+02", "0.500", "0.750")
    for name, loss in {"latest.pth": 0.75, "valid.loss.best.pth": 0.5, "2epoch.pth": 125.0}.items():
        assert validation_loss(folder, name) == loss
    for name in ("valid.loss.ave.pth", "5epoch.pth", "epoch.pth"):
        with pytest.raises(DataError, match=f"a: the validation loss of {name} is not known"):
            validation_loss(folder, name)
    with pytest.raises(DataError, match="b: no validation loss in train.log"):
        validation_loss(trial("b"), "latest.pth")


def test_the_lowest_is_linked_to_and_may_change(trial, tmp_path, capsys):
    trials = [str(trial("x_seed0", "2.0", "1.0")), str(trial("x_seed1", "1.5", "1.5"))]
    exp = tmp_path / "x"
    main([*trials, "--exp_dir", str(exp)])
    told = "x_seed0 1, x_seed1 1.5; kept: x_seed0"
    assert capsys.readouterr().out == told + "\n"
    assert exp.is_symlink() and exp.readlink().name == "x_seed0" and describe_trials(exp) == told
    trials.append(str(trial("x_seed2", "5.0", "0.25")))
    main([*trials, "--exp_dir", str(exp), "--model_file", "latest.pth"])
    assert exp.readlink().name == "x_seed2"
    assert json.loads((exp / "trials.json").read_text())["model_file"] == "latest.pth"
    assert describe_trials(trial("other", "1.0")) == ""


def test_of_equal_ones_the_first_and_never_one_that_diverged(trial, tmp_path):
    same = [trial("s_seed0", "2.0"), trial("s_seed1", "2.0")]
    assert keep_best(tmp_path / "s", same, "latest.pth").endswith("kept: s_seed0")
    lost = [trial("n_seed0", "1.0", "nan"), trial("n_seed1", "3.0", "7.0")]
    assert keep_best(tmp_path / "n", lost, "latest.pth").endswith("kept: n_seed1")
    with pytest.raises(DataError, match="m: no trial has a finite validation loss"):
        keep_best(tmp_path / "m", lost[:1], "latest.pth")
    assert not (tmp_path / "m").exists()


def test_the_best_epoch_of_one_that_diverged_at_last(trial):
    assert validation_loss(trial("d", "nan", "2.0", "nan"), "valid.loss.best.pth") == 2.0


def test_a_training_of_its_own_is_not_replaced(trial, tmp_path):
    folder = trial("y", "1.0")
    with pytest.raises(DataError, match="y is a training of its own"):
        keep_best(folder, [trial("y_seed0", "1.0")], "latest.pth")
    assert (folder / "train.log").is_file()
