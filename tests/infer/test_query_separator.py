"""Arrays and files in and out: rate, length, channels, sample types, bad input."""

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from standin import StandIn, noise

from espnet2_ext.audio import streams as audio_files
from espnet2_ext.audio.streams import ArraySource, OutputType, open_source, output_type
from espnet2_ext.core.separators import shared
from espnet2_ext.data.tables import Label
from espnet2_ext.errors import BundleError, DataError
from espnet2_ext.infer.chunks import Plan
from espnet2_ext.infer.queries import Ask
from espnet2_ext.infer.query_separator import Separator


@pytest.fixture
def query(separator):
    return np.random.default_rng(2).standard_normal((1, separator.query_dim))


@pytest.mark.parametrize("channels", [None, 1, 2, 6])
@pytest.mark.parametrize("fs", [8000, 16000, 32000, 44100, 48000])
def test_rate_length_and_channels_are_kept(separator, fs, channels):
    x = noise(1.7, fs, channels or 1)[:-3]
    x = x[:, 0] if channels is None else x
    queries = np.random.default_rng(2).standard_normal((2, separator.query_dim))
    out = separator.separate(x, fs, queries)
    assert out.shape == (2, *x.shape) and out.dtype == np.float32
    assert np.isfinite(out).all() and np.abs(out).max() > 1e-3


@pytest.mark.parametrize("fs", [8000, 44100, 48000])
def test_resampling_does_not_shift(separator, fs):
    """With a mask of one, what the model can hear comes back where it was."""
    separator.model.separate = lambda wave, query, level: wave[:, None]
    t = np.arange(3 * fs) / fs
    x = np.sin(2 * np.pi * 440 * t).astype(np.float32)
    out = separator.separate(x, fs, np.ones((1, separator.query_dim)))[0]
    assert np.abs(out - x)[fs // 10 : -fs // 10].max() < 1e-3


def test_one_mask_for_all_channels(separator, query):
    """Scaled copies in, scaled copies out; and mono is the same as two equal channels."""
    x = noise(2, 16000)
    out = separator.separate(np.concatenate([x, -0.5 * x], 1), 16000, query)[0]
    np.testing.assert_allclose(out[:, 1], -0.5 * out[:, 0], atol=1e-6)
    both = separator.separate(np.concatenate([x, x], 1), 16000, query)[0]
    mono = separator.separate(x[:, 0], 16000, query)[0]
    np.testing.assert_allclose(both[:, 0], mono, atol=1e-6)


def test_many_queries_are_the_single_ones(separator):
    x = noise(2, 16000)
    queries = np.random.default_rng(2).standard_normal((7, separator.query_dim))
    out = separator.separate(x, 16000, queries)
    for q in range(7):
        np.testing.assert_allclose(out[q], separator.separate(x, 16000, queries[q : q + 1])[0], atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 100, 127, 129])
@pytest.mark.parametrize("fs", [8000, 16000, 48000])
def test_shorter_than_a_window(separator, query, length, fs):
    x = noise(1, fs)[:length]
    assert separator.separate(x, fs, query).shape == (1, length, 1)


@pytest.mark.parametrize(
    "x, message",
    [
        (np.zeros((0,)), "not empty"),
        (np.zeros((2, 3, 4)), r"\[T\] or \[T, C\]"),
        (np.array([0.1, np.nan, 0.2]), "not a number"),
        (np.array([0.1, np.inf]), "infinite"),
    ],
)
def test_bad_arrays(separator, query, x, message):
    with pytest.raises(DataError, match=message):
        separator.separate(x, 16000, query)


@pytest.mark.parametrize("shape", [(8,), (1, 9), (0, 8)])
def test_bad_query_shape(separator, shape):
    with pytest.raises(DataError, match=r"expected queries of shape \[Q, 8\]"):
        separator.separate(noise(1, 16000), 16000, np.ones(shape))


def test_a_model_that_gives_nan(query):
    model = StandIn()
    separator = Separator(model, device="cpu")
    torch.nn.init.constant_(model.to_mask, float("nan"))
    with pytest.raises(BundleError, match="not numbers"):
        separator.separate(noise(1, 16000), 16000, query)


def test_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Separator(StandIn()).device.type == "cpu"
    for name in ("cuda:93", "toaster"):
        with pytest.raises(DataError, match=name):
            Separator(StandIn(), device=name)


# ---- several references, and sounds to keep out ---------------------------------------------------


def test_the_nearest_reference_answers_each_chunk(separator):
    """Two halves of different colour: each chunk is answered with the reference that sounds like it."""
    t = np.arange(32000) / 16000
    low, high = (np.sin(2 * np.pi * hz * t).astype(np.float32) for hz in (300, 5000))
    references = np.stack([separator.embed_one(x, 16000) for x in (high, noise(1, 16000)[:, 0], low)])
    mix, plan = np.concatenate([low, high]), Plan(32768, 0, 0, 0, 4096)
    out = separator.separate(mix, 16000, Ask(references, nearest=True), plan)
    assert out.shape == (1, 64000)
    each = separator.separate(mix, 16000, references, plan)
    np.testing.assert_allclose(out[0, :32768], each[2, :32768], atol=1e-6)
    np.testing.assert_allclose(out[0, 32768:], each[0, 32768:], atol=1e-6)
    stereo = separator.separate(np.stack([mix, mix], 1), 16000, Ask(references, nearest=True), plan)
    np.testing.assert_allclose(stereo[0, :, 1], out[0], atol=1e-6)
    one = separator.separate(mix, 16000, Ask(references[:1], nearest=True), plan)
    np.testing.assert_allclose(one, separator.separate(mix, 16000, references[:1], plan), atol=1e-6)


def test_what_sounds_like_the_negatives_is_kept_out(separator):
    x = noise(1, 16000)[:, 0]
    queries = np.random.default_rng(2).standard_normal((6, separator.query_dim))
    alone = separator.separate(x, 16000, queries)
    out = separator.separate(x, 16000, Ask(queries, queries[:2]))  # more than go through in one pass
    assert out.shape == alone.shape
    assert (np.square(out).sum(1) < 0.9 * np.square(alone).sum(1)).all()
    np.testing.assert_allclose(out[5], separator.separate(x, 16000, Ask(queries[5:], queries[:2]))[0], atol=1e-6)
    for shape in ((0, 8), (1, 9), (8,)):
        with pytest.raises(DataError, match=r"expected queries of shape \[Q, 8\]"):
            separator.separate(x, 16000, Ask(queries, np.ones(shape)))


def test_shares_of_masks():
    m, n = torch.tensor([0.6, 0.6, 0.0, 1.0, 1.2]), torch.tensor([[0.8, 0.1, 0.5, 0.5, 0], [0.0, 0.1, 0.5, 0.5, 0]])
    found = shared(m[None, None], n[None])[0, 0]
    np.testing.assert_allclose(found, [0.6 / 1.4, 0.6, 0.0, 0.5, 1.2], atol=1e-6)
    turned = torch.polar(m, torch.ones(5))
    np.testing.assert_allclose(shared(turned[None, None], n[None].to(turned.dtype))[0, 0].abs(), found, atol=1e-6)


# ---- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("fs, channels", [(44100, 2), (16000, 1)])
def test_residual_is_the_mixture_minus_the_estimate(separator, wav, tmp_path, query, subtype, fs, channels):
    mix = wav("mix.wav", noise(1.3, fs, channels), fs, subtype)
    est, rest = tmp_path / "est.wav", tmp_path / "rest.wav"
    separator.separate_to(mix, [est], query, rest, separator.plan(0.3, 0.1))
    read = [soundfile.read(p, dtype="float64", always_2d=True) for p in (mix, est, rest)]
    assert all(r[1] == fs and r[0].shape == read[0][0].shape for r in read)
    assert {soundfile.info(p).subtype for p in (est, rest)} == {subtype}
    x, e, r = (r[0] for r in read)
    assert np.abs(e).max() > 0.01 and np.abs(r).max() > 0.01
    if subtype == "FLOAT":  # to half a unit in the last place of the larger: floats cannot do better
        assert (np.abs(r + e - x) <= np.spacing(np.maximum(np.abs(r), np.abs(e)).astype("f4")) / 2).all()
    else:
        np.testing.assert_array_equal(r + e, x)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["est.wav", "mix.wav", "rest.wav"]


def test_file_is_the_array(separator, wav, tmp_path, query):
    mix = wav("mix.wav", noise(1.3, 44100, 2), 44100, "FLOAT")
    separator.separate_to(mix, [tmp_path / "est.wav"], query)
    x, fs = soundfile.read(mix, dtype="float32")
    est, _ = soundfile.read(tmp_path / "est.wav", dtype="float32")
    np.testing.assert_array_equal(est, separator.separate(x, fs, query)[0])


def test_residual_of_two_queries_is_left_by_both(separator, wav, tmp_path):
    mix = wav("mix.wav", noise(1, 16000))
    outs = [tmp_path / "a.wav", tmp_path / "b.wav"]
    queries = np.random.default_rng(2).standard_normal((2, separator.query_dim))
    separator.separate_to(mix, outs, queries, tmp_path / "rest.wav")
    x, a, b, r = (soundfile.read(p)[0] for p in (mix, *outs, tmp_path / "rest.wav"))
    np.testing.assert_array_equal(r, x - a - b)


def test_clipping_is_counted_and_told(wav, tmp_path, caplog):
    loud = Separator(StandIn(loud=40.0), device="cpu")
    mix = wav("mix.wav", noise(1, 16000))
    query = np.ones((1, loud.query_dim))
    done = loud.separate_to(mix, [tmp_path / "est.wav"], query)
    assert done.clipped > 100 and f"{done.clipped} of 16000 samples" in caplog.text
    caplog.clear()
    assert loud.separate_to(mix, [tmp_path / "f.wav"], query, subtype="FLOAT").clipped == 0
    est, exact = (soundfile.read(tmp_path / f"{n}.wav")[0] for n in ("est", "f"))
    assert np.abs(exact).max() > 1 and not caplog.text
    np.testing.assert_allclose(est, exact.clip(-1, 1 - 2**-15), atol=2**-15)


def test_silence_gives_silence(separator, wav, tmp_path, query, caplog):
    mix = wav("mix.wav", np.zeros((16000, 2)))
    separator.separate_to(mix, [tmp_path / "est.wav"], query, tmp_path / "rest.wav")
    assert "mix.wav: is silent" in caplog.text and not separator.model.calls
    for name in ("est", "rest"):
        x, _ = soundfile.read(tmp_path / f"{name}.wav")
        assert x.shape == (16000, 2) and not x.any()


def test_channels_that_cancel(separator, query, caplog):
    x = noise(1, 16000)
    out = separator.separate(np.concatenate([x, -x], 1), 16000, query)
    assert "cancel each other" in caplog.text and not out.any()


def test_bad_files(separator, wav, tmp_path, query):
    x = noise(1, 16000)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is not a sound file, but long enough to look at\n")
    flac = wav("cut.flac", noise(20, 16000))
    flac.write_bytes(flac.read_bytes()[: flac.stat().st_size // 2])
    bad = x.copy()
    bad[4000] = np.nan
    files = {
        "missing.wav": "no such file",
        "empty.wav": "empty",
        "text.wav": "cannot be decoded",
        "cut.flac": r"damaged at \d+\.\d+ s",
        "": "is a folder",
        wav("none.wav", x[:0]).name: "0 samples",
        wav("nan.wav", bad, subtype="FLOAT").name: r"not a number .* 0\.250 s",
    }
    for name, message in files.items():
        with pytest.raises(DataError, match=message) as e:
            separator.separate_to(tmp_path / name, [tmp_path / "est.wav"], query, tmp_path / "rest.wav")
        assert str(tmp_path / name) in str(e.value)
    assert not [p for p in tmp_path.iterdir() if "est" in p.name or "rest" in p.name]


def test_bad_outputs(separator, wav, tmp_path, query):
    mix = wav("mix.wav", noise(1, 16000))
    before = mix.read_bytes()
    for out, rest, message in (
        ("mix.wav", None, "is the input"),
        ("a.mp3", None, "must end in"),
        ("a.wav", "a.wav", "one name"),
        ("a", None, "must end in"),
    ):
        with pytest.raises(DataError, match=message):
            separator.separate_to(mix, [tmp_path / out], query, rest and tmp_path / rest)
    with pytest.raises(DataError, match="1 queries, 2 outputs"):
        separator.separate_to(mix, [tmp_path / "a.wav", tmp_path / "b.wav"], query)
    assert mix.read_bytes() == before


def test_output_types():
    def source(subtype="PCM_16", frames=1000, channels=2):
        s = ArraySource(np.zeros((1, channels), np.float32), 44100)
        s.frames, s.subtype = frames, subtype
        return s

    assert output_type("a.wav", source()) == OutputType("WAV", "PCM_16")
    assert output_type("a.wav", source("PCM_24")) == OutputType("WAV", "PCM_24")
    assert output_type("a.wav", source("VORBIS")) == OutputType("WAV", "PCM_16")
    assert output_type("a.wav", source(), "FLOAT") == OutputType("WAV", "FLOAT")
    assert output_type("a.flac", source("FLOAT")) == OutputType("FLAC", "PCM_24")
    hours7 = 7 * 3600 * 44100
    assert output_type("a.wav", source(frames=hours7)) == OutputType("RF64", "PCM_16")
    assert output_type("a.wav", source(frames=hours7 // 2)) == OutputType("WAV", "PCM_16")
    assert output_type("a.w64", source(frames=hours7)) == OutputType("W64", "PCM_16")
    with pytest.raises(DataError, match="FLAC: PCM_16, PCM_24"):
        output_type("a.flac", source(), "FLOAT")
    with pytest.raises(DataError, match="8 channels, not 9"):
        output_type("a.flac", source(channels=9))


def test_rf64_can_be_read(separator, wav, tmp_path, query, monkeypatch):
    monkeypatch.setattr(audio_files, "WAV_LIMIT", 1000)
    mix = wav("mix.wav", noise(1, 16000))
    separator.separate_to(mix, [tmp_path / "est.wav"], query)
    assert soundfile.info(tmp_path / "est.wav").format == "RF64"
    assert open_source(tmp_path / "est.wav").frames == 16000


def test_no_room(separator, wav, tmp_path, query, monkeypatch):
    mix = wav("mix.wav", noise(1, 16000))
    monkeypatch.setattr(audio_files.shutil, "disk_usage", lambda p: type("Usage", (), {"free": 40_000}))
    separator.separate_to(mix, [tmp_path / "est.wav"], query)
    with pytest.raises(DataError, match="are needed"):
        separator.separate_to(mix, [tmp_path / "e.wav"], query, tmp_path / "rest.wav")


def test_ctrl_c_leaves_nothing_half_written(separator, wav, tmp_path, query):
    mix = wav("mix.wav", noise(10, 16000))
    network = separator.model.separate

    def stopped(wave, **kwargs):
        if len(separator.model.calls) > 2:
            raise KeyboardInterrupt
        return network(wave, **kwargs)

    separator.model.separate = stopped
    with pytest.raises(KeyboardInterrupt):
        separator.separate_to(mix, [tmp_path / "est.wav"], query, tmp_path / "rest.wav", separator.plan(1, 0.5))
    assert [p.name for p in tmp_path.iterdir()] == ["mix.wav"]


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
import standin
from espnet2_ext.infer.query_separator import Separator
separator = Separator(standin.StandIn(), device="cpu")
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    separator.separate_to(sys.argv[1], [sys.argv[2]], np.ones((1, separator.query_dim)))
except OSError as e:
    print("OSError:", e)
"""


def test_a_write_that_fails(wav, tmp_path):
    """A limit on the size of files stands for the disk that fills while we write."""
    mix = wav("mix.wav", noise(10, 16000))
    out = tmp_path / "est.wav"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(mix), str(out)], text=True, capture_output=True, env=child_env()
    )
    assert "OSError:" in done.stdout and str(out) in done.stdout, done
    assert [p.name for p in tmp_path.iterdir()] == ["mix.wav"]


def child_env() -> dict:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


def test_tags_of_a_frozen_network_that_knows_other_classes_are_not_the_models():
    model, classes = StandIn(num_classes=5), [Label(k, f"/m/{k}", "") for k in range(3)]
    with pytest.raises(BundleError, match="3 classes, the model tags 5"):
        Separator(model, classes, device="cpu")
    model.frozen = True
    assert not Separator(model, classes, device="cpu").tags
    wave = noise(1, 16000)[None, :, 0]
    assert Separator(model, classes, device="cpu").embed_batch(wave)[1] is None
    five = Separator(model, classes + classes[:2], device="cpu")
    assert five.embed_batch(wave)[1].shape == (1, 5)
