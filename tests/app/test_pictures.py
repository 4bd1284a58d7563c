"""Waveforms and spectrograms by hand-computed values."""

import numpy as np
import pytest

from espnet2_ext.app.pictures import BANDS, LOWEST, STEP, draw
from espnet2_ext.audio.streams import ArraySource
from espnet2_ext.errors import DataError

FS = 16000


class Source(ArraySource):
    """Sound in memory, from any sample on, in blocks of an odd size."""

    def __init__(self, x, fs=FS):
        super().__init__(np.asarray(x, np.float32).reshape(len(x), -1), fs)

    def blocks(self, dtype="float32", start=0):
        for i in range(start, self.frames, 777):
            yield self.x[i : i + 777]


def parts(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    columns = len(data) // (8 + BANDS)
    peaks = np.frombuffer(data, np.float32, 2 * columns).reshape(-1, 2)
    return peaks, np.frombuffer(data, np.uint8, offset=8 * columns).reshape(-1, BANDS) * STEP + LOWEST


def test_peaks_are_those_of_each_part_and_of_all_channels():
    x = np.random.default_rng(0).uniform(-1, 1, (10007, 2)).astype(np.float32)
    peaks, levels = parts(draw(Source(x), 1000, 9001, 13))
    edges = 1000 + np.arange(14) * 8001 // 13
    for (low, high), a, b in zip(peaks, edges, edges[1:]):
        assert (low, high) == (x[a:b].min(), x[a:b].max())
    assert levels.shape == (13, BANDS)


@pytest.mark.parametrize("seconds, columns", [(4, 50), (0.5, 400), (40, 20)])
def test_a_sine_has_its_level_in_its_band(seconds, columns):
    t = np.arange(round(seconds * FS)) / FS
    levels = parts(draw(Source(0.1 * np.sin(2 * np.pi * 1000 * t)), 0, len(t), columns))[1]
    inside = levels[3:-3] if seconds > 1 else levels[150:250]
    assert np.abs(inside.max(1) + 20).max() <= 1.5  # a sine of 0.1: -20 dB; between two bins the window loses 1.4
    mel = 2595 * np.log10(1 + 1000 / 700) / (2595 * np.log10(1 + 8000 / 700))
    assert (np.abs(inside.argmax(1) - mel * BANDS) <= 1.5).all()


def test_a_click_is_seen_in_its_column_alone():
    x = np.zeros(10 * FS)
    x[7 * FS + 100] = 1
    peaks, _ = parts(draw(Source(x), 0, len(x), 10))
    assert peaks[:, 1].tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 0, 0]


def test_short_ones_and_none():
    peaks, levels = parts(draw(Source([0.5, -0.25]), 0, 2))
    assert peaks.tolist() == [[0.5, 0.5], [-0.25, -0.25]] and levels.shape == (2, BANDS)
    assert draw(Source([0.5]), 1, 1) == draw(Source([0.5]), 5, 9) == b""


def test_samples_that_are_no_numbers():
    with pytest.raises(DataError, match="the array: holds samples that are not numbers"):
        draw(Source([0.0, np.nan, 0.0]), 0, 3)
