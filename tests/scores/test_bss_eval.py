"""The 512-tap SDR against fast_bss_eval and mir_eval."""

import math

import numpy as np
import pytest

from espnet2_ext.core.metrics import MAX_DB
from espnet2_ext.scores.measures import bss_eval_sdr

FS = 16000


def tones(rng, seconds=1.0):
    """Narrow-band sound: the hard case, its equations are nearly singular."""
    t = np.arange(int(seconds * FS)) / FS
    return sum(
        rng.uniform(0.02, 0.1) * np.sin(2 * np.pi * f * t + rng.uniform(0, 6)) for f in rng.uniform(100, 2000, 6)
    )


def pairs():
    rng = np.random.default_rng(3)
    noise = 0.1 * rng.standard_normal(FS)
    decaying = noise * np.exp(-np.arange(FS) / 2000)
    tonal = tones(rng) + 1e-4 * rng.standard_normal(FS)
    for ref in (noise, decaying, tonal):
        other = 0.05 * rng.standard_normal(FS)
        yield ref, ref + other
        yield ref, np.convolve(ref, [0.5, 0.2, 0.1])[:FS] + 0.01 * other
        yield ref, other
        yield ref, ref + 1e-4 * np.std(ref) * rng.standard_normal(FS)


@pytest.mark.filterwarnings("ignore:.*mir_eval.separation:FutureWarning")
@pytest.mark.parametrize("case", range(12))
def test_agrees_with_the_packages(case):
    fast = pytest.importorskip("fast_bss_eval.numpy")
    separation = pytest.importorskip("mir_eval.separation")
    ref, est = list(pairs())[case]
    ours = bss_eval_sdr(est=est, ref=ref)
    assert ours == pytest.approx(float(fast.sdr(ref[None], est[None])[0]), abs=1e-3)
    theirs = separation.bss_eval_sources(ref[None], est[None], compute_permutation=False)[0]
    assert ours == pytest.approx(theirs.item(), abs=1e-3)


def test_several_estimates_are_as_each_alone():
    ref = tones(np.random.default_rng(6))
    ests = np.stack([est for _, est in pairs()] + [np.zeros(FS)])
    assert bss_eval_sdr(est=ests, ref=ref) == pytest.approx(
        [float(bss_eval_sdr(est=e, ref=ref)) for e in ests], nan_ok=True, abs=1e-6
    )


def test_level_and_a_short_filter_are_forgiven():
    rng = np.random.default_rng(4)
    ref, other = 0.1 * rng.standard_normal((2, FS))
    est = ref + 0.1 * other
    assert bss_eval_sdr(est=7 * est, ref=ref) == pytest.approx(bss_eval_sdr(est=est, ref=ref))
    delayed = np.concatenate([np.zeros(100), ref[:-100]])
    cut = 10 * math.log10(np.square(ref).sum() / np.square(ref[-100:]).sum())
    assert bss_eval_sdr(est=delayed, ref=ref) == pytest.approx(cut, abs=0.5)


def test_short_signals_and_odd_lengths():
    rng = np.random.default_rng(5)
    for length in (600, 4095, 4097, 9001):
        ref = rng.standard_normal(length)
        est = ref + 0.1 * rng.standard_normal(length)
        fast = pytest.importorskip("fast_bss_eval.numpy").sdr(ref[None], est[None])
        assert bss_eval_sdr(est=est, ref=ref) == pytest.approx(float(fast[0]), abs=1e-3)


def test_not_defined_and_limits():
    ref = np.sin(np.arange(4000.0))
    assert math.isnan(bss_eval_sdr(est=ref, ref=np.zeros(4000)))
    assert math.isnan(bss_eval_sdr(est=np.zeros(4000), ref=ref))
    assert 100 < bss_eval_sdr(est=ref, ref=ref) <= MAX_DB
    with pytest.raises(ValueError, match=r"\(4000,\) and \(3999,\)"):
        bss_eval_sdr(est=ref, ref=ref[1:])
