"""Every shipped YAML builds; its sizes are those it promises."""

from pathlib import Path

import pytest
import torch

from espnet2_ext.errors import DataError
from espnet2_ext.tasks.qsep import QSepTask
from espnet2_ext.tasks.weak import WeakLabelTask

CONF = Path(__file__).parent.parent / "conf"
YAMLS = sorted(CONF.rglob("train_qsep_*.yaml"))
WEAK_YAMLS = sorted(CONF.rglob("train_weak*.yaml"))


def build(path, *more):
    args = QSepTask.get_parser().parse_args(
        ["--config", str(path), "--output_dir", "unused", *more])
    with torch.device("meta"):  # shapes only: the large ones are a GB
        return args, QSepTask.build_model(args)


def millions(model):
    return sum(p.numel() for p in model.parameters()) / 1e6


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: p.relative_to(CONF).as_posix())
def test_yaml_builds(path):
    args, model = build(path)
    assert args.train_bank is None and args.num_iters_per_epoch > 0
    names = [w.criterion.name for w in model.loss_wrappers]
    assert "neg_sdr" in names and (model.extractor.net.num_classes > 0) == ("tagging" in names)


def test_sizes():
    assert 1.5 < millions(build(CONF / "train_qsep_care_sep_small.yaml")[1]) < 2.7
    for width in (768, 2048):
        _, model = build(CONF / f"train_qsep_care_sep_{width}.yaml")
        assert model.extractor.net.query_dim == width


@pytest.mark.parametrize("more, message", [
    (["--extractor_conf", "dimm=8"], "extractor_conf of care_sep: unknown key 'dimm'"),
    (["--model_conf", "speakers=2"], "model_conf: unknown key 'speakers'"),
    (["--encoder_conf", "fft=2"], "encoder_conf of mel_band_split: unknown key 'fft'"),
])
def test_unknown_keys_are_named(more, message):
    with pytest.raises(DataError, match=message):
        build(CONF / "debug/train_qsep_care_sep.yaml", *more)


def test_unknown_top_level_key_is_named(tmp_path, capsys):
    bad = tmp_path / "bad.yaml"
    bad.write_text("extractor: care_sep\nbatch_sise: 3\n")
    with pytest.raises(SystemExit):
        build(bad)
    assert "batch_sise" in capsys.readouterr().err


def build_weak(path, *more):
    args = WeakLabelTask.get_parser().parse_args([
        "--config", str(path), "--output_dir", "unused", "--class_names", *"abcde", *more])
    return args, WeakLabelTask.build_model(args)  # a mel filterbank is computed from values


@pytest.mark.parametrize("path", WEAK_YAMLS, ids=lambda p: p.relative_to(CONF).as_posix())
def test_weak_yaml_builds(path):
    args, model = build_weak(path)
    assert model.num_spk == 5 and model.fs == 16000
    assert args.train_table is None and args.encoder_conf == args.decoder_conf
    _, alone = build_weak(path, "--part", "classifier") if model.classifier else (None, None)
    assert alone is None or (alone.separator is None and alone.classifier is not None)


def test_weak_sizes_are_the_papers():
    args, model = build_weak(CONF / "train_weak_crnn.yaml")
    assert (args.batch_size, args.max_epoch, args.patience) == (10, 50, 5)
    rnn = model.separator.net.rnn
    assert (rnn.hidden_size, rnn.num_layers, rnn.bidirectional) == (600, 3, True)
    assert 20 < millions(model.separator) < 25 and 1 < millions(model.classifier) < 6
    _, model = build_weak(CONF / "train_weak_rnn.yaml", "--residual", "true")
    assert model.num_spk == 6 and model.classifier.num_features == 40
