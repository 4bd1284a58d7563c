"""Hostile bundles: refused with the key's name, before anything is imported, called, fetched or allocated."""

import copy
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from small_confs import CONF

from espnet2_ext.build import build_model
from espnet2_ext.core.bounds import TooLarge, bounded
from espnet2_ext.core.layers.pooling import POOLINGS
from espnet2_ext.core.nets import care_sep, mask_nets
from espnet2_ext.core.nets.cnn14 import EMBEDDINGS
from espnet2_ext.core.weights import load_weights
from espnet2_ext.data.tables import Label
from espnet2_ext.errors import DataError
from espnet2_ext.infer import pack as packing
from espnet2_ext.infer.bundle import open_bundle
from espnet2_ext.infer.class_separator import WeakSeparator
from espnet2_ext.infer.pack import label_table, write_bundle
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.infer.weights import ESPNET, MASKERS, WORDS, check_config, fill
from espnet2_ext.util.config import read_config

STFT = {"sample_rate": 16000, "n_fft": 256, "hop_length": 64}
WEAK = {
    "encoder": "sqrt_hann_stft",
    "encoder_conf": STFT,
    "decoder": "sqrt_hann_stft",
    "decoder_conf": STFT,
    "separator": "mask_blstm",
    "separator_conf": {"hidden": 8, "layers": 1},
    "class_names": ["Crash/Smash", "dog", "siren"],
    "label_type": "frame",
}
ONE_LAYER = {"layer": 1, "unit": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two bundles, `query.zip` and `weak.zip`."""
    folder = tmp_path_factory.mktemp("bundles")
    query = read_config(CONF / "debug" / "train_qsep_care_sep.yaml")
    for name, config in (("query", query), ("weak", WEAK)):
        torch.manual_seed(0)
        model = build_model(config, "qsep" if name == "query" else "weak")
        torch.save(model.state_dict(), folder / "model.pth")
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "labels.tsv").write_bytes(label_table(Label(i, f"/m/{i}", f"sound {i}") for i in range(24)))
        labels = folder / "labels.tsv" if name == "query" else None
        write_bundle(folder / "config.yaml", folder / "model.pth", labels, folder / f"{name}.zip")
    return folder


def changed(path, out, change=None, **members):
    """A copy of a bundle whose configuration `change` has changed, with other members (`__` stands for the dot)."""
    with zipfile.ZipFile(path) as z:
        content = {n: z.read(n) for n in z.namelist()}
    config = yaml.safe_load(content["config.yaml"])
    if change:
        change(config)
    content["config.yaml"] = yaml.safe_dump(config).encode()
    content |= {k.replace("__", "."): v for k, v in members.items()}
    with zipfile.ZipFile(out, "w") as z:
        for name, data in content.items():
            z.writestr(name, data)
    return out


def put(key, value):
    """A change that sets `a.b` in nested mappings."""

    def change(config):
        *way, last = key.split(".")
        for part in way:
            config = config.setdefault(part, {})
        config[last] = value

    return change


def peak(reset=False):
    """The process's largest memory so far, or since `reset`, in KB."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])


def refused(cls, path, message):
    """`cls.from_bundle` refuses the bundle, fast and without memory."""
    before, begin = peak(reset=True), time.process_time()
    with pytest.raises(DataError, match=message) as e:
        cls.from_bundle(path, "cpu")
    assert path.name in str(e.value) and "\n" not in str(e.value)
    assert time.process_time() - begin < 3
    assert peak() - before < 200_000


# ---- names and values ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("separator", "asteroid", "unknown separator 'asteroid', or one that a bundle may not name"),
        ("separator", "os:system", "separator: 'os:system' is not a plugin"),
        ("separator", "espnet2_ext.infer.pack:write_bundle", "is not a plugin"),
        ("separator", "torch.hub:load", "is not a plugin"),
        ("separator", "asteroid.models:save_publishable", "the package 'asteroid' is not allowed"),
        ("separator", "espnet2.bin.enh_train:main", "the package 'espnet2' is not allowed"),
        ("separator", "no_such_package:Net", "the package 'no_such_package' is not installed"),
        ("separator", "../../evil:Net", "is not installed"),
        ("separator", ["rnn"], "separator: should be a name"),
        ("separator", None, "separator: should be a name"),
        ("encoder", "__import__", "unknown encoder"),
        ("separator_conf", "hidden=8", "separator_conf: should hold"),
        ("separator_conf.mask_type", "https://evil.example/x", "separator_conf: mask_type: .* is no word"),
        ("separator_conf.hidden", 10**12, "separator_conf: hidden: .* is beyond"),
        ("separator_conf.hidden", float("inf"), "separator_conf: hidden: .* is beyond"),
        ("separator_conf.hidden", [[[[[[[[1]]]]]]]], "separator_conf: hidden: .* should hold"),
        ("separator_conf.hidden", [1] * 10_000, "separator_conf: hidden: holds more than"),
        ("encoder_conf.n_fft", 2**40, "encoder_conf: n_fft: .* is beyond"),
        ("sample_rate", 10**18, "sample_rate: .* is beyond"),
        ("class_names", {"a": 1}, "class_names"),
        ("class_names", ["a", 3], "class_names"),
        ("class_names", ["a", "b\x1b[31m"], "class_names"),
    ],
)
def test_what_a_configuration_may_not_say(folder, tmp_path, monkeypatch, key, value, message):
    bad = changed(folder / "weak.zip", tmp_path / "bad.zip", put(key, value))
    monkeypatch.setattr("espnet2_ext.infer.weights.built_model", lambda *_: pytest.fail("was built"))
    refused(WeakSeparator, bad, message)


@pytest.mark.parametrize(
    "conf, message",
    [
        ({"masker": "save_publishable"}, "masker: 'save_publishable' is no word"),
        ({"masker": "DPRNN", "masker_conf": {"norm_type": "register_norm"}}, "norm_type: 'register_norm' is no word"),
        ({"masker": "LSTMMasker", "masker_conf": {"rnn_type": "Module"}}, "rnn_type: 'Module' is no word"),
        ({"masker": "hann"}, "no asteroid masker 'hann'"),
    ],
)
def test_of_asteroid_only_its_maskers(folder, tmp_path, conf, message):
    def change(config):
        config.update(separator="asteroid_masker", separator_conf=conf)

    refused(WeakSeparator, changed(folder / "weak.zip", tmp_path / "bad.zip", change), message)


def test_words_of_our_own_networks():
    assert {*care_sep.QUERY_AT, *care_sep.MASK_TYPES, *mask_nets.MASK_TYPES, *EMBEDDINGS, *POOLINGS} <= WORDS


def test_what_could_not_be_opened_is_not_packed(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "model_of_exp", lambda *_: SimpleNamespace(residual=False, class_names=["a"], fs=1))
    monkeypatch.setattr(packing, "plugins_of", lambda _: [])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(WEAK | {"separator_conf": {"mask_type": "of_the_user"}}))
    with pytest.raises(DataError, match="mask_type: 'of_the_user' is no word that a bundle may say"):
        write_bundle(tmp_path / "config.yaml", tmp_path / "model.pth", None, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_a_users_own_yaml_is_free():
    config = {**WEAK, "separator": "rnn", "separator_conf": {**ONE_LAYER, "nonlinear": "tanh", "dropout": 0.1}}
    assert build_model(config, "weak", trusted=True).separator.num_spk == 3


def test_a_refused_bundle_imports_nothing_of_espnet_and_asteroid(folder, tmp_path):
    path = changed(folder / "weak.zip", tmp_path / "bad.zip", put("separator", "asteroid"))
    code = f"""
import sys
from espnet2_ext.errors import BundleError
from espnet2_ext.infer.class_separator import WeakSeparator
try:
    WeakSeparator.from_bundle({str(path)!r}, "cpu")
except BundleError as e:
    assert "asteroid" in str(e)
    assert not {{"espnet2", "asteroid", "requests", "huggingface_hub"}} & set(sys.modules)
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "refused\n", done.stderr


# ---- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key, value",
    [
        ("extractor_conf.dim", 10**6),
        ("extractor_conf.depths", [10**6, 2, 1]),
        ("extractor_conf.depths", [1, 2, 10**6]),
        ("extractor_conf.connector_depth", 10**6),
        ("extractor_conf.image_channels", 2**19),
        ("extractor_conf.num_classes", 10**6),
        ("extractor_conf.window", 2**12),
        ("encoder_conf.n_fft", 2**20),
        ("extractor_conf.dim", -8),
        ("extractor_conf.dim", 0),
        ("extractor_conf.dim", True),
        ("extractor_conf.heads", "magnitude"),
        ("encoder_conf.hop_length", 0),
        ("encoder_conf.hop_length", 1),
        ("encoder_conf.sample_rate", 1),
    ],
)
def test_sizes_of_a_query_separator(folder, tmp_path, key, value):
    refused(Separator, changed(folder / "query.zip", tmp_path / "bad.zip", put(key, value)), "bad.zip: ")


@pytest.mark.parametrize(
    "separator, conf",
    [
        ("mask_blstm", {"hidden": 2**19, "layers": 1}),
        ("mask_blstm", {"hidden": 8, "layers": 10**6}),
        ("mask_conv", {"mel_bands": 2**20}),
        ("mask_conv", {"channels": [2**18, 2**18, 2**18]}),
        ("rnn", {"unit": 2**18}),
        ("rnn", {"unit": 8, "layer": 2**20}),
        ("dprnn", {"unit": 8, "layer": 2**20}),
        ("tcn", {"stack": 2**20}),
        ("tcn", {"kernel": 2**20, "hidden_dim": 2**20}),
        ("conformer", {"adim": 2**20, "aheads": 1}),
        ("conformer", {"layers": 2**20, "adim": 8, "aheads": 1}),
        ("uses2", {"window_size": [2**10, 2**10]}),
        ("tfgridnetv2", {"n_srcs": 3, "n_layers": 2**20, "emb_dim": 8}),
        ("asteroid_masker", {"masker": "TDConvNet", "masker_conf": {"n_blocks": 2**20}}),
        ("asteroid_masker", {"masker": "DPRNN", "masker_conf": {"hid_size": 2**20}}),
    ],
)
def test_sizes_of_a_class_separator(folder, tmp_path, separator, conf):
    def change(config):
        config.update(separator=separator, separator_conf=conf)

    refused(WeakSeparator, changed(folder / "weak.zip", tmp_path / "bad.zip", change), "bad.zip: ")


@pytest.mark.parametrize("rate", [0, -16000, 10, 800_000, [16000]])
def test_rates_that_no_sound_has(folder, tmp_path, rate):
    io = {f"{part}{more}": value for part in ("encoder", "decoder") for more, value in (("", "stft"), ("_conf", {}))}

    def change(config):
        config.update(io, sample_rate=rate)

    refused(
        WeakSeparator,
        changed(folder / "weak.zip", tmp_path / "bad.zip", change),
        re.escape(f"its sample rate of {rate} Hz"),
    )


def test_a_plugin_is_bounded_as_well():
    class Many(torch.nn.Module):
        def __init__(self, layers):
            super().__init__()
            self.layers = torch.nn.ModuleList(torch.nn.Identity() for _ in range(layers))

    for fn in (
        lambda: torch.zeros(2**20, 2**20),
        lambda: torch.arange(2**40),
        lambda: torch.arange(0, 1, 1e-12),
        lambda: torch.hann_window(2**40),
        lambda: torch.zeros(2**20, 1) * torch.zeros(2**20),
        lambda: torch.nn.Linear(2**20, 2**20),
        lambda: Many(10**9),
    ):
        with pytest.raises(TooLarge), bounded(0, 0, lay_out=False):
            fn()
    with bounded(0, 0, lay_out=False):
        assert not torch.nn.Linear(2, 2).weight.is_meta
    assert torch.arange(5).sum() == 10  # nothing stays behind
    assert len(Many(3000).layers) == 3000


SMALL = {
    "conformer": {"adim": 8, "aheads": 2, "layers": 1, "linear_units": 8},
    "transformer": {"adim": 8, "aheads": 2, "layers": 1, "linear_units": 8},
    "dptnet": {**ONE_LAYER, "att_heads": 3},
    "svoice": {"enc_dim": 8, "kernel_size": 8, "hidden_size": 8, "num_layers": 1},
    "tfgridnet": {"n_srcs": 3, "n_layers": 1, "lstm_hidden_units": 8, "emb_dim": 8, "attn_approx_qk_dim": 16},
    "tfgridnetv3": {"n_srcs": 3, "n_layers": 1, "lstm_hidden_units": 8, "emb_dim": 8},
    "dccrn": {"rnn_units": 8, "kernel_num": [4, 8]},
    "tcn": {"layer": 2, "stack": 1},
    "uses": {"num_blocks": 1, "num_spatial_blocks": 1},
    "uses2": {"num_blocks": 1, "num_spatial_blocks": 1},
    "dc_crn": {},
    "wpe_beamformer": {"wunits": 8, "bunits": 8},
    **{name: ONE_LAYER for name in ("dan", "dpcl", "dpcl_e2e", "dprnn", "rnn", "skim")},
}
SMALL["tfgridnetv2"] = SMALL["tfgridnet"]
UNTRIED = {"bsrnn", "fasnet"}  # they take other rates and inputs than our task gives


def test_every_allowed_network_is_tried_here():
    assert set(SMALL) | UNTRIED == set(ESPNET["separator"])


@pytest.mark.parametrize("separator", [*SMALL, *MASKERS, "mask_blstm", "mask_conv"])
def test_laid_out_and_filled_it_is_the_same_network(separator):
    """Without memory until the weights come; nothing that is computed in a constructor is lost."""
    masker = separator in MASKERS
    wave = separator in ("svoice", "tfgridnet", "tfgridnetv2")
    conf = {"n_fft": 64, "hop_length": 16}
    io = {"encoder": "same"} if wave else {"encoder": "stft", "encoder_conf": conf}
    if masker or separator.startswith("mask"):
        io = {"encoder": "sqrt_hann_stft", "encoder_conf": {**conf, "n_fft": 256}}
    if separator == "SuDORMRF":
        io = {"encoder": "conv", "encoder_conf": {"channel": 16, "kernel_size": 16, "stride": 8}}
    io |= {k.replace("encoder", "decoder"): v for k, v in io.items()}
    network = {"separator": separator, "separator_conf": SMALL.get(separator, {})}
    if masker:
        network = {"separator": "asteroid_masker", "separator_conf": {"masker": separator}}
    config = {**io, **network, "class_names": ["a", "b", "c"], "sample_rate": 16000}
    whole = build_model(copy.deepcopy(config), "weak", trusted=True).eval()
    state = {k: v.clone() for k, v in whole.state_dict().items()}
    assert check_config(config, "weak")
    with bounded(len(state), sum(v.numel() for v in state.values())):
        model = build_model(config, "weak").eval()
    assert any(p.is_meta for p in model.separator.parameters())
    fill(model, lambda: state, "here")
    x = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    found = []
    for net in (whole, model):
        torch.manual_seed(0)
        with torch.no_grad():
            found.append(net.separate(x))
    assert torch.equal(*found)


# ---- the file ------------------------------------------------------------------------------------


def hostile(folder, path, kind):
    """A bundle with a fault of its zip."""
    changed(folder / "weak.zip", path)
    with zipfile.ZipFile(path, "a") as z:
        if kind == "bomb":
            z.writestr("more.yaml", bytes(1 << 28), zipfile.ZIP_DEFLATED)
        elif kind == "link":
            info = zipfile.ZipInfo("config")
            info.external_attr = 0o120777 << 16
            z.writestr(info, "/etc/passwd")
        elif kind == "many":
            for i in range(5000):
                z.writestr(f"{i:0200d}", "")
        else:
            z.writestr(kind, "x")
    return path


@pytest.mark.parametrize("kind", ["../evil.pth", "/etc/evil", "a\\b", "C:evil", "link", "model.pth", "many"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_are_not_a_bundles(folder, tmp_path, kind):
    refused(WeakSeparator, hostile(folder, tmp_path / "bad.zip", kind), "bad.zip: ")


@pytest.mark.parametrize(
    "members",
    [
        {"bundle__yaml": b"task: weak\nx: [" + b"[]," * 100_000 + b"]"},
        {"bundle__yaml": b"task: weak\n#" + b"x" * (2 << 20)},
        {"bundle__yaml": b"task: weak\nplugins: ['--index-url=http://evil.example x']"},
        {"bundle__yaml": b"task: weak\nplugins: numpy"},
        {"bundle__yaml": b"task: weak\nagreement: [1]"},
        {"bundle__yaml": b"task: [weak]"},
        {"bundle__yaml": b"task: weak\nformat: {a: 1}"},
        {"meta__yaml": b"files: [1]\nyaml_files: 3"},
        {"meta__yaml": b"files: {model_file: config.yaml}\nyaml_files: {train_config: model.pth}"},
        {"labels__tsv": b"index\tmid\tname\trelated\n0\ta\tb\x1b[2J\t\n"},
        {"labels__tsv": b"index\tmid\tname\trelated\n" + b"".join(b"%d\ta%d\tb\t\n" % (i, i) for i in range(60_000))},
        {"labels__tsv": b"index\tmid\tname\trelated\n0\ta\t" + b"b" * 2000 + b"\t\n"},
        {"model__pth": b"\x80\x02" + b"}" * (1 << 20) + b"."},
        {"model__pth": bytes(1 << 20)},
    ],
)
def test_texts_and_weights_that_are_not_a_bundles(folder, tmp_path, members):
    refused(WeakSeparator, changed(folder / "weak.zip", tmp_path / "bad.zip", **members), "bad.zip: ")


def test_values_that_are_not_finite_are_refused(folder, tmp_path):
    with zipfile.ZipFile(folder / "weak.zip") as z:
        z.extract("model.pth", tmp_path)
    state = load_weights(tmp_path / "model.pth")
    name = next(k for k, v in state.items() if v.dim() > 1)
    for value in ("nan", "inf"):
        state[name][0, 0] = float(value)
        torch.save(state, tmp_path / "model.pth")
        bad = changed(folder / "weak.zip", tmp_path / "bad.zip", model__pth=(tmp_path / "model.pth").read_bytes())
        refused(WeakSeparator, bad, f"values that are not finite, in {name}")


def test_info_of_a_hostile_file_is_cheap(folder, tmp_path):
    """At most seconds and 500 MB, without PyTorch, whatever is in it."""
    big = yaml.safe_dump({f"k{i}": i for i in range(20_000)}).encode()
    files = [hostile(folder, tmp_path / "a.zip", "bomb")]
    files += [changed(folder / "weak.zip", tmp_path / "b.zip", bundle__yaml=b"task: weak\n" + big, config__yaml=big)]
    files += [changed(folder / "weak.zip", tmp_path / "c.zip", model__pth=b"\x80\x02" + b"}" * (1 << 23) + b".")]
    code = """
import sys, time
from espnet2_ext.cli.bundles import info
from espnet2_ext.errors import DataError
for path in sys.argv[1:]:
    begin = time.process_time()
    try:
        info([path])
    except DataError as e:
        print(e)
    assert time.process_time() - begin < 3, (path, time.process_time() - begin)
assert "torch" not in sys.modules
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
assert int(peak.split()[1]) < 500_000, peak
"""
    done = subprocess.run([sys.executable, "-c", code, *map(str, files)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_hash_of_a_model(folder, tmp_path):
    hashes = []
    for path in (
        folder / "weak.zip",
        changed(folder / "weak.zip", tmp_path / "a.zip", bundle__yaml=b"task: weak\nname: other"),
        changed(folder / "weak.zip", tmp_path / "b.zip", put("sample_rate", 8000)),
        folder / "query.zip",
    ):
        with open_bundle(path) as bundle:
            hashes.append(bundle.model_hash)
    assert len({len(h) for h in hashes}) == 1 and len(set(hashes)) >= 3
