"""RESULTS.md, figure and page of several experiments side by side."""

import numpy as np
import pytest
import soundfile
from test_report import Links
from tiny_classes import make_sources, write_data, write_outputs

from espnet2_ext.cli.score import report_classes
from espnet2_ext.cli.score import score as weak_scoring
from espnet2_ext.errors import DataError
from espnet2_ext.report import examples
from espnet2_ext.report.examples import excerpt, pick
from espnet2_ext.report.experiment import Experiment, Scored, ordering, parse_experiments, scored_on
from espnet2_ext.report.figures import density, draw_density
from espnet2_ext.report.results import class_report, write_results
from espnet2_ext.scores.score import score
from espnet2_ext.util.documents import read_json

LEAKS = {"strong": 0.1, "frame": 0.4, "clip": 0.3}


@pytest.fixture
def top(tmp_path):
    sources = make_sources()
    write_data(tmp_path / "data", sources)
    for label, leak in LEAKS.items():
        exp = tmp_path / f"exp/weak_x_{label}"
        write_outputs(exp / "inference_test", sources, leak, wrong=1)
        if label == "strong":
            (exp / "inference_test/activity.npz").unlink()
        (exp / "config.yaml").write_text(
            f"config: conf/x.yaml\nlabel_type: {label}\nstrategy: fixed\nclassifier: crnn\n"
            "seed: 1\n"
            f"train_table: {tmp_path / 'data/mixtures'}\n"
        )
        score(tmp_path / "data", exp / "inference_test", espnet_keys=0, num_workers=0)
    return tmp_path


def report(top):
    report_classes(
        [
            "--output_dir",
            str(top / "exp/weak_x_report"),
            "--test_set",
            "test",
            *(x for v in LEAKS for x in ("--experiment", f"{v}={top}/exp/weak_x_{v}")),
        ]
    )
    return top / "exp/weak_x_report"


def test_results_and_page(top, monkeypatch, capsys):
    monkeypatch.setattr(examples, "COUNT", 1)
    out = report(top)
    assert "test: Mean SI-SDR improvement over all sources, as measured: strong 19.96 > clip" in (
        capsys.readouterr().out
    )
    text = (out / "RESULTS.md").read_text()
    for piece in (
        "||bell|dog bark|wind|overall|",
        "|input SI-SDR|",
        "|ΔSI-SDR strong|",
        "|ΔSI-SDR clip|",
        "as measured: strong 19.96 > clip 10.43 > frame 7.93 dB",
        "not the order of the paper",
        "(Table V)",
        "|trained on clip labels|1.000|1.000|0.909|0.970|",
        "(Table IV)",
        "mean_events 2.0",
        "aa" * 16,
        "7 (14 events)",
        "13 (left out: 7 silent, 1 alone",
        "label type: `frame`",
        "conf/x.yaml",
        "training mixtures: `7 (14 events)`",
    ):
        assert piece in text, piece
    assert "trained on strong" not in text  # it has no classifier
    assert text.count("|trained on frame labels|") == 2 and text.count("|trained on clip") == 1
    page = (out / "index.html").read_text()
    assert "<th>class</th><th>reference</th><th>strong</th><th>frame</th><th>clip</th>" in page
    links = Links()
    links.feed(page)
    assert not links.open
    sources = [s for s in links.sources if not s.startswith("#")]
    assert all(not s.startswith(("http", "/", "data:")) for s in sources)
    assert all((out / s).stat().st_size > 0 for s in sources)
    sounds = [s for s in sources if s.endswith(".flac")]
    # the worst, a middle and the best: the mixture, 3 outputs a class, references that sound
    heard = sum(s.count("_reference") for s in sounds)
    assert len(sounds) == 3 * (1 + 9) + heard and heard >= 6 and len(set(sounds)) == len(sounds)
    for sound in sounds:
        x, fs = soundfile.read(out / sound)
        assert fs == 16000 and len(x) == 12800 and abs(x).max() <= 0.91
    assert len([s for s in sources if s.endswith(".png")]) == 3 + 1
    made = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    report(top)  # a second run writes nothing
    assert made == {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}


def test_one_experiment_alone(top):
    path = write_results(class_report(top / "r", [Experiment("clip", top / "exp/weak_x_clip")], ["test"]))
    text = path.read_text()
    assert "of the paper" not in text and "|ΔSI-SDR clip|" in text and "(Table IV)" not in text


def test_recordings_without_isolated_sounds(top, tmp_path):
    """One's own, of which labels alone are known: F-measures, and outputs to listen to."""
    data, inference = tmp_path / "data", tmp_path / "exp/weak_x_clip/inference_test"
    for name in ("spk1", "spk2", "spk3"):
        (data / f"{name}.scp").unlink()
    score(data, inference, num_workers=0)
    out = tmp_path / "r"
    report_classes(["--output_dir", str(out), "--test_set", "test", "--experiment", f"clip={inference.parent}"])
    text = (out / "RESULTS.md").read_text()
    assert "No source was scored" in text and "Table VI" not in text and "Table V)" in text
    page = (out / "index.html").read_text()
    assert page.count(".flac") == 2 * (1 + 3) and "density" not in page


def test_refusals(top, tmp_path):
    with pytest.raises(DataError, match="run the scoring first"):
        report_classes(["--output_dir", "x", "--test_set", "other", "--experiment", f"clip={top}/exp/weak_x_clip"])
    for texts in (["clip"], ["=x"], ["a=x", "a=y"]):
        with pytest.raises(DataError, match="expected LABEL=FOLDER"):
            parse_experiments(texts)
    sources = make_sources()
    write_data(tmp_path / "data2", sources, known="frame")
    exp = tmp_path / "exp/weak_x_clip/inference_test"
    score(tmp_path / "data2", exp, espnet_keys=0, num_workers=0)
    experiments = [Experiment(v, top / f"exp/weak_x_{v}") for v in ("frame", "clip")]
    with pytest.raises(DataError, match="scored on other mixtures than"):
        scored_on(experiments, "test")


def fake(label, gain):
    rows = [{"key": f"k{n}", "classes": {"a": {"input": 0.0, "gain": g}}} for n, g in enumerate(gain)]
    mean = {"gain": {"mean": float(np.mean(gain))}}
    return Scored(label, None, {"overall": mean, "classes": ["a"], "scores": {"a": {}}}, rows)


def test_ordering_in_words():
    text = ordering([fake("strong", [3.0]), fake("frame", [2.0]), fake("clip", [1.5])])
    assert "strong 3.00 > frame 2.00 > clip 1.50 dB (the order of the paper" in text
    assert "not the order" in ordering([fake("frame", [1.0]), fake("clip", [1.5])])
    assert "(" not in ordering([fake("mixed", [1.0])])


def test_examples_are_ranked_by_the_mean_over_labels():
    found = pick([fake("a", [5, 1, 2, 9, 3, 0]), fake("b", [6, 1, 2, 0, 3, 9])], count=1)
    assert found == {"worst": ["k1"], "median": ["k4"], "best": ["k0"]}
    two = pick([fake("a", [2, 1])])
    assert two == {"worst": ["k1"], "median": [], "best": ["k0"], "first": []}


def test_a_long_example_is_cut_where_all_sound(monkeypatch):
    monkeypatch.setattr(examples, "LONGEST", 2.0)
    fs = 100
    a, b = np.zeros((2, 1000))
    a[:500], b[400:] = 1, 1
    part = excerpt(a + b, [a, b], fs)
    assert part.stop - part.start == 200 and a[part].sum() >= 100 and b[part].sum() >= 100
    assert excerpt(a[:150], [a[:150]], fs) == slice(0, 150)


def test_density_is_highest_where_points_crowd():
    rng = np.random.default_rng(0)
    crowd, alone = rng.normal(0, 0.5, (200, 2)), np.array([[8.0, 8.0]])
    shade = density(np.concatenate([crowd, alone]), ((-10, 10), (-10, 10)))
    assert shade.max() == 1 and shade[-1] < 0.1 and shade[:200].mean() > 0.3


def test_figure_has_a_panel_a_class_and_label(top):
    scored = scored_on([Experiment(v, top / f"exp/weak_x_{v}") for v in LEAKS], "test")
    figure = draw_density(scored)
    axes = figure.axes
    assert len(axes) == 9 and len({a.get_xlim() for a in axes}) == 1
    assert len({a.get_ylim() for a in axes}) == 1
    assert [a.get_title("left") for a in axes[:3]] == ["bell", "dog bark", "wind"]


def test_means_go_over_the_folds(top, capsys):
    """The mean of each class and of all, over the folds and not over their sources; ± is that of n - 1."""
    folders = [str(top / f"exp/weak_x_{label}/inference_test") for label in ("strong", "clip")]
    weak_scoring(["--folds", *folders, "--out", str(top / "mean.json")])
    mean = read_json(top / "mean.json")
    summaries = [read_json(f"{folder}/scores/summary.json") for folder in folders]
    one, other = (s["overall"]["gain"]["mean"] for s in summaries)
    assert mean["overall"] == pytest.approx((one + other) / 2) and one != other
    assert mean["std"]["overall"] == pytest.approx(abs(one - other) / 2**0.5)
    bells = [s["scores"]["bell"]["gain"]["mean"] for s in summaries]
    assert [f["bell"] for f in mean["folds"]] == bells and mean["bell"] == pytest.approx(np.mean(bells))
    told = capsys.readouterr().out
    assert "|fold|sources|bell|dog bark|wind|overall|" in told and f"|{mean['overall']:.2f}|" in told
    with pytest.raises(SystemExit):
        weak_scoring(["--folds", *folders, "--data_dir", "x", "--inference_dir", "y"])
