"""Where in a recording a sound occurs."""

import csv
import logging
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch
from standin import noise

from espnet2_ext.audio.streams import ArraySource, open_source
from espnet2_ext.cli import main as cli
from espnet2_ext.infer.vectors.find import Found, find, scores

FS = 16000


def tone(seconds, hz=500):
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * FS)) / FS)).astype(np.float32)


@pytest.fixture
def finder(separator):
    """Its masks keep what is around 500 Hz, whatever it is asked for."""

    def band(wave, query, level):
        spec = torch.fft.rfft(wave)
        hz = torch.fft.rfftfreq(wave.shape[1], 1 / FS)
        return torch.fft.irfft(spec * ((hz > 450) & (hz < 550)), wave.shape[1])[:, None]

    separator.model.separate = band
    return separator


@pytest.fixture
def recording():
    """21.3 s of noise, a tone of 500 Hz at 3 to 5 s and at 17.5 s, one of 3000 Hz at 8 to 10 s."""
    x = 0.05 * np.random.default_rng(0).standard_normal(round(21.3 * FS)).astype(np.float32)
    for start, seconds, hz in ((3, 2, 500), (8, 2, 3000), (17.5, 0.5, 500)):
        x[round(start * FS) :][: round(seconds * FS)] += tone(seconds, hz)
    return x


def test_found_where_it_is(finder, recording):
    query = finder.embed_one(tone(1), FS)
    plan = finder.plan(5, 1)
    found = list(find(finder, ArraySource(recording[:, None], FS), query, 0.7, plan))
    assert [(x.start, x.end) for x in found] == [(3, 5), (17.5, 18)]
    assert all(0.9 < x.score <= 1 for x in found)
    stereo = np.stack([recording, recording], 1)
    assert [x[:2] for x in find(finder, ArraySource(stereo, FS), query, 0.7, plan)] == [(3, 5), (17.5, 18)]
    other = list(find(finder, ArraySource(recording[:, None], FS), -query, 0.01, plan))
    assert other == []  # what is there is unlike the query


def test_the_rule_of_the_score(finder, recording, monkeypatch):
    """Half of the amplitude and a cosine of 0.8: 0.4; silence: 0; the end is a step of its own."""
    finder.model.separate = lambda wave, query, level: wave[:, None] / 2
    monkeypatch.setattr(finder, "embed_wave", lambda wave: np.eye(8)[0] * len(wave))
    query = np.array([0.8, 0.6, *np.zeros(6)])
    recording[FS : 2 * FS] = 0
    found = list(scores(finder, ArraySource(recording[:, None], FS), query, finder.plan(5, 1)))
    np.testing.assert_allclose(found, [0.4] * 2 + [0] * 2 + [0.4] * 39, atol=1e-5)
    assert list(find(finder, ArraySource(recording[:, None], FS), query, 0.39)) == [
        Found(0, 1, pytest.approx(0.4)),
        Found(2, 21.3, pytest.approx(0.4)),
    ]
    silence = ArraySource(np.zeros((FS, 1), np.float32), FS)
    assert list(scores(finder, silence, query)) == [0, 0]
    assert len(list(scores(finder, ArraySource(recording[:7, None], FS), query))) == 1


def test_another_rate(finder, wav):
    x = np.concatenate([0 * tone(2), tone(2), 0 * tone(1.01)]).repeat(3)
    source = open_source(wav("mix.wav", np.convolve(x, np.ones(3) / 3, "same"), 3 * FS))
    found = list(find(finder, source, finder.embed_one(tone(1), FS), 0.5))
    assert [x[:2] for x in found] == [(2, 4)] or [x[:2] for x in found] == [(2, 4.5)]  # a filter's ringing


def test_memory_does_not_grow_with_the_length(finder):
    peaks, plan = [], finder.plan(2, 0.5)
    query = finder.embed_one(tone(1), FS)
    for seconds in (20, 20, 80):
        source = ArraySource(noise(seconds, FS), FS)
        tracemalloc.start()
        assert len(list(scores(finder, source, query, plan))) == 2 * seconds
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.3 * peaks[1]


def test_the_command(toy_bundle, tmp_path, monkeypatch, capsys, caplog, recording):
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)
    soundfile.write("long.wav", recording, FS)
    run = ["find", "long.wav", "--query", "long.wav@3-5", "--bundle", "toy.zip", "--device", "cpu"]
    cli.main([*run, "--threshold", "0.2"])
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert rows and f"long.wav: found {len(rows)} times" in caplog.text
    assert all(0 <= float(r["start"]) < float(r["end"]) <= 21.3 and 0.2 <= float(r["score"]) <= 1 for r in rows)
    cli.main([*run, "--threshold", "0.2", "--format", "audacity", "-o", "labels.txt"])
    labels = [line.split("\t") for line in (tmp_path / "labels.txt").read_text().splitlines()]
    assert [x[:2] for x in labels] == [[r["start"], r["end"]] for r in rows]
    assert all(x[2].startswith("long@3-5 0.") for x in labels)
    for more, message in (
        (["--threshold", "0"], "--threshold 0: above 0, up to 1"),
        (["-o", "long.wav"], "long.wav: is an input"),
        (["--query", "long.wav@3-50"], "long.wav@3-50: the recording ends at 21.3 s"),
    ):
        with pytest.raises(SystemExit):
            cli.main([*run, *more])
        assert message in capsys.readouterr().err
