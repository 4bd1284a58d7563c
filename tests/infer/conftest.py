import pytest
import soundfile
import torch
import yaml
from standin import LABELS, StandIn, build_standin

from espnet2_ext.infer import weights
from espnet2_ext.infer.pack import write_bundle
from espnet2_ext.infer.query_separator import Separator


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def separator():
    return Separator(StandIn(), device="cpu")


@pytest.fixture
def wav(tmp_path):
    """Write a file: `wav(name, x, fs, subtype)`, returns its path."""

    def write(name, x, fs=16000, subtype="PCM_16"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, x, fs, subtype=subtype)
        return path

    return write


@pytest.fixture
def exp(tmp_path, monkeypatch):
    """An experiment's folder of the stand-in, with config.yaml, weights and labels.tsv."""
    monkeypatch.setattr(weights, "build_model", build_standin)
    path = tmp_path / "exp" / "toy"
    path.mkdir(parents=True)
    conf = {"fs": 16000, "num_classes": 5, "seed": 3}
    (path / "config.yaml").write_text(yaml.safe_dump({"model_conf": conf, "max_epoch": 2}))
    torch.save(StandIn(**conf).state_dict(), path / "valid.loss.ave.pth")
    (path / "labels.tsv").write_text(LABELS)
    return path


@pytest.fixture
def toy_bundle(exp, tmp_path):
    out = tmp_path / "toy.zip"
    write_bundle(
        exp / "config.yaml",
        exp / "valid.loss.ave.pth",
        exp / "labels.tsv",
        out,
        {"trained_on": {"manifest_hash": "abc123"}, "results": {"self": 8.1}},
    )
    return out
