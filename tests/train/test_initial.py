"""Initial weights: what comes into which part, what is named, what is refused."""

import argparse
import logging

import pytest
import torch
from espnet2.tasks import abs_task
from small_confs import parse, small_separator, small_tagger
from torch import nn

from espnet2_ext.errors import DataError
from espnet2_ext.tasks.qsep import QSepTask
from espnet2_ext.train.checkpoints import Entry, initial_weights, load, load_all

CARE, UNET = "mini/care_sep.yaml", "mini/st_sed_sep.yaml"


def net():
    torch.manual_seed(0)
    return nn.ModuleDict(
        {"body": nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), "head": nn.Linear(3, 2), "header": nn.Linear(3, 2)}
    )


def save(path, state):
    torch.save({k: v.detach().clone() for k, v in state.items()}, path)
    return path


@pytest.fixture
def file(tmp_path):
    """Weights of a `net` whose body begins with ones, under `a`."""
    state = {f"a.{k}": v for k, v in net().state_dict().items()}
    state["a.body.0.weight"] = torch.ones(3, 2)
    return save(tmp_path / "w.pth", state)


def test_entries_are_those_of_espnet():
    assert Entry.parse("f.pth") == ("f.pth", "", "", ())
    assert Entry.parse("f.pth:a.b") == ("f.pth", "a.b", "", ())
    assert Entry.parse("f.pth::c:d,e") == ("f.pth", "", "c", ("d", "e"))
    with pytest.raises(DataError, match="f:a:b:c:d: must be FILE:SRC:DST:EXCLUDE"):
        Entry.parse("f:a:b:c:d")


@pytest.mark.parametrize(
    "dst, reached",
    [
        ("", True),
        ("query_net", True),
        ("query_net.net", True),
        ("query", False),
        ("query_net2", False),
        ("extractor.net", False),
    ],
)
def test_whether_an_entry_reaches_a_part(dst, reached):
    assert Entry.parse(f"f.pth:net:{dst}").reaches("query_net") == reached


def test_a_part_is_given_what_is_under_its_name_alone(tmp_path):
    model = nn.ModuleDict({"x": nn.Linear(1, 1), "y": nn.Linear(1, 1)})
    path = save(tmp_path / "w.pth", {"n.weight": torch.ones(1, 1), "net.weight": torch.zeros(1, 1)})
    load(model, f"{path}:n:y")
    assert model["y"].weight.item() == 1


def test_log_tells_what_came_and_what_did_not(file, caplog):
    model = nn.ModuleDict({"part": net()})
    model["part"]["more"] = nn.Linear(4, 4)
    model["part"]["head"] = nn.Linear(3, 5)
    del model["part"]["header"]
    with caplog.at_level(logging.INFO):
        load(model, f"{file}:a:part", ignore_mismatch=True)
    assert torch.equal(model["part"]["body"][0].weight, torch.ones(3, 2))
    text = caplog.text
    assert f"{file} (a) into part: 7 of 11 tensors initialised" in text
    assert "body 7 of 7, head 0 of 2, more 0 of 2" in text
    assert "of another shape: head.weight [2, 3] in the file, [5, 3] here, head.bias [2]" in text
    assert "not in the file: more.* (2)" in text and "in the file alone: header.* (2)" in text


def test_excluded_weights_are_not_taken(file):
    model = net()
    load(model, f"{file}:a::a.body")
    assert not torch.equal(model["body"][0].weight, torch.ones(3, 2))


@pytest.mark.parametrize(
    "entry, message",
    [
        ("{folder}/none.pth:a", "none.pth: no such file"),
        ("{file}:b:part", "w.pth has no weights under 'b'; available: a"),
        ("{file}:a:prt", "no part 'prt'; available: part, odd"),
        ("{file}::part", "into part: none of its tensors fit"),
        ("{file}:a:odd", r"of another shape: head.weight \[2, 3\] .* --ignore_init_mismatch true"),
        ("{folder}/text.pth", "text.pth: is not a whole file of weights"),
        ("{folder}/checkpoint.pth", "checkpoint.pth: is ESPnet's training checkpoint .* valid.loss.ave.pth"),
    ],
)
def test_what_cannot_be_taken_is_named(file, entry, message):
    (file.parent / "text.pth").write_text("no")
    torch.save({"model": {}, "optimizers": []}, file.parent / "checkpoint.pth")
    model = nn.ModuleDict({"part": net(), "odd": net()})
    model["odd"]["head"] = nn.Linear(3, 5)
    with pytest.raises(DataError, match=message):
        load(model, entry.format(file=file, folder=file.parent))


def test_frozen_weights_must_all_be_there(file):
    model = net()
    model["more"] = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).requires_grad_(False)
    with pytest.raises(
        DataError, match="frozen and not in the file: more.0.weight, more.0.bias, more.1.weight and 3 more"
    ):
        load_all(model, start_with(f"{file}:a"))
    load_all(model, start_with(f"{file}:a", ignore=True))
    load_all(model, start_with(f"{file}:a.body:body"))  # another part than the frozen one


def test_several_files_may_hold_the_frozen_weights_together(file, tmp_path):
    model = net()
    model["more"] = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).requires_grad_(False)
    state = model["more"].state_dict()
    whole = save(tmp_path / "more.pth", state)
    load_all(model, start_with(f"{file}:a", f"{whole}::more"))
    part = save(tmp_path / "part.pth", {k: v for k, v in state.items() if "running" not in k})
    with pytest.raises(DataError, match="more.1.running_mean, more.1.running_var"):
        load_all(model, start_with(f"{file}:a", f"{part}::more"))
    first = save(tmp_path / "first.pth", model["more"][0].state_dict())
    with pytest.raises(DataError, match="frozen and not in the file: more.1.weight"):
        load_all(model, start_with(f"{first}::more.0"))
    with initial_weights(start_with(f"{first}::more.0")), pytest.raises(DataError, match="more.1"):
        abs_task.load_pretrained_model(f"{first}::more.0", model, False)


def start_with(*entries, ignore=False):
    return argparse.Namespace(init_param=list(entries), resume=False, output_dir="", ignore_init_mismatch=ignore)


# ---- around a training ---------------------------------------------------------------------------


def args(tmp_path, *entries):
    return argparse.Namespace(
        init_param=list(entries), resume=True, output_dir=str(tmp_path), ignore_init_mismatch=False
    )


def test_espnets_loading_is_ours_for_as_long(file):
    espnets, model = abs_task.load_pretrained_model, net()
    with initial_weights(args(file.parent / "exp", f"{file}:a")):
        abs_task.load_pretrained_model(
            model=model, init_param=f"{file}:a", ignore_init_mismatch=False, map_location="cpu"
        )
    assert torch.equal(model["body"][0].weight, torch.ones(3, 2))
    assert abs_task.load_pretrained_model is espnets


def test_a_missing_file_is_named_before_anything_is_built(tmp_path):
    with pytest.raises(DataError, match="gone.pth: no such file"), initial_weights(args(tmp_path, "gone.pth:a:b")):
        raise AssertionError("not reached")


def test_a_training_that_goes_on_reads_no_initial_weights(tmp_path, caplog):
    (tmp_path / "checkpoint.pth").touch()
    with caplog.at_level(logging.INFO), initial_weights(args(tmp_path, "gone.pth")):
        abs_task.load_pretrained_model("gone.pth", net(), False)
    assert "gone.pth is not read" in caplog.text


# ---- the paper's initialisations -----------------------------------------------------------------


@pytest.fixture
def tagger(tmp_path):
    """Weights of a small tagger of conf/mini."""

    def write(name):
        model = small_tagger(f"mini/tag_{name}.yaml")
        for p in model.parameters():
            nn.init.normal_(p)
        return save(tmp_path / f"{name}.pth", model.state_dict()), model.net

    return write


def test_care_sep_from_care_cls(tagger, caplog):
    path, net = tagger("care_cls")
    model = small_separator(CARE)
    load(model, f"{path}:net.net:extractor.net")
    own, given = model.extractor.net.state_dict(), net.net.state_dict()
    listening = [
        k
        for k in own
        if k.split(".")[0]
        in ("project", "patch_embed", "patch_norm", "encoder", "merges", "connector", "connector_norm")
    ]
    for name in listening:
        assert ".query." in name or torch.equal(own[name], given[name]), name
    assert "in the file alone: head.* (2)" in caplog.text and "decoder.* (" in caplog.text


def test_query_network_from_a_tagger(tagger):
    path, net = tagger("hts_at")
    model = small_separator(UNET)
    load(model, f"{path}:net:query_net")
    for name, weight in model.query_net.state_dict().items():
        assert torch.equal(weight, net.state_dict()[name]), name


def test_care_sep_from_hts_at_where_shapes_agree(tagger, caplog):
    path, net = tagger("hts_at")
    model = small_separator(CARE)
    with pytest.raises(DataError, match="of another shape: patch_embed.weight"):
        load(model, f"{path}:net:extractor.net")
    load(model, f"{path}:net:extractor.net", ignore_mismatch=True)
    own, given = model.extractor.net.state_dict(), net.state_dict()
    for name in (
        "encoder.0.blocks.0.attn.qkv.weight",
        "merges.1.reduce.weight",
        "connector.blocks.0.mlp.0.weight",
        "connector_norm.weight",
    ):
        assert torch.equal(own[name], given[name]), name
    assert "patch_embed.weight" in caplog.text and "project.* (2)" in caplog.text


def start(tmp_path, *more):
    args = parse(QSepTask, UNET, "--output_dir", str(tmp_path), "--resume", "true", *more)
    QSepTask.check_weights(args)


def test_a_random_frozen_query_network_is_refused(tmp_path):
    hint = "query_net hts_at is frozen .* --init_param TAGGER.pth:net:query_net.*--random_query_net"
    with pytest.raises(DataError, match=hint):
        start(tmp_path)
    with pytest.raises(DataError, match=hint):
        start(tmp_path, "--init_param", "a.pth:net:extractor.net")
    start(tmp_path, "--init_param", "a.pth:net:query_net")
    start(tmp_path, "--random_query_net", "true")
    start(tmp_path, "--query_grad", "true")
    start(tmp_path, "--query_net", "shared")
    (tmp_path / "checkpoint.pth").touch()  # it goes on
    start(tmp_path)
