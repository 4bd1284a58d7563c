"""`espnet2-ext` with a model that knows classes: one file a class; its bundle."""

import json
import logging

import numpy as np
import pytest
import soundfile
import torch
import yaml
from standin import CLASSES, WeakStandIn, build_weak_standin, noise

from espnet2_ext.audio.read import read_audio
from espnet2_ext.bin import weak_inference
from espnet2_ext.cli import main as cli
from espnet2_ext.cli.bundles import weak_pack
from espnet2_ext.infer import weights
from espnet2_ext.infer.bundle import read_bundle
from espnet2_ext.infer.class_separator import WeakSeparator
from espnet2_ext.infer.scored import pack_experiment
from espnet2_ext.util.tables import read_scp


@pytest.fixture
def exp(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "build_model", build_weak_standin)
    path = tmp_path / "exp" / "weak_toy_frame"
    path.mkdir(parents=True)
    conf = {"label_type": "frame", "classifier": "rnn", "model_conf": {"residual": True}}
    (path / "config.yaml").write_text(yaml.safe_dump(conf))
    torch.save(WeakStandIn(residual=True).state_dict(), path / "valid.loss.best.pth")
    figures = {"gain": {"mean": 6.789}}
    summary = {
        "keys": 7,
        "table": {"table_hash": "abc"},
        "overall": figures,
        "scores": {"bell": figures, "dog": {"gain": {"mean": None}}},
    }
    (path / "inference_test/scores").mkdir(parents=True)
    (path / "inference_test/scores/summary.json").write_text(json.dumps(summary))
    return path


@pytest.fixture
def ext(tmp_path, monkeypatch, caplog):
    """Run the command in `tmp_path`; returns its exit status."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)

    def run(*args):
        try:
            cli.main([str(a) for a in args])
        except SystemExit as e:
            return e.code
        return 0

    return run


def test_one_file_a_class_from_a_bundle_or_an_experiment(ext, exp, wav, tmp_path, capsys):
    x = noise(1.3, 44100, 2)
    wav("mix.wav", x, 44100)
    files = ("--train_config", exp / "config.yaml", "--model_file", exp / "valid.loss.best.pth")
    assert ext("pack", *files, "-o", "m.zip") == 0
    assert ext("separate", "mix.wav", "-o", "a", "--residual", "r", "--bundle", "m.zip") == 0
    assert ext("separate", "mix.wav", "-o", "b", *files) == 0
    names = [f"mix.{c}.wav" for c in (*CLASSES, "rest")]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == sorted(names)
    separator = WeakSeparator.from_bundle("m.zip", "cpu")
    mix = soundfile.read("mix.wav", dtype="float32")[0]
    for name, expected in zip(names, separator.separate(mix, 44100)):
        a, fs = soundfile.read(tmp_path / "a" / name, dtype="float32")
        assert fs == 44100
        np.testing.assert_allclose(a, expected, atol=2**-16 + 1e-6)
        assert np.array_equal(a, soundfile.read(tmp_path / "b" / name, dtype="float32")[0])
    assert (tmp_path / "r/mix.rest.wav").exists()
    capsys.readouterr()
    assert ext("info", "m.zip") == 0
    told = capsys.readouterr().out
    for piece in (
        "task: weak",
        "name: weak_toy_frame",
        "label_type: frame",
        "classifier: rnn",
        "residual: true",
        "labels: bell; dog; siren",
    ):
        assert piece in told, piece


def test_names_of_classes_become_names_of_files(ext, exp, wav, tmp_path):
    """Nothing is written outside the folder, and each class has a file of its own."""
    wav("mix.wav", noise(0.3, 16000))
    names = ["..", "a/b", "a_b", "x/../../up", "CON", "n" * 300, "/etc/passwd", "é ü"]
    conf = {"label_type": "frame", "model_conf": {"class_names": names}}
    (exp / "config.yaml").write_text(yaml.safe_dump(conf))
    torch.save(WeakStandIn(class_names=names).state_dict(), exp / "valid.loss.best.pth")
    files = ("--train_config", exp / "config.yaml", "--model_file", exp / "valid.loss.best.pth")
    before = set(tmp_path.rglob("*"))
    assert ext("separate", "mix.wav", "-o", "deep/out", *files) == 0
    made = set(tmp_path.rglob("*")) - before - {tmp_path / "deep", tmp_path / "deep/out"}
    assert len(made) == len(names) and {p.parent for p in made} == {tmp_path / "deep/out"}
    assert {"mix.a_b.wav", "mix.a_b-2.wav", "mix.é ü.wav", "mix._CON.wav"} <= {p.name for p in made}
    assert ext("separate", "mix.wav", "-o", "deep/out", *files, "--skip_existing") == 0
    assert made == set(tmp_path.rglob("*")) - before - {tmp_path / "deep", tmp_path / "deep/out"}


def test_plain_messages(ext, exp, wav, capsys, tmp_path):
    wav("mix.wav", noise(0.5, 16000))
    files = ("--train_config", exp / "config.yaml", "--model_file", exp / "valid.loss.best.pth")
    assert ext("pack", *files, "-o", "m.zip") == 0
    for args, message in (
        (
            ("separate", "mix.wav", "-o", "o", "--query", "mix.wav", "--bundle", "m.zip"),
            "knows classes and takes no query",
        ),
        (("embed", "mix.wav", "-o", "q.npy", "--bundle", "m.zip"), "takes no query"),
        (("separate", "mix.wav", "-o", "o.wav", "--bundle", "m.zip"), "4 outputs, so it must be"),
        (("separate", "mix.wav", "-o", "o", *files[:2]), "are given together"),
        (("separate", "no.wav", "-o", "o", *files), "no.wav: no such file"),
        (("pack", *files, "-o", "m.tar"), "must end in .zip"),
    ):
        assert ext(*args) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_bundle_separates_folders_too(ext, exp, wav, tmp_path):
    wav("mix.wav", noise(0.5, 16000))
    (tmp_path / "wav.scp").write_text(f"k {tmp_path / 'mix.wav'}\n")
    weak_pack([str(exp), "--test_set", "test"])
    weak_inference.main(
        [
            "--bundle",
            str(exp / "weak_toy_frame.zip"),
            "--data_dir",
            str(tmp_path),
            "--output_dir",
            str(tmp_path / "inf"),
            "--device",
            "cpu",
        ]
    )
    assert read_audio(read_scp(tmp_path / "inf/spk4.scp")["k"])[0].shape == (8000, 1)


def test_packed_with_its_scores_and_only_once(exp):
    weak_pack([str(exp), "--test_set", "test"])
    out = exp / "weak_toy_frame.zip"
    info = read_bundle(out).info
    assert info["results"]["test"] == {
        "mixtures": 7,
        "table_hash": "abc",
        "si_sdr_gain": {"bell": 6.79, "dog": None, "overall": 6.79},
    }
    before = out.stat().st_mtime_ns
    weak_pack([str(exp), "--test_set", "test"])
    assert out.stat().st_mtime_ns == before
    assert pack_experiment(exp, exp / "valid.loss.best.pth", {}, out)
