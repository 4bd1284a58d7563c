"""What the benchmark of weak labels counts and says, not how fast anything is."""

import json

import pytest
import torch
from torch import nn

from espnet2_ext.bench import measure, plain_weak, weak
from espnet2_ext.bench.configs import Options, build, kind_of
from espnet2_ext.cli.papers import bench
from espnet2_ext.core.losses.in_parts import in_parts
from espnet2_ext.errors import DataError

CPU = torch.device("cpu")
SMALL = Options(seconds=1.0, repeats=1, device="cpu", batch=2, clip=0.5, song=1.5)


@pytest.mark.parametrize("grad", [False, True])
def test_flops_of_an_lstm_by_hand(grad):
    lstm, x = nn.LSTM(7, 5, 2, batch_first=True, bidirectional=True), torch.zeros(3, 11, 7)
    frames, gates = 3 * 11, 4 * 5
    once = 2 * frames * gates * 2 * ((7 + 5) + (10 + 5))  # two directions; layer 1 and layer 2

    def call():
        out = lstm(x)[0]
        return out.sum().backward() if grad else out

    with torch.set_grad_enabled(grad):
        assert measure.gflop(call) * 1e9 == pytest.approx(3 * once if grad else once)


def test_flops_inside_a_gradient_in_parts():
    frozen, x = nn.Linear(3, 2).requires_grad_(False), torch.zeros(4, 3, requires_grad=True)
    counted = measure.gflop(lambda: in_parts(lambda p, _: frozen(p).sum(1), x, 2).sum().backward())
    assert counted * 1e9 == pytest.approx(2 * (2 * 4 * 3 * 2))  # forward, and back to x


def test_operations_are_in_proportion_to_the_batch(weak_yaml):
    model = build(weak_yaml, CPU)[0].train()
    one, three = (
        {name: measure.gflop(call) for name, call in weak._calls(model, batch, 0.5, CPU).items()} for batch in (1, 3)
    )
    assert three == pytest.approx({name: 3 * x for name, x in one.items()})


def test_training_row(weak_yaml):
    row = weak.bench_training(str(weak_yaml), SMALL)
    model = build(weak_yaml, CPU)[0]
    assert row["separator_m"] == measure.parameters(model.separator)
    assert row["classifier_m"] == measure.parameters(model.classifier)
    assert 0 < row["gflop"]["classes"] < row["gflop"]["step"]
    assert 0 < row["start_mb"] <= row["peak_mb"]
    assert None not in [cell(row) for cell in weak.TRAINING.values()]


@pytest.mark.parametrize(
    "option", [("--label_type", "clip"), ("--label_type", "mixed"), ("--strategy", "joint"), ("--residual", "true")]
)
def test_steps_of_every_kind(weak_yaml, option):
    model = build(weak_yaml, CPU, *option)[0].train()
    for call in weak._calls(model, 2, 0.25, CPU).values():
        call()


def test_strong_labels_have_no_classifier(weak_yaml):
    model = build(weak_yaml, CPU, "--label_type", "strong")[0].train()
    calls = weak._calls(model, 2, 0.25, CPU)
    assert set(calls) == {"step"} and calls["step"]() > 0


def test_a_step_learns(weak_yaml):
    model = build(weak_yaml, CPU)[0].train()
    before = [p.detach().clone() for p in model.separator.parameters()]
    weak.training_step(model, weak.training_batch(model, 2, 0.5, CPU))()
    assert all(not torch.equal(a, b) for a, b in zip(before, model.separator.parameters()))


def test_inference_row(weak_yaml):
    row = weak.bench_inference(str(weak_yaml), SMALL)
    assert row["time"].keys() == {"clip", "song", "clip_tags", "song_tags"}
    assert row["real_time"]["song"] == pytest.approx(row["time"]["song"]["s"] / 1.5)
    assert row["real_time"]["clip_tags"] == pytest.approx(row["time"]["clip_tags"]["s"] / 1.0)
    cells = {name: cell(row) for name, cell in weak.INFERENCE.items()}
    assert cells["with activity"] == pytest.approx(row["real_time"]["song"] + row["real_time"]["song_tags"])


def times(s, lost=0.0):
    return {"s": s, "low": s, "high": s, "lost": lost}


def test_verdicts_by_hand():
    apart = {"peak_mb": 8000.0, "start_mb": 500.0, "time": times(40.0)}
    rows = {
        "paper": {
            "ours": times(10.0),
            "plain": times(30.0),
            "plain_apart": apart,
            "plain_untouched": apart | {"peak_mb": 7500.0},
            "loss": {"ours": 1.25, "plain": 1.25},
        },
        "small": {"ours": times(1.0)},
    }
    paper, small = plain_weak.verdicts(rows, [{"model": "paper", "peak_mb": 2000.0}])
    assert "takes 10.00 s, plain 30.00 s: ratio 1/3.0" in paper
    assert "peak 2000 MB against 8000 MB: ratio 1/4.0" in paper
    assert "40.00 s, 7500 MB" in paper and "1.25 and 1.25" in paper
    assert small.startswith("small: no plain version")
    rows["small"]["ours"]["lost"] = 0.7
    assert plain_weak.verdicts(rows, [])[-1].startswith("NOT VALID: other processes took up to")
    assert "peak" not in plain_weak.verdicts(rows, [])[0]
    assert [r["name"] for r in plain_weak.table_rows(rows)] == ["paper, ours", "paper, plain", "small, ours"]


def test_command(weak_yaml, here, tmp_path, capsys):
    file = tmp_path / "bench.json"
    other = weak_yaml.with_name("train_weak_other.yaml")
    other.write_text(weak_yaml.read_text().replace("magnitude", "share"))
    bench(
        [
            str(weak_yaml),
            str(other),
            *"--against plain --batch 2 --clip 0.25 --song 1 --seconds 0.5 --repeats 1 --threads 1".split(),
            *"--device cpu".split(),
            "--json",
            str(file),
        ]
    )
    out, found = capsys.readouterr().out, json.loads(file.read_text())["weak"]
    assert "weak_tiny: a step takes" in out and "weak_other: no plain version" in out
    loss = found["against"]["weak_tiny"]["loss"]
    assert loss["ours"] == pytest.approx(loss["plain"], rel=1e-5)
    gflop = found["against"]["weak_tiny"]["gflop"]
    assert gflop["ours"] == pytest.approx(found["training"][0]["gflop"]["step"])
    assert gflop["plain"] == pytest.approx(gflop["ours"], rel=0.02)
    assert [row["model"] for row in found["inference"]] == ["weak_tiny", "weak_other"]


def test_kind_of_a_yaml(weak_yaml, tmp_path):
    assert kind_of(weak_yaml) == "weak"
    text = {"tag": "query_net: cnn14", "qsep": "extractor: care_sep\nquery_net: cnn14"}
    for kind, conf in text.items():
        (tmp_path / kind).write_text(conf)
        assert kind_of(tmp_path / kind) == kind
    (tmp_path / "list").write_text("- 1")
    (tmp_path / "broken").write_text("a: [")
    for name in ("list", "broken", "none"):
        with pytest.raises(DataError, match=name):
            kind_of(tmp_path / name)


@pytest.mark.parametrize("option", ["--batch", "--clip", "--song"])
def test_bad_options_are_named(weak_yaml, option):
    with pytest.raises(DataError, match=f"{option} must be above 0"):
        bench([str(weak_yaml), option, "0"])
