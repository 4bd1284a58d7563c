"""The tags of a separator that tags, over every clip of a bank."""

import shutil

import numpy as np
import pytest
import torch
import yaml
from small_confs import parse
from standin import StandIn
from tag_standin import FS, tone, write_bank

from espnet2_ext.bin import tag_inference
from espnet2_ext.errors import BundleError, DataError
from espnet2_ext.infer.pack import write_bundle
from espnet2_ext.infer.tagger import TaggerInference
from espnet2_ext.tasks.qsep import QSepTask
from espnet2_ext.tasks.tagging import TaggingTask


@pytest.fixture
def bank(tmp_path):
    return write_bank(tmp_path / "bank", {f"c{k}": (tone(k, FS + 100 * k), (k,)) for k in range(4)})


@pytest.fixture
def separator(exp, bank):
    """The stand-in's experiment, at the bank's rate and with its classes; see `write`."""
    shutil.copy(bank.path / "labels.tsv", exp)
    return write(exp, num_classes=4)


def write(exp, num_classes):
    conf = {"fs": FS, "num_classes": num_classes, "seed": 3}
    torch.save(StandIn(**conf).state_dict(), exp / "valid.loss.ave.pth")
    (exp / "config.yaml").write_text(yaml.safe_dump({"model_conf": conf, "extractor": "care_sep"}))
    return exp


def test_a_separators_configuration_is_known_by_a_key():
    assert "extractor" in vars(parse(QSepTask, "mini/care_cls_sep.yaml"))
    assert "extractor" not in vars(parse(TaggingTask, "mini/tag_care_cls.yaml"))


@pytest.mark.parametrize("from_bundle", [False, True])
def test_tags_are_those_of_each_whole_clip(separator, bank, tmp_path, from_bundle):
    files = [separator / "config.yaml", separator / "valid.loss.ave.pth"]
    given = ["--train_config", files[0], "--model_file", files[1]]
    if from_bundle:
        write_bundle(*files, separator / "labels.tsv", tmp_path / "a.zip")
        given = ["--bundle", tmp_path / "a.zip"]
    args = ["--bank", bank.path, "--output_dir", tmp_path / "t", *given]
    tag_inference.main([str(v) for v in args])
    model = StandIn(fs=FS, num_classes=4, seed=3)
    with np.load(tmp_path / "t/tags.npz") as z:
        assert z["keys"].tolist() == [bank.id(n) for n in range(4)]
        for n in range(4):
            logits = model.embed(torch.from_numpy(bank.read(n))[None]).clipwise[0]
            np.testing.assert_allclose(z["clipwise"][n], logits.sigmoid().detach(), atol=1e-6)


def test_a_separator_without_tags_and_one_of_other_classes_are_refused(separator, bank):
    files = [separator / "config.yaml", separator / "valid.loss.ave.pth"]
    labels = (separator / "labels.tsv").read_text()
    (separator / "labels.tsv").write_text(labels.replace("/m/3", "/m/9"))
    with pytest.raises(DataError, match="its classes are not those"):
        TaggerInference.from_exp(*files, "cpu").check(bank)
    write(separator, num_classes=0)
    with pytest.raises(BundleError, match="ave.pth: this separator has no head that tags"):
        TaggerInference.from_exp(*files, "cpu")
