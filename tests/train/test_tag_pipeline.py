"""The tagger pipeline through its entry points: training, tags, scores, anchors."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tag_standin import FS, BandTagger, registered, tone, write_bank, write_tones

from espnet2_ext.bin import tag_inference, tag_scoring
from espnet2_ext.cli.infer import tag_anchors
from espnet2_ext.cli.score import report_tags
from espnet2_ext.cli.train import tag_check, tag_train
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.bank.per_clip import AnchorTable
from espnet2_ext.data.tables import Label, write_labels
from espnet2_ext.errors import DataError
from espnet2_ext.infer import folder
from espnet2_ext.infer.tagger import TaggerInference
from espnet2_ext.util.files import read_record, write_record


@pytest.fixture(scope="module", autouse=True)
def bands():
    with registered():
        yield


@pytest.fixture(scope="module")
def banks(tmp_path_factory):
    top = tmp_path_factory.mktemp("banks")
    return write_tones(top / "train", 3), write_tones(top / "test", 2, seed=1)


def options(banks, out, *more):
    given = ["--train_bank", banks[0].path, "--valid_bank", banks[1].path, "--output_dir", out]
    given += "--query_net bands --ngpu 0 --batch_size 4 --num_iters_per_epoch 1 --max_epoch 2 --num_workers 0".split()
    given += "--optim adam --optim_conf lr=0.1 --tag_conf segment=0.5 --tag_conf mixup_alpha=0.5".split()
    given += "--use_tensorboard false --use_matplotlib false --keep_nbest_models 1".split()
    given += ["--best_model_criterion", "valid,loss,min"]
    return [str(x) for x in [*given, *more]]


@pytest.fixture(scope="module")
def trained(banks, tmp_path_factory):
    out = tmp_path_factory.mktemp("exp") / "tag"
    tag_train(options(banks, out))
    return out


@pytest.fixture(scope="module")
def known(banks, trained, tmp_path_factory):
    """The experiment with weights set by hand: each band's energy is its class."""
    out = tmp_path_factory.mktemp("known")
    for name in ("config.yaml", "labels.tsv"):
        shutil.copy(trained / name, out)
    net = BandTagger().know()
    torch.save({f"net.{k}": v for k, v in net.state_dict().items()}, out / "best.pth")
    return out


def model(exp, name="best.pth"):
    return ["--train_config", str(exp / "config.yaml"), "--model_file", str(exp / name)]


def test_training_takes_steps_and_leaves_what_users_of_it_need(banks, trained):
    weights = torch.load(trained / "valid.loss.best.pth", weights_only=True)
    assert weights.keys() == {"net.head.weight", "net.head.bias"}
    assert (trained / "labels.tsv").read_text() == (banks[0].path / "labels.tsv").read_text()
    assert (trained / "2epoch.pth").exists() or (trained / "1epoch.pth").exists()


def test_whole_pipeline_with_a_trained_tagger(banks, trained, tmp_path):
    best = model(trained, "valid.loss.best.pth")
    tag_inference.main(["--bank", str(banks[1].path), "--output_dir", str(tmp_path / "t"), *best])
    tag_scoring.main(["--bank", str(banks[1].path), "--tags_dir", str(tmp_path / "t")])
    tag_anchors(["--bank", str(banks[0].path), "--out", str(tmp_path / "a.npz"), *best])
    scores = json.loads((tmp_path / "t/scores.json").read_text())
    assert 0 <= scores["map"] <= 1 and len(scores["classes"]) == 4 and scores["keys"] == 8
    AnchorTable(tmp_path / "a.npz").check(banks[0], 2 * FS)


def test_tags_scores_and_report_of_a_tagger_that_knows(banks, known, tmp_path, capsys):
    out = tmp_path / "tagging_test"
    args = ["--bank", str(banks[1].path), "--output_dir", str(out), "--frames", *model(known)]
    tag_inference.main(args)
    with np.load(out / "tags.npz") as z:
        keys, clipwise = z["keys"], z["clipwise"]
    assert keys.tolist() == [banks[1].id(i) for i in range(8)]
    net = BandTagger().know()
    for i in range(8):  # batches change nothing
        wave = torch.from_numpy(banks[1].read(i))[None]
        assert np.allclose(clipwise[i], net(wave).clipwise.sigmoid().detach()[0], atol=1e-5)
    with np.load(out / "activity.npz") as z:
        a, b = z["indptr"][3:5]
        edges, frame = z["edges"][a + 3 : b + 4], z["frame"][a:b]
    assert frame.shape == (b - a, 4) and edges[[0, -1]].tolist() == [0, banks[1].num_samples(3)]
    tag_scoring.main(["--bank", str(banks[1].path), "--tags_dir", str(out)])
    assert "mAP 1.0000, accuracy 1.0000, 8 clips" in capsys.readouterr().out
    scores = json.loads((out / "scores.json").read_text())
    assert scores["classes"]["/m/2"] == {"name": "Tone 2", "ap": 1.0, "clips": 2}
    report_tags(["--exp_dir", str(tmp_path), "--tags_dir", str(out)])
    text = (tmp_path / "RESULTS.md").read_text()
    assert "|tagging_test|1.0000|1.0000|4|0|8|" in text and "|Tone 3|2|1.0000|" in text
    args.remove("--frames")
    tag_inference.main(args)  # made anew, and no frames of former tags are left
    assert (out / "tags.npz").exists() and not (out / "activity.npz").exists()
    with pytest.raises(DataError, match="scores of other tags than lie there now"):
        report_tags(["--exp_dir", str(tmp_path), "--tags_dir", str(out)])


def test_means_go_over_the_folds(tmp_path, capsys):
    for n, (accuracy, map_) in enumerate([(0.5, 0.6), (1.0, 0.8)]):
        (tmp_path / f"f{n}").mkdir()
        values = {"map": map_, "accuracy": accuracy, "keys": 10 * (n + 1)}
        (tmp_path / f"f{n}/scores.json").write_text(json.dumps(values))
    out = tmp_path / "mean/scores.json"
    tag_scoring.main(["--folds", str(tmp_path / "f0"), str(tmp_path / "f1"), "--out", str(out)])
    mean = json.loads(out.read_text())
    assert mean["accuracy"] == 0.75 and mean["map"] == pytest.approx(0.7) and mean["keys"] == 30
    assert mean["std"]["accuracy"] == pytest.approx(0.5 / 2**0.5)
    assert "|mean|30|0.7500|0.7000|" in capsys.readouterr().out


def test_tagging_goes_on_where_it_was_stopped(banks, known, tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "part_size", lambda clips, most: 3)
    heard, hear = [], TaggerInference.tag

    def stopping(self, waves):
        heard.append(len(waves))
        if sum(heard) > 4 and not (tmp_path / "on").exists():
            raise RuntimeError("stopped")
        return hear(self, waves)

    monkeypatch.setattr(TaggerInference, "tag", stopping)
    args = ["--bank", str(banks[1].path), "--output_dir", str(tmp_path / "t"), *model(known)]
    args += ["--batch_size", "1"]
    with pytest.raises(RuntimeError, match="stopped"):
        tag_inference.main(args)
    assert not (tmp_path / "t/tags.npz").exists()
    (tmp_path / "on").touch()
    heard.clear()
    tag_inference.main(args)
    assert sum(heard) == 5  # the first part of three was there
    heard.clear()
    tag_inference.main(args)
    assert heard == []  # all was there


@pytest.mark.parametrize("frames", [True, False])
def test_anchors_are_where_the_tones_are(known, tmp_path, frames):
    """Tones of half a second; frames of 0.05 s, or windows every eighth of a second."""
    mix = tone(0, FS * 2, 2000, 6000) + tone(2, FS * 2, 10000, 14000)
    waves = {"both": (mix, (0, 2)), "one": (tone(1, FS * 2, 6000, 10000), (1,)), "short": (tone(3, 4000), (3,))}
    bank = write_bank(tmp_path / "b", waves)
    config = yaml.safe_load((known / "config.yaml").read_text())
    config["query_net_conf"] = {"frames": frames}
    for name in ("labels.tsv", "best.pth"):
        shutil.copy(known / name, tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    args = ["--bank", str(bank.path), "--out", str(tmp_path / "a.npz"), "--segment", "0.5"]
    tag_anchors(args + model(tmp_path))
    table = AnchorTable(tmp_path / "a.npz")
    expected = {(0, 0): 2000, (0, 2): 10000, (1, 1): 6000, (2, 3): 0}
    assert {key: table(*key, 4000) for key in expected} == expected
    stamp = (tmp_path / "a.npz").stat().st_mtime_ns
    tag_anchors(args + model(tmp_path))
    assert (tmp_path / "a.npz").stat().st_mtime_ns == stamp  # is there
    tag_anchors([*args, *model(tmp_path), "--segment", "1"])
    assert AnchorTable(tmp_path / "a.npz").num == FS and not list(tmp_path.glob("*.parts"))


def test_check_reads_data_and_takes_a_step(banks, tmp_path, caplog):
    with caplog.at_level("INFO"):
        tag_check(options(banks, tmp_path / "check"))
    assert "speech: [4, 4000]" in caplog.text and "first step: loss" in caplog.text


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more, message",
    [
        (["--tag_conf", "segmnt=1"], "tag_conf: unknown key 'segmnt'"),
        (["--query_net_conf", "hopp=1"], "query_net_conf of bands: unknown key 'hopp'"),
        (["--train_bank", "nowhere"], "nowhere/bank.json: no such file"),
        (["--query_net_conf", "num_classes=5"], "has 4 classes, the network tags 5"),
        (["--query_net_conf", "sample_rate=16000"], "at 8000 Hz, but the network at 16000 Hz"),
    ],
)
def test_bad_options_are_named(banks, tmp_path, more, message):
    with pytest.raises(DataError, match=message):
        tag_train(options(banks, tmp_path / "bad", *more))


def test_unknown_keys_of_a_yaml_are_named(banks, tmp_path):
    (tmp_path / "train.yaml").write_text("query_net: bands\nbatch_sise: 3\n")
    with pytest.raises(DataError, match="batch_sise"):
        tag_train(options(banks, tmp_path, "--config", tmp_path / "train.yaml"))


def other_classes(bank: ClipBank, top: Path) -> Path:
    """The bank with a table of other classes."""
    shutil.copytree(bank.path, top)
    write_labels(top / "labels.tsv", [Label(k, f"/o/{k}", f"Other {k}") for k in range(4)])
    write_record(top / "bank.json", read_record(top / "bank.json"))  # without the checksum of the table before
    return top


def test_banks_of_other_classes_are_refused(banks, known, tmp_path):
    other = other_classes(banks[1], tmp_path / "other")
    with pytest.raises(DataError, match="other: its classes are not those of .*train"):
        tag_train(options(banks, tmp_path / "t", "--valid_bank", other))
    with pytest.raises(DataError, match="other: its classes are not those that the tagger"):
        tag_inference.main(["--bank", str(other), "--output_dir", str(tmp_path / "o"), *model(known)])


def test_a_training_of_other_classes_is_left_as_it_is(banks, trained, tmp_path):
    exp = shutil.copytree(trained, tmp_path / "exp")
    other = ClipBank(other_classes(banks[0], tmp_path / "other"))
    tag_check(options((other, other), exp))
    assert (exp / "labels.tsv").read_bytes() == (trained / "labels.tsv").read_bytes()
    with pytest.raises(DataError, match="labels.tsv: the training was begun with other classes"):
        tag_train(options((other, other), exp, "--resume", "true"))
    assert (exp / "labels.tsv").read_bytes() == (trained / "labels.tsv").read_bytes()


def test_tags_of_a_bank_with_other_classes_are_made_anew(banks, known, tmp_path):
    out = tmp_path / "o"
    tag_inference.main(["--bank", str(banks[0].path), "--output_dir", str(out), *model(known)])
    other = other_classes(banks[0], tmp_path / "other")
    with pytest.raises(DataError, match="is of other clips or classes than .*other"):
        tag_scoring.main(["--bank", str(other), "--tags_dir", str(out)])
    with pytest.raises(DataError, match="other: its classes are not those that the tagger"):
        tag_inference.main(["--bank", str(other), "--output_dir", str(out), *model(known)])


def test_banks_without_labels_are_refused(banks, known, tmp_path):
    bare = write_bank(tmp_path / "bare", {"a": (tone(0, 8000), ()), "b": (tone(1, 8000), ())})
    with pytest.raises(DataError, match="bare.*: no clip has a label"):
        tag_train(options((bare, banks[1]), tmp_path / "t"))
    out = ["--bank", str(bare.path), "--output_dir", str(tmp_path / "o"), *model(known)]
    tag_inference.main(out)  # tags need none
    with pytest.raises(DataError, match="bare.*: no clip has a label"):
        tag_scoring.main(["--bank", str(bare.path), "--tags_dir", str(tmp_path / "o")])


def test_tags_of_other_clips_are_not_scored(banks, known, tmp_path):
    out = str(tmp_path / "o")
    with pytest.raises(DataError, match="o/about.json: no such file"):
        tag_scoring.main(["--bank", str(banks[0].path), "--tags_dir", out])
    tag_inference.main(["--bank", str(banks[1].path), "--output_dir", out, *model(known)])
    with pytest.raises(DataError, match="tags.npz: is of other clips or classes than"):
        tag_scoring.main(["--bank", str(banks[0].path), "--tags_dir", out])


def test_a_configuration_of_something_else_is_named(banks, known, tmp_path):
    (tmp_path / "config.yaml").write_text("separator: x\n")
    args = ["--train_config", str(tmp_path / "config.yaml"), *model(known)[2:], "--bank", str(banks[1].path)]
    with pytest.raises(DataError, match="config.yaml: does not build a tagger: .*query_net"):
        tag_inference.main([*args, "--output_dir", str(tmp_path / "o")])


def test_frames_of_a_network_without_are_refused(banks, known, tmp_path):
    config = yaml.safe_load((known / "config.yaml").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config | {"query_net_conf": {"frames": False}}))
    args = ["--train_config", str(tmp_path / "config.yaml"), *model(known)[2:], "--bank", str(banks[1].path)]
    with pytest.raises(DataError, match="best.pth: this network's tags have no frames"):
        tag_inference.main([*args, "--output_dir", str(tmp_path / "o"), "--frames"])
