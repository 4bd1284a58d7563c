"""Checkpoints: a save that fails leaves the old one, a damaged one is replaced by that before it."""

import argparse
import errno
import io
import os

import pytest
import torch
from torch import nn

from espnet2_ext.core.weights import previous, writing
from espnet2_ext.errors import DataError
from espnet2_ext.train.checkpoints import whole_checkpoints


class Breaks:
    def __reduce__(self):
        raise OSError("No space left on device")


def training(folder, resume=False):
    criteria = [("valid", "loss", "min")]
    return whole_checkpoints(argparse.Namespace(output_dir=str(folder), resume=resume, best_model_criterion=criteria))


def state(epoch, value=1.0, **more):
    """What ESPnet saves after an epoch."""
    net = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    nn.init.constant_(net.weight, value)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)  # its best loss is infinite
    saved = {"model": net.state_dict(), "reporter": {"epoch": epoch, "stats": {}}}
    return (
        saved | {"optimizers": [optimizer.state_dict()], "schedulers": [scheduler.state_dict()], "scaler": None} | more
    )


def epoch(path):
    return torch.load(path, weights_only=True)["reporter"]["epoch"]


def flip(path, at, bit):
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def test_a_broken_save_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.pth"
    with training(tmp_path):
        torch.save(state(1), path)
        with pytest.raises(OSError, match="No space left"):
            torch.save(state(2, bad=Breaks()), path)
    assert epoch(path) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pth"]


def test_other_targets_and_the_time_after_are_as_before(tmp_path):
    before = torch.save, torch.load
    with training(tmp_path):
        assert torch.save is not before[0]
        torch.save({"a": 1}, buffer := io.BytesIO())
    assert (torch.save, torch.load) == before
    buffer.seek(0)
    assert torch.load(buffer, weights_only=True) == {"a": 1}


@pytest.fixture
def third(tmp_path):
    """The checkpoint of epoch 3, with that of epoch 2 before it."""
    path = tmp_path / "checkpoint.pth"
    with training(tmp_path):
        for n in (1, 2, 3):
            torch.save(state(n), path)
            torch.save(state(n)["model"], tmp_path / f"{n}epoch.pth")
    assert sorted(p.name for p in tmp_path.glob("*check*")) == ["checkpoint.prev.pth", "checkpoint.pth"]
    assert (epoch(path), epoch(previous(path))) == (3, 2)
    return path


@pytest.mark.parametrize("damage", ["bit", "cut", "nan", "empty"])
def test_a_damaged_checkpoint_is_replaced_by_the_one_before(third, caplog, damage):
    data = third.read_bytes()
    if damage == "bit":
        flip(third, len(data) // 2, 3)
    elif damage == "nan":
        torch.save(state(3, float("nan")), third)
    else:
        third.write_bytes(data[: len(data) // 2 if damage == "cut" else 0])
    with training(third.parent, resume=True):
        assert epoch(third) == 2
        torch.save(state(3), third)
    assert (epoch(third), epoch(previous(third))) == (3, 2)
    assert "resuming from the checkpoint before it, checkpoint.prev.pth" in caplog.text and str(third) in caplog.text


def test_every_flipped_bit_is_noticed_or_harmless(third):
    whole, found = third.read_bytes(), {"noticed": 0, "harmless": 0}
    weight = torch.load(third, weights_only=True)["model"]["weight"]
    for n in range(0, 8 * len(whole), 97):
        flip(third, n // 8, n % 8)
        os.unlink(previous(third)) if previous(third).exists() else None
        try:
            with training(third.parent, resume=True):
                read = torch.load(third, map_location="cpu", weights_only=True)
            assert read["reporter"]["epoch"] == 3 and torch.equal(read["model"]["weight"], weight)
            found["harmless"] += 1
        except DataError as e:
            assert str(third) in str(e) and "remove it to train from the beginning" in str(e)
            found["noticed"] += 1
        third.write_bytes(whole)
    assert found["noticed"] > 200, found


def test_a_training_from_the_beginning_has_no_checkpoint_before(third, caplog):
    with training(third.parent):
        torch.save(state(1), third)
        assert not previous(third).exists()  # that of another training
        torch.save(state(2), third)
    assert epoch(previous(third)) == 1
    third.unlink()
    with training(third.parent, resume=True):  # who removes it begins again
        assert not third.exists()


def test_weights_that_diverged_end_the_training(third):
    good = third.read_bytes()
    with training(third.parent, resume=True):
        for bad in (state(4, float("nan")), state(4, float("inf"))):
            with pytest.raises(DataError, match="checkpoint.pth: the training has diverged: model.weight holds"):
                torch.save(bad, third)
        bad = state(4)
        bad["optimizers"][0]["state"][1]["exp_avg"][:] = float("nan")
        with pytest.raises(DataError, match="optimizers.0.state.1.exp_avg holds NaN"):
            torch.save(bad, third)
        assert third.read_bytes() == good
        masked = {"mask": torch.full((3, 3), -float("inf")).triu(1), "step": torch.tensor(2)}
        torch.save(state(4, model=masked), third)


def test_damaged_weights_of_an_epoch_are_not_averaged(third):
    path = third.with_name("2epoch.pth")
    good = torch.load(path, weights_only=True)["weight"]
    flip(path, path.read_bytes().index(good.numpy().tobytes()), 0)
    assert not torch.equal(torch.load(path, weights_only=True)["weight"], good)  # nobody notices
    with training(third.parent, resume=True), pytest.raises(DataError, match="2epoch.pth: is not a whole file of"):
        torch.load(path, weights_only=True)


def test_an_epoch_whose_files_are_missing_is_finished(third, tmp_path):
    stats = {n: {"valid": {"loss": loss}} for n, loss in ((1, 3.0), (2, 1.0), (3, 2.0))}
    saved = state(3) | {"reporter": {"epoch": 3, "stats": stats}}
    with training(tmp_path):
        torch.save(saved, third)
    (tmp_path / "3epoch.pth").unlink()
    (tmp_path / "latest.pth").symlink_to("2epoch.pth")
    with training(tmp_path, resume=True):
        pass
    weights = torch.load(tmp_path / "3epoch.pth", weights_only=True)
    assert all(torch.equal(weights[name], value) for name, value in saved["model"].items())
    links = {name: os.readlink(tmp_path / name) for name in ("latest.pth", "valid.loss.best.pth")}
    assert links == {"latest.pth": "3epoch.pth", "valid.loss.best.pth": "2epoch.pth"}


def test_a_write_that_fails_inside_pytorch_names_the_file(tmp_path):
    class Fails(io.FileIO):
        def write(self, data):
            raise OSError(errno.ESTALE, "Stale file handle")

    with pytest.raises(OSError, match="writing failed.*a.pth|Stale file handle"), writing(tmp_path / "a.pth"):
        torch.save({"w": torch.ones(1000)}, Fails(tmp_path / "a.pth", "w"))
    with pytest.raises(RuntimeError, match="another"), writing(tmp_path / "a.pth"):
        raise RuntimeError("another")
