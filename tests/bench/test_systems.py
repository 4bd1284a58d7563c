"""The table of every query system's cost."""

import json
from pathlib import Path

import pytest
import torch

from espnet2_ext.bench import measure
from espnet2_ext.bench import query as systems
from espnet2_ext.bench.configs import Options, build
from espnet2_ext.cli.papers import bench
from espnet2_ext.errors import DataError

CONF = Path(__file__).parents[2] / "conf"
SMALL = Options(seconds=0.5, repeats=1, device="cpu")
CPU = torch.device("cpu")


def table_row(row):
    return [cell(row) for cell in systems.columns(0.5).values()]


def debug(name: str) -> systems.System:
    [system] = systems.system_of([CONF / f"debug/{name}.yaml"])
    return system


def test_every_system_of_the_papers_has_a_row():
    rows = systems.all_systems(CONF)
    names = {row.name for row in rows}
    assert names >= {
        *"care_sep_768 care_sep_2048 care_cls_sep_768 st_sed_sep_2048 pann_sep_527 pann_sep_2048".split(),
        "care_sep_768 + hts_at (G)",
        "tag_care_cls_768",
        "tag_hts_at_768",
        "tag_hts_at_2048",
        "tag_cnn14",
    }
    assert len(names) == len(rows) and all(Path(row.yaml).is_file() for row in rows)
    assert {row.name for row in systems.only(rows, ["pann", "hts_at_7"])} == {
        "pann_sep_527",
        "pann_sep_2048",
        "tag_hts_at_768",
    }
    with pytest.raises(DataError, match="--only xy: no such system; available: care_cls_sep_768"):
        systems.only(rows, ["xy"])


def test_one_network():
    row = systems.bench_system(debug("train_qsep_care_sep"), SMALL)
    model, _ = build(CONF / "debug/train_qsep_care_sep.yaml", CPU)
    assert row["query_m"] is None
    assert row["separator_m"] == pytest.approx(measure.parameters(model))
    assert 0 < row["gflop"]["embed"] < row["gflop"]["mask"]
    cells = table_row(row)
    assert cells[1] == "shared" and len(cells) == 13


def test_two_networks():
    row = systems.bench_system(debug("train_qsep_query_unet"), SMALL)
    model, _ = build(CONF / "debug/train_qsep_query_unet.yaml", CPU)
    assert row["query_m"] == pytest.approx(measure.parameters(model.query_net))
    assert row["query_m"] + row["separator_m"] == pytest.approx(measure.parameters(model))
    assert row["peak_mb"]["short"] <= row["peak_mb"]["long"]


def test_an_option_makes_it_two_networks():
    tagger = (
        "--query_net",
        "care_cls",
        "--query_net_conf",
        "{num_bands: 64, dim: 8, image_channels: 4, depths: [1, 2, 1], heads: [1, 2, 2], "
        "connector_heads: 4, num_classes: 24}",
    )
    system = debug("train_qsep_care_sep")._replace(more=tagger)
    assert systems.bench_system(system, SMALL)["query_m"] > 0


def test_tagger():
    row = systems.bench_system(debug("train_tag"), SMALL)
    assert row["separator_m"] is None and row["query_m"] > 0
    assert row["time"].keys() == {"embed", "embed_anchor"}
    cells = table_row(row)
    assert cells[9] is None and len(cells) == 13


def test_a_query_is_embedding_and_mask_by_hand():
    def times(s):
        return {"s": s, "low": s, "high": s, "lost": s / 100}

    row = {
        "system": "x",
        "query_m": 2.0,
        "separator_m": 3.0,
        "start_mb": 400.0,
        "time": {"embed_anchor": times(1.0), "embed": times(5.0), "mask": times(20.0), "two": times(29.0)},
        "gflop": {"embed_anchor": 10.0, "embed": 50.0, "mask": 200.0, "two": 300.0},
        "peak_mb": {"short": 600.0, "long": 700.0},
    }
    assert table_row(row) == [
        "x",
        2.0,
        3.0,
        210.0,
        21.0,
        600.0,
        250.0,
        25.0,
        700.0,
        100.0,
        9.0,
        400.0,
        pytest.approx(0.29),
    ]


def test_a_system_that_fails_does_not_stop_the_others(here, monkeypatch):
    def measured(system, options):
        if system.name == "broken":
            raise DataError("broken: no such file")
        if system.name == "large":
            raise RuntimeError("can't allocate memory")
        return {"system": system.name}

    monkeypatch.setattr(systems, "bench_system", measured)
    rows = systems.costs([systems.System(n, n) for n in ("broken", "large", "good")], SMALL, None)
    assert [row.get("failed") for row in rows] == ["broken: no such file", "can't allocate memory", None]
    assert table_row(rows[0]) == ["broken (failed)", *[None] * 12]


def test_command(here, tmp_path, capsys):
    file = tmp_path / "costs.json"
    bench(
        [
            str(CONF / "debug/train_tag.yaml"),
            *"--costs --seconds 0.5 --repeats 1 --threads 1 --device cpu".split(),
            "--json",
            str(file),
        ]
    )
    assert "| tag | " in capsys.readouterr().out
    assert [row["system"] for row in json.loads(file.read_text())["costs"]] == ["tag"]


@pytest.mark.parametrize(
    "options, message",
    [
        ([str(CONF / "debug/train_tag.yaml")], "a tagger is measured with --costs"),
        ([str(CONF / "debug/train_qsep_care_sep.yaml"), "--only", "x"], "--only chooses rows of"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(DataError, match=message):
        bench(options)


def test_this_code_against_a_checkout(tmp_path):
    here = str(Path(__file__).parents[2])
    yaml = str(CONF / "debug/train_qsep_care_sep.yaml")
    file = tmp_path / "turns.json"
    common = ["--seconds", "0.5", "--repeats", "1", "--threads", "1", "--device", "cpu", "--json", str(file)]
    bench([yaml, "--against", here, *common])
    rows = json.loads(file.read_text())["turns"]
    assert [row["call"] for row in rows] == ["embed", "mask", "step"]
    for row in rows:
        assert row["now"] > 0 and row["ratio"] == pytest.approx(row["then"] / row["now"])
    assert rows[2]["loss_now"] == rows[2]["loss_then"] != 0 and "loss_now" not in rows[0]
    with pytest.raises(DataError, match="--against no-such-commit: neither plain, nor a commit of"):
        bench([yaml, "--against", "no-such-commit", *common])
    with pytest.raises(DataError, match="name YAMLs of separation by query"):
        bench([str(CONF / "train_weak_small.yaml"), "--against", here, *common])
