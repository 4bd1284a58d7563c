"""The bundle of an experiment: what it tells, when it is made again, what is refused."""

import json
import zipfile

import pytest
import yaml

from espnet2_ext.errors import DataError
from espnet2_ext.infer import pack as packing
from espnet2_ext.infer.pack import pack_experiment


@pytest.fixture
def exp(tmp_path, monkeypatch):
    """An experiment's files; the bundle's writer keeps what it is told, without a model."""

    def write_bundle(config, model, labels, out, info):
        with zipfile.ZipFile(out, "w") as z:
            z.writestr("bundle.yaml", yaml.safe_dump(info))
            z.writestr("model.pth", model.read_bytes())

    monkeypatch.setattr(packing, "write_bundle", write_bundle)
    put = {
        "exp/qsep_x/config.yaml": "a: 1\n",
        "exp/qsep_x/best.pth": "weights",
        "dump/train/labels.tsv": "labels",
        "dump/train/bank.json": {"clips": 50, "seconds": 5400.0, "manifest_hash": "abc"},
        "exp/qsep_x/inference_test/scores/summary.json": {
            "keys": 16,
            "list": {"list_hash": "def"},
            "mixture": {"sdr": {"mean": -0.001}},
            "protocols": {
                "self": {"sdr": {"mean": 8.126}, "silence_sdr": {"mean": None}, "classes": []},
                "other": {"sdr": {"mean": 7.0}},
            },
        },
    }
    for name, content in put.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return tmp_path


def pack(top, inference=("exp/qsep_x/inference_test",)):
    exp_dir = top / "exp/qsep_x"
    outputs = {d.rpartition("/")[2]: top / d for d in inference}
    return pack_experiment(exp_dir, exp_dir / "best.pth", outputs, exp_dir / "x.zip", top / "dump/train")


def told(top):
    with zipfile.ZipFile(top / "exp/qsep_x/x.zip") as z:
        return yaml.safe_load(z.read("bundle.yaml"))


def test_it_tells_what_it_was_trained_on_and_what_it_scored(exp):
    assert pack(exp)
    info = told(exp)
    assert info["name"] == "qsep_x"
    assert info["trained_on"] == {"set": "train", "clips": 50, "hours": 1.5, "manifest_hash": "abc"}
    assert info["results"] == {
        "inference_test": {
            "targets": 16,
            "list_hash": "def",
            "unprocessed": {"sdr": 0.0},
            "self": {"sdr": 8.13, "silence_sdr": None},
            "other": {"sdr": 7.0},
        }
    }
    assert str(exp) not in str(info)


def test_made_again_only_when_something_changed_or_it_is_broken(exp):
    assert pack(exp) and not pack(exp)
    (exp / "exp/qsep_x/best.pth").write_text("other weights")
    assert pack(exp) and not pack(exp)
    assert pack(exp, inference=()) and not pack(exp, inference=())
    (exp / "exp/qsep_x/x.zip").write_bytes(b"PK cut off")
    assert pack(exp)


@pytest.mark.parametrize(
    "name",
    [
        "exp/qsep_x/config.yaml",
        "exp/qsep_x/best.pth",
        "dump/train/labels.tsv",
        "dump/train/bank.json",
        "exp/qsep_x/inference_test/scores/summary.json",
    ],
)
def test_missing_files_are_named(exp, name):
    (exp / name).unlink()
    with pytest.raises(DataError, match=f"{name}: no such file"):
        pack(exp)


def test_broken_json_is_named(exp):
    (exp / "dump/train/bank.json").write_text("{")
    with pytest.raises(DataError, match="bank.json: is not valid JSON"):
        pack(exp)
