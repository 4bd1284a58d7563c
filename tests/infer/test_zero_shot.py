"""A trained model on a corpus that it has not met: ESC-50's list, inference, scores, report."""

import csv
import json

import numpy as np
import pytest
import soundfile
from standin import noise

from espnet2_ext.bin import qsep_inference, qsep_scoring
from espnet2_ext.cli import data as steps
from espnet2_ext.cli.bundles import qsep_describe
from espnet2_ext.cli.score import report_queries
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.mixtures.pair_list import about_list, read_list
from espnet2_ext.data.tables import Label
from espnet2_ext.errors import DataError
from espnet2_ext.infer.pack import write_bundle
from espnet2_ext.train.experiment import describe_model, judge
from espnet2_ext.util.files import file_digest

FS, FOLDS = 16000, (1, 2)
CLASSES = ("dog", "rain", "sea_waves", "clock_tick", "rooster")  # as many as the stand-in tags


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A tiny ESC-50, one clip of each class a fold, brought as far as its bank."""
    top = tmp_path_factory.mktemp("esc50")
    (top / "ESC-50" / "meta").mkdir(parents=True)
    (top / "ESC-50" / "audio").mkdir()
    with open(top / "ESC-50/meta/esc50.csv", "w", newline="") as f:
        table = csv.writer(f)
        table.writerow(["filename", "fold", "target", "category", "esc10", "src_file", "take"])
        for fold in FOLDS:
            for k, name in enumerate(CLASSES):
                file = f"{fold}-{100 + k}-A-{k}.wav"
                x = noise(0.6, FS, 1, seed=10 * fold + k)
                soundfile.write(top / "ESC-50/audio" / file, x, FS)
                table.writerow([file, fold, k, name, True, 100 + k, "A"])
    steps.prepare(
        ["esc50", "--esc50", str(top / "ESC-50"), "--data_dir", str(top / "data"), "--set", "folds12", *map(str, FOLDS)]
    )
    steps.scan([str(top / "data/folds12"), "--num_workers", "0"])
    steps.archive(
        [
            str(top / "data/folds12"),
            str(top / "dump/folds12"),
            "--labels",
            str(top / "data/labels.tsv"),
            "--fs",
            str(FS),
            "--num_workers",
            "0",
        ]
    )
    return top


def draw(data, name="pairs.tsv", seed=0):
    path = data / "data/folds12" / name
    steps.draw_lists(["--bank", str(data / "dump/folds12"), "--out", str(path), "--seed", str(seed)])
    return path


@pytest.fixture
def rendered(data):
    steps.render_lists(
        [
            "--list",
            str(draw(data)),
            "--bank",
            str(data / "dump/folds12"),
            "--out",
            str(data / "dump/folds12_pairs"),
            "--num_workers",
            "0",
        ]
    )
    return data / "dump/folds12_pairs"


def test_every_clip_has_a_partner_of_another_category(data):
    bank = ClipBank(data / "dump/folds12")
    pairs = read_list(draw(data), bank)
    assert [p.clip1 for p in pairs] == [bank.id(i) for i in range(len(bank))]
    assert len(pairs) == len(FOLDS) * len(CLASSES)
    category = {bank.id(i): int(bank.labels(i)[0]) for i in range(len(bank))}
    for p in pairs:
        assert category[p.clip1] == p.class1 != p.class2 == category[p.clip2]
        assert p.num == round(0.6 * FS)


def test_the_list_depends_on_the_seed_alone(data):
    first, again = draw(data, "a.tsv"), draw(data, "b.tsv")
    assert first.read_bytes() == again.read_bytes() != draw(data, "c.tsv", seed=1).read_bytes()
    assert about_list(first)["list_hash"] == file_digest(first)
    made = first.stat().st_mtime_ns
    assert draw(data, "a.tsv").stat().st_mtime_ns == made


def test_a_bundle_is_scored_and_the_report_says_zero_shot(rendered, toy_bundle, tmp_path):
    exp = tmp_path / "exp/zero_shot/qsep_toy"
    out = exp / "inference_folds12"

    def score():
        qsep_inference.main(
            ["--data_dir", str(rendered), "--output_dir", str(out), "--bundle", str(toy_bundle), "--device", "cpu"]
        )
        qsep_scoring.main(
            ["--data_dir", str(rendered), "--inference_dir", str(out), "--espnet_keys", "0", "--num_workers", "0"]
        )
        qsep_describe(["--exp_dir", str(exp), "--bundle", str(toy_bundle), "--labels", str(rendered / "labels.tsv")])
        report_queries(["--exp_dir", str(exp), "--inference_dir", str(out)])

    score()
    # the stand-in tags five classes, but not these five
    assert not (out / "self/tags.npz").exists()
    summary = json.loads((out / "scores/summary.json").read_text())
    assert summary["tagging"] == {} and summary["keys"] == 20 and summary["list"]["pairs"] == 10
    rows = [json.loads(line) for line in (out / "scores/scores.jsonl").read_text().splitlines()]
    for protocol, figures in summary["protocols"].items():
        first = [row[protocol]["sdr"] for row in rows if row["key"].endswith("-1")]
        assert figures["first_targets"]["sdr"]["count"] == len(first) == 10
        assert figures["first_targets"]["sdr"]["mean"] == pytest.approx(np.mean(first))
    text = (exp / "RESULTS.md").read_text()
    assert "- zero-shot: `yes, 0 of the test set's 5 classes are among the model's 5" in text
    assert "both targets of each mixture" in text and "#### First targets" in text
    assert "- mAP: `none: " in text and "#### Tagging" not in text
    assert f"- list hash: `{summary['list']['list_hash']}`" in text
    assert "`self`: the query is the clean target itself; `other`: another" in text.replace(
        "`other`: the query is another", "`other`: another"
    )
    assert "zero-shot" in (exp / "report/index.html").read_text()
    about = json.loads((exp / "model.json").read_text())
    assert about["zero_shot"] is True and about["trained_on"] == {"manifest_hash": "abc123"}
    assert "model_conf" in (exp / "config.yaml").read_text()

    made = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    score()  # nothing is done twice
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()} == made


@pytest.mark.parametrize(
    "trained_on, words", [({"clips": 9, "hours": 0.5}, "clips 9, hours 0.5"), ("bells, 2 hours", "bells, 2 hours")]
)
def test_what_a_model_was_trained_on_is_told_as_its_bundle_says_it(tmp_path, trained_on, words):
    about = describe_model(tmp_path, "model.zip", {}, [], {"trained_on": trained_on}, [])
    assert about["facts"]["trained on"] == words and about["trained_on"] == trained_on


def test_an_experiments_files_are_scored_too(rendered, exp, tmp_path):
    model = ["--train_config", str(exp / "config.yaml"), "--model_file", str(exp / "valid.loss.ave.pth")]
    (exp / "labels.tsv").unlink()
    run = ["--data_dir", str(rendered), "--passes", "mixture", "--protocols", "self", "--device", "cpu", *model]
    qsep_inference.main(["--output_dir", str(tmp_path / "a"), *run])
    qsep_inference.main(["--output_dir", str(tmp_path / "b"), "--no_tags", *run])
    assert (tmp_path / "a/self/tags.npz").exists() and not (tmp_path / "b/self/tags.npz").exists()
    qsep_describe(["--exp_dir", str(tmp_path / "b"), "--labels", str(rendered / "labels.tsv"), *model])
    about = json.loads((tmp_path / "b/model.json").read_text())
    assert about["zero_shot"] is None and "not known" in about["facts"]["zero-shot"]
    with pytest.raises(DataError, match="nothing.pth: no such file"):
        qsep_describe(
            [
                "--exp_dir",
                str(tmp_path),
                "--labels",
                str(rendered / "labels.tsv"),
                "--train_config",
                str(exp / "config.yaml"),
                "--model_file",
                "nothing.pth",
            ]
        )


def test_a_bundle_that_tells_no_classes_is_not_scored_as_a_tagger(rendered, exp, tmp_path):
    (tmp_path / "labels.tsv").write_text("index\tmid\tname\trelated\n")  # none
    write_bundle(exp / "config.yaml", exp / "valid.loss.ave.pth", tmp_path / "labels.tsv", tmp_path / "untold.zip")
    qsep_inference.main(
        [
            "--data_dir",
            str(rendered),
            "--output_dir",
            str(tmp_path / "inf"),
            "--bundle",
            str(tmp_path / "untold.zip"),
            "--device",
            "cpu",
        ]
    )
    assert (tmp_path / "inf/self/queries.npz").exists()
    assert not (tmp_path / "inf/self/tags.npz").exists()  # it tags as many, but who knows what


def test_who_was_trained_on_the_corpus_is_not_zero_shot():
    def labels(*mids):
        return [Label(i, mid, mid) for i, mid in enumerate(mids)]

    assert judge(labels("/m/dog", "/m/rain"), labels("dog", "rain"))[0] is True
    zero_shot, words = judge([Label(0, "/m/1", "Dog"), Label(1, "/m/2", "Cat")], labels("dog", "rain"))
    assert zero_shot is True
    assert "0 of the test set's 2 classes are among the model's 2, 1 more by name (dog)," in words
    zero_shot, words = judge(labels("dog", "rain", "cat"), labels("dog", "rain"))
    assert zero_shot is False and "2 of the test set's 2 classes" in words
    assert judge(labels("dog", "cat"), labels("dog", "rain"))[0] is True
    assert judge([], labels("dog"))[0] is None
