"""Where in a recording a sound occurs."""

import csv
import logging
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch
from standin import WeakStandIn, noise

from espnet2_ext.audio.streams import ArraySource, open_source
from espnet2_ext.cli import main as cli
from espnet2_ext.data.outputs import Tags
from espnet2_ext.errors import DataError
from espnet2_ext.infer.class_separator import WeakSeparator
from espnet2_ext.infer.queries import Ask
from espnet2_ext.infer.vectors.find import Found, class_scores, query_scores, stretches

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


def scores(separator, source, query, plan=None):
    return (float(x) for (x,) in query_scores(separator, source, Ask(query[None]), plan))


def found_in(separator, source, query, threshold, plan=None):
    return list(stretches(scores(separator, source, query, plan), source.frames / source.fs, threshold))


def test_found_where_it_is(finder, recording):
    """Of the windows with the tone, the steps with it."""
    query = finder.embed_one(tone(1), FS)
    plan = finder.plan(5, 1)
    found = found_in(finder, ArraySource(recording[:, None], FS), query, 0.4, plan)
    assert [(x.start, x.end) for x in found] == [(3, 5), (17.5, 18)]
    stereo = np.stack([recording, recording], 1)
    assert [x[:2] for x in found_in(finder, ArraySource(stereo, FS), query, 0.4, plan)] == [(3, 5), (17.5, 18)]
    assert not found_in(finder, ArraySource(recording[:, None], FS), -query, 0.01, plan)  # what is there is unlike it


def test_the_rule_of_the_score(finder, recording, monkeypatch):
    """No calibration: half of the amplitude and a cosine of 0.8: 0.4; silence: 0; the end is a step of its own."""
    finder.model.separate = lambda wave, query, level: wave[:, None] / 2
    monkeypatch.setattr(finder, "embed_batch", lambda waves: (np.eye(8)[:1].repeat(len(waves), 0) * 3, None))
    query = np.array([0.8, 0.6, *np.zeros(6)])
    recording[FS : 2 * FS] = recording[: FS // 2] = 0  # within what is heard, and before it
    found = list(scores(finder, ArraySource(recording[:, None], FS), query, finder.plan(5, 1)))
    np.testing.assert_allclose(found, [0] + [0.4] * 42, atol=1e-5)
    assert found_in(finder, ArraySource(recording[:, None], FS), query, 0.39) == [Found(0.5, 21.3, pytest.approx(0.4))]
    silence = ArraySource(np.zeros((FS, 1), np.float32), FS)
    assert list(scores(finder, silence, query)) == [0, 0]
    assert len(list(scores(finder, ArraySource(recording[:7, None], FS), query))) == 1


def test_another_rate(finder, wav):
    x = np.concatenate([0 * tone(2), tone(2), 0 * tone(1.01)]).repeat(3)
    source = open_source(wav("mix.wav", np.convolve(x, np.ones(3) / 3, "same"), 3 * FS))
    found = found_in(finder, source, finder.embed_one(tone(1), FS), 0.5)
    assert [x[:2] for x in found] == [(2, 4)] or [x[:2] for x in found] == [(2, 4.5)]  # a filter's ringing


def test_activity_of_a_class(monkeypatch):
    """Frames of 4 hops, 32 ms: each step has the highest of the frames that begin in it."""
    weak, frames = WeakSeparator(WeakStandIn(), "cpu"), round(2.3 * 16000 / 512)
    value = np.linspace(0, 1, frames)
    pieces = [Tags(None, np.stack([0 * x, x, 0 * x], 1)) for x in np.split(value, [10, 11])]
    monkeypatch.setattr(weak, "activity", lambda source, plan=None: iter(pieces))
    source = ArraySource(noise(2.3, 16000), 16000)
    found = list(class_scores(weak, source, "DOG"))
    begins = np.arange(frames) * 0.032 // 0.5
    np.testing.assert_allclose(found, [value[begins == i].max() for i in range(5)])
    with pytest.raises(DataError, match="class:cat: the model knows bell, dog, siren"):
        list(class_scores(weak, source, "cat"))


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
    highest = max(float(r["score"]) for r in rows)
    assert f"(highest score {highest:.2f}, found from 0.20 on)" in caplog.text
    assert all(0 <= float(r["start"]) < float(r["end"]) <= 21.3 and 0.2 <= float(r["score"]) <= 1 for r in rows)
    cli.main([*run, "--threshold", "0.2", "--format", "audacity", "-o", "labels.txt"])
    labels = [line.split("\t") for line in (tmp_path / "labels.txt").read_text().splitlines()]
    assert [x[:2] for x in labels] == [[r["start"], r["end"]] for r in rows]
    assert all(x[2].startswith("long@3-5 0.") for x in labels)
    caplog.clear()
    for more, message in (
        (["--threshold", "0"], "--threshold 0: above 0, up to 1"),
        (["-o", "long.wav"], "long.wav: is an input"),
        (["--query", "long.wav@3-50"], "long.wav@3-50: the recording ends at 21.3 s"),
    ):
        with pytest.raises(SystemExit):
            cli.main([*run, *more])
        assert message in capsys.readouterr().err
