"""Bundles: there and back, ESPnet's own tools, and each refusal."""

import contextlib
import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
import yaml
from standin import LABELS, StandIn, noise

from espnet2_ext.errors import BundleError, DataError
from espnet2_ext.infer import scored as scoring
from espnet2_ext.infer.bundle import open_bundle, read_bundle
from espnet2_ext.infer.pack import rewrite, unpack, write_bundle
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.infer.scored import pack_experiment


def change(path, drop=(), **members):
    """Rewrite a zip with some members left out and others replaced (`__` stands for the dot)."""
    with zipfile.ZipFile(path) as z:
        content = {n: z.read(n) for n in z.namelist() if n not in drop}
    content.update({k.replace("__", "."): v for k, v in members.items()})
    with zipfile.ZipFile(path, "w") as z:
        for name, data in content.items():
            z.writestr(name, data)
    return path


def test_there_and_back(exp, toy_bundle, capsys):
    config, state, labels, info = read_bundle(toy_bundle)
    assert config == yaml.safe_load((exp / "config.yaml").read_text())
    expected = torch.load(exp / "valid.loss.ave.pth", weights_only=True)
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[k], expected[k]) for k in state)
    assert [label.mid for label in labels] == [f"/m/0{i}" for i in range(5)]
    assert labels[1].related == (0,) and labels[4].related == ()
    assert info["name"] == "toy" and info["task"] == "qsep" and info["fs"] == 16000
    assert info["classes"] == 5 and info["trained_on"] == {"manifest_hash": "abc123"}
    assert set(info["versions"]) == {"espnet2_ext", "espnet", "torch"}
    assert not capsys.readouterr().out  # ESPnet's archiver prints what it adds


def test_model_of_a_bundle_is_that_of_the_experiment(exp, toy_bundle):
    a = Separator.from_bundle(toy_bundle, "cpu")
    b = Separator.from_exp(exp / "config.yaml", exp / "valid.loss.ave.pth", device="cpu")
    x = noise(1, 16000)
    q = a.embed_one(x, 16000)
    np.testing.assert_array_equal(q, b.embed_one(x, 16000))
    np.testing.assert_array_equal(a.separate(x, 16000, q[None]), b.separate(x, 16000, q[None]))
    assert [label.name for label in b.classes] == [f"sound {i}" for i in range(5)]


def test_espnet_unpacks_it(toy_bundle, tmp_path):
    from espnet2.main_funcs.pack_funcs import unpack

    files = unpack(toy_bundle, tmp_path / "out")
    model = StandIn(**yaml.safe_load(open(files["train_config"]))["model_conf"])
    model.load_state_dict(torch.load(files["model_file"], weights_only=True))
    assert (tmp_path / "out" / "labels.tsv").read_text() == LABELS


@pytest.mark.parametrize("inside", [True, False])
def test_espnet_packs_it(exp, toy_bundle, tmp_path, inside, monkeypatch):
    """Packed by ESPnet, from the folder above and from elsewhere (then it stores whole paths)."""
    from espnet2.bin import pack

    with zipfile.ZipFile(toy_bundle) as z:
        z.extract("bundle.yaml", exp)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path if inside else tmp_path / "elsewhere")
    out = tmp_path / "packed.zip"
    with open(tmp_path / "log", "w") as log, contextlib.redirect_stdout(log):
        pack.main(
            [
                "enh",
                "--train_config",
                str(exp / "config.yaml"),
                "--outpath",
                str(out),
                "--model_file",
                str(exp / "valid.loss.ave.pth"),
                "--option",
                str(exp / "labels.tsv"),
                "--option",
                str(exp / "bundle.yaml"),
            ]
        )
    assert read_bundle(out).info == read_bundle(toy_bundle).info
    Separator.from_bundle(out, "cpu")


def test_not_a_bundle(toy_bundle, exp, tmp_path):
    (tmp_path / "text.zip").write_text("not a zip at all, whatever its name says")
    cut = tmp_path / "cut.zip"
    cut.write_bytes(toy_bundle.read_bytes()[:-200])
    half = tmp_path / "half.zip"
    half.write_bytes(toy_bundle.read_bytes()[:5000])
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as z:
        z.writestr("readme.txt", "hello")
    for path, message in (
        (tmp_path / "missing.zip", "no such bundle"),
        (tmp_path / "text.zip", "not a model"),
        (cut, "cut off or damaged"),
        (half, "cut off or damaged"),
        (tmp_path / "other.zip", "no meta.yaml"),
        (exp / "valid.loss.ave.pth", "weights alone"),
        (tmp_path, "no such bundle file"),
    ):
        with pytest.raises(BundleError, match=message) as e:
            Separator.from_bundle(path, "cpu")
        assert str(path) in str(e.value)


def test_a_flipped_byte(toy_bundle):
    data = bytearray(toy_bundle.read_bytes())
    data[data.index(b"model.pth") + 2000] ^= 1
    toy_bundle.write_bytes(data)
    with pytest.raises(BundleError, match="toy.zip: is damaged"):
        read_bundle(toy_bundle)


def test_parts_missing_or_broken(toy_bundle, tmp_path):
    other = LABELS.replace("index\t", "number\t")
    for drop, members, message in (
        (("labels.tsv",), {}, "holds no labels.tsv"),
        (("bundle.yaml",), {}, "holds no bundle.yaml"),
        (("model.pth",), {}, "names no model_file"),
        ((), {"bundle__yaml": b"task: [unclosed"}, "not valid YAML"),
        ((), {"bundle__yaml": b"- a list"}, "key: value"),
        ((), {"bundle__yaml": b"task: speech"}, "for the task 'speech'"),
        ((), {"bundle__yaml": b"task: qsep\nformat: 7"}, "has format 7"),
        ((), {"bundle__yaml": b"task: qsep\nclasses: 6"}, "6 classes, labels.tsv lists 5"),
        ((), {"labels__tsv": other.encode()}, "labels.tsv:1: expected the columns"),
        ((), {"labels__tsv": LABELS.replace("2\t/m", "x\t/m").encode()}, "labels.tsv:4: index 'x'"),
        ((), {"labels__tsv": LABELS.replace("2\t/m", "7\t/m").encode()}, "labels.tsv:4: index '7'"),
        ((), {"model__pth": b"not weights"}, "not a whole file of weights"),
        ((), {"config__yaml": b"\xff\xfe"}, "not UTF-8"),
    ):
        path = change(shutil.copy(toy_bundle, tmp_path / "broken.zip"), drop, **members)
        with pytest.raises(BundleError, match=message) as e:
            read_bundle(path)
        assert "broken.zip" in str(e.value)


def test_label_list_of_another_size(toy_bundle, exp, tmp_path):
    less = "\n".join(LABELS.splitlines()[:4]) + "\n"
    (tmp_path / "less.tsv").write_text(less)
    with pytest.raises(BundleError, match="less.tsv: the label list has 3 classes, the model tags"):
        write_bundle(exp / "config.yaml", exp / "valid.loss.ave.pth", tmp_path / "less.tsv", tmp_path / "b.zip")
    assert not (tmp_path / "b.zip").exists()
    change(toy_bundle, labels__tsv=less.encode(), bundle__yaml=b"task: qsep\nclasses: 3")
    with pytest.raises(BundleError, match="toy.zip: the label list has 3 classes, the model tags"):
        Separator.from_bundle(toy_bundle, "cpu")


def weights(path, state):
    torch.save(state, path)
    return path


def test_weights_that_do_not_fit(exp, tmp_path):
    good = torch.load(exp / "valid.loss.ave.pth", weights_only=True)
    resume = {"model": good, "reporter": {}, "optimizers": [{"state": {}}], "schedulers": [None]}
    (tmp_path / "cut.pth").write_bytes((exp / "valid.loss.ave.pth").read_bytes()[:3000])
    renamed = {f"net.{k}": v for k, v in good.items()}
    cases = {
        weights(tmp_path / "checkpoint.pth", resume): "ESPnet's training checkpoint",
        weights(tmp_path / "list.pth", [1, 2]): "something else than named tensors",
        weights(tmp_path / "code.pth", StandIn()): "something else than named tensors",
        tmp_path / "cut.pth": "not a whole file of weights",
        tmp_path / "none.pth": "no such file",
        weights(
            tmp_path / "renamed.pth", renamed
        ): r"4 missing \(query, local, to_mask, \.\.\.\); 4 unexpected \(net.query, ",
        weights(
            tmp_path / "wide.pth", {**good, "query": torch.ones(9, 9)}
        ): r"1 of another shape \(query \[9, 9\] in place of \[8, 257\]\)",
    }
    for path, message in cases.items():
        with pytest.raises(BundleError, match=message) as e:
            Separator.from_exp(exp / "config.yaml", path, device="cpu")
        assert str(path) in str(e.value)
        with pytest.raises(BundleError, match=message):
            write_bundle(exp / "config.yaml", path, exp / "labels.tsv", tmp_path / "b.zip")
    with pytest.raises(BundleError, match="training checkpoint"):
        Separator.from_bundle(tmp_path / "checkpoint.pth", "cpu")
    assert not (tmp_path / "b.zip").exists()


def test_configuration_that_builds_nothing(exp):
    for text, message in (
        ("max_epoch: 3", "does not build a qsep model"),
        ("model_conf: {colour: red}", "colour"),
        ("a: [", "not valid YAML"),
    ):
        (exp / "config.yaml").write_text(text)
        with pytest.raises(BundleError, match=message):
            Separator.from_exp(exp / "config.yaml", exp / "valid.loss.ave.pth", device="cpu")


def test_name_of_a_bundle(exp, tmp_path):
    with pytest.raises(DataError, match="must end in .zip"):
        write_bundle(exp / "config.yaml", exp / "valid.loss.ave.pth", exp / "labels.tsv", tmp_path / "model.pth")


def test_compressed_by_hand(toy_bundle, tmp_path):
    """Unzipped and zipped again with compression, as a person may do."""
    with zipfile.ZipFile(toy_bundle) as z, zipfile.ZipFile(tmp_path / "small.zip", "w", zipfile.ZIP_DEFLATED) as small:
        for name in z.namelist():
            small.writestr(name, z.read(name))
    state = read_bundle(tmp_path / "small.zip").state
    assert all(torch.equal(state[k], v) for k, v in read_bundle(toy_bundle).state.items())


def test_half_precision_and_views(exp, toy_bundle, tmp_path):
    """Weights come at the model's own precision; a view is stored without what it is a view of."""
    good = torch.load(exp / "valid.loss.ave.pth", weights_only=True)
    half = {k: v.half() for k, v in good.items()}
    half["query"] = torch.zeros(1000, *half["query"].shape).half()[3] + half["query"]
    big = torch.zeros(1000, *good["local"].shape)
    big[3] = good["local"]
    weights(exp / "half.pth", {**half, "local": big[3]})
    write_bundle(exp / "config.yaml", exp / "half.pth", exp / "labels.tsv", tmp_path / "h.zip")
    state = read_bundle(tmp_path / "h.zip").state
    for key, value in state.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, good[key], atol=1e-3, rtol=1e-3)
    assert (tmp_path / "h.zip").stat().st_size < 1.1 * toy_bundle.stat().st_size
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".tmp")]


def test_packed_in_half_precision(exp, toy_bundle, tmp_path):
    """Half the size; small tensors and what overflows keep their precision; the output hardly changes."""
    good = torch.load(exp / "valid.loss.ave.pth", weights_only=True)
    files = exp / "config.yaml", exp / "valid.loss.ave.pth", exp / "labels.tsv"
    info = write_bundle(*files, tmp_path / "h.zip", half=True)
    assert info["precision"] == "half"
    with open_bundle(tmp_path / "h.zip") as bundle:
        stored = bundle.state()
    for name, value in stored.items():
        assert value.dtype == (torch.float16 if value.numel() >= 1000 else torch.float32)
        assert value.numel() >= 1000 or torch.equal(value, good[name])
    whole, half = (Separator.from_bundle(path, "cpu") for path in (toy_bundle, tmp_path / "h.zip"))
    assert all(p.dtype == torch.float32 for p in half.model.parameters())
    x = noise(1, 16000)[:, 0]
    a, b = (s.separate(x, 16000, s.embed_one(x, 16000)[None])[0] for s in (whole, half))
    assert 10 * np.log10((a**2).sum() / ((a - b) ** 2).sum()) > 45
    sizes = [sum(v.nbytes for v in state.values()) for state in (good, stored)]
    saved = toy_bundle.stat().st_size - (tmp_path / "h.zip").stat().st_size
    assert saved > sizes[0] - sizes[1] - 300  # and deflated
    torch.save({**good, "query": good["query"] + 1e5}, files[1])
    write_bundle(*files, tmp_path / "h.zip", half=True)
    assert read_bundle(tmp_path / "h.zip").state["query"].dtype == torch.float32


def test_a_flipped_byte_of_half_precision(exp, tmp_path):
    files = exp / "config.yaml", exp / "valid.loss.ave.pth", exp / "labels.tsv"
    write_bundle(*files, tmp_path / "h.zip", half=True)
    data = bytearray((tmp_path / "h.zip").read_bytes())
    data[data.index(b"model.pth") + 2000] ^= 1
    (tmp_path / "h.zip").write_bytes(data)
    with pytest.raises(BundleError, match="h.zip: is damaged"):
        read_bundle(tmp_path / "h.zip")


def test_packed_anew(toy_bundle, tmp_path):
    """Weights, classes, facts and further members are taken over; without `half` the model stays the same one."""
    rewrite(toy_bundle, tmp_path / "a.zip", {"trained_on": "bells"}, more={"card.md": b"# Card"})
    rewrite(tmp_path / "a.zip", tmp_path / "a.zip", {"results": {"self": 9}})
    rewrite(tmp_path / "a.zip", tmp_path / "h.zip", half=True)
    about = []
    for path in (toy_bundle, tmp_path / "a.zip", tmp_path / "h.zip"):
        with open_bundle(path) as bundle:
            about.append((bundle.model_hash, bundle.card(), bundle.info))
    (first, none, old), (same, card, new), (other, kept, _) = about
    assert same == first != other and (none, card, kept) == ("", "# Card", "# Card")
    assert new == {**old, "trained_on": "bells", "results": {"self": 9}}
    assert read_bundle(tmp_path / "h.zip").labels == read_bundle(toy_bundle).labels
    with pytest.raises(DataError, match="must end in .zip"):
        rewrite(toy_bundle, tmp_path / "model.pth")


def test_unpacked_for_a_training(exp, toy_bundle, tmp_path, monkeypatch):
    """The YAML's training and tags with the bundle's networks; what a bundle may not name does not get there."""
    conf = {"widths": [2, 4], "num_classes": 3}
    networks = {"encoder": "hann_stft", "extractor": "query_unet", "extractor_conf": conf, "decoder": "x"}
    content = yaml.safe_load((exp / "config.yaml").read_text()) | networks
    change(toy_bundle, config__yaml=yaml.safe_dump(content | {"decoder": "hann_istft"}).encode())
    train = {
        "extractor": "care_sep",
        "extractor_conf": {"dim": 8, "tag_pooling": "max"},
        "query_net": "cnn14",
        "max_epoch": 9,
        "optim": "adam",
    }
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(train))
    with pytest.raises(BundleError, match="toy.zip: unknown decoder 'hann_istft'"):
        unpack(toy_bundle, tmp_path / "train.yaml", tmp_path / "init")
    change(toy_bundle, config__yaml=yaml.safe_dump(content | {"decoder": "hann_stft"}).encode())
    unpack(toy_bundle, tmp_path / "train.yaml", tmp_path / "init")
    found = yaml.safe_load((tmp_path / "init/config.yaml").read_text())
    networks |= {"extractor_conf": {"widths": [2, 4], "tag_pooling": "max"}, "decoder": "hann_stft"}
    assert found == {"max_epoch": 9, "optim": "adam", **networks}
    good = torch.load(exp / "valid.loss.ave.pth", weights_only=True)
    state = torch.load(tmp_path / "init/model.pth", weights_only=True)
    assert state.keys() == good.keys() and all(torch.equal(state[k], v) for k, v in good.items())
    change(toy_bundle, config__yaml=yaml.safe_dump(content | {"extractor": "os:system"}).encode())
    with pytest.raises(BundleError, match="toy.zip: extractor: 'os:system' is not a plugin"):
        unpack(toy_bundle, tmp_path / "train.yaml", tmp_path / "init")
    change(toy_bundle, bundle__yaml=b"task: weak")
    with pytest.raises(BundleError, match="a training by queries cannot begin with it"):
        unpack(toy_bundle, tmp_path / "train.yaml", tmp_path / "init")


def test_a_card_shows_no_control_characters(toy_bundle, tmp_path):
    rewrite(toy_bundle, tmp_path / "a.zip", more={"card.md": b"# A\x1b[2J\r\n\xc2\x9bB"})
    with open_bundle(tmp_path / "a.zip") as bundle:
        assert bundle.card() == "# A[2J\nB"
    change(tmp_path / "a.zip", card__md=b"\xff")
    with open_bundle(tmp_path / "a.zip") as bundle, pytest.raises(BundleError, match="a.zip: card.md: is not UTF-8"):
        bundle.card()


# ---- the bundle of a scored experiment ----------------------------------------------------------


@pytest.fixture
def scored(tmp_path, monkeypatch):
    """An experiment's files; the bundle's writer keeps what it is told, without a model."""

    def write_bundle(config, model, labels, out, info):
        with zipfile.ZipFile(out, "w") as z:
            z.writestr("bundle.yaml", yaml.safe_dump(info))
            z.writestr("model.pth", model.read_bytes())

    monkeypatch.setattr(scoring, "write_bundle", write_bundle)
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


def test_it_tells_what_it_was_trained_on_and_what_it_scored(scored):
    assert pack(scored)
    info = told(scored)
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
    assert str(scored) not in str(info)


def test_made_again_only_when_something_changed_or_it_is_broken(scored):
    assert pack(scored) and not pack(scored)
    lock = scored / "exp/qsep_x/.lock-x.zip"  # of a run that was killed as it ended
    lock.touch()
    assert not pack(scored) and not lock.exists()
    (scored / "exp/qsep_x/best.pth").write_text("other weights")
    assert pack(scored) and not pack(scored)
    assert pack(scored, inference=()) and not pack(scored, inference=())
    (scored / "exp/qsep_x/x.zip").write_bytes(b"PK cut off")
    assert pack(scored)


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
def test_missing_files_are_named(scored, name):
    (scored / name).unlink()
    with pytest.raises(DataError, match=f"{name}: no such file"):
        pack(scored)


def test_broken_json_is_named(scored):
    (scored / "dump/train/bank.json").write_text("{")
    with pytest.raises(DataError, match="bank.json: is not valid JSON"):
        pack(scored)
