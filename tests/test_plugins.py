"""A package of the user's own: its network is trained, packed, and separates where it is allowed."""

import importlib.metadata
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from small_confs import separation_batch
from tag_standin import FS, write_tones

from espnet2_ext import registry
from espnet2_ext.build import build_model
from espnet2_ext.data.mixtures.pair_list import draw_list, write_list
from espnet2_ext.errors import DataError, PluginError
from espnet2_ext.tasks.qsep import QSepTask

ROOT = Path(__file__).parents[1]
NET = "my_sounds.net:MyNet"
STFT = {"n_fft": 256, "hop_length": 80, "sample_rate": FS}
CONFIG = {"encoder": "hann_stft", "encoder_conf": STFT, "decoder": "hann_stft", "decoder_conf": STFT}
LOSSES = '''
def log_l1(*, est, ref, floor: float = 1e-3):
    """Logarithm of the mean absolute error of waveforms `[B, T]`; returns `[B]`."""
    return ((est - ref).abs().mean(-1) + floor).log()


def not_a_network(**_):
    raise AssertionError("called")
'''


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder with the package `my_sounds`, as pip would install it."""
    package = tmp_path / "site" / "my_sounds"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    source = (ROOT / "tests" / "incomplete_nets.py").read_text().split("\n\nclass NoGrid")[0]
    (package / "net.py").write_text(source.replace("class Whole", "class MyNet"))
    (package / "losses.py").write_text(LOSSES)
    monkeypatch.syspath_prepend(str(package.parent))
    registry.plugins.cache_clear()
    yield package.parent
    registry.plugins.cache_clear()
    for name in [n for n in sys.modules if n.partition(".")[0] == "my_sounds"]:
        del sys.modules[name]


def entry_points(site, text):
    """Metadata of an installed distribution."""
    info = site / "my_sounds-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-sounds\nVersion: 1.2\n")
    (info / "top_level.txt").write_text("my_sounds\n")
    (info / "RECORD").write_text("my_sounds/__init__.py,,\n")
    (info / "entry_points.txt").write_text(f"[espnet2_ext.plugins]\n{text}\n")
    importlib.invalidate_caches()
    registry.plugins.cache_clear()


def config(extractor):
    return {**CONFIG, "extractor": extractor, "extractor_conf": {"num_classes": 4}}


# ---- what is imported, and what is not -----------------------------------------------------------


def test_a_class_path_of_the_users_own_yaml(site):
    model = build_model(config(NET), "qsep", trusted=True)
    assert type(model.extractor.net).__name__ == "MyNet" and model.num_classes == 4
    assert registry.plugins_of(config(NET)) == ["my_sounds"]
    with pytest.raises(DataError, match="extractor_conf of my_sounds.net:MyNet: unknown key 'classes'"):
        build_model({**config(NET), "extractor_conf": {"classes": 4}}, "qsep", trusted=True)


def test_nothing_is_imported_that_is_not_allowed(site, monkeypatch):
    with pytest.raises(PluginError, match="ESPNET2_EXT_PLUGINS=my_sounds"):
        build_model(config(NET), "qsep")
    assert "my_sounds" not in sys.modules
    monkeypatch.setenv("ESPNET2_EXT_PLUGINS", "other, my_sounds")
    assert build_model(config(NET), "qsep").query_dim == 4


def test_what_is_not_installed_is_named():
    with pytest.raises(PluginError, match="the package 'my_sounds' is not installed"):
        build_model(config(NET), "qsep", trusted=True)
    assert registry.absent(["my-sounds==1.2", "numpy==0.0", "yaml"]) == ["my-sounds==1.2"]


@pytest.mark.parametrize(
    "path, message",
    [
        ("my_sounds.losses:not_a_network", "is not a class of PyTorch modules"),
        ("my_sounds.net:torch.manual_seed", "is not a class of PyTorch modules"),
        ("my_sounds.net:Other", "my_sounds.net has no Other"),
        ("my_sounds.nets:MyNet", "there is no module my_sounds.nets"),
        ("__main__:Net", "not installed"),
        (":Net", "not installed"),
    ],
)
def test_only_networks_are_called(site, path, message):
    with pytest.raises(DataError, match=message):
        build_model(config(path), "qsep", trusted=True)


def test_entry_points_give_names(site):
    entry_points(site, f"extractor.my_net = {NET}\ncriterion.log_l1 = my_sounds.losses:log_l1")
    assert "my_sounds" not in sys.modules
    assert build_model(config("my_net"), "qsep").query_dim == 4
    assert build_model(config(NET), "qsep").query_dim == 4  # its package is allowed thereby
    assert registry.plugins_of(config("my_net")) == ["my-sounds==1.2"]
    assert registry.absent(["my-sounds==1.1"]) == []
    assert type(registry.espnet_class("extractor", "my_net")).__name__ == "ABCMeta"
    with pytest.raises(
        DataError, match="unknown extractor 'my_nat'.*there is: care_components, care_sep, my_net, query_unet"
    ):
        registry.find("extractor", "my_nat")


def test_bad_entry_points_name_their_package(site):
    entry_points(site, f"my_net = {NET}")
    with pytest.raises(DataError, match="entry point 'my_net' of my-sounds==1.2: must be called KIND.NAME"):
        registry.find("extractor", "my_net")


# ---- from training to separation -----------------------------------------------------------------


def training_yaml(site, extractor=NET):
    conf = config(extractor) | {
        "criterions": [{"name": "my_sounds.losses:log_l1", "conf": {"floor": 0.01}}, {"name": "tagging"}],
        "pair_conf": {"segment": 0.25, "anchor": "random", "query_from": "mixed"},
        "preprocessor_conf": {},
        "batch_size": 4,
        "num_iters_per_epoch": 2,
        "max_epoch": 1,
        "num_workers": 0,
        "best_model_criterion": [["valid", "loss", "min"]],
    }
    path = site.parent / "train.yaml"
    path.write_text(yaml.safe_dump(conf))
    return path


def loss_in_a_child(path):
    """What a spawned worker does: unpickle the task by import, build the model, take a step."""
    args = QSepTask.get_parser().parse_args(["--config", str(path), "--output_dir", "unused"])
    torch.manual_seed(0)
    batch = separation_batch()
    return QSepTask.build_model(args)(**{k: v for k, v in batch.items() if not k.startswith("label")})[0].item()


def test_spawned_workers_know_it(site):
    path = training_yaml(site)
    conf = yaml.safe_load(path.read_text()) | {"criterions": [{"name": "my_sounds.losses:log_l1"}]}
    path.write_text(yaml.safe_dump(conf))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(loss_in_a_child, (path,)) == pytest.approx(loss_in_a_child(path))


def run(site, *command, plugins=None, ok=True):
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{site}", "OMP_NUM_THREADS": "1"}
    env.pop("ESPNET2_EXT_PLUGINS", None)
    env |= {"ESPNET2_EXT_PLUGINS": plugins} if plugins else {}
    done = subprocess.run([sys.executable, "-m", *map(str, command)], env=env, capture_output=True, text=True)
    assert (done.returncode == 0) == ok, done.stderr
    return done.stdout + done.stderr


def test_trained_packed_and_separated(site, tmp_path):
    bank = write_tones(tmp_path / "tones", 3)
    write_list(tmp_path / "pairs.tsv", draw_list(bank, 4, 0, segment=0.25, anchor="peak"))
    exp, out = tmp_path / "exp" / "mine", tmp_path / "mine.zip"
    options = ["--train_bank", bank.path, "--valid_pairs", tmp_path / "pairs.tsv", "--ngpu", 0, "--output_dir", exp]
    options += ["--use_tensorboard", "false", "--use_matplotlib", "false"]
    run(site, "espnet2_ext.bin.qsep_train", "--config", training_yaml(site), *options)
    best = exp / "valid.loss.best.pth"
    given = ["--train_config", exp / "config.yaml", "--model_file", best, "--labels", exp / "labels.tsv"]
    run(site, "espnet2_ext", "pack", *given, "--output", out)
    about = run(site, "espnet2_ext", "info", out)
    assert NET in about and "my_sounds" in about
    soundfile.write(tmp_path / "mix.wav", 0.1 * np.random.default_rng(0).standard_normal(FS), FS)
    job = [tmp_path / "mix.wav", "--bundle", out, "--query", tmp_path / "mix.wav", "--output", tmp_path / "out.wav"]
    assert "ESPNET2_EXT_PLUGINS=my_sounds" in run(site, "espnet2_ext", "separate", *job, ok=False)
    run(site, "espnet2_ext", "separate", *job, plugins="my_sounds")
    assert soundfile.info(str(tmp_path / "out.wav")).frames == FS
    elsewhere = run(tmp_path, "espnet2_ext", "separate", *job, plugins="my_sounds", ok=False)
    assert "needs a plugin that is not installed: pip install my_sounds" in elsewhere
