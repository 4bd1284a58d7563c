"""One output a class in fixed order; chunks; activity; what is refused."""

import numpy as np
import pytest
import soundfile
import torch
import yaml
from standin import CLASSES, WeakStandIn, build_weak_standin, noise

from espnet2_ext.audio.streams import ArraySource
from espnet2_ext.errors import BundleError, DataError
from espnet2_ext.infer import weights
from espnet2_ext.infer.class_separator import WeakSeparator, windows


@pytest.fixture
def separator():
    return WeakSeparator(WeakStandIn(residual=True), "cpu")


def test_outputs_are_the_classes_in_order_and_the_residual(separator):
    assert separator.outputs == [*CLASSES, "rest"]
    fs, t = 16000, np.arange(16000) / 16000
    for s in range(4):  # a tone in the middle of each output's band
        tone = np.sin(2 * np.pi * (s + 0.5) * 2000 * t).astype(np.float32)
        out = separator.separate(tone, fs)
        assert out.shape == (4, fs) and np.argmax(np.square(out).sum(1)) == s


def test_chunked_equals_whole(separator):
    x = noise(9.3, 16000)[:, 0]
    plan = separator.plan(2, 1)
    whole = separator.separate(x, 16000, separator.plan(0))
    separator.model.calls.clear()
    parts = separator.separate(x, 16000, plan)
    assert len(separator.model.calls) > 3 and max(separator.model.calls) < 5 * 16000
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    assert plan.core % (128 * 4) == 0 and plan.fade == 8000


@pytest.mark.parametrize("fs, channels", [(16000, 1), (44100, 2), (8000, 1)])
def test_activity_in_chunks_is_that_of_the_whole(separator, fs, channels):
    source = ArraySource(noise(9.3, fs, channels), fs)
    whole = separator.classify(source, separator.plan(0))
    parts = separator.classify(source, separator.plan(2, 1))
    assert whole.frame.shape == ((148800 // 128 + 1) // 4, 3) and whole.clip.shape == (3,)
    assert whole.frame.std() > 0.01
    np.testing.assert_allclose(parts.frame, whole.frame, atol=1e-5)
    np.testing.assert_allclose(parts.clip, whole.clip, atol=1e-5)


def test_windows_hold_every_sample_once_and_little_at_a_time(separator):
    plan = separator.plan(2, 1)
    for samples in (1, 5000, plan.core, plan.core + plan.after, plan.core + plan.after + 1, 200000):
        x = np.arange(samples, dtype=np.float32)[:, None]
        cores = []
        for held, before, core in windows(ArraySource(x, 16000), 16000, plan):
            assert len(held) <= plan.context + plan.core + plan.after + (core is None) * samples
            cores.append(held[before : None if core is None else before + core])
        assert np.array_equal(np.concatenate(cores), x[:, 0])


def test_any_rate_and_channels_and_silence(separator, tmp_path):
    x = noise(1, 44100, 2)
    out = separator.separate(x, 44100)
    assert out.shape == (4, 44100, 2)
    one = separator.separate(x[:, 0], 44100)  # each channel on its own
    np.testing.assert_allclose(out[..., 0], one, atol=1e-6)
    assert not separator.separate(np.zeros(800, np.float32), 16000).any()
    soundfile.write(tmp_path / "x.wav", x, 44100, subtype="FLOAT")
    names = [tmp_path / f"{n}.wav" for n in separator.outputs]
    separator.separate_to(tmp_path / "x.wav", names, tmp_path / "left.wav")
    files = [soundfile.read(f)[0] for f in [*names, tmp_path / "left.wav"]]
    np.testing.assert_allclose(sum(files), x, atol=1e-6)
    with pytest.raises(DataError, match="has 4 outputs, 1 files"):
        separator.separate_to(tmp_path / "x.wav", names[:1])


def test_refusals(separator):
    with pytest.raises(DataError, match=r"got \[0\]"):
        separator.separate(np.zeros(0, np.float32), 16000)
    with pytest.raises(DataError, match="not a number"):
        separator.separate(np.full(100, np.nan, np.float32), 16000)
    with pytest.raises(BundleError, match="is a classifier alone"):
        WeakSeparator(WeakStandIn(part="classifier"), "cpu")
    with torch.no_grad():
        separator.model.local.fill_(torch.nan)
    with pytest.raises(BundleError, match="not numbers; the training"):
        separator.separate(noise(0.5, 16000)[:, 0], 16000)


@pytest.fixture
def exp(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "build_model", build_weak_standin)
    conf = {"model_conf": {"seed": 3}, "classifier_file": "gone.pth"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(conf))
    model = WeakStandIn(seed=3)
    torch.save(model.state_dict(), tmp_path / "best.pth")
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    torch.save(
        {"state_dict": {**state, "loss_func.x": torch.zeros(1)}, "epoch": 3, "pytorch-lightning_version": "2.6"},
        tmp_path / "best.ckpt",
    )
    return tmp_path


def test_weights_of_both_trainers(exp):
    x = noise(0.5, 16000)[:, 0]
    outs = [
        WeakSeparator.from_exp(exp / "config.yaml", exp / name, "cpu").separate(x, 16000)
        for name in ("best.pth", "best.ckpt")
    ]
    assert np.array_equal(*outs)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("local"), "1 missing .local."),
        (lambda s: s.update(more=torch.zeros(2)), "1 unexpected .more."),
        (lambda s: s.update(bands=torch.zeros(2)), "1 of another shape .bands"),
    ],
)
def test_weights_of_another_model_are_refused(exp, change, message):
    state = torch.load(exp / "best.pth")
    change(state)
    torch.save(state, exp / "best.pth")
    with pytest.raises(BundleError, match=message):
        WeakSeparator.from_exp(exp / "config.yaml", exp / "best.pth", "cpu")


def test_broken_files_are_named(exp):
    for name in ("config.yaml", "best.pth", "best.ckpt"):
        text = (exp / name).read_bytes()
        for content in (None, b"a: [1"):
            (exp / name).write_bytes(content) if content else (exp / name).unlink()
            with pytest.raises(BundleError, match=name):
                WeakSeparator.from_exp(
                    exp / "config.yaml", exp / ("best.pth" if name == "config.yaml" else name), "cpu"
                )
        (exp / name).write_bytes(text)
    torch.save({"state_dict": {"net.x": torch.zeros(1)}}, exp / "best.ckpt")
    with pytest.raises(BundleError, match="begins with 'model.'"):
        WeakSeparator.from_exp(exp / "config.yaml", exp / "best.ckpt", "cpu")
