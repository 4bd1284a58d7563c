"""Fixtures of the tests of scoring and report."""

import pytest
from tiny_set import make_signals, write_data, write_outputs


@pytest.fixture
def scored(tmp_path):
    """Data folder, inference folder and signals of 3 pairs, one target silent; not scored yet."""
    signals = make_signals(3, silent=("p2-1",))
    write_data(tmp_path / "dump/test", signals)
    inference = tmp_path / "exp/model/inference_test"
    write_outputs(inference, signals)
    return tmp_path / "dump/test", inference, signals
