"""RESULTS.md, figures and page of a tiny experiment."""

import html.parser

import pytest
import soundfile

from espnet2_ext.cli.score import report_queries
from espnet2_ext.errors import DataError
from espnet2_ext.report.examples import Example, Listening, Sound
from espnet2_ext.report.page import render
from espnet2_ext.report.results import markdown
from espnet2_ext.report.tables import Table
from espnet2_ext.scores.score import score
from espnet2_ext.scores.summary import examples
from espnet2_ext.train.experiment import facts, training_curves

LOG = """\
    Total Number of model parameters: 1.93 M
[host] (trainer:1) INFO: 1epoch results: [train] loss=2.500, lr=1e-03, \
time=1 minute and 3 seconds, total_count=20, \
[valid] loss=3.000, sdr=-1.500e-01, time=2.1 seconds, total_count=4
[host] (trainer:1) INFO: 2epoch results: [train] loss=1.500, [valid] loss=2.000, sdr=1.000
[host] (trainer:1) INFO: 2epoch results: [train] loss=1.400, [valid] loss=1.900, sdr=1.100
"""


@pytest.fixture
def experiment(scored):
    data, inference, _ = scored
    score(data, inference, espnet_keys=0, num_workers=0)
    exp = inference.parent
    (exp / "config.yaml").write_text("config: conf/train_x.yaml\nseed: 3\n")
    (exp / "train.log").write_text(LOG)
    return exp


class Links(html.parser.HTMLParser):
    """Collects what a page loads and checks that its elements are closed."""

    VOID = {"meta", "img"}

    def __init__(self):
        super().__init__()
        self.sources, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_results_and_page(experiment):
    report_queries(["--exp_dir", str(experiment)])
    text = (experiment / "RESULTS.md").read_text()
    for piece in (
        "python version",
        "espnet 202611",
        "conf/train_x.yaml",
        "seed: `3`",
        "1.93 M",
        "aa" * 16,
        "bb" * 16,
        "6 in 3 mixtures",
        "|self|",
        "|other|",
        "mAP",
        "|Wind|3|",
    ):
        assert piece in text, piece
    assert text.index("|Wind|") < text.index("|Bell|")
    index = experiment / "report/index.html"
    links = Links()
    links.feed(index.read_text())
    assert not links.open
    sources = [s for s in links.sources if not s.startswith("#")]
    assert all(not s.startswith(("http", "/", "data:")) for s in sources)
    assert all((index.parent / s).stat().st_size > 0 for s in sources)
    sounds = [s for s in sources if s.endswith(".flac")]
    # 4 keys with a gain: the worst, one in the middle and the best; five sounds, two protocols
    assert len(sounds) == 2 * 3 * 5
    for sound in sounds:
        audio, fs = soundfile.read(index.parent / sound)
        assert fs == 16000 and len(audio) == 16000 and abs(audio).max() <= 0.95
    assert len([s for s in sources if s.endswith(".png")]) == 3 + 2 * 3 + 1
    made = {p: p.stat().st_mtime_ns for p in experiment.rglob("*") if p.is_file()}
    report_queries(["--exp_dir", str(experiment)])  # a second run writes nothing
    assert made == {p: p.stat().st_mtime_ns for p in experiment.rglob("*") if p.is_file()}


def test_names_are_escaped(tmp_path):
    table = Table("title", "note", ["class", "gain"], [["a|b <i>", "1.00"]])
    assert markdown(table)[2] == "|a\\|b <i>|1.00|"
    section = {"id": "<i>", "title": "<set>", "text": "", "facts": {}, "tables": [table], "pictures": {}}
    content = {"name": "<n>", "stamp": "", "trainings": [], "formulas": {"<f>": "a < b"}}
    page = render(tmp_path, title="<x>", sections=[section | {"listening": []}], **content)
    assert "<td>a|b &lt;i&gt;</td>" in page and "<dt>&lt;f&gt;</dt><dd>a &lt; b</dd>" in page
    assert "<h1>&lt;x&gt;</h1>" in page and "<h2>&lt;set&gt;</h2>" in page


def test_a_page_is_for_listening_first(tmp_path):
    def example(rank):
        return Example(rank, f"{rank} one", "", tmp_path / "p.png", {"mixture": Sound(tmp_path / "m.flac")}, {})

    table = Table("A table", "", ["class", "gain"], [["x", "1.00"]])
    listening = [Listening("Listen", "", [example("worst"), example("best"), example("median")])]
    section = {"id": "i", "title": "t", "text": "", "facts": {}, "tables": [table], "pictures": {}}
    content = {"name": "n", "stamp": "", "trainings": [], "formulas": {}}
    page = render(tmp_path, title="x", sections=[section | {"listening": listening}], **content)
    places = [page.index(text) for text in ("median one", "worst one", "best one", "A table")]
    assert places == sorted(places) and page.count("<audio") == 3


def test_nothing_scored_is_an_error(tmp_path, experiment):
    with pytest.raises(DataError, match="run the scoring first"):
        report_queries(["--exp_dir", str(tmp_path / "none")])
    with pytest.raises(DataError, match="scores/summary.json: no such file; run the scoring"):
        report_queries(["--exp_dir", str(experiment), "--inference_dir", str(tmp_path / "none")])
    with pytest.raises(SystemExit):
        report_queries(["--exp_dir", str(experiment), "--data_dir", "x"])


def test_curves_and_facts_from_the_log(experiment):
    curves = training_curves(experiment)
    assert curves["loss"] == {"train": {1: 2.5, 2: 1.4}, "valid": {1: 3.0, 2: 1.9}}
    assert curves["sdr"]["valid"] == {1: -0.15, 2: 1.1} and "train" not in curves["sdr"]
    assert "time" not in curves  # a span of time is no number
    assert facts(experiment) == {"config": "conf/train_x.yaml", "seed": "3", "parameters": "1.93 M"}


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 8, 50])
def test_examples_are_ordered_and_never_twice(count):
    rows = [{"key": f"k{n:02d}", "self": {"sdr_gain": float(n)}} for n in range(count)]
    rows.append({"key": "silent", "self": {"sdr_gain": None}})
    found = examples(rows[::-1], "self")
    keys = [key for rank in found.values() for key in rank]
    assert len(keys) == len(set(keys)) and "silent" not in keys
    if count:
        assert found["worst"][0] == "k00"
    if count >= 2:
        assert found["best"][0] == f"k{count - 1:02d}"
