"""STOI and ESTOI against pystoi."""

import numpy as np
import pytest

from espnet2_ext.scores import measures as module
from espnet2_ext.scores.measures import Stoi, stoi


@pytest.mark.parametrize("fs", [8000, 10000, 16000, 22050, 32000, 44100, 48000, 12345])
def test_agrees_with_the_package(fs, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 50)
    pystoi = pytest.importorskip("pystoi")
    rng = np.random.default_rng(fs)
    n = int(1.3 * fs) + 3
    ref = 0.1 * rng.standard_normal(n) * np.sin(np.arange(n) / fs * 7) ** 2
    ref[: n // 5] *= 1e-4  # left out
    ests = np.stack([ref + 0.03 * rng.standard_normal(n), rng.standard_normal(n), 0.3 * ref])
    for ours, est in zip(stoi(est=ests, ref=ref, fs=fs), ests):
        theirs = [pystoi.stoi(ref, est, fs, extended=extended) for extended in (False, True)]
        assert ours == pytest.approx(theirs, abs=1e-9)


def test_a_copy_and_what_is_too_short():
    x = np.random.default_rng(0).standard_normal((2, 9000))
    assert stoi(est=x[:1], ref=x[0], fs=10000) == [pytest.approx(Stoi(1.0, 1.0), abs=1e-9)]
    assert stoi(est=x[:1, :3900], ref=x[0, :3900], fs=10000) is None
    assert stoi(est=x[:1, :100], ref=x[0, :100], fs=10000) is None
    x[0, 3600:] = 0  # too little that is loud enough
    assert stoi(est=x[1:], ref=x[0], fs=10000) is None
