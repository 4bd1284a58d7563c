"""Metrics: hand-computed values, invariances, what is not defined, and the packages' numbers."""

import importlib.metadata
import importlib.util
import math

import numpy as np
import pytest
import torch

from espnet2_ext.core.metrics import MAX_DB, METRICS, is_silent, level_db, sdr, si_sdr, silence_sdr, summarise


@pytest.fixture
def signals():
    rng = np.random.default_rng(0)
    ref = rng.standard_normal((3, 8000)) * 0.1
    other = rng.standard_normal((3, 8000)) * 0.1
    return {"ref": ref, "mix": ref + other, "est": ref + 0.2 * other}


def value(scores):
    assert scores.shape == (1,) and scores.dtype == torch.float64
    return float(scores[0])


def test_hand_computed():
    ref = np.array([[1.0, -1.0, 1.0, -1.0]])
    est = np.array([[0.9, -0.9, 0.9, -0.9]])
    mix = np.array([[2.0, -1.0, 1.0, -1.0]])
    assert value(sdr(est=est, ref=ref)) == pytest.approx(20.0)  # error 0.1 on amplitude 1
    assert value(sdr(est=mix, ref=ref)) == pytest.approx(10 * math.log10(4 / 1))
    orthogonal = np.array([[1.0, 1.0, -1.0, -1.0]])
    assert value(si_sdr(est=ref + 0.1 * orthogonal, ref=ref)) == pytest.approx(20.0)
    assert value(silence_sdr(est=0.01 * mix, mix=mix)) == pytest.approx(40.0)
    gain = value(METRICS["sdr_gain"](est=est, ref=ref, mix=mix))
    assert gain == pytest.approx(20.0 - 10 * math.log10(4))


@pytest.mark.parametrize("name", METRICS)
def test_one_value_an_item_whatever_the_batch(name, signals):
    whole = METRICS[name](**signals)
    items = [{k: v[i : i + 1] for k, v in signals.items()} for i in range(3)]
    single = [float(METRICS[name](**item)[0]) for item in items]
    assert whole.shape == (3,) and whole.dtype == torch.float64
    assert whole.tolist() == pytest.approx(single)
    float32 = METRICS[name](**{k: torch.from_numpy(v).float() for k, v in signals.items()})
    assert float32.tolist() == pytest.approx(single, abs=1e-4)


def test_si_sdr_forgets_the_level_of_the_estimate_and_sdr_does_not(signals):
    est, ref = signals["est"], signals["ref"]
    for scale in (1e-5, -3.0, 100.0):
        assert si_sdr(est=scale * est, ref=ref).tolist() == pytest.approx(si_sdr(est=est, ref=ref).tolist())
    assert float(sdr(est=0.5 * ref, ref=ref)[0]) == pytest.approx(20 * math.log10(2))
    both = sdr(est=5 * est, ref=5 * ref)
    assert both.tolist() == pytest.approx(sdr(est=est, ref=ref).tolist())


@pytest.mark.parametrize("level", [1e-3, 0.1])
def test_hundred_db_in_float32_samples(level):
    rng = np.random.default_rng(1)
    ref = (level * rng.standard_normal((1, 64000))).astype(np.float32)
    est = (ref + level * 1e-5 * rng.standard_normal((1, 64000))).astype(np.float32)
    assert value(sdr(est=est, ref=ref)) == pytest.approx(100.0, abs=0.1)
    assert value(si_sdr(est=est, ref=ref)) == pytest.approx(100.0, abs=0.1)


def test_exact_copy_reads_the_limit(signals):
    ref = signals["ref"]
    assert sdr(est=ref, ref=ref).tolist() == [MAX_DB] * 3
    assert si_sdr(est=ref, ref=ref).tolist() == [MAX_DB] * 3


def test_silent_reference_is_not_defined(signals):
    ref = signals["ref"].copy()
    ref[1] = 0.0
    for name in ("sdr", "si_sdr", "sdr_gain", "si_sdr_gain"):
        scores = METRICS[name](**signals | {"ref": ref})
        assert torch.isnan(scores).tolist() == [False, True, False]
    assert is_silent(ref).tolist() == [False, True, False]


def test_silent_estimate(signals):
    est = np.zeros((3, 8000))
    assert sdr(est=est, ref=signals["ref"]).tolist() == [0.0] * 3
    assert torch.isnan(si_sdr(est=est, ref=signals["ref"])).all()
    mix = np.full((1, 100), 0.1)
    assert value(silence_sdr(est=np.zeros((1, 100)), mix=mix)) == pytest.approx(60.0)  # floor 1e-8


def test_zero_mixture():
    zero = np.zeros((1, 100))
    assert value(silence_sdr(est=zero, mix=zero)) == 0.0
    assert value(silence_sdr(est=zero + 0.1, mix=zero)) == pytest.approx(-60.0)
    assert value(level_db(zero)) == pytest.approx(-80.0)
    assert math.isnan(value(METRICS["sdr_gain"](est=zero, ref=zero, mix=zero)))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_samples_that_are_not_finite_are_refused(signals, bad):
    est = signals["est"].copy()
    est[2, 5] = bad
    for name in METRICS:
        with pytest.raises(ValueError, match="est holds samples that are not finite"):
            METRICS[name](**signals | {"est": est})


def test_wrong_shapes_are_refused(signals):
    with pytest.raises(ValueError, match=r"est: expected \[B, T\].*\(8000,\)"):
        sdr(est=signals["est"][0], ref=signals["ref"][0])
    with pytest.raises(ValueError, match=r"\(3, 8000\) and \(3, 7999\)"):
        sdr(est=signals["est"], ref=signals["ref"][:, 1:])
    with pytest.raises(ValueError, match="T > 0"):
        sdr(est=np.zeros((2, 0)), ref=np.zeros((2, 0)))


def test_summarise_leaves_out_and_counts():
    figures = summarise([1.0, math.nan, 3.0, None, 8.0])
    assert figures == {"mean": 4.0, "median": 3.0, "std": pytest.approx(np.std([1, 3, 8])), "count": 3, "undefined": 2}
    assert summarise([]) == dict.fromkeys(("mean", "median", "std")) | {"count": 0, "undefined": 0}


def test_sdr_is_the_sdr_of_bss_eval_v4(signals):
    """The reference implementation, loaded alone: its package wants ffmpeg to be imported."""
    bss_eval = _museval_metrics().bss_eval
    rng = np.random.default_rng(2)
    filtered = np.convolve(signals["ref"][0], [0.7, 0.3, -0.1])[:8000]
    estimates = [signals["est"][0], filtered + 0.01 * rng.standard_normal(8000)]
    for est in estimates:
        ref = signals["ref"][0]
        theirs = bss_eval(
            ref[None, :, None],
            est[None, :, None],
            compute_permutation=False,
            window=8000,
            hop=8000,
            framewise_filters=False,
            bsseval_sources_version=False,
        )[0]
        assert value(sdr(est=est[None], ref=ref[None])) == pytest.approx(theirs.item(), abs=1e-6)


def test_si_sdr_is_espnets_si_snr_without_means(signals):
    time_domain = pytest.importorskip("espnet2.enh.loss.criterions.time_domain")
    ref, est = (torch.from_numpy(signals[k]) for k in ("ref", "est"))
    ref, est = ref - ref.mean(-1, keepdim=True), est - est.mean(-1, keepdim=True)
    theirs = -time_domain.SISNRLoss()(ref, est)
    assert si_sdr(est=est, ref=ref).tolist() == pytest.approx(theirs.tolist(), abs=1e-3)


def _museval_metrics():
    try:
        files = importlib.metadata.files("museval")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("museval is not installed")
    path = next(f for f in files if str(f) == "museval/metrics.py").locate()
    spec = importlib.util.spec_from_file_location("museval_metrics", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
