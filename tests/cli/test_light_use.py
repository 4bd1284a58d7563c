"""`separate`, `embed`, `info` and `pack` of our own networks where neither ESPnet nor Asteroid is installed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from untrained import bundle_of

from espnet2_ext.util.config import read_config

ROOT = Path(__file__).parents[2]
HOSTS = ("espnet", "espnet2", "asteroid", "asteroid_filterbanks", "lightning", "pytorch_lightning")
MORE = ("scipy", "torchaudio", "librosa", "matplotlib", "sklearn", "tqdm", "dask", "pandas")
BLOCKED = f"import sys\nfor m in {HOSTS + MORE}: sys.modules[m] = None\n"
RUN = "from espnet2_ext.cli.main import main\nmain(sys.argv[1:])\n"


def command(*args, code: str = BLOCKED + RUN) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """A mixture, a query, and a bundle of each kind."""
    top = tmp_path_factory.mktemp("light")
    found = {}
    for n, name in enumerate(("mix", "query")):
        noise = 0.1 * np.random.default_rng(n).standard_normal(16000)
        found[name] = top / f"{name}.wav"
        soundfile.write(found[name], noise, 16000)
    for name, task, yaml_file, more in (
        ("care_sep", "qsep", "train_qsep_care_sep", {"train_bank": "/home/someone/bank"}),
        ("query_unet", "qsep", "train_qsep_query_unet", {}),
        ("classes", "weak", "train_weak", {"class_names": ["bell", "dog"], "label_type": "frame"}),
    ):
        defaults = {"sample_rate": 16000}
        config = {**defaults, **read_config(ROOT / f"conf/debug/{yaml_file}.yaml"), **more}
        found[name] = bundle_of(config, task, top / f"{name}.zip")
    return found


@pytest.mark.parametrize("name", ["care_sep", "query_unet"])
def test_a_query_separator(files, tmp_path, name):
    bundle = ("--bundle", files[name])
    done = command("embed", files["query"], "-o", tmp_path / "q.npy", *bundle)
    assert done.returncode == 0, done.stderr
    done = command("separate", files["mix"], "--query", tmp_path / "q.npy", "-o", tmp_path / "out.wav", *bundle)
    assert done.returncode == 0, done.stderr
    assert soundfile.info(tmp_path / "out.wav").frames == 16000
    done = command("separate", files["mix"], "--query", files["query"], "-o", tmp_path / "same.wav", *bundle)
    assert done.returncode == 0, done.stderr
    same, out = (soundfile.read(tmp_path / name)[0] for name in ("same.wav", "out.wav"))
    assert (same == out).all()


def test_a_class_separator(files, tmp_path):
    without = "assert 'espnet2_ext.infer.query_separator' not in sys.modules\n"
    args = ("separate", files["mix"], "-o", tmp_path / "out", "--bundle", files["classes"])
    done = command(*args, code=BLOCKED + RUN + without)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["mix.bell.wav", "mix.dog.wav"]


@pytest.mark.parametrize("name", ["care_sep", "query_unet", "classes"])
def test_info_needs_no_pytorch(files, name):
    done = command("info", files[name], code=BLOCKED + "sys.modules['torch'] = None\n" + RUN)
    assert done.returncode == 0, done.stderr
    info = yaml.safe_load(done.stdout.partition("labels:")[0])
    with_torch = torch.load(files[name].parent / "model.pth") if name == "classes" else None
    assert info["name"] == name and "espnet2_ext" in info["versions"] and "train_bank" not in done.stdout
    if with_torch is not None:  # the last one packed
        numbers = sum(t.numel() for t in with_torch.values())
        assert info["weights"].startswith(f"{len(with_torch)} tensors, {numbers:,} numbers, ")


def test_packing_and_tagging_data_modules(files, tmp_path):
    top = files["classes"].parent
    model = ("--train_config", top / "config.yaml", "--model_file", top / "model.pth")
    done = command("pack", *model, "-o", tmp_path / "again.zip")
    assert done.returncode == 0, done.stderr
    modules = "espnet2_ext.data.tables, espnet2_ext.data.outputs, espnet2_ext.infer.query_folder, "
    modules += "espnet2_ext.infer.class_folder, espnet2_ext.infer.tagger, espnet2_ext.infer.pack, espnet2_ext.build"
    done = command(code=BLOCKED + f"import {modules}")
    assert done.returncode == 0, done.stderr


def test_separating_loads_no_more_than_it_needs(files, tmp_path):
    """Every package costs time at the start of each command."""
    show = "print(*sorted({m.partition('.')[0] for m in sys.modules} - sys.stdlib_module_names))"
    args = ("separate", files["mix"], "--query", files["query"], "-o", tmp_path / "o.wav", "--bundle")
    plain = command(code="import sys, torch, numpy, soundfile, soxr, yaml\n" + show)
    done = command(*args, files["care_sep"], code="import sys\n" + RUN + show)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) - set(plain.stdout.split()) <= {"espnet2_ext"}


def test_the_page_needs_no_more(files):
    done = command("app", "--bundle", files["care_sep"], "--no_browser", "--port", "99999")
    assert done.returncode == 1 and done.stderr.startswith("error: --port 99999: "), done.stderr
