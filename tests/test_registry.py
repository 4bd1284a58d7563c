"""Every registered name: ESPnet knows it, and it does all that is asked of its kind."""

import inspect

import contract_checks
import pytest
import torch

from espnet2_ext import registry
from espnet2_ext.enh.adapt import add, table
from espnet2_ext.errors import DataError
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
        if (p.default is p.empty or p.name == "classifier") and p.kind is p.POSITIONAL_OR_KEYWORD
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


DECODERS = {"hann_stft": "hann_stft", "sqrt_hann_stft": "sqrt_hann_stft", "mel_band_split": "mel_band_merge"}


@pytest.mark.parametrize("name", registry.TABLE["encoder"])
def test_encoder(name):
    contract_checks.check_encoder(name, DECODERS.get(name, name))


@pytest.mark.parametrize("name", registry.TABLE["extractor"])
def test_extractor(name):
    contract_checks.check_extractor(name)


@pytest.mark.parametrize("name", registry.TABLE["query_net"])
def test_query_net(name):
    contract_checks.check_query_net(name)


@pytest.mark.parametrize("kind, name", [n for n in NAMES if n[0] in ("separator", "classifier")])
def test_separator_and_classifier(kind, name):
    contract_checks.check_weak(kind, name)


@pytest.mark.parametrize("name", [n for n in registry.TABLE["criterion"] if n != "weak_label"])
def test_criterion(name):
    contract_checks.check_criterion(name)


# ---- networks that lack something ----------------------------------------------------------------

YAML = "encoder: hann_stft\nencoder_conf: {n_fft: 512, hop_length: 256}\n"
YAML += "decoder: hann_stft\ndecoder_conf: {n_fft: 512, hop_length: 256}\n"
YAML += "criterions:\n  - {name: wave_l1}\n  - {name: tagging}\n"


@pytest.fixture
def lacking(monkeypatch, tmp_path):
    """Register a class of `incomplete_nets` as its own name; YAMLs that use it are in `conf`."""

    def register(kind, name):
        key = name.lower()
        monkeypatch.setitem(registry.TABLE[kind], key, f"incomplete_nets:{name}")
        monkeypatch.setitem(table(kind).classes, key, registry.espnet_class(kind, name))
        text = YAML if kind == "extractor" else "criterions: []\n" if kind != "query_net" else ""
        (tmp_path / "lacking.yaml").write_text(f"{text}{kind}: {key}\n{kind}_conf: {{}}\n")
        if kind in ("extractor", "query_net"):
            monkeypatch.setattr(contract_checks, "yaml_of", lambda *_: str(tmp_path / "lacking.yaml"))
        return key

    return register


def test_a_complete_network_passes(lacking):
    contract_checks.check_extractor(lacking("extractor", "Whole"))


@pytest.mark.parametrize(
    "name, message",
    [
        ("NoGrid", "extractor NoGrid lacks grid_frames: see EmbeddingMasker"),
        ("NoEmbedOnly", "lacks embed_only: see EmbeddingMasker"),
        ("EmbedOnlyOfNothing", "lacks heads, named in embed_only"),
        ("MaskWithoutLevel", r"lacks mask\(spec, frames, query, level\)"),
        ("EmbedOnlyForgets", "no gradient reaches extractor.net.norm.*embed_only"),
        ("WrongGrid", "is grid_frames right"),
        ("WrongWidth", "num_classes is 4, the tags are 3"),
    ],
)
def test_what_an_extractor_lacks_is_named(lacking, name, message):
    key = lacking("extractor", name)
    with pytest.raises((AssertionError, DataError), match=message):
        contract_checks.check_extractor(key)


@pytest.mark.parametrize(
    "kind, name, message",
    [
        ("separator", "NoOutputs", "separator NoOutputs lacks num_outputs, mask_type"),
        ("classifier", "NoPool", r"classifier NoPool lacks pool\(logits, lengths\)"),
        ("query_net", "NoEdges", r"query_net NoEdges lacks edges\(samples\)"),
        ("query_net", "Unreached", "no gradient reaches net.spare.weight"),
    ],
)
def test_what_another_network_lacks_is_named(lacking, kind, name, message):
    check = contract_checks.check_query_net if kind == "query_net" else None
    key = lacking(kind, name)
    with pytest.raises((AssertionError, DataError), match=message):
        check(key) if check else contract_checks.check_weak(kind, key)


# ---- options -------------------------------------------------------------------------------------


def test_names_are_options_of_the_task(capsys):
    parser = QSepTask.get_parser()
    by_name = {a.dest: a for a in parser._actions}
    assert {"care_sep", "query_unet"} <= set(by_name["extractor"].choices)
    assert {"mel_band_split", "hann_stft"} <= set(by_name["encoder"].choices)
    assert by_name["query_net"].choices == ("shared", "hts_at", "cnn14", "care_cls")
    assert "warmuphalvinglr" in by_name["scheduler"].choices and "muon" in by_name["optim"].choices
    by_name = {a.dest: a for a in WeakLabelTask.get_parser()._actions}
    assert {"rnn", "crnn"} <= set(by_name["classifier"].choices)
    assert {"mask_blstm", "asteroid_masker", "rnn"} <= set(by_name["separator"].choices)
