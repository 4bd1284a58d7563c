"""What the benchmark counts, not how fast anything is."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from sounds import bank_of, numbered

from espnet2_ext.bench import data, measure, plain_query
from espnet2_ext.bench import query as models
from espnet2_ext.bench.plain_query import HTSAT, QueryUNet, mel_filters
from espnet2_ext.cli.papers import bench
from espnet2_ext.core.layers import precision
from espnet2_ext.core.layers.swin import WindowAttention
from espnet2_ext.errors import DataError
from espnet2_ext.util.config import read_config

DEBUG = Path(__file__).parents[2] / "conf/debug/train_qsep_care_sep.yaml"
CPU = torch.device("cpu")


def cells(columns, row):
    return [cell(row) for cell in columns.values()]


@pytest.mark.parametrize("grad", [False, True])
def test_flops_of_attention_by_hand(grad):
    n, m, d = 5, 64, 24
    attention, x = WindowAttention(d, 4, (8, 8)), torch.zeros(n, m, d)
    linear = 2 * n * m * d * (3 * d + d)  # to queries, keys, values, and the output
    scores = 2 * 2 * n * m * m * d  # query times key, weights times value
    with torch.set_grad_enabled(grad):
        counted = measure.gflop(lambda: attention(x, None))
    assert counted * 1e9 == pytest.approx(linear + scores)


def test_plain_networks_have_the_published_sizes():
    with torch.device("meta"):
        small, large, unet = HTSAT(96), HTSAT(256), QueryUNet()
        magnitude, query = torch.zeros(1, 1025, 1001), torch.zeros(1, 2048)
    assert measure.parameters(small) == pytest.approx(30.2, rel=0.01)
    assert measure.parameters(large) == pytest.approx(202.0, rel=0.01)
    assert measure.parameters(unet) == pytest.approx(167.6, abs=0.1)
    assert measure.gflop(lambda: unet.mask(magnitude, query)) == pytest.approx(638.5, rel=0.01)


def test_plain_networks_run():
    small = HTSAT(8, heads=(1, 2, 4, 8), num_classes=5).eval()
    unet = QueryUNet(64, widths=(2, 4)).eval()
    wave = torch.randn(2, 8000)
    with torch.no_grad():
        embedding, clipwise, framewise = small(wave)
        assert embedding.shape == (2, 64)
        assert clipwise.shape == (2, 5) and framewise.shape == (2, 32, 5)
        assert unet(wave, embedding).shape == wave.shape
        assert not torch.equal(unet(wave, embedding), unet(wave, embedding + 1))


def test_each_mel_band_has_bins():
    mel = mel_filters()
    assert mel.shape == (513, 64) and (mel.amax(0) > 0).all() and mel.max() <= 1
    assert (mel[: int(50 / 31.25)] == 0).all() and (mel[int(14000 / 31.25) + 1 :] == 0).all()


def test_calls_take_turns():
    seen = []
    took = measure.interleaved(
        {"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, repeats=3, device=CPU, warmup=1
    )
    order = "".join(seen)  # a call that others disturbed comes again at once
    assert re.fullmatch("ab(a{1,4}b{1,4}){3}", order)
    assert set(took) == {"a", "b"} and took["a"]["low"] <= took["a"]["s"] <= took["a"]["high"]


def test_a_peak_is_never_lower_later(monkeypatch):
    read = iter([100.0, 300.0, 299.9])  # as Linux once read it
    monkeypatch.setattr(measure, "_seen", {"peak_mb": 0.0})
    monkeypatch.setattr(measure, "_resident_peak_mb", lambda: next(read))
    assert [measure.peak_mb(CPU) for _ in range(3)] == [100.0, 300.0, 300.0]


def test_row_of_the_debug_model(tmp_path):
    """With every term that is in a YAML of ours."""
    tagged = [{"name": n, "wrapper": "keyed_order"} for n in ("neg_sdr", "tagging", "mixture_tagging")]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump(read_config(DEBUG) | {"criterions": tagged}))
    row = models.bench_model(str(tmp_path / "all.yaml"), "fp32", models.Options(1.0, 1))
    model, _ = models.build(DEBUG, CPU)
    assert row["parameters_m"] == pytest.approx(measure.parameters(model))
    assert 0 < row["gflop"]["embed"] < row["gflop"]["mask"] < row["gflop"]["embed_anchor"] * 4
    assert 0 < row["peak_mb"] <= row["train_peak_mb"]
    assert len(cells(models.MODELS, row)) == 17


def test_bf16_runs(monkeypatch):
    monkeypatch.setattr(precision, "WIDE", 1)
    row = models.bench_model(str(DEBUG), "bf16", models.Options(0.5, 1))
    assert "failed" not in row and row["train"]["s"] > 0 and 20 < row["snr_db"] < 80


def times(lost=0.0, **seconds):
    return {name: {"s": s, "low": s, "high": s, "lost": lost} for name, s in seconds.items()}


def test_verdicts_by_hand():
    plain = {
        "HTS-AT 96-d clip": 0.2,
        "HTS-AT 96-d anchor": 0.2,
        "HTS-AT 256-d clip": 1.0,
        "HTS-AT 256-d anchor": 0.9,
        "U-Net clip": 8.0,
    }
    result = {
        "seconds": 10.0,
        "plain": {k: v | {"parameters_m": 1.0, "gflop": 1.0} for k, v in times(**plain).items()},
        "models": {
            "768": {"width": 768, **times(mask=0.4, embed=0.2, embed_anchor=0.05)},
            "tiny": {"width": 64, **times(mask=0.1, embed=0.1, embed_anchor=0.1)},
        },
    }
    clip, anchor, reused, *other = plain_query.verdicts(result)
    assert "in 0.600 s" in clip and "1/15.0" in clip and "ratio 3.00" in clip
    assert "the route MET" in clip and "96-d MISSED" in clip
    assert "in 0.450 s" in anchor and "96-d MET" in anchor
    assert "mask pass alone" in reused and "1/20.0" in reused
    assert len(other) == 3 and not any("Targets" in line for line in other)
    result["models"]["tiny"]["mask"]["lost"] = 0.9
    assert plain_query.verdicts(result)[-1].startswith("NOT VALID: other processes took up to 0.9")
    assert {len(cells(plain_query.AGAINST, r)) for r in plain_query.table_rows(result)} == {7}


def test_need():
    found = {"pairs": {"a_core": 100.0}}
    rows = [{"model": "m", "variant": "fp32", "batch_size": 96, "train": {"s": 0.01}}]
    assert data.pairs_needed(found, rows, 2, None) == [["m fp32", 200.0, 100.0, 2.0]]
    assert data.pairs_needed(found, rows, 2, 5.0) == [["m fp32", 480.0, 100.0, 4.8]]
    assert data.pairs_needed(found, [{"model": "m", "variant": "fp32"}], 2, None) == []


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    rng = np.random.default_rng(0)
    waves = {f"clip{i}": (rng.uniform(-0.3, 0.3, 20000), (f"/m/{i % 2}",)) for i in range(4)}
    return bank_of(tmp_path_factory.mktemp("bank"), waves, numbered(2)).path


def test_command(bank, tmp_path, capsys):
    file = tmp_path / "out" / "bench.json"
    bench(
        [
            str(DEBUG),
            *"--seconds 1 --repeats 1 --threads 1 --device cpu".split(),
            "--data",
            str(bank),
            "--json",
            str(file),
        ]
    )
    out = capsys.readouterr().out
    assert "| care_sep | fp32 |" in out and "rendered pairs per second and core" in out
    found = json.loads(file.read_text())
    assert found["models"][0]["model"] == "care_sep" and found["data"]["need"][0][3] > 0


@pytest.mark.parametrize(
    "options, message",
    [
        (["none.yaml"], "none.yaml: no such file"),
        ([str(DEBUG), "--repeats", "0"], "--repeats must be above 0"),
        ([str(DEBUG), "--variants", "fp8"], "unknown variant 'fp8'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(DataError, match=message):
        bench(options)


def test_a_variant_that_the_processor_lacks_is_refused_before_anything_is_measured(monkeypatch, capsys):
    monkeypatch.setattr("espnet2_ext.core.layers.precision.has_vnni", lambda: False)
    with pytest.raises(DataError, match="int8: needs a processor with VNNI"):
        bench([str(DEBUG), "--variants", "fp32", "int8"])
    assert not capsys.readouterr().out
