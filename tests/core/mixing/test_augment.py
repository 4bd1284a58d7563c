"""Changes of the sources: each by what it does to a known sound."""

import dataclasses

import numpy as np
import pytest
from test_mixing import draws, noise_bank

from espnet2_ext.core.mixing.augment import Augment, Effects
from espnet2_ext.core.mixing.pair_drawer import PairDrawer, render
from espnet2_ext.errors import DataError

FS = 16000


def tone(hz, n):
    return np.sin(2 * np.pi * hz * np.arange(n) / FS).astype(np.float32)


def effects(**one):
    return Effects(np.random.default_rng(0), **one)


def peak_hz(x):
    return np.argmax(np.abs(np.fft.rfft(x * np.hanning(len(x))))) * FS / len(x)


def level(x):
    return np.sqrt(np.mean(np.square(x, dtype=np.float64)))


def test_speed_moves_the_pitch():
    x = effects(speed=1.25)(lambda n: tone(800, n), FS, FS)
    assert x.dtype == np.float32 and len(x) == FS
    assert peak_hz(x) == pytest.approx(1000, abs=5)


def test_low_pass_and_colour_weigh_frequencies():
    both = lambda n: tone(200, n) + tone(4000, n)  # noqa: E731
    low = np.abs(np.fft.rfft(effects(cutoff=1000.0)(both, FS, FS)))
    assert 20 * np.log10(low[200] / low[4000]) == pytest.approx(10 * np.log10(1 + 4.0**8), abs=0.5)
    colour = np.array([-6.0, -6, -6, -6, 6, 6, 6])
    bright = np.abs(np.fft.rfft(effects(colour=colour)(both, FS, FS)))
    assert 20 * np.log10(bright[4000] / bright[200]) == pytest.approx(12, abs=0.5)


def test_a_room_goes_on_after_the_sound():
    click = lambda n: np.eye(1, n, 100, dtype=np.float32)[0]  # noqa: E731
    x = effects(reverb=(0.5, 0.0))(click, FS, FS)
    assert np.argmax(np.abs(x)) == 100 and not np.abs(x[:99]).max() > 1e-6
    early, late = level(x[200:2200]), level(x[6000:8000])
    assert 20 * np.log10(early / late) == pytest.approx(60 * (5800 / FS) / 0.5, abs=3)


def test_peaks_are_cut_and_samples_are_coarse():
    cut = effects(clip=0.5)(lambda n: tone(100, n), FS, FS)
    assert np.mean(np.abs(cut) > 0.999 * np.abs(cut).max()) > 0.6
    coarse = effects(coarse=True)(lambda n: tone(100, n), FS, FS)
    assert len(np.unique(coarse)) < 256
    assert 20 * np.log10(level(coarse - tone(100, FS)) / level(coarse)) < -30


def test_level_is_kept_and_silence_stays():
    augment = Augment(prob=1.0)
    for seed in range(10):
        found = augment.draw(np.random.default_rng(seed))
        x = found(lambda n: 0.1 * tone(300, n), FS, FS)
        assert level(x) == pytest.approx(0.1 / np.sqrt(2), rel=0.05)
        assert not augment.draw(np.random.default_rng(seed))(lambda n: np.zeros(n, np.float32), FS, FS).any()
    assert Augment(prob=0.0).draw(np.random.default_rng(0)) is None


def test_rows_decide_and_a_query_that_is_its_target_stays_so():
    bank = noise_bank([3, 3, 3], seconds=4.0)
    augment = Augment(prob=0.5, lowpass=200)
    for pair in draws(PairDrawer(bank, segment=1.0, query_from="mixed", num_sources=3), 8):
        out, again = render(pair, bank, augment=augment), render(pair, bank, augment=augment)
        for name, x in out.items():
            np.testing.assert_array_equal(x, again[name])
        if pair.query1 == pair.clip1:
            np.testing.assert_array_equal(out["query1"], out["ref1"])
        other = render(dataclasses.replace(pair, id="x"), bank, augment=augment)
        assert any((x != other[name]).any() for name, x in out.items())


@pytest.mark.parametrize("wrong", [{"prob": 2}, {"speed": 0.5}, {"reverb": [0.5]}, {"clip": 0}, {"lowpass": 1}])
def test_values_out_of_range_are_named(wrong):
    with pytest.raises(DataError, match=next(iter(wrong))):
        Augment(**wrong)


def test_a_short_sound_is_played_at_the_asked_speed():
    sound = tone(1000, 4096)
    assert peak_hz(effects(speed=1.15)(lambda n: sound[:n], 400, FS)) == pytest.approx(1150, abs=FS / 800)
