"""The model in the package, on a fixed list of sounds that are made anew."""

import runpy
from pathlib import Path

import pytest

from espnet2_ext.infer.bundle import open_bundle
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.util.names import MODELS

RECIPE = Path(__file__).parents[2] / "egs2/starter_qsep"


@pytest.mark.skipif(not (MODELS / "starter.zip").is_file(), reason="this version of the package carries no model")
def test_it_does_what_its_card_says():
    with open_bundle("starter") as bundle:
        known = bundle.info["check"]
    found = runpy.run_path(str(RECIPE / "local/check.py"))["gains"](Separator.from_bundle())
    assert len(found) == known["targets"] == 16
    assert found.mean() == pytest.approx(known["sdr_gain"], abs=0.05)
