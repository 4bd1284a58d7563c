"""`espnet2-ext` as a user types it."""

import json
import logging
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from standin import noise

from espnet2_ext.cli import main as cli
from espnet2_ext.errors import DataError
from espnet2_ext.infer import jobs, weights
from espnet2_ext.infer.bundle import open_bundle
from espnet2_ext.infer.jobs import plan_jobs
from espnet2_ext.infer.pack import rewrite
from espnet2_ext.infer.queries import Ask
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.util import names
from espnet2_ext.util.files import file_digest


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


def test_spans_of_the_mixture(ext, sounds, tmp_path, capsys):
    spans = ("mix2.wav@0.2-0.5", "mix2.wav@0.5-1")
    queries = [word for span in spans for word in ("--query", span)]
    assert ext("separate", "mix2.wav", *queries, "--mode", "each", "-o", "out") == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"mix2.mix2@0.2-0.5.wav", "mix2.mix2@0.5-1.wav"}
    assert ext("embed", *spans, "-o", "q.npy") == 0
    assert ext("separate", "mix2.wav", "--query", "q.npy", "-o", "a.wav") == 0
    assert ext("separate", "mix2.wav", *queries, "-o", "b.wav") == 0
    np.testing.assert_array_equal(soundfile.read("a.wav")[0], soundfile.read("b.wav")[0])
    before = (tmp_path / "b.wav").read_bytes()
    assert ext("separate", "mix2.wav", *queries[:2], "-o", "b.wav", "--skip_existing") == 0
    assert (tmp_path / "b.wav").read_bytes() != before  # of another query
    assert ext("separate", "mix2.wav", "--query", "mix2.wav@0.5-9", "-o", "c.wav") == 1
    assert capsys.readouterr().err == "error: mix2.wav@0.5-9: the recording ends at 1.0 s\n"


def test_remove(ext, sounds, tmp_path, caplog, capsys):
    dog = ("separate", "mix2.wav", "--query", "dog.wav")
    assert ext(*dog, "-o", "a.wav", "--residual", "rest.wav") == 0
    assert ext(*dog, "--remove", "-o", "left.wav", "--residual", "taken.wav") == 0
    a, rest, left, taken = (soundfile.read(f"{name}.wav")[0] for name in ("a", "rest", "left", "taken"))
    np.testing.assert_array_equal(left, rest)
    np.testing.assert_array_equal(taken, a)
    assert ext(*dog, "--remove", "--amount", "0", "-o", "none.wav") == 0
    np.testing.assert_array_equal(soundfile.read("none.wav")[0], soundfile.read("mix2.wav")[0])
    assert json.loads(soundfile.SoundFile("left.wav").comment)["output"] == "the mixture less 1 of it"
    assert ext(*dog, "--remove", "--amount", "0.5", "-o", "left.wav", "--skip_existing") == 0
    assert "left.wav: was made of another output; made again" in caplog.text
    both = ("--query", "cats", "--mode", "each", "--remove")
    assert ext(*dog, *both, "-o", "both.wav") == 0
    assert ext(*dog, *both[:-1], "-o", "each", "--residual", "each") == 0
    np.testing.assert_allclose(soundfile.read("both.wav")[0], soundfile.read("each/mix2.rest.wav")[0], atol=2**-14)
    for args in (("--amount", "0.5"), ("--remove", "--amount", "1.5"), ("--remove", "--amount", "nan")):
        assert ext(*dog, *args, "-o", "x.wav") == 1
        assert "from 0 to 1, together with --remove" in capsys.readouterr().err


def test_nearest_and_not(ext, sounds, toy_bundle, tmp_path, caplog, capsys):
    command = ("separate", "mix.wav", "--query", "dog.wav", "--query", "cats", "-o", "out.wav", "--subtype", "FLOAT")
    separator = Separator.from_bundle(toy_bundle, "cpu")
    references, _ = separator.embed_each(["dog.wav", "cats"])
    x, fs = soundfile.read("mix.wav", dtype="float32")
    assert len(references) == 3
    assert ext(*command, "--mode", "nearest") == 0 and "3 references" in caplog.text
    expected = separator.separate(x, fs, Ask(references, nearest=True))[0]
    np.testing.assert_array_equal(soundfile.read("out.wav", dtype="float32")[0], expected)
    against = ("--not", "mix2.wav", "--not", "mix2.wav@0.2-0.7")
    assert ext(*command, *against, "--skip_existing") == 0 and "made of another query" in caplog.text
    negatives = separator.embed_each(["mix2.wav", "mix2.wav@0.2-0.7"])[0]
    expected = separator.separate(x, fs, Ask(references.mean(0, keepdims=True), negatives))[0]
    np.testing.assert_allclose(soundfile.read("out.wav", dtype="float32")[0], expected, atol=1e-6)
    assert ext(*command, *against, "--skip_existing") == 0 and "exists, skipped" in caplog.text
    assert ext(*command, *against[:2], "--skip_existing") == 0 and "made of another query" in caplog.text
    assert ext("separate", "mix.wav", *against, "-o", "out.wav") == 1
    assert "--not only keeps sounds out of what it asks for" in capsys.readouterr().err
    assert ext(*command, "--not", "no.wav") == 1 and "no.wav: no such file" in capsys.readouterr().err
    assert ext("separate", "mix.wav", "--query", "dog.wav", "--not", "cats", "-o", "cats/a.wav") == 1


def test_precision(ext, sounds, capsys, caplog, monkeypatch):
    taken = []
    monkeypatch.setattr(weights, "lower", lambda model, precision, device: taken.append(precision) or precision)
    command = ("separate", "mix2.wav", "--query", "dog.wav", "-o", "out.wav", "--skip_existing")
    assert ext(*command) == 0 and "linear layers" not in caplog.text
    assert ext(*command, "--precision", "bf16") == 0
    assert "linear layers in bf16" in caplog.text and "was made of another model; made again" in caplog.text
    assert ext(*command, "--precision", "bf16") == 0 and "exists, skipped" in caplog.text
    assert ext("find", "mix2.wav", "--query", "dog.wav", "--precision", "bf16") == 0
    assert taken == ["fp32", "bf16", "bf16", "bf16"]
    assert ext(*command, "--precision", "int4") == 2 and "invalid choice: 'int4'" in capsys.readouterr().err


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


CARD = """---
license: apache-2.0
---
# Toy

Bells, from nowhere.

## Data

Long.

## Limits
"""


def test_a_model_card(ext, exp, capsys, tmp_path):
    (tmp_path / "card.md").write_text(CARD)
    assert ext("info", "--card") == 1
    assert "toy.zip: holds no model card" in capsys.readouterr().err
    assert ext("pack", "--bundle", "toy.zip", "--card", "card.md", "--half", "-o", "a.zip") == 0
    assert ext("info", "a.zip") == 0
    out = capsys.readouterr().out
    assert "\n  Bells, from nowhere." in out and "More (info --card): Data; Limits" in out
    assert "Long." not in out and "license" not in out and "precision: half" in out
    assert ext("info", "a.zip", "--card") == 0
    assert capsys.readouterr().out == CARD
    assert ext("pack", "--bundle", "toy.zip", "--model_file", exp / "valid.loss.ave.pth", "-o", "b.zip") == 2
    assert ext("pack", "-o", "b.zip") == 2


def test_the_model_in_the_package(ext, sounds, toy_bundle, tmp_path, capsys, caplog, monkeypatch):
    """Used where no bundle is named, in one line said so; whatever is named wins."""
    run = ("separate", "mix2.wav", "--query", "dog.wav", "-o", "out.wav")
    monkeypatch.setattr(names, "MODELS", tmp_path / "models")
    assert ext(*run, "--bundle", "starter") == 1
    assert "models/starter.zip: no such bundle file; this espnet2_ext was installed without" in capsys.readouterr().err
    (tmp_path / "models").mkdir()
    facts = {"name": "box", "trained_on": {"clips": 9, "hours": 0.5}}
    rewrite(toy_bundle, tmp_path / "models/starter.zip", facts)
    said = "this is the model in the package, trained on 9 clips, 0.5 h; --bundle names another"
    assert ext(*run) == 0 and "model toy" in caplog.text and said not in caplog.text  # $ESPNET2_EXT_BUNDLE
    monkeypatch.delenv("ESPNET2_EXT_BUNDLE")
    assert ext(*run) == 0 and "model box" in caplog.text and caplog.text.count(said) == 1
    assert ext(*run, "--bundle", toy_bundle) == 0 and "model toy" in caplog.text and said not in caplog.text
    assert ext("embed", "dog.wav", "-o", "q.npy") == 0 and said in caplog.text
    assert ext("info") == 0 and ext("info", "starter") == 0
    assert capsys.readouterr().out.count("name: box") == 2
    assert Separator.from_bundle(device="cpu").info["name"] == "box"
    assert ext("separate", "mix2.wav", "-o", "out.wav") == 1
    assert "--query: this model answers queries" in capsys.readouterr().err


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
    monkeypatch.setattr(names, "MODELS", tmp_path / "no_models")
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


# ---- what outputs were made of -------------------------------------------------------------------


def changed_at(folder):
    return {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}


def test_an_output_says_what_it_was_made_of(ext, sounds, toy_bundle, tmp_path):
    assert ext("separate", "mix.wav", "--query", "dog.wav", "-o", "a.wav", "--residual", "r.flac") == 0
    with open_bundle(toy_bundle) as bundle:
        model = bundle.model_hash
    for name, output in (("a.wav", None), ("r.flac", "residual")):
        note = json.loads(soundfile.SoundFile(name).comment)
        assert note["model"] == model and note["mixture"] == "mix.wav" and note.get("output") == output
        assert note["mixture_hash"] == file_digest("mix.wav")
    assert json.loads(soundfile.SoundFile("a.wav").comment)["query"] == ["dog.wav"]
    assert ext("separate", "mix.wav", "--query", "dog.wav", "-o", "b.w64") == 0
    assert json.loads((tmp_path / "b.w64.json").read_text())["model"] == model


@pytest.mark.parametrize("suffix", ["wav", "flac", "w64"])
def test_skipped_only_where_it_was_made_of_the_same(ext, sounds, toy_bundle, tmp_path, caplog, suffix):
    out = tmp_path / f"out.{suffix}"
    command = ["separate", "mix2.wav", "--query", "dog.wav", "-o", out.name, "--skip_existing"]

    def again(*args):
        before = out.stat().st_mtime_ns
        assert ext(*command, *args) == 0
        return out.stat().st_mtime_ns > before

    assert ext(*command) == 0
    assert not again() and "exists, skipped" in caplog.text
    command[3] = "cats"
    assert again() and "was made of another query; made again" in caplog.text
    assert not again()
    (tmp_path / "mix2.wav").write_bytes((tmp_path / "dog.wav").read_bytes())
    assert again() and "made of another mixture" in caplog.text
    with zipfile.ZipFile(toy_bundle) as z:
        members = {n: z.read(n) for n in z.namelist()}
    members["config.yaml"] = members["config.yaml"].replace(b"max_epoch: 2", b"max_epoch: 3")
    with zipfile.ZipFile(toy_bundle, "w") as z:
        for name, data in members.items():
            z.writestr(name, data)
    assert again() and "made of another model" in caplog.text
    if suffix == "wav":
        x, fs = soundfile.read(out)
        soundfile.write(out, x, fs)
        assert not again() and "without a note of what it was made of; kept" in caplog.text


def test_the_querys_name_in_the_files(ext, sounds, tmp_path):
    queries = ("--query", "dog.wav", "--query", "cats")
    assert ext("separate", "mix2.wav", *queries, "--name_query", "-o", "out") == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mix2.dog+cats.wav"]


def test_a_saved_query_of_another_model(ext, sounds, exp, tmp_path, capsys, caplog):
    assert ext("embed", "dog.wav", "-o", "q.npy") == 0
    vector = np.load("q.npy")
    assert vector.shape == (8,) and np.load("q.npy", mmap_mode="r").shape == (8,)
    np.save("plain.npy", vector)
    assert ext("separate", "mix2.wav", "--query", "plain.npy", "-o", "a.wav") == 0
    assert "plain.npy: does not say which model made it" in caplog.text
    state = torch.load(exp / "valid.loss.ave.pth", weights_only=True)
    state["query"] += 1
    torch.save(state, exp / "other.pth")
    files = ["--train_config", exp / "config.yaml", "--model_file", exp / "other.pth", "--labels", exp / "labels.tsv"]
    assert ext("pack", *files, "-o", "other.zip") == 0
    assert ext("separate", "mix2.wav", "--query", "q.npy", "-o", "b.wav", "--bundle", "other.zip") == 1
    assert "q.npy: was made by another model" in capsys.readouterr().err
    with open("q.npy", "ab") as f:
        f.write(b"more")
    assert ext("separate", "mix2.wav", "--query", "q.npy", "-o", "b.wav") == 1
    assert "q.npy: is not a whole .npy file" in capsys.readouterr().err


def test_no_input_is_overwritten(ext, sounds, wav, toy_bundle, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    wav("dogs/mix.wav", noise(1, 16000, 1, 5))
    assert ext("embed", "dog.wav", "-o", "dogs/q.npy") == 0
    os.link("dog.wav", "hard.wav")
    os.symlink("dog.wav", "soft.wav")
    os.symlink(tmp_path / "dogs", tmp_path / "folder")
    os.link(toy_bundle, "bundle.wav")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for args in (
        ("mix.wav", "--query", "dogs", "-o", "dogs"),
        ("mix.wav", "--query", "dogs/", "-o", "folder/"),
        ("mix.wav", "--query", "dog.wav", "-o", "hard.wav"),
        ("mix.wav", "--query", "dog.wav", "-o", "soft.wav"),
        ("mix.wav", "--query", "dog.wav", "-o", "out/", "--residual", "soft.wav"),
        ("mix.wav", "--query", "dog.wav", "-o", "bundle.wav"),
        ("mix.wav", "mix2.wav", "dog.wav", "--query", "dogs", "-o", "."),
    ):
        assert ext("separate", *args) == 1, args
        assert "is an input; choose another name" in capsys.readouterr().err
    assert ext("embed", "dogs", "-o", "dogs/q.npy") == 1
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_two_names_for_one_output(ext, sounds, tmp_path, caplog, monkeypatch):
    """Where a file system takes A and a for the same, the second mixture does not overwrite the first's output."""
    (tmp_path / "in").mkdir()
    for name in ("A.wav", "a.wav"):
        (tmp_path / "in" / name).write_bytes((tmp_path / "mix2.wav").read_bytes())
    identity = jobs._identity
    monkeypatch.setattr(jobs, "_identity", lambda path: identity(str(path).lower()))
    assert ext("separate", "in", "--query", "dog.wav", "-o", "out") == 1
    assert "is the output of another mixture as well" in caplog.text


# ---- folders that are not whole ------------------------------------------------------------------


def test_a_folder_goes_on_after_any_file(ext, sounds, tmp_path, capsys, caplog):
    folder = tmp_path / "in"
    folder.mkdir()
    sound = (tmp_path / "mix2.wav").read_bytes()
    names = ["a.wav", "b" * 250 + ".wav", os.fsdecode(b"caf\xe9.wav"), "d.wav", "z.wav"]
    for name in names:
        (folder / name).write_bytes(sound)
    (tmp_path / "out/d.wav").mkdir(parents=True)  # a folder where a file should come
    (tmp_path / "out/d.wav/x").write_text("")
    assert ext("separate", "in", "--query", "dog.wav", "-o", "out", "--residual", "rest") == 1
    assert "2 of 5 files failed: b" in (said := capsys.readouterr().err) and "d.wav" in said and len(said) < 2000
    assert "File name too long" in caplog.text and "out/d.wav: Is a directory" in caplog.text
    done = {p.name for p in (tmp_path / "out").iterdir() if p.is_file()}
    assert done == {"a.wav", names[2], "z.wav"}


def test_many_queries_with_few_descriptors(ext, sounds, tmp_path):
    queries = []
    for i in range(70):
        np.save(tmp_path / f"q{i}.npy", np.random.default_rng(i).standard_normal(8).astype("f4"))
        queries += ["--query", f"q{i}.npy"]
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); "
    code += "sys.path.insert(0, sys.argv.pop(1)); import standin; from espnet2_ext.infer import weights; "
    code += "weights.build_model = standin.build_standin; from espnet2_ext.cli.main import main; main()"
    command = ["separate", "mix2.wav", *queries, "--mode", "each", "-o", "out", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent), *command], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list((tmp_path / "out").iterdir())) == 70
    assert ext("separate", "mix2.wav", *queries[-2:], "--mode", "each", "-o", "one") == 0
    a, b = (soundfile.read(tmp_path / folder / "mix2.q69.wav")[0] for folder in ("out", "one"))
    np.testing.assert_allclose(a, b, atol=2**-14)
