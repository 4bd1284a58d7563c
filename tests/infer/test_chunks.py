"""Chunks against one chunk; memory does not depend on the length."""

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from standin import StandIn, noise

from espnet2_ext.errors import DataError
from espnet2_ext.infer.chunks import Chunker, Plan
from espnet2_ext.infer.query_separator import Separator


def run(chunker, x, step):
    out = [e for i in range(0, len(x), step) for e in chunker.feed(x[i : i + step])]
    out += list(chunker.finish())
    return np.concatenate(out, axis=1) if out else np.zeros((1, 0, x.shape[1]))


@pytest.mark.parametrize("length", [1, 99, 100, 101, 119, 120, 121, 500, 503, 1000])
@pytest.mark.parametrize("step", [1, 64, 5000])
def test_identity_gives_every_sample_once(length, step):
    plan = Plan(core=100, context=20, after=18, fade=10, grid=20)
    x = np.random.default_rng(0).standard_normal((length, 2)).astype(np.float32)
    seen = []

    def network(part):
        seen.append(len(part))
        return np.stack([part, 2 * part])

    out = run(Chunker(network, plan), x, step)
    assert out.shape == (2, length, 2)
    np.testing.assert_allclose(out[0], x, atol=1e-6)
    np.testing.assert_allclose(out[1], 2 * x, atol=1e-6)
    assert max(seen) <= 100 + 20 + 18


def test_no_context_and_empty_signal():
    plan = Plan(core=40, context=0, after=0, fade=0, grid=20)
    x = np.arange(100, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(run(Chunker(lambda p: p[None], plan), x, 7)[0], x)
    assert run(Chunker(lambda p: p[None], plan), x[:0], 7).shape == (1, 0, 1)


def test_chunks_start_on_the_grid_and_fade_linearly():
    """Chunk k answers k everywhere: the output shows the borders and the fades between them."""
    plan = Plan(core=100, context=20, after=20, fade=10, grid=20)
    count = iter(range(100))
    out = run(
        Chunker(lambda p: np.full((1, *p.shape), next(count), np.float32), plan), np.zeros((318, 1), np.float32), 33
    )[0, :, 0]
    expected = np.repeat([0.0, 1.0, 2.0], [100, 100, 118])
    for border in (100, 200):
        expected[border - 5 : border + 5] = border // 100 - 1 + (np.arange(10) + 0.5) / 10
    np.testing.assert_allclose(out, expected, atol=1e-6)


def test_plan_from_seconds():
    plan = Plan.make(fs=32000, grid=81920, hop=320)
    assert plan == Plan(core=8 * 81920, context=81920, after=81920 - 320, fade=16000, grid=81920)
    assert Plan.make(32000, 81920, 320, chunk=0.1).core == 81920
    assert Plan.make(32000, 81920, 320, chunk=0).core > 1 << 60
    with pytest.raises(DataError, match="context"):
        Plan.make(32000, 81920, 320, context=-1)
    with pytest.raises(DataError, match="chunk"):
        Plan.make(32000, 81920, 320, chunk=float("nan"))


@pytest.mark.parametrize("channels", [1, 2])
def test_chunked_equals_whole(channels):
    """The stand-in sees less than the context: at seams and elsewhere nothing but rounding differs.

    Starting off its grid, or another level for each chunk, would show.
    """
    separator = Separator(StandIn(), device="cpu")
    x = noise(20, 16000, channels)
    queries = np.random.default_rng(1).standard_normal((2, separator.query_dim))
    whole = separator.separate(x, 16000, queries, separator.plan(chunk=0))
    parts = separator.separate(x, 16000, queries, separator.plan(chunk=2, context=0.5))
    assert separator.model.calls[0] == len(x) and len(separator.model.calls) > 8
    assert np.abs(whole).max() > 0.05
    assert np.abs(whole - parts).max() < 1e-6
    off = Plan.make(16000, separator.grid // 32 * 3, separator.hop, 2, 0.5)
    assert np.abs(whole - separator.separate(x, 16000, queries, off)).max() > 1e-4


def test_out_of_memory_halves_the_chunk(caplog):
    separator = Separator(StandIn(), device="cpu")
    x = noise(20, 16000)
    query = np.ones((1, separator.query_dim))
    whole = separator.separate(x, 16000, query, separator.plan(0))
    network = separator.model.separate

    def small(wave, **kwargs):
        if wave.shape[1] > 5 * 16000:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return network(wave, **kwargs)

    separator.model.separate = small
    for chunk in (0, 16):
        parts = separator.separate(x, 16000, query, separator.plan(chunk, 0.5))
        assert np.abs(whole - parts).max() < 1e-6
        assert "half as long" in caplog.text
        caplog.clear()


def test_out_of_memory_for_good():
    separator = Separator(StandIn(), device="cpu")

    def none(wave, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    separator.model.separate = none
    with pytest.raises(DataError, match="out of memory even with the smallest chunk"):
        separator.separate(noise(20, 16000), 16000, np.ones((1, separator.query_dim)))


def test_other_errors_pass():
    def broken(x):
        raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        run(Chunker(broken, Plan(100, 20, 20, 10, 20)), np.zeros((10, 1), np.float32), 10)


# ---- memory --------------------------------------------------------------------------------------

CHILD = r"""
import re, sys
import numpy as np
import torch
from standin import StandIn
from espnet2_ext.infer.query_separator import Separator
torch.set_num_threads(1)
separator = Separator(StandIn(fs=8000), device="cpu")
query = np.ones((1, separator.query_dim), np.float32)
for mix in sys.argv[1:]:
    separator.separate_to(mix, [mix + ".est.wav"], query, mix + ".rest.wav",
                          separator.plan(chunk=5))
    # not getrusage: its peak begins with that of the process that started this one
    print(int(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1]) // 1024)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
def test_ten_minutes_need_no_more_than_two(tmp_path):
    """Stereo, 44.1 kHz, with the residual; ten minutes in memory would be 212 MB at least."""
    block = noise(10, 44100, 2)
    for minutes in (2, 10):
        with soundfile.SoundFile(tmp_path / f"{minutes}.wav", "w", 44100, 2, "PCM_16") as f:
            for _ in range(6 * minutes):
                f.write(block)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    out = subprocess.run(
        [sys.executable, "-c", CHILD, *(str(tmp_path / f"{m}.wav") for m in (2, 10))],
        text=True,
        capture_output=True,
        env=env,
        check=True,
    )
    short, long = map(int, out.stdout.split())
    print(f"peak memory: 2 minutes {short} MB, 10 minutes {long} MB")
    assert long - short < 40
    x, est, rest = (soundfile.SoundFile(tmp_path / f"10.wav{s}") for s in ("", ".est.wav", ".rest.wav"))
    assert x.frames == est.frames == rest.frames == 600 * 44100
    for f in (x, est, rest):
        f.seek(400 * 44100)
    a, b, c = (f.read(1000) for f in (x, est, rest))
    np.testing.assert_array_equal(a, b + c)
