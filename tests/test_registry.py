"""Every registered name: it builds from its defaults, and ESPnet knows it."""

import inspect

import pytest
import torch

from espnet2_ext import registry
from espnet2_ext.enh.choices import add, table
from espnet2_ext.tasks.qsep import QSepTask
from espnet2_ext.tasks.weak import WeakLabelTask

NAMES = [(kind, name) for kind, names in registry.TABLE.items() for name in names]
GIVEN = {
    "input_dim": 513,
    "criterion": None,
    "loss": "singlesrc_neg_sisdr",
    "classifier": torch.nn.Identity(),
    "num_bins": 513,
    "num_classes": 3,
}


@pytest.mark.parametrize("kind, name", NAMES, ids=str)
def test_name_stands_for_the_class_in_espnet(kind, name):
    cls = table(kind).get_class(name)
    assert cls is registry.espnet_class(kind, name)
    required = [
        p
        for p in inspect.signature(cls).parameters.values()
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    large = kind in ("extractor", "query_net")  # shapes are enough
    with torch.device("meta" if large else "cpu"):
        cls(**{p.name: GIVEN[p.name] for p in required})


def test_register_twice_changes_nothing():
    before = {kind: dict(table(kind).classes) for kind in registry.TABLE}
    registry.register()
    registry.register.__wrapped__()
    assert before == {kind: dict(table(kind).classes) for kind in registry.TABLE}


def test_collisions_and_wrong_kinds_are_refused():
    choices = table("encoder")
    name, cls = "hann_stft", choices.classes["hann_stft"]
    with pytest.raises(ValueError, match="is already"):
        add(choices, name, type("Other", (cls,), {}))
    with pytest.raises(ValueError, match="lower case"):
        add(choices, "Mixed", cls)
    with pytest.raises(ValueError, match="is not a AbsEncoder"):
        add(choices, "number", int)


def test_names_are_options_of_the_task(capsys):
    parser = QSepTask.get_parser()
    by_name = {a.dest: a for a in parser._actions}
    assert {"care_sep", "query_unet"} <= set(by_name["extractor"].choices)
    assert {"mel_band_split", "hann_stft"} <= set(by_name["encoder"].choices)
    assert by_name["query_net"].choices == ("shared", "hts_at", "cnn14", "care_cls")
    assert "warmuphalvinglr" in by_name["scheduler"].choices
    by_name = {a.dest: a for a in WeakLabelTask.get_parser()._actions}
    assert {"rnn", "crnn"} <= set(by_name["classifier"].choices)
    assert {"mask_blstm", "asteroid_masker", "rnn"} <= set(by_name["separator"].choices)
