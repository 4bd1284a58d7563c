"""tools/ask.py: its tables, of a model that was not trained."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from sounds import bank_of, noise, numbered
from untrained import bundle_of

from espnet2_ext.data.mixtures.pair_list import draw_list_file
from espnet2_ext.infer.vectors.calibrate import calibrate
from espnet2_ext.util.config import read_config

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("ask", ROOT / "tools/ask.py")
ask = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(ask)
FS = 16000


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A calibrated bundle, a bank of four classes with seven clips each, and a list of three mixtures."""
    top = tmp_path_factory.mktemp("ask")
    waves = {f"{k}-{i}": (noise(FS, 10 * k + i), (f"/m/{k}",)) for k in range(4) for i in range(7)}
    bank = bank_of(top, waves, numbered(4), FS)
    conf = read_config(ROOT / "conf/debug/train_qsep_care_sep.yaml")
    bundle = bundle_of({"sample_rate": FS, **conf}, "qsep", top / "model.zip")
    calibrate(bundle, bank.path, device="cpu", mixtures=8)
    draw_list_file(bank, top / "pairs.tsv", 3)
    return bundle, bank.path, top / "pairs.tsv"


def rows(monkeypatch, capsys, *args) -> list[list[str]]:
    """The cells of the table that it prints, without its head."""
    monkeypatch.setattr(sys, "argv", ["ask.py", *map(str, args), "--device", "cpu"])
    ask.main()
    return [line.strip("|").split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("|")][2:]


def test_ways(files, monkeypatch, capsys):
    """A line for each way; seven clips have no mean of ten; presence where both kinds of queries were asked."""
    bundle, bank, pairs = files
    found = {name: cells for name, *cells in rows(monkeypatch, capsys, "ways", bundle, "--bank", bank, "--list", pairs)}
    assert list(found) == list(ask.COMMANDS)
    assert found["mean of 10"][1:] == ["–"] * 4
    for name, (options, gain, auc, missed, wrong) in found.items():
        assert options.strip("`").startswith("--query ")
        if name != "mean of 10":
            assert np.isfinite([float(x.strip("()")) for x in gain.split()]).all()
            measured = name in ("other", "class", "mean of 3", "mean of 5", "nearest of 5")
            assert measured == (0 <= float(auc) <= 1 if auc != "–" else False)
            assert measured == missed.endswith("%") == wrong.endswith("%")


def test_find(files, monkeypatch, capsys):
    """Fewer lines and fewer sounds with a higher threshold."""
    bundle, bank, _ = files
    found = rows(monkeypatch, capsys, "find", bundle, "--bank", bank, "--minutes", 0.5, "--queries", 2)
    limits, recall = ([float(cells[i].strip("%")) for cells in found] for i in (0, 1))
    assert limits == sorted(limits) and {0.5, 0.9} < set(limits)
    assert recall == sorted(recall, reverse=True) and all(int(cells[2]) >= 0 for cells in found)


def test_sdr():
    ref = np.array([3.0, 4.0])
    assert ask.sdr(ref, ref * 0.9) == pytest.approx(20) and ask.level(ref) == pytest.approx(np.sqrt(12.5))
