"""Queries tuned on examples: never worse where they were chosen, the network untouched."""

import logging

import numpy as np
import pytest
import soundfile
import torch
from standin import noise

from espnet2_ext.cli import main as cli
from espnet2_ext.core.losses.separation import neg_sdr
from espnet2_ext.errors import DataError
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.infer.vectors.adapt import LEVELS, _mixtures, _split, _stretch, adapt

FS = 16000


def hum(i: int, seconds: float = 1.0) -> np.ndarray:
    t = np.arange(int(seconds * FS)) / FS
    return (0.3 * np.sin(2 * np.pi * (400 + 30 * i) * t)).astype(np.float32)


def hiss(i: int) -> np.ndarray:
    x = np.random.default_rng(i).standard_normal(2 * FS)
    return (0.1 * np.diff(x, prepend=0)).astype(np.float32)  # mostly above the hums


EXAMPLES, OTHERS = [hum(i) for i in range(6)], [hiss(i) for i in range(6)]


def test_better_than_the_mean_query_on_held_out_sounds(separator):
    before = {k: v.clone() for k, v in separator.model.state_dict().items()}
    found = adapt(separator, EXAMPLES, OTHERS, steps=60, seconds=0.5, lr=0.5)
    assert found.sdr > found.mean_sdr + 1 and found.step in (20, 40, 60)
    assert found.query.shape == (8,) and found.query.dtype == np.float32 and np.isfinite(found.query).all()
    assert all(torch.equal(before[k], v) for k, v in separator.model.state_dict().items())
    assert not any(p.grad is not None for p in separator.model.parameters())
    # the figures are those of the answers themselves
    valid = _mixtures(np.random.default_rng([0, 0]), EXAMPLES[4:5], OTHERS[4:5], 16, FS // 2)
    mean = np.mean([separator.embed_one(x, FS) for x in EXAMPLES], 0)
    for query, sdr in ((mean, found.mean_sdr), (found.query, found.sdr)):
        est = separator.separate_batch(valid[0].numpy(), np.tile(query, (16, 1)))
        loss = neg_sdr(est=torch.from_numpy(est), ref=valid[1], mix=valid[0])
        assert -loss.mean().item() == pytest.approx(sdr, abs=1e-3)
    again = adapt(separator, EXAMPLES, OTHERS, steps=60, seconds=0.5, lr=0.5)
    np.testing.assert_array_equal(again.query, found.query)


def test_where_no_step_is_better_it_is_the_mean_query(separator):
    found = adapt(separator, EXAMPLES, OTHERS, steps=20, seconds=0.5, lr=1e4)
    mean = np.mean([separator.embed_one(x, FS) for x in EXAMPLES], 0)
    assert found.step == 0 and found.sdr == found.mean_sdr
    np.testing.assert_array_equal(found.query, mean)


def test_what_is_held_out(separator):
    assert _split([0, 1]) == ([0], [1])
    assert _split(list(range(11))) == ([0, 1, 2, 3, 5, 6, 7, 8, 10], [4, 9])
    assert adapt(separator, EXAMPLES[:2], OTHERS[:1], steps=1, seconds=0.5).step in (0, 1)
    for examples, others in ((EXAMPLES[:1], OTHERS), (EXAMPLES, [])):
        with pytest.raises(DataError, match="two examples or more"):
            adapt(separator, examples, others)


def test_mixtures():
    rng = np.random.default_rng(0)
    mix, ref = (x.numpy() for x in _mixtures(rng, [hum(0, 0.25)], [hiss(0)], 50, FS // 2))
    levels = 10 * np.log10((ref**2).sum(1) / ((mix - ref) ** 2).sum(1))
    assert LEVELS[0] <= levels.min() < -5 and 10 < levels.max() <= LEVELS[1] + 1e-3
    assert all(np.count_nonzero(r) <= FS // 4 for r in ref)
    assert len({int(np.flatnonzero(r)[0]) for r in ref}) > 40  # short ones lie anywhere
    sparse = np.zeros(10 * FS, np.float32)
    sparse[-FS:] = 1
    assert sum(_stretch(rng, [sparse], FS).any() for _ in range(50)) > 25  # of one in ten


def test_the_command(toy_bundle, tmp_path, monkeypatch, caplog, capsys):
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)
    for name, sounds in (("dog", EXAMPLES), ("street", OTHERS)):
        (tmp_path / name).mkdir()
        for i, x in enumerate(sounds):
            soundfile.write(f"{name}/{i}.wav", x, FS)
    soundfile.write("mix.wav", noise(1, FS), FS)
    command = ["adapt", "--mixtures", "street", "--bundle", "toy.zip", "--steps", "40", "-o", "q.npy"]
    cli.main([*command, "--query", "dog"])
    assert "q.npy: SDR on held-out sounds" in caplog.text and "6 examples, 6 other sounds" in caplog.text
    cli.main(["separate", "mix.wav", "--query", "q.npy", "--bundle", "toy.zip", "-o", "out.wav"])
    assert np.load("q.npy").shape == (8,) and soundfile.info("out.wav").frames == FS
    assert Separator.from_bundle("toy.zip", "cpu").embed_one("q.npy").shape == (8,)
    soundfile.write("silent.wav", np.zeros(FS), FS)
    for more, message in (
        (["--query", "dog/0.wav"], "two examples or more"),
        (["--query", "gone"], "gone: no such file"),
        (["--query", "dog", "--mixtures", "silent.wav"], "silent.wav: is silent"),
        (["--query", "dog", "-o", "q.wav"], "must end in .npy"),
    ):
        with pytest.raises(SystemExit) as e:
            cli.main([*command, *more])
        assert e.value.code == 1 and message in capsys.readouterr().err
