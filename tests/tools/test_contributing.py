"""CONTRIBUTING.md as a newcomer follows it: its files are written and its commands run, in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def project(tmp_path):
    """A copy of the tracked files, with sounds of the corpus that the page adds."""
    copy = tmp_path / "project"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (source := ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy / name, follow_symlinks=False)
    rng = np.random.default_rng(0)
    rows = ["file,species,set"]
    for species in "ab":
        for i in range(8):
            (copy / "birds").mkdir(exist_ok=True)
            soundfile.write(copy / f"birds/{species}{i}.wav", 0.1 * rng.standard_normal(32000), 32000)
            rows.append(f"{species}{i}.wav,{species},{'test' if i > 5 else 'train_all'}")
    (copy / "birds/birds.csv").write_text("\n".join(rows) + "\n")
    return copy


def write(project: Path, body: str) -> None:
    """A block whose first line names its file and, for a line to add, the line that it follows."""
    first, _, text = body.partition("\n")
    name, _, after = first.removeprefix("# ").partition(", after ")
    path = project / name
    if not after:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return
    before, found, rest = path.read_text().partition(after + "\n")
    assert found, f"{name} has no line {after}"
    path.write_text(before + found + text + rest)


def run(project: Path, commands: str) -> None:
    path = [str(project.parent / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    env = {
        **os.environ,
        "PATH": os.pathsep.join(path),
        "VIRTUAL_ENV": sys.prefix,
        "PYTHONPATH": os.pathsep.join([str(project), str(project.parent / "installed")]),
        "PIP_TARGET": str(project.parent / "installed"),  # the environment itself stays as it is
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # which switches it off
        "PIP_NO_INDEX": "1",
    }
    script = f"set -eo pipefail\n{commands}"
    done = subprocess.run(["bash", "-c", script], cwd=project, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{commands}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"


def test_the_page_works_as_written(project):
    (project.parent / "bin").mkdir()
    command = project.parent / "bin/espnet2-ext"  # of the copy, not the installed one
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m espnet2_ext "$@"\n')
    command.chmod(0o755)
    blocks = BLOCK.findall((project / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert len(blocks) > 10
    for language, body in blocks:
        if language == "sh":
            run(project, body)
        else:
            write(project, body)
    assert soundfile.info(project / "bird.wav").frames == 32000
    assert (project / "egs2/birds_qsep/run.sh").exists()
    lint = [sys.executable, "-m", "ruff"]
    for what in (["check", "-q", "espnet2_ext"], ["format", "-q", "--check", "espnet2_ext"]):
        assert subprocess.run([*lint, *what], cwd=project).returncode == 0
