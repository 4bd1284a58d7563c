"""`espnet2-ext convert`: a published checkpoint in, weights for `--init_param` out."""

import argparse
import importlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
import yaml
from small_confs import CONF

from espnet2_ext.cli.infer import convert as main
from espnet2_ext.core.layers.mel import LogMel
from espnet2_ext.core.nets.cnn14 import CNN14
from espnet2_ext.core.nets.hts_at import HTSAT
from espnet2_ext.core.nets.query_unet import QueryUNet
from espnet2_ext.data.tables import Label, write_labels
from espnet2_ext.errors import BundleError, DataError
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.util.config import read_config


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """Tiny checkpoints with the public names, wrapped as they are published."""
    sys.path.insert(0, f"{__file__.rpartition('/')[0]}/core/public")
    taggers, seps = (importlib.import_module(f"test_public_{n}") for n in ("hts_at", "st_sed_sep"))
    cnn14 = importlib.import_module("test_public_cnn14")
    sys.path.pop(0)
    folder, hts_at = tmp_path_factory.mktemp("public"), taggers.public_state()
    front = ("spectrogram_extractor.", "logmel_extractor.", "bn0.")
    pann = {k: v for k, v in hts_at.items() if k.startswith(front)}
    pann |= cnn14.random_state(cnn14.public_shapes((2, 3), 6))
    unet = cnn14.random_state(seps.public_shapes((2, 2, 2, 2, 2, 2), 64, 129))
    with_tagger = unet | {f"at_model.sed_model.{k}": v for k, v in hts_at.items()}
    for name, content in {
        "hts_at.ckpt": {"state_dict": {f"sed_model.{k}": v for k, v in hts_at.items()}},
        "cnn14.pth": {"iteration": 600000, "model": pann},
        "st_sed_sep.ckpt": {"epoch": 3, "state_dict": with_tagger},
        "unet.ckpt": {"state_dict": unet},
    }.items():
        torch.save(content, folder / name)
    return folder


def convert(network, source, target):
    main(["--network", network, str(source), "-o", str(target)])
    return torch.load(target, weights_only=True)


def test_a_tagger_of_another_rate(public, tmp_path, capsys):
    state = torch.load(public / "cnn14.pth", weights_only=True)
    mel = LogMel(16000, 1024, mel_bands=64, low=50.0, high=8000.0).bank
    state["model"]["logmel_extractor.melW"] = mel.clone()
    torch.save(state, tmp_path / "16k.pth")
    with pytest.raises(DataError, match=r"rate \(sample_rate\) or mel bands \(low, high\)"):
        convert("cnn14", tmp_path / "16k.pth", tmp_path / "ours.pth")
    options = ["--sample_rate", "16000", "--high", "8000"]
    main(["--network", "cnn14", str(tmp_path / "16k.pth"), "-o", str(tmp_path / "o.pth"), *options])
    plain = convert("cnn14", public / "cnn14.pth", tmp_path / "plain.pth")
    assert torch.load(tmp_path / "o.pth", weights_only=True).keys() == plain.keys()
    with pytest.raises(SystemExit):
        main(["--network", "st_sed_sep", "x", "-o", "y", *options])
    assert "--sample_rate is for hts_at and cnn14" in capsys.readouterr().err


def part(weights, prefix):
    return {k.removeprefix(f"{prefix}."): v for k, v in weights.items() if k.startswith(prefix)}


@pytest.mark.parametrize(
    "network, file, nets",
    [
        ("hts_at", "hts_at.ckpt", {"net": lambda: HTSAT(dim=8, heads=(1, 2, 4, 8), num_classes=6)}),
        ("cnn14", "cnn14.pth", {"net": lambda: CNN14(widths=(2, 3), num_classes=6)}),
        (
            "st_sed_sep",
            "st_sed_sep.ckpt",
            {
                "extractor.net": lambda: QueryUNet(64, 129, (2, 2, 2, 2, 2, 2)),
                "query_net": lambda: HTSAT(dim=8, heads=(1, 2, 4, 8), num_classes=6),
            },
        ),
        ("st_sed_sep", "unet.ckpt", {"extractor.net": lambda: QueryUNet(64, 129, (2,) * 6)}),
    ],
)
def test_the_written_weights_load(public, tmp_path, capsys, network, file, nets):
    weights = convert(network, public / file, tmp_path / "new" / "ours.pth")
    assert sum(len(part(weights, prefix)) for prefix in nets) == len(weights)
    said = capsys.readouterr().out
    for prefix, net in nets.items():
        net().load_state_dict(part(weights, prefix))  # every key, every shape
        assert f"{len(part(weights, prefix))} tensors under {prefix}" in said


def test_objects_beside_the_weights_are_not_made(public, tmp_path):
    folder = tmp_path / "trainer"
    folder.mkdir()
    (folder / "old_trainer.py").write_text(
        "class Callback:\n    best = None\n"
        "class Trap:\n    def __reduce__(self):\n        return (exec, ('raise SystemExit',))\n"
    )
    sys.path.insert(0, str(folder))
    try:
        import old_trainer

        content = torch.load(public / "hts_at.ckpt")
        content["callbacks"] = {old_trainer.Callback: {"best": old_trainer.Callback()}}
        content["trap"] = old_trainer.Trap()
        torch.save(content, tmp_path / "full.ckpt")
    finally:
        sys.path.remove(str(folder))
        del sys.modules["old_trainer"]
    plain = convert("hts_at", public / "hts_at.ckpt", tmp_path / "a.pth")
    full = convert("hts_at", tmp_path / "full.ckpt", tmp_path / "b.pth")
    assert plain.keys() == full.keys() and all(torch.equal(plain[k], full[k]) for k in plain)


@pytest.mark.parametrize("old_format", [True, False])
def test_arrays_and_options_beside_the_weights_are_passed_over(public, tmp_path, old_format):
    content = torch.load(public / "cnn14.pth")
    content["sampler"] = {"order": [np.arange(3), np.arange(2)], "rng": np.random.RandomState(1)}
    content["args"] = argparse.Namespace(rate=np.float64(2))
    torch.save(content, tmp_path / "more.pth", _use_new_zipfile_serialization=not old_format)
    plain = convert("cnn14", public / "cnn14.pth", tmp_path / "a.pth")
    more = convert("cnn14", tmp_path / "more.pth", tmp_path / "b.pth")
    assert plain.keys() == more.keys() and all(torch.equal(plain[k], more[k]) for k in plain)


def st_sed_sep_yaml(folder):
    """The YAML of the paper's size, made as small as the tiny checkpoint."""
    conf = read_config(CONF / "train_qsep_st_sed_sep_2048.yaml")
    conf["encoder_conf"] |= {"n_fft": 256, "hop_length": 64}
    conf["decoder_conf"] = conf["encoder_conf"]
    conf["extractor_conf"]["widths"] = [2] * 6
    conf["query_net_conf"] |= {"dim": 8, "heads": [1, 2, 4, 8], "num_classes": 6}
    (folder / "small.yaml").write_text(yaml.safe_dump(conf))
    return folder / "small.yaml"


def test_a_published_separator_is_usable_at_once(public, tmp_path):
    out = tmp_path / "new/published.zip"
    command = ["--network", "st_sed_sep", str(public / "st_sed_sep.ckpt"), "-o", str(out)]
    main([*command, "--config", str(st_sed_sep_yaml(tmp_path))])
    assert [p.name for p in out.parent.iterdir()] == ["published.zip"]
    separator = Separator.from_bundle(out, "cpu")
    weights = convert("st_sed_sep", public / "st_sed_sep.ckpt", tmp_path / "plain.pth")
    own = separator.model.state_dict()
    assert own.keys() >= weights.keys()
    assert all(torch.equal(own[k], v) for k, v in weights.items())
    assert separator.info["trained_on"] == {"checkpoint": "st_sed_sep.ckpt"}
    x = 0.1 * np.random.default_rng(0).standard_normal((32000, 1)).astype(np.float32)
    query, _ = separator.embed_queries([x], fs=32000)
    est = separator.separate(x, 32000, query[None])
    assert est.shape == (1, 32000, 1) and np.isfinite(est).all() and est.any()


def test_a_tagger_that_lies_apart(public, tmp_path):
    first, second = tmp_path / "one.zip", tmp_path / "two.zip"
    conf = ["--network", "st_sed_sep", "--config", str(st_sed_sep_yaml(tmp_path))]
    main([*conf, str(public / "st_sed_sep.ckpt"), "-o", str(first)])
    main([*conf, str(public / "unet.ckpt"), "--tagger", str(public / "hts_at.ckpt"), "-o", str(second)])
    whole, apart = (Separator.from_bundle(path, "cpu") for path in (first, second))
    theirs = apart.model.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in whole.model.state_dict().items())
    assert apart.info["trained_on"] == {"checkpoint": "unet.ckpt and hts_at.ckpt"}
    with pytest.raises(DataError, match="unet.ckpt: holds no tagger, .*--tagger HTSAT.ckpt"):
        main([*conf, str(public / "unet.ckpt"), "-o", str(tmp_path / "three.zip")])
    with pytest.raises(DataError, match="cnn14.pth: expected one key"):
        main(
            [*conf, str(public / "unet.ckpt"), "--tagger", str(public / "cnn14.pth"), "-o", str(tmp_path / "three.zip")]
        )


def test_a_cnn10_is_refused(public, tmp_path):
    content = torch.load(public / "cnn14.pth", weights_only=True)
    last = {k: v for k, v in content["model"].items() if "block2" in k}
    blocks = {k.replace("block2", f"block{i}"): v for k, v in last.items() for i in (3, 4)}
    torch.save({"model": content["model"] | blocks}, tmp_path / "cnn10.pth")
    with pytest.raises(DataError, match="cnn10.pth: .* 4 blocks of convolutions: a Cnn10"):
        convert("cnn14", tmp_path / "cnn10.pth", tmp_path / "a.pth")


def test_classes_of_a_published_separator(public, tmp_path):
    conf, table = st_sed_sep_yaml(tmp_path), tmp_path / "labels.tsv"
    command = [
        "--network",
        "st_sed_sep",
        str(public / "st_sed_sep.ckpt"),
        "--config",
        str(conf),
        "--labels",
        str(table),
        "-o",
        str(tmp_path / "a.zip"),
    ]
    write_labels(table, [Label(k, f"/m/{k}", f"Tone {k}") for k in range(3)])
    with pytest.raises(DataError, match="labels.tsv: its 3 classes are not as many as the model"):
        main(command)
    assert not (tmp_path / "a.zip").exists()
    write_labels(table, [Label(k, f"/m/{k}", f"Tone {k}") for k in range(6)])
    main(command)
    separator = Separator.from_bundle(tmp_path / "a.zip", "cpu")
    assert [c.mid for c in separator.classes] == [f"/m/{k}" for k in range(6)] and separator.tags


@pytest.mark.parametrize(
    "text, message",
    [
        ("a: [", "some.yaml:2: is not valid YAML"),
        ("query_net: hts_at\n", "it has no extractor"),
        ("extractor: other\n", "key extractor: expected one of .*not 'other'"),
    ],
)
def test_a_yaml_of_something_else_is_named(public, tmp_path, text, message):
    (tmp_path / "some.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        main(
            [
                "--network",
                "st_sed_sep",
                str(public / "st_sed_sep.ckpt"),
                "--config",
                str(tmp_path / "some.yaml"),
                "-o",
                str(tmp_path / "a.zip"),
            ]
        )


@pytest.mark.parametrize(
    "args, message",
    [
        (["-o", "a.pth", "--network", "hts_at", "--tagger", "x"], "--tagger is for --network st_sed"),
        (["-o", "a.zip"], "a bundle takes --config"),
        (["-o", "a.pth", "--config", "x.yaml"], "--config is for a bundle, -o NAME.zip; got -o a.pth"),
        (["-o", "a.pth", "--labels", "x.tsv"], "--labels is for a bundle"),
        (["-o", "a.zip", "--config", "x.yaml", "--network", "hts_at"], "is made of --network st_sed"),
    ],
)
def test_what_a_bundle_takes(args, message, capsys):
    with pytest.raises(SystemExit):
        main(["--network", "st_sed_sep", "x.ckpt", *args])
    assert message in capsys.readouterr().err


def test_a_bundle_of_other_sizes_names_what_does_not_fit(public, tmp_path):
    conf = st_sed_sep_yaml(tmp_path)
    conf.write_text(conf.read_text().replace("dim: 8", "dim: 16"))
    with pytest.raises(BundleError, match="small.yaml: st_sed_sep.ckpt: .*of another shape"):
        main(
            [
                "--network",
                "st_sed_sep",
                str(public / "st_sed_sep.ckpt"),
                "--config",
                str(conf),
                "-o",
                str(tmp_path / "a.zip"),
            ]
        )
    assert not (tmp_path / "a.zip").exists()


def test_a_missing_key_is_named_with_the_file(public, tmp_path):
    content = torch.load(public / "cnn14.pth")
    del content["model"]["conv_block2.bn1.bias"]
    torch.save(content, tmp_path / "part.pth")
    with pytest.raises(DataError, match=r"part.pth: .* 1 missing \(conv_block2.bn1.bias\)"):
        convert("cnn14", tmp_path / "part.pth", tmp_path / "ours.pth")
    assert not (tmp_path / "ours.pth").exists()


def test_the_wrong_network_is_named(public, tmp_path):
    with pytest.raises(DataError, match="hts_at.ckpt: expected one key 'conv_block1.conv1.weight'"):
        convert("cnn14", public / "hts_at.ckpt", tmp_path / "ours.pth")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint\n", b"PK\x03\x04 neither", "a half", "a zip", "a list"])
def test_another_file_is_refused(public, tmp_path, content):
    path = tmp_path / "public.ckpt"
    if content == "a half":
        whole = (public / "cnn14.pth").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif content == "a zip":
        with zipfile.ZipFile(path, "w") as z:
            z.writestr("archive/readme", "nothing")
    elif content == "a list":
        torch.save([torch.ones(1)], path)
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"public.ckpt: (is not a |holds no weights)"):
        convert("cnn14", path, tmp_path / "ours.pth")
    assert [p.name for p in tmp_path.iterdir()] == ["public.ckpt"]


def test_the_command_ends_with_a_plain_message(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "espnet2_ext", "convert", "--network", "cnn14", "missing.pth", "-o", "ours.pth"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "missing.pth" in done.stderr
    assert "Traceback" not in done.stderr
