"""A weak-label YAML like the paper's, in a size that runs at once; measuring without processes."""

from pathlib import Path

import pytest
import yaml

from espnet2_ext.bench import plain_weak, query, report
from espnet2_ext.util.config import read_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def weak_yaml(tmp_path_factory) -> Path:
    conf = read_config(ROOT / "conf/train_weak_crnn.yaml")
    stft = {"sample_rate": 8000, "n_fft": 128, "hop_length": 32}
    conf |= {"encoder_conf": stft, "decoder_conf": stft}
    conf["separator_conf"] |= {"hidden": 8, "layers": 2}
    conf["classifier_conf"] |= {"channels": [2, 3, 4], "hidden": 5}
    path = tmp_path_factory.mktemp("weak") / "train_weak_tiny.yaml"
    path.write_text(yaml.safe_dump(conf), encoding="utf-8")
    return path


@pytest.fixture
def here(monkeypatch) -> None:
    """Measure in the test's own process: starting others takes many times as long."""
    for module in (report, query, plain_weak):
        monkeypatch.setattr(module, "apart", lambda measured, *args, prepare: measured(*args))
