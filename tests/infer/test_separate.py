"""`espnet2-ext` as a user types it."""

import logging

import numpy as np
import pytest
import soundfile
from standin import noise

from espnet2_ext.cli import main as cli
from espnet2_ext.cli.separate import plan_jobs
from espnet2_ext.errors import DataError
from espnet2_ext.infer.query_separator import Separator


@pytest.fixture
def ext(tmp_path, monkeypatch, toy_bundle, caplog):
    """Run the command in `tmp_path`; returns its exit status, log and messages."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ESPNET2_EXT_BUNDLE", str(toy_bundle))
    caplog.set_level(logging.INFO)

    def run(*args):
        caplog.clear()
        try:
            cli.main([str(a) for a in args])
        except SystemExit as e:
            return e.code
        return 0

    return run


@pytest.fixture
def sounds(wav):
    wav("mix.wav", noise(2, 44100, 2), 44100)
    wav("mix2.wav", noise(1, 16000, 1, 1))
    wav("dog.wav", noise(1, 16000, 1, 2))
    wav("cats/a.wav", noise(1, 16000, 1, 3))
    wav("cats/b.wav", noise(1, 48000, 1, 4), 48000)


def test_separate(ext, sounds, toy_bundle, caplog, tmp_path):
    assert (
        ext("separate", "mix.wav", "--query", "dog.wav", "--query", "cats", "-o", "out.wav", "--residual", "rest.wav")
        == 0
    )
    for text in (
        "model toy",
        "16000 Hz, on ",
        "mean of 3 sounds",
        "44100 Hz, 2 channel(s), PCM_16",
        "resampled to the model's 16000 Hz",
        "out.wav, rest.wav written",
    ):
        assert text in caplog.text
    separator = Separator.from_bundle(toy_bundle, "cpu")
    query, _ = separator.embed_queries(["dog.wav", "cats"])
    x, fs = soundfile.read("mix.wav", dtype="float32")
    est, fs_out = soundfile.read("out.wav", dtype="float32")
    rest, _ = soundfile.read("rest.wav", dtype="float32")
    assert fs == fs_out
    np.testing.assert_allclose(est, separator.separate(x, fs, query[None])[0], atol=2**-16 + 1e-7)
    np.testing.assert_array_equal(rest, x - est)


def test_each_query_and_several_mixtures(ext, sounds, tmp_path):
    assert (
        ext(
            "separate",
            "mix.wav",
            "mix2.wav",
            "--query",
            "dog.wav",
            "--query",
            "cats",
            "--mode",
            "each",
            "-o",
            "out",
            "--residual",
            "out",
            "--subtype",
            "FLOAT",
        )
        == 0
    )
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == sorted(f"{m}.{q}.wav" for m in ("mix", "mix2") for q in ("dog", "cats", "rest"))
    x, a, b, r = (
        soundfile.read(p, dtype="float32")[0]
        for p in ("mix2.wav", "out/mix2.dog.wav", "out/mix2.cats.wav", "out/mix2.rest.wav")
    )
    assert not np.array_equal(a, b)
    np.testing.assert_allclose(r, x - a - b, atol=1e-7)


def test_embed_then_use(ext, sounds):
    assert ext("embed", "dog.wav", "cats", "-o", "q.npy") == 0
    assert ext("separate", "mix2.wav", "--query", "q.npy", "-o", "a.wav") == 0
    assert ext("separate", "mix2.wav", "--query", "dog.wav", "--query", "cats", "-o", "b.wav") == 0
    np.testing.assert_array_equal(soundfile.read("a.wav")[0], soundfile.read("b.wav")[0])


def test_info_and_pack(ext, exp, capsys, tmp_path):
    assert ext("info") == 0
    out = capsys.readouterr().out
    for text in ("name: toy", "fs: 16000", "manifest_hash: abc123", "self: 8.1", "sound 4", "4 tensors"):
        assert text in out
    (tmp_path / "info.yaml").write_text("trained_on: bells\n")
    assert (
        ext(
            "pack",
            "--train_config",
            exp / "config.yaml",
            "--model_file",
            exp / "valid.loss.ave.pth",
            "--labels",
            exp / "labels.tsv",
            "--info",
            "info.yaml",
            "--name",
            "bells",
            "-o",
            "bells.zip",
        )
        == 0
    )
    assert ext("info", "bells.zip") == 0
    out = capsys.readouterr().out
    assert "name: bells" in out and "trained_on: bells" in out


def test_one_bad_file_among_several(ext, sounds, tmp_path, capsys, caplog):
    (tmp_path / "bad.wav").write_text("no sound")
    assert ext("separate", "bad.wav", "mix2.wav", "--query", "dog.wav", "-o", "out") == 1
    assert (tmp_path / "out" / "mix2.wav").exists() and "bad.wav: cannot be decoded" in caplog.text
    assert "1 of 2 files failed: bad.wav" in capsys.readouterr().err
    before = (tmp_path / "out" / "mix2.wav").stat().st_mtime_ns
    assert ext("separate", "mix2.wav", "mix.wav", "--query", "dog.wav", "-o", "out", "--skip_existing") == 0
    assert (tmp_path / "out" / "mix.wav").exists()
    assert (tmp_path / "out" / "mix2.wav").stat().st_mtime_ns == before


def test_plain_messages(ext, sounds, tmp_path, capsys, monkeypatch):
    (tmp_path / "empty").mkdir()
    dog = ("--query", "dog.wav")
    for args, message in (
        (("separate", "no.wav", *dog, "-o", "o.wav"), "no.wav: no such file or folder"),
        (("separate", "mix.wav", "--query", "no.wav", "-o", "o.wav"), "no.wav: no such file"),
        (("separate", "mix.wav", "--query", "empty", "-o", "o.wav"), "empty: no sound file"),
        (("separate", "mix.wav", *dog, "-o", "o.wav", "--bundle", "no.zip"), "no.zip: no such"),
        (("separate", "mix.wav", "-o", "o.wav"), "--query: this model answers queries"),
        (("separate", "mix.wav", *dog, "-o", "o.mp3"), "must end in"),
        (("separate", "mix.wav", *dog, "-o", "dog.wav"), "dog.wav: is an input"),
        (("separate", "mix.wav", *dog, "-o", "o.wav", "--chunk", "-1"), "chunk must be"),
        (("separate", "mix.wav", *dog, "-o", "o.wav", "--device", "moon"), "device 'moon'"),
        (("embed", "dog.wav", "-o", "q.wav"), "must end in .npy"),
    ):
        assert ext(*args) == 1
        assert message in capsys.readouterr().err
    monkeypatch.delenv("ESPNET2_EXT_BUNDLE")
    assert ext("separate", "mix.wav", *dog, "-o", "o.wav") == 1
    assert "--bundle" in capsys.readouterr().err
    assert not (tmp_path / "o.wav").exists()


def test_where_outputs_go(sounds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def outs(mixes, names, output, residual=None, queries=()):
        return [[str(p) for p in (*j.outs, j.rest) if p] for j in plan_jobs(mixes, names, output, residual, queries)]

    assert outs(["mix.wav"], [None], "o.wav", "r.flac") == [["o.wav", "r.flac"]]
    assert outs(["mix.wav"], [None], "new", "rest/") == [["new/mix.wav", "rest/mix.rest.wav"]]
    assert outs(["cats"], [None], "new") == [["new/a.wav"], ["new/b.wav"]]
    assert outs(["mix.wav"], ["dog", "cats"], "new") == [["new/mix.dog.wav", "new/mix.cats.wav"]]
    for args, message in (
        ((["mix.wav", "mix2.wav"], [None], "o.wav"), "2 outputs, so it must be a folder"),
        ((["mix.wav"], ["dog", "cats"], "o.wav"), "2 outputs"),
        ((["mix.wav", "cats"], [None], "new", "r.wav"), "--residual r.wav: there are 3"),
        ((["mix.wav", "./mix.wav"], [None], "new"), "two outputs"),
        ((["mix.wav"], ["dog", "dog"], "new"), "two outputs"),
        ((["mix.wav"], [None], "o.wav", "o.wav"), "two outputs"),
        ((["mix.wav"], [None], "."), "is an input"),
    ):
        with pytest.raises(DataError, match=message):
            outs(*args)
