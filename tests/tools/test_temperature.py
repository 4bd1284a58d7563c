"""tools/temperature.py: its table, of models that were not trained."""

import importlib.util
import sys
from pathlib import Path

import pytest
from sounds import bank_of, noise, numbered
from untrained import bundle_of

from espnet2_ext.util.config import read_config

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("temperature", ROOT / "tools/temperature.py")
temperature = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(temperature)
FS = 16000


def rows(monkeypatch, capsys, *args) -> list[list[str]]:
    """The cells of the table that it prints, without its head."""
    monkeypatch.setattr(sys, "argv", ["temperature.py", *map(str, args), "--mixtures", "2", "--temperatures", "1", "4"])
    temperature.main()
    return [line.strip("|").split("|") for line in capsys.readouterr().out.splitlines()][2:]


def test_of_queries_and_of_classes(tmp_path, weak_corpus, monkeypatch, capsys):
    """A line for each way to ask and each temperature, which changes the outputs."""
    waves = {f"{k}-{i}": (noise(FS, 10 * k + i), (f"/m/{k}",)) for k in range(3) for i in range(2)}
    bank = bank_of(tmp_path, waves, numbered(3), FS)
    conf = read_config(ROOT / "conf/debug/train_qsep_care_sep.yaml")
    by_query = bundle_of({"sample_rate": FS, **conf}, "qsep", tmp_path / "query.zip")
    found = rows(monkeypatch, capsys, by_query, "--bank", bank.path)
    assert [row[:3] for row in found] == [[n, t, "2"] for n in ("other", "self") for t in ("1", "4")]
    assert found[0][3:] != found[1][3:] and found[2][3:] != found[3][3:]
    conf = read_config(ROOT / "conf/debug/train_weak.yaml") | {"class_names": ["a", "b", "c"], "label_type": "strong"}
    classes = bundle_of(conf, "weak", tmp_path / "classes.zip")
    of_table = ["--bank", weak_corpus / "dump/train", "--table", weak_corpus / "data/train"]
    found = rows(monkeypatch, capsys, classes, *of_table)
    assert [row[:2] for row in found] == [["class", "1"], ["class", "4"]] and found[0][3:] != found[1][3:]


def test_a_network_without_it():
    with pytest.raises(temperature.DataError, match="the model's network has none"):
        temperature.set_temperature(temperature.torch.nn.Linear(1, 1), 2.0)
