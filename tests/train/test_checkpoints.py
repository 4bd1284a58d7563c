"""A save that fails half-way leaves the old file."""

import io

import pytest
import torch

from espnet2_ext.train.checkpoints import whole_checkpoints


class Breaks:
    def __reduce__(self):
        raise OSError("No space left on device")


def test_a_broken_save_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.pth"
    with whole_checkpoints():
        torch.save({"epoch": 1}, path)
        with pytest.raises(OSError, match="No space left"):
            torch.save({"epoch": 2, "bad": Breaks()}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pth"]


def test_other_targets_and_the_time_after_are_as_before(tmp_path):
    before = torch.save
    with whole_checkpoints():
        assert torch.save is not before
        torch.save({"a": 1}, buffer := io.BytesIO())
    assert torch.save is before
    buffer.seek(0)
    assert torch.load(buffer, weights_only=True) == {"a": 1}
