"""Estimates and residual add up to the input, to the last bit that the files can hold."""

import numpy as np
import pytest
import soundfile
from standin import noise

from espnet2_ext.audio.streams import OutputType, adding_up
from espnet2_ext.errors import DataError
from espnet2_ext.infer.chunks import Plan
from espnet2_ext.infer.stream import separate_file

PLAN = Plan.make(16000, 1024, 256, 1.0, 0.2)
BITS = {"PCM_16": 15, "PCM_24": 23}


def loud(num: int, gain: float, seed: int):
    """A network whose estimates have little to do with the mixture and may be far beyond full scale."""
    rng = np.random.default_rng(seed)
    return lambda x, level: (gain * rng.standard_normal((num, *x.shape)) * (rng.random() + x)).astype(np.float32)


def ulp(*arrays):
    return np.spacing(np.max([np.abs(a).astype(np.float32) for a in arrays], 0)).astype(np.float64)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", ["wav PCM_16", "wav PCM_24", "wav FLOAT", "flac PCM_16", "flac PCM_24"])
def test_random_recordings(tmp_path, kind, seed):
    """Rates, channels, odd lengths, several outputs, estimates that clip; in and out of one type."""
    suffix, subtype = kind.split()
    rng = np.random.default_rng(seed)
    fs, channels, num = int(rng.choice([8000, 16000, 44100, 48000])), int(rng.integers(1, 4)), int(rng.integers(1, 4))
    frames, gain = int(rng.integers(1, 2 * fs)), float(10 ** rng.uniform(-3, 1))
    x = (rng.uniform(0.1, 8) * noise(3, fs, channels, seed)[:frames]).clip(-1, 1 - 2**-23)
    mix = tmp_path / f"mix.{suffix}"
    soundfile.write(mix, x, fs, subtype=subtype)
    outs, rest = [tmp_path / f"{i}.{suffix}" for i in range(num)], tmp_path / f"rest.{suffix}"
    separate_file(loud(num, gain, seed), mix, outs, rest, 16000, PLAN)
    x, *parts = (soundfile.read(p, dtype="float64", always_2d=True)[0] for p in (mix, *outs, rest))
    total = sum(parts)
    assert all(p.shape == x.shape for p in parts) and any(p.any() for p in parts)
    if subtype == "FLOAT":
        error = np.abs(total - x)
        assert (error <= ulp(x, *parts) / 2).all()  # no floats of this size are closer
        small = np.max(np.abs(parts[:-1]), 0) <= np.abs(x)
        assert num > 1 or not error[small].any()
    else:
        np.testing.assert_array_equal(total, x)


def test_an_estimate_that_leaves_more_than_full_scale():
    """-1 taken from 0.9 leaves 1.9: the residual holds 1 - 2^-15, the rest of it goes back to the estimate."""
    kind = OutputType("WAV", "PCM_16")
    x = np.round(0.9 * 2**15) / 2**15 * np.ones((1, 1))
    (est,), residual, left = adding_up(x, [np.full((1, 1), -3.0)], [kind], kind)
    assert residual == 1 - 2**-15 and left == x + 1 and est == x - residual
    parts, residual, _ = adding_up(x, [np.full((1, 1), -3.0)] * 2, [kind] * 2, kind)
    assert residual == 1 - 2**-15 and sum(parts) + residual == x


@pytest.mark.parametrize("given, taken", [("PCM_24", "PCM_16"), ("FLOAT", "PCM_16"), ("PCM_16", "FLOAT")])
def test_other_types_out_than_in(tmp_path, given, taken):
    """Rounded to 16 bits once, not twice; and floats hold all of 16 bits."""
    mix, outs, rest = tmp_path / "mix.wav", [tmp_path / "a.wav"], tmp_path / "rest.wav"
    soundfile.write(mix, 4 * noise(1.1, 44100, 2), 44100, subtype=given)
    separate_file(loud(1, 0.5, 0), mix, outs, rest, 16000, PLAN, taken)
    x, a, r = (soundfile.read(p, dtype="float64")[0] for p in (mix, *outs, rest))
    assert np.abs(a + r - x).max() <= (2.0 ** -(BITS[taken] + 1) if taken in BITS else 0)


def test_removed(tmp_path):
    """What is left is the residual of a separation; half of it is half; and taken out and left add up as well."""
    mix, fs = tmp_path / "mix.wav", 16000
    soundfile.write(mix, noise(2, fs, 2), fs)
    network = lambda x, level: np.stack([0.25 * x, -0.5 * x])  # noqa: E731
    name = iter(f"{i}.wav" for i in range(99))

    def run(amount, rest=True):
        outs = [tmp_path / next(name) for _ in range(1 if amount is not None else 2)]
        files = [*outs, *([tmp_path / next(name)] if rest else [])]
        separate_file(network, mix, outs, files[-1] if rest else None, fs, PLAN, amount=amount)
        return [soundfile.read(p)[0] for p in files]

    x, _ = soundfile.read(mix)
    for amount in (0.0, 0.5, 1.0):
        left, taken = run(amount)
        np.testing.assert_array_equal(left + taken, x)
        np.testing.assert_array_equal(left, run(amount, rest=False)[0])
        np.testing.assert_allclose(taken, -0.25 * amount * x, atol=2**-15)
    np.testing.assert_allclose(run(1.0)[0], run(None)[-1], atol=2**-15)
    with pytest.raises(DataError, match="one name"):
        separate_file(network, mix, [tmp_path / "a.wav"], tmp_path / "a.wav", fs, PLAN, amount=1.0)
