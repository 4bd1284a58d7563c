"""Real training by query from weak labels: both parts, resume, a bundle that answers examples and classes."""

import numpy as np
import pytest
import soundfile
import torch
from weak_corpus import CLASSES, trainer, write_config

from espnet2_ext.audio.read import read_audio
from espnet2_ext.cli.infer import class_queries, weak_inference
from espnet2_ext.cli.train import qweak_train
from espnet2_ext.core.separators import TRAINING
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.mixtures.event_table import MixtureTable
from espnet2_ext.data.mixtures.render import render_mixtures
from espnet2_ext.data.outputs import read_about
from espnet2_ext.errors import DataError
from espnet2_ext.infer.class_folder import examples_of
from espnet2_ext.infer.pack import write_bundle
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.util.tables import read_scp

DEBUG = "conf/debug/train_qweak.yaml"


@pytest.fixture(scope="module")
def run(weak_corpus, tmp_path_factory):
    return trainer(weak_corpus, write_config(weak_corpus / "qweak.yaml", DEBUG), qweak_train, tmp_path_factory)


@pytest.fixture(scope="module")
def classifier(run):
    return run("--part", "classifier", "--label_type", "clip") / "latest.pth"


@pytest.fixture(scope="module")
def trained(run, classifier):
    return run("--label_type", "clip", "--strategy", "finetune", "--classifier_file", classifier)


def weights(path):
    return torch.load(path, weights_only=True)


def test_with_a_fixed_judge_the_copy_stays_and_all_of_the_model_learns(run, classifier):
    exp = run("--label_type", "clip", "--strategy", "fixed", "--classifier_file", classifier)
    before, after = weights(classifier), weights(exp / "latest.pth")
    own = {k: v for k, v in before.items() if k.startswith("extractor.net.")}
    copies = {k: after[k.replace("extractor.net", f"{TRAINING}.net")] for k in own}
    assert all(v.equal(copies[k]) for k, v in own.items() if v.is_floating_point())
    moved = {k.split(".")[2] for k, v in own.items() if not v.equal(after[k])}
    assert {"encoder", "connector", "head", "unet", "hint", "pick"} <= moved


def test_stopped_and_resumed_is_the_same_training(run, classifier, trained, tmp_path):
    more = ["--label_type", "clip", "--strategy", "finetune", "--classifier_file", classifier]
    run(*more, "--max_epoch", "1", out=tmp_path / "exp")
    states = torch.load(tmp_path / "exp" / "checkpoint.pth", weights_only=False)
    assert any(k.startswith(TRAINING) for k in states["model"])  # the teacher goes on where it was
    run(*more, "--resume", "true", out=tmp_path / "exp")
    assert weights(tmp_path / "exp" / "latest.pth").keys() == weights(trained / "latest.pth").keys()


def test_a_separator_needs_a_classifier_of_its_own_kind(run, weak_corpus):
    with pytest.raises(DataError, match="--classifier_file, a trained classifier"):
        run("--label_type", "clip", "--strategy", "finetune")


@pytest.fixture(scope="module")
def heard(trained, weak_corpus):
    files = ["--train_config", trained / "config.yaml", "--model_file", trained / "latest.pth"]
    train = weak_corpus / "data/train", weak_corpus / "dump/train"
    data = ["--table", train[0], "--bank", train[1], "--most", "4", "--held_out", *train]  # the others are too few
    class_queries([str(x) for x in [*files, *data]])
    return files


def test_what_it_trains_answers_examples_and_classes(heard, trained, tmp_path):
    info = write_bundle(trained / "config.yaml", trained / "latest.pth", None, tmp_path / "model.zip")
    assert info["task"] == "qsep" and info["classes"] == 3
    separator = Separator.from_bundle(tmp_path / "model.zip", "cpu")
    assert [label.name for label in separator.classes] == CLASSES and sorted(separator.known.names) == CLASSES
    x = np.random.default_rng(0).uniform(-0.3, 0.3, 8000).astype(np.float32)
    found = separator(x, 8000, query=[x[:4000], "class:drum"], mode="each")
    assert found.target.shape == (2, 8000) and np.isfinite(found.target).all()
    assert separator.known.presence.mixtures == 8 and found.presence.shape == (2,)


def test_it_is_scored_as_a_separator_of_classes(heard, weak_corpus, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.3, 0.3, 6000), 8000)
    (tmp_path / "wav.scp").write_text(f"a {tmp_path / 'a.wav'}\n")
    given = ["--data_dir", tmp_path, "--output_dir", tmp_path / "out", *heard]
    weak_inference([str(x) for x in [*given, "--queries", "class"]])
    assert read_about(tmp_path / "out/about.json", {"outputs": [str]})["outputs"] == CLASSES
    with pytest.raises(DataError, match="queries self need a rendered test set"):
        weak_inference([str(x) for x in [*given, "--queries", "self"]])


def test_examples_ask_for_the_classes_of_the_test_set(heard, weak_corpus, tmp_path):
    test = tmp_path / "test"
    render_mixtures(MixtureTable(weak_corpus / "data/valid"), ClipBank(weak_corpus / "dump/valid"), test, num_workers=0)
    found = {}
    for queries in ("self", "other", "class"):
        given = ["--data_dir", test, "--output_dir", tmp_path / queries, *heard, "--queries", queries]
        weak_inference([str(x) for x in given])
        found[queries] = read_scp(tmp_path / queries / "spk1.scp")
        assert read_about(tmp_path / queries / "about.json", {"outputs": [str]})["outputs"] == CLASSES
    key = next(iter(found["self"]))
    waves = {queries: read_audio(places[key])[0] for queries, places in found.items()}  # of the first class
    assert not np.array_equal(waves["self"], waves["other"]) and not np.array_equal(waves["self"], waves["class"])
    classes, examples = examples_of(test, "other")
    assert classes == CLASSES
    table = MixtureTable(test / "mixtures")
    clips = {(m.id, e.cls): e.clip for m in map(table.row, range(len(table))) for e in m.events}
    own = {name: read_scp(test / name) for name in ("spk1.scp", "spk2.scp", "spk3.scp")}
    for key, of_class in examples.items():
        for k, place in of_class.items():
            other = next(o for o, p in own[f"spk{k + 1}.scp"].items() if p == place)
            assert other != key and (other, k) in clips and clips[other, k] != clips.get((key, k))
