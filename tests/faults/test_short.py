"""The short form of the harness: no fault in a few inputs, kills, flips, bundles and disks of every kind."""

import re
import subprocess
import sys
from pathlib import Path


def test_no_fault_is_found(tmp_path):
    run = [sys.executable, Path(__file__).with_name("run.py"), "--short", "--keep", tmp_path]
    done = subprocess.run(run, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    tried = re.search(r"\*\*all\*\* \| (\d+) ", done.stdout)
    assert tried and int(tried[1]) > 240, done.stdout
