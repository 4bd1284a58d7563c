"""Class-wise separation of folders: order, resuming, long recordings, activity."""

import json

import numpy as np
import pytest
import soundfile
import torch
import yaml
from standin import CLASSES, WeakStandIn, build_weak_standin, noise

from espnet2_ext.audio.read import FlacArkWriter, read_audio
from espnet2_ext.bin.weak_inference import main
from espnet2_ext.data import outputs
from espnet2_ext.errors import DataError
from espnet2_ext.infer import folder as work
from espnet2_ext.infer import weights
from espnet2_ext.util.tables import read_scp

KEYS = [f"m{i:02d}" for i in range(11)]


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "dump" / "test_mix"
    path.mkdir(parents=True)
    with FlacArkWriter(path, "wav", 16000, 24) as ark:
        for i, key in enumerate(KEYS):
            ark.write(key, noise(0.6 if i % 3 else 1.0, 16000, 1, i)[:, 0] * (i != 4))
    return path


@pytest.fixture
def infer(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "build_model", build_weak_standin)
    work._load.cache_clear()
    exp = tmp_path / "exp"
    exp.mkdir()
    (exp / "config.yaml").write_text(yaml.safe_dump({"model_conf": {"residual": True}}))
    torch.save(WeakStandIn(residual=True).state_dict(), exp / "best.pth")

    def run(data_dir, out="inf", *more):
        main(
            [
                "--data_dir",
                str(data_dir),
                "--output_dir",
                str(tmp_path / out),
                "--device",
                "cpu",
                "--train_config",
                str(exp / "config.yaml"),
                "--model_file",
                str(exp / "best.pth"),
                *more,
            ]
        )
        return tmp_path / out

    return run


def times(path):
    return {p: p.stat().st_mtime_ns for p in path.rglob("*") if p.is_file()}


def test_every_class_and_the_residual_in_order(data, infer, tmp_path):
    out = infer(data, "inf", "--batch_size", "3")
    names = [f"spk{s}.{n}" for s in (1, 2, 3, 4) for n in ("scp", "00000.ark", "00001.ark")]
    assert sorted(p.name for p in out.iterdir()) == sorted([*names, "about.json", "activity.npz"])
    about = json.loads((out / "about.json").read_text())
    assert about["outputs"] == [*CLASSES, "rest"] and about["keys"] == 11
    separator = work.ModelFiles(
        None, str(tmp_path / "exp/config.yaml"), str(tmp_path / "exp/best.pth"), "cpu", "classes"
    ).load()
    mixes = read_scp(data / "wav.scp")
    tables = [read_scp(out / f"spk{s}.scp") for s in (1, 2, 3, 4)]
    activity = dict(np.load(out / "activity.npz"))
    assert all(list(table) == KEYS for table in tables) and list(activity["keys"]) == KEYS
    assert list(activity["classes"]) == CLASSES and activity["time_pool"] == 4
    for n, key in enumerate(KEYS):
        mix, fs = read_audio(mixes[key])
        expected = separator.separate(mix[:, 0], fs)
        for table, e in zip(tables, expected):
            est, fs_out = read_audio(table[key])
            assert fs_out == fs
            np.testing.assert_allclose(est[:, 0], e, atol=2**-23)
        heard = separator.classify_batch(mix.T)[0]
        a, b = activity["indptr"][n : n + 2]
        np.testing.assert_allclose(activity["frame"][a:b], heard.frame, atol=1e-6)
        np.testing.assert_allclose(activity["clip"][n], heard.clip, atol=1e-6)


def test_second_run_does_nothing_and_another_model_starts_anew(data, infer, tmp_path, monkeypatch):
    out = infer(data)
    before = times(out)
    with monkeypatch.context() as patch:
        patch.setattr(WeakStandIn, "separate", None)
        infer(data)
    assert times(out) == before
    torch.save(WeakStandIn(residual=True, seed=5).state_dict(), tmp_path / "exp/best.pth")
    infer(data)
    after = times(out)
    assert after.keys() == before.keys() and all(after[p] > before[p] for p in before)


def test_goes_on_where_it_was_stopped(data, infer, monkeypatch):
    real = FlacArkWriter.write

    def broken(self, key, x):
        if key == KEYS[-1]:
            raise KeyboardInterrupt
        real(self, key, x)

    monkeypatch.setattr(FlacArkWriter, "write", broken)
    with pytest.raises(KeyboardInterrupt):
        infer(data)
    monkeypatch.setattr(FlacArkWriter, "write", real)
    out = data.parents[1] / "inf"
    assert not (out / "spk1.scp").exists() and not (out / "spk1.00001.ark").exists()
    first = (out / "spk1.00000.ark").stat().st_mtime_ns
    infer(data)
    assert (out / "spk1.00000.ark").stat().st_mtime_ns == first
    assert list(read_scp(out / "spk3.scp")) == KEYS and not (out / "parts").exists()


def test_long_and_odd_recordings_go_through_in_chunks(infer, tmp_path, monkeypatch):
    """A song from an archive, a stereo file at another rate; each comes back as it is."""
    data = tmp_path / "songs"
    song, stereo = noise(5, 16000), noise(4.5, 44100, 2)
    with FlacArkWriter(data, "wav", 16000, 24) as ark:
        ark.write("song", song[:, 0])
    soundfile.write(data / "stereo.wav", stereo, 44100)
    with open(data / "wav.scp", "a") as f:
        f.write(f"a-stereo {data / 'stereo.wav'}\n")
    chunked = infer(data, "chunked", "--chunk", "1", "--context", "1")
    whole = infer(data, "whole", "--chunk", "0")
    for s in (1, 2, 3, 4):
        tables = [read_scp(out / f"spk{s}.scp") for out in (chunked, whole)]
        for key, x, fs in (("song", song, 16000), ("a-stereo", stereo, 44100)):
            (a, rate), (b, _) = (read_audio(table[key]) for table in tables)
            assert rate == fs and a.shape == x.shape
            np.testing.assert_allclose(a, b, atol=2e-5)
    a, b = (np.load(out / "activity.npz") for out in (chunked, whole))
    np.testing.assert_allclose(a["frame"], b["frame"], atol=1e-5)
    np.testing.assert_allclose(a["clip"], b["clip"], atol=1e-5)


def test_several_models_in_one_call(data, infer, tmp_path):
    exp, outs = tmp_path / "exp", [tmp_path / "a", tmp_path / "b"]
    torch.save(WeakStandIn(residual=True, seed=1).state_dict(), exp / "other.pth")
    models = []
    for out, name in zip(outs, ("best.pth", "other.pth")):
        models += [
            "--output_dir",
            str(out),
            "--train_config",
            str(exp / "config.yaml"),
            "--model_file",
            str(exp / name),
        ]
    main(["--data_dir", str(data), "--device", "cpu", *models])
    a, b = (read_audio(read_scp(out / "spk1.scp")["m00"])[0] for out in outs)
    assert np.abs(a - b).max() > 1e-4
    with pytest.raises(SystemExit):
        main(["--data_dir", str(data), *models[:-2]])


def test_refusals(data, infer, tmp_path):
    with pytest.raises(DataError, match="wav.scp: no such file"):
        infer(tmp_path)
    with pytest.raises(DataError, match="batch_size"):
        infer(data, "inf", "--batch_size", "0")
    table = read_scp(data / "wav.scp")
    ark, at = table["m09"].rsplit(":", 1)
    (data / "wav.scp").write_text(
        "".join(f"{k} {v if k != 'm09' else f'{ark}:{int(at) + 3}'}\n" for k, v in table.items())
    )
    with pytest.raises(DataError, match="key m09: .*ark"):
        infer(data)
    assert not (tmp_path / "inf/spk1.scp").exists()


def test_an_archive_that_was_taken_away_is_made_anew(data, infer, monkeypatch):
    real = outputs.write_activity

    def loses_one(path, activity):
        (path.parent / "spk2.00001.ark").unlink()
        return real(path, activity)

    monkeypatch.setattr(outputs, "write_activity", loses_one)
    with pytest.raises(DataError, match="spk2.00001.ark: is missing or was changed"):
        infer(data)
    monkeypatch.setattr(outputs, "write_activity", real)
    assert list(read_scp(infer(data) / "spk2.scp")) == KEYS
