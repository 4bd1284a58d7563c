"""Loudness against the standard's own figures, the rule for short sounds, and whole banks."""

import logging
import sys

import numpy as np
import pytest
from sounds import bank_of, noise, snapshot

from espnet2_ext.data.bank import per_clip as module
from espnet2_ext.data.bank.per_clip import bank_loudness, loudness
from espnet2_ext.data.bank.shards import Limits
from espnet2_ext.data.tables import Label
from espnet2_ext.errors import DataError

FS = 16000


def sine(seconds, amplitude, fs=FS, frequency=997.0):
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * fs)) / fs)


@pytest.mark.parametrize("fs", [16000, 22050, 44100, 48000])
def test_a_sine_of_one_kilohertz(fs):
    # ITU-R BS.1770-4: 997 Hz at 0 dB of full scale in one channel reads -3.01 LUFS
    assert loudness(sine(2, 1.0, fs), fs) == pytest.approx(-3.01, abs=0.05)
    assert loudness(sine(2, 0.1, fs), fs) == pytest.approx(-23.01, abs=0.05)


@pytest.mark.parametrize("seconds", [0.05, 0.3, 0.39999])
def test_sounds_shorter_than_the_gate(seconds):
    short, long = loudness(sine(seconds, 0.1), FS), loudness(sine(2, 0.1), FS)
    assert short == pytest.approx(long, abs=0.15)  # the filter starts from rest
    half = np.append(sine(seconds / 2, 0.1), np.zeros(round(seconds / 2 * FS)))
    assert loudness(half, FS) == pytest.approx(short - 3.01, abs=0.2)  # no gate: pauses count


def test_pauses_do_not_count_where_gates_apply():
    x = np.concatenate([sine(2, 0.1), np.zeros(10 * FS)])
    assert loudness(x, FS) == pytest.approx(loudness(sine(2, 0.1), FS), abs=0.8)


def test_levels_add_up():
    x = noise(FS, 1)
    assert loudness(0.5 * x, FS) == pytest.approx(loudness(x, FS) - 6.0206, abs=1e-4)


@pytest.mark.parametrize("seconds", [0.1, 2.0])
def test_silence(seconds):
    assert loudness(np.zeros(round(seconds * FS)), FS) == -np.inf
    assert loudness(sine(seconds, 1e-5), FS) == -np.inf


@pytest.mark.parametrize("x", [[], [[1.0, 2.0]], [0.0, np.nan], [np.inf]])
def test_what_has_no_loudness(x):
    with pytest.raises(ValueError, match="finite samples"):
        loudness(np.array(x), FS)


def test_package_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyloudnorm", None)
    with pytest.raises(DataError, match="pip install pyloudnorm"):
        loudness(np.ones(FS), FS)


def test_a_bank_is_measured_once(tmp_path, caplog, monkeypatch):
    sounds = {"a": sine(1, 0.1), "b": sine(0.2, 0.01), "c": noise(FS, 3), "d": sine(1, 2e-4)}
    waves = {k: (x, ("x",)) for k, x in sounds.items()}
    bank = bank_of(tmp_path, waves, [Label(0, "x", "x")], FS, limits=Limits(0.1, -100))
    with caplog.at_level(logging.WARNING):
        levels = bank_loudness(bank, num_workers=1)
    assert levels[:2] == pytest.approx([-23.0, -43.0], abs=0.1) and levels[3] == -np.inf
    assert levels[2] == loudness(bank.read(2), FS)
    assert "1 silent clips are left out (d)" in caplog.text
    before = snapshot(tmp_path / "dump")
    monkeypatch.setattr(module, "measure_part", None)
    assert np.array_equal(bank_loudness(bank), levels)
    assert snapshot(tmp_path / "dump") == before
    monkeypatch.undo()
    (tmp_path / "dump" / "loudness.json").write_text("{}")  # of another bank: measured anew
    assert np.array_equal(bank_loudness(bank, num_workers=1), levels)
