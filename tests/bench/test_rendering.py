"""Which mixtures the rendering speed is measured on."""

import json

import pytest

from espnet2_ext.audio.read import open_sound
from espnet2_ext.bench import data
from espnet2_ext.cli.papers import bench
from espnet2_ext.core.mixing.events import with_ids
from espnet2_ext.data.bank.archive import archive
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.bank.shards import Settings
from espnet2_ext.data.mixtures.event_table import MixtureTable, write_table
from espnet2_ext.errors import DataError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("rendering")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "CLIPS", 1)
        data.write_sounds(root)
    archive(root / "sounds", root / "bank", settings=Settings(fs=data.FS), num_workers=0)
    data.write_mixtures(root / "table", ClipBank(root / "bank"), number=10)
    return root


def test_rows(corpus):
    rows = data.bench_rendering(corpus / "table", corpus / "bank", seconds=0.02)
    assert [row["labels"] for row in rows] == ["strong", "frame", "clip"]
    assert all(row["a_core"] > 0 and row["seconds"] == 4.0 and row["format"] == "flac" for row in rows)
    table = MixtureTable(corpus / "table")
    assert rows[0]["events"] == table.info["events"] / 10
    assert None not in [cell(rows[0]) for cell in data.RENDERING.values()]


def test_only_labels_that_are_known(corpus, tmp_path):
    table = MixtureTable(corpus / "table")
    mixtures = [table.row(i)._replace(known="clip" if i else "frame") for i in range(3)]
    write_table(
        tmp_path / "weak", [with_ids(m, None) for m in mixtures], fs=table.fs, classes=table.classes, n_fft=512, hop=128
    )
    rows = data.bench_rendering(tmp_path / "weak", corpus / "bank", seconds=0.02)
    assert [row["labels"] for row in rows] == ["clip"]


def test_need_by_hand():
    rows = [{"a_core": 200.0}, {"a_core": 100.0}]
    training = [{"model": "m", "mixtures": 10, "time": {"step": {"s": 0.5}}}]
    assert data.mixtures_needed(rows, training) == [["m", 20.0, 0.2]]


def test_cost_of_lengths(tmp_path, capsys):
    rows = data.bench_files(tmp_path, seconds=0)
    names = ["a.flac", "a.mp3", "a.ogg", "a.wav", "bare.mp3", "joined.ogg"]
    assert [row["file"] for row in rows] == names
    assert all(0 < row["survey_ms"] < row["ms"] and min(row["floor_ms"], row["store_ms"]) > 0 for row in rows)
    assert None not in [cell(rows[0]) for cell in data.FILES.values()]
    assert open_sound(tmp_path / "joined.ogg").frames == 882000 and open_sound(tmp_path / "bare.mp3").frames > 441000


def test_command(corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(data, "rate", lambda call, seconds: call() or {"a_core": 9.0, "wall": 8.0})
    file = tmp_path / "bench.json"
    bench(
        [
            "--rendering",
            str(corpus / "table"),
            str(corpus / "bank"),
            "--threads",
            "1",
            "--device",
            "cpu",
            "--json",
            str(file),
        ]
    )
    found = json.loads(file.read_text())
    assert len(found["rendering"]["rows"]) == 3 and "models" not in found
    assert "| strong |" in capsys.readouterr().out


def test_bad_options_are_named():
    with pytest.raises(DataError, match="--rendering takes the folder of a table and its"):
        bench(["--rendering", "table"])
