"""Inference over rendered test sets and over users' own folders."""

import json
import logging

import numpy as np
import pytest
import soundfile
from standin import StandIn, noise

from espnet2_ext.audio.read import FlacArkWriter, read_audio, read_mono
from espnet2_ext.bin.qsep_inference import main
from espnet2_ext.data.outputs import INPUTS
from espnet2_ext.errors import DataError
from espnet2_ext.infer import folder as work
from espnet2_ext.infer.query_folder import _own_items
from espnet2_ext.util.tables import read_scp

KEYS = [f"p{i}-{j}" for i in range(5) for j in (1, 2)]


@pytest.fixture(autouse=True)
def fresh_model():
    work._load.cache_clear()


@pytest.fixture
def rendered(tmp_path):
    """A folder as `data.mixtures.render` renders it: two lengths of mixture, one key without `other`."""
    path = tmp_path / "dump" / "test"
    path.mkdir(parents=True)
    for n, name in enumerate(("wav", "spk1", "enroll_self", "enroll_other", "absent")):
        keys = KEYS[:-1] if name == "enroll_other" else KEYS
        with FlacArkWriter(path, f"audio.{n:05d}", 16000) as ark:
            for i, key in enumerate(keys):
                seconds = 1.0 if i % 3 else 0.6
                ark.write(key, noise(seconds, 16000, 1, 100 * n + i)[:, 0])
        (path / f"{name}.scp").write_text(ark.scp.read_text())
    (path / "list.json").write_text(json.dumps({"list_hash": "a"}))
    return path


@pytest.fixture
def infer(toy_bundle, tmp_path):
    def run(data_dir, out="inf", *more):
        main(
            [
                "--data_dir",
                str(data_dir),
                "--output_dir",
                str(tmp_path / out),
                "--bundle",
                str(toy_bundle),
                "--device",
                "cpu",
                *more,
            ]
        )
        return tmp_path / out

    return run


def times(path):
    return {p: p.stat().st_mtime_ns for p in path.rglob("*") if p.is_file()}


def test_every_protocol_and_pass(rendered, infer, exp):
    out = infer(rendered, "inf", "--batch_size", "3")
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()) == sorted(
        [
            f"{p}/{q}/{f}"
            for p in ("self", "other")
            for q in ("mixture", "clean", "silence")
            for f in ("about.json", "spk1.scp", "spk1.00000.ark", *(["spk1.00001.ark"]))
        ]
        + [f"{p}/queries.{s}" for p in ("self", "other") for s in ("npz", "json")]
        + ["self/tags.npz"]
    )
    separator = work.ModelFiles(bundle=str(exp.parents[1] / "toy.zip"), device="cpu").load()
    for protocol, keys in (("self", KEYS), ("other", KEYS[:-1])):
        enroll = read_scp(rendered / f"enroll_{protocol}.scp")
        for name, table in INPUTS.items():
            inputs = read_scp(rendered / table)
            outputs = read_scp(out / protocol / name / "spk1.scp")
            assert list(outputs) == keys
            for key in keys[:4]:
                query, logits = separator.embed_batch(read_mono(enroll[key])[None])
                mix, fs = read_audio(inputs[key])
                est, fs_out = read_audio(outputs[key])
                expected = separator.separate(mix, fs, query)[0]
                assert fs == fs_out and est.shape == mix.shape
                np.testing.assert_allclose(est, expected, atol=2**-16 + 1e-6)
                if (protocol, name) == ("self", "mixture"):
                    with np.load(out / "self" / "tags.npz") as z:
                        row = list(z["keys"]).index(key)
                        np.testing.assert_allclose(z["clipwise"][row], 1 / (1 + np.exp(-logits[0])), atol=1e-5)


def test_second_run_does_nothing(rendered, infer, monkeypatch):
    out = infer(rendered)
    before = times(out)
    monkeypatch.setattr(StandIn, "embed", None)  # no model is even loaded
    infer(rendered)
    infer(rendered, "inf", "--protocols", "other", "--passes", "clean")
    assert times(out) == before


def test_other_data_or_model_starts_anew(rendered, infer, toy_bundle, exp):
    out = infer(rendered, "inf", "--protocols", "self", "--passes", "mixture")
    before = times(out)
    (rendered / "list.json").write_text(json.dumps({"list_hash": "b"}))
    infer(rendered, "inf", "--protocols", "self", "--passes", "mixture")
    second = times(out)
    assert all(second[p] > before[p] for p in before)
    from espnet2_ext.infer.pack import write_bundle

    write_bundle(exp / "config.yaml", exp / "valid.loss.ave.pth", exp / "labels.tsv", toy_bundle, {"name": "another"})
    infer(rendered, "inf", "--protocols", "self", "--passes", "mixture")
    assert all(times(out)[p] > second[p] for p in before)


def test_goes_on_where_it_was_stopped(rendered, infer, monkeypatch):
    """The model fails on the last clips: what is done stays and is not made again."""
    real = FlacArkWriter.write

    def broken(self, key, x):
        if key == KEYS[-1]:
            raise KeyboardInterrupt
        real(self, key, x)

    options = ("--protocols", "self", "--passes", "mixture")
    monkeypatch.setattr(FlacArkWriter, "write", broken)
    with pytest.raises(KeyboardInterrupt):
        infer(rendered, "inf", *options)
    monkeypatch.setattr(FlacArkWriter, "write", real)
    out = rendered.parents[1] / "inf" / "self" / "mixture"
    assert not (out / "spk1.scp").exists() and not (out / "spk1.00001.ark").exists()
    first = (out / "spk1.00000.ark").stat().st_mtime_ns
    infer(rendered, "inf", *options)
    assert (out / "spk1.00000.ark").stat().st_mtime_ns == first
    assert list(read_scp(out / "spk1.scp")) == KEYS
    assert not (rendered.parents[1] / "inf" / "parts").exists()


def test_keys_without_a_query_are_told(rendered, infer, caplog):
    infer(rendered, "inf", "--protocols", "other", "--passes", "mixture")
    assert "1 of 10 keys have no query" in caplog.text


def test_a_protocol_without_queries_is_left_out(rendered, infer, caplog):
    """As for a set in which every class has one clip."""
    (rendered / "enroll_other.scp").write_text("")
    out = infer(rendered, "inf", "--passes", "mixture")
    assert "protocol other is left out" in caplog.text
    assert (out / "self/mixture/spk1.scp").exists() and not (out / "other").exists()
    with pytest.raises(DataError, match="holds no query for any"):
        infer(rendered, "inf", "--protocols", "other")


def test_batch_size_does_not_matter(rendered, infer):
    options = ("--protocols", "self", "--passes", "mixture", "--batch_size")
    a = read_scp(infer(rendered, "a", *options, "1") / "self/mixture/spk1.scp")
    b = read_scp(infer(rendered, "b", *options, "8") / "self/mixture/spk1.scp")
    for key in KEYS:
        np.testing.assert_allclose(read_audio(a[key])[0], read_audio(b[key])[0], atol=2**-15)


def test_own_folder(infer, wav, tmp_path, toy_bundle, caplog):
    """Any rate, length and number of channels; keys with signs that no file name takes."""
    caplog.set_level(logging.INFO)
    files = [wav("a.wav", noise(1, 44100, 2), 44100), wav("b.wav", noise(0.7, 16000), 16000)]
    dog = wav("dog.wav", noise(1, 16000, 1, 5))
    data = tmp_path / "own"
    data.mkdir()
    (data / "wav.scp").write_text(f"first {files[0]}\nsub/second {files[1]}\n")
    (data / "enroll_spk1.scp").write_text(f"first {dog}\nsub/second {dog}\nunused {dog}\n")
    out = infer(data)
    outputs = read_scp(out / "spk1.scp")
    assert list(outputs) == ["first", "sub/second"]
    separator = work.ModelFiles(bundle=str(toy_bundle), device="cpu").load()
    query = separator.embed_one(dog)[None]
    for file, est in zip(files, outputs.values()):
        x, fs = soundfile.read(file, dtype="float32")
        y, fs_out = soundfile.read(est, dtype="float32")
        assert fs == fs_out
        np.testing.assert_allclose(y, separator.separate(x, fs, query)[0], atol=2**-16 + 1e-7)
    before = times(out)
    infer(data)
    assert times(out) == before


def test_refusals(rendered, infer, wav, tmp_path, toy_bundle):
    own = tmp_path / "own"
    own.mkdir()
    with pytest.raises(DataError, match="own/wav.scp: no such file"):
        infer(own)
    (own / "wav.scp").write_text("a x.wav\nb y.wav\n")
    (own / "enroll_spk1.scp").write_text("a q.wav\n")
    with pytest.raises(DataError, match="no query for 1 keys of wav.scp, the first is b"):
        infer(own)
    (own / "enroll_spk1.scp").write_text("a q.wav\nb q.wav\n")
    with pytest.raises(DataError, match="key a: q.wav: no such file"):
        infer(own)
    (own / "wav.scp").write_text("a/b x.wav\na_b y.wav\n")
    (own / "enroll_spk1.scp").write_text("a/b x.wav\na_b y.wav\n")
    names = [item[3] for item in _own_items(own)]
    assert names == ["a_b.wav", "a_b-2.wav"]
    for more, message in (
        (("--protocols", "mine"), "unknown protocol 'mine'"),
        (("--passes", "loud"), "unknown pass 'loud'"),
        (("--batch_size", "0"), "batch_size"),
    ):
        with pytest.raises(DataError, match=message):
            infer(rendered, "inf", *more)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        infer(tmp_path / "nowhere")
    (rendered / "absent.scp").unlink()
    with pytest.raises(DataError, match="absent.scp: no such file"):
        infer(rendered)
    for files, message in (
        ((), "which model"),
        (("--bundle", "no.zip"), "no.zip: no such file"),
        (("--train_config", "c.yaml"), "which model"),
    ):
        with pytest.raises(DataError, match=message):
            main(["--data_dir", str(rendered), "--output_dir", str(tmp_path / "o"), *files])


def test_bad_sound_names_its_key(rendered, infer):
    table = read_scp(rendered / "wav.scp")
    ark, at = table["p1-1"].rsplit(":", 1)
    (rendered / "wav.scp").write_text(
        "".join(f"{k} {v if k != 'p1-1' else f'{ark}:{int(at) + 3}'}\n" for k, v in table.items())
    )
    with pytest.raises(DataError, match="key p1-1: .*ark"):
        infer(rendered, "inf", "--protocols", "self", "--passes", "mixture")
    assert not (rendered.parents[1] / "inf" / "self" / "mixture" / "spk1.scp").exists()
