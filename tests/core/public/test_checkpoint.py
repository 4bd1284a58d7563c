"""Reading files of weights that are cut off: one line that tells why."""

import pytest
import torch

from espnet2_ext.core.public.checkpoint import UNREADABLE, read_checkpoint, reason
from espnet2_ext.errors import DataError


class Stranger(dict):
    """Nothing that PyTorch's safe reader knows."""


def test_the_reason_is_told_and_not_the_advice(tmp_path):
    torch.save({"x": Stranger(a=1)}, tmp_path / "a.pth")
    with pytest.raises(UNREADABLE) as e:
        torch.load(tmp_path / "a.pth", weights_only=True)
    assert "Stranger" in reason(e.value) and "\n" not in reason(e.value)
    assert reason(EOFError()) == "EOFError" and reason(ValueError("a\nb")) == "a"


@pytest.mark.parametrize("new_format", [True, False])
def test_every_way_to_be_cut_off_is_told_with_the_file(tmp_path, new_format):
    torch.save(
        {f"k{i}": torch.zeros(2) for i in range(3)}, tmp_path / "a.pth", _use_new_zipfile_serialization=new_format
    )
    whole = (tmp_path / "a.pth").read_bytes()
    for at in range(0, len(whole) - 1, 1 if not new_format else 53):
        (tmp_path / "cut.pth").write_bytes(whole[:at])
        with pytest.raises(DataError, match="cut.pth: is not a (whole )?checkpoint of PyTorch"):
            read_checkpoint(tmp_path / "cut.pth")
