"""Memory does not depend on the length."""

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from standin import noise

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
