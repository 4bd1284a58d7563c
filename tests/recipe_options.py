"""The options that a recipe's run.sh and its driver tell with --help."""

import functools
import os
import re
import subprocess
from pathlib import Path


@functools.cache
def options_of(recipe: Path, task: str = "separation") -> frozenset[str]:
    """Their names, without dashes. task: of `run.sh --task`; nothing is asked for the default."""
    more = ["--task", task] if task == "tagging" else []
    done = subprocess.run(
        ["bash", str(recipe / "run.sh"), *more, "--help"],
        text=True,
        capture_output=True,
        env={**os.environ, "ESC50": ""},
    )
    assert done.returncode == 0, done.stderr
    own = re.search(r'^split_options "([^"]*)"', (recipe / "run.sh").read_text(), re.M)
    return frozenset(re.findall(r"^  --(\w+) ", done.stdout, re.M)) | set(own[1].split())
