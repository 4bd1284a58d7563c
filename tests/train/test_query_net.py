"""A separator with a query network of its own, through ESPnet's training, and its use."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from small_confs import CONF, parse

from espnet2_ext.cli.train import qsep_check, qsep_train
from espnet2_ext.data.bank.per_clip import write_anchors
from espnet2_ext.data.mixtures.pair_list import draw_list, write_list
from espnet2_ext.data.tables import Label, read_labels, write_labels
from espnet2_ext.errors import DataError
from espnet2_ext.infer.bundle import read_bundle
from espnet2_ext.infer.pack import PLACES, write_bundle
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.tasks.tagging import TaggingTask
from espnet2_ext.util.config import read_config

NUM = 2000  # samples of an anchor at 8 kHz


@pytest.fixture(scope="module")
def command(bank, tmp_path_factory):
    """Options of a training in a folder; a network of its own is asked for the queries."""
    top = tmp_path_factory.mktemp("query_net")
    conf = read_config(CONF / "debug/train_qsep_query_unet.yaml")
    frames = {"sample_rate": 8000, "n_fft": 256, "hop_length": 128}
    conf |= {
        "encoder_conf": frames,
        "decoder_conf": frames,
        "random_query_net": False,
        "pair_conf": {"segment": NUM / 8000, "anchor": "random", "query_from": "mixed"},
    }
    conf["query_net_conf"] |= {**frames, "high": 4000, "num_classes": 4}
    (top / "train.yaml").write_text(yaml.safe_dump(conf))
    write_list(top / "pairs.tsv", draw_list(bank, 4, 0, segment=NUM / 8000, anchor="peak"))

    def options(out, *more):
        given = ["--config", top / "train.yaml", "--output_dir", out, "--train_bank", bank.path]
        given += ["--valid_pairs", top / "pairs.tsv"]
        given += "--ngpu 0 --max_epoch 1 --use_tensorboard false --use_matplotlib false".split()
        return [str(x) for x in [*given, *more]]

    return options


@pytest.fixture(scope="module")
def tagger(command, tmp_path_factory):
    """Weights of a tagger of that network, away from their start."""
    conf = yaml.safe_load(open(command("x")[1], encoding="utf-8"))["query_net_conf"]
    args = parse(TaggingTask, "debug/train_tag.yaml")
    args.query_net, args.query_net_conf = "hts_at", conf
    model = TaggingTask.build_model(args)
    state = {k: v + 0.1 if v.is_floating_point() else v for k, v in model.state_dict().items()}
    path = tmp_path_factory.mktemp("tagger") / "valid.loss.best.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def trained(command, tagger, tmp_path_factory):
    out = tmp_path_factory.mktemp("exp") / "frozen"
    qsep_train(command(out, "--init_param", f"{tagger}:net:query_net"))
    return out


def test_a_frozen_network_stays_what_it_was(trained, tagger):
    state = torch.load(trained / "1epoch.pth", weights_only=True)
    for name, weight in torch.load(tagger, weights_only=True).items():
        assert torch.equal(state[f"query_net.{name.removeprefix('net.')}"], weight), name
    assert state["extractor.net.norm.num_batches_tracked"] > 0


def test_a_training_leaves_its_classes_and_goes_on_with_no_others(command, bank, trained, tmp_path):
    assert read_labels(trained / "labels.tsv") == bank.classes
    exp = shutil.copytree(trained, tmp_path / "exp")
    write_labels(exp / "labels.tsv", [Label(k, f"/o/{k}", f"Other {k}") for k in range(4)])
    kept = (exp / "labels.tsv").read_bytes()
    with pytest.raises(DataError, match="labels.tsv: the training was begun with other classes"):
        qsep_train(command(exp, "--max_epoch", 2, "--resume", "true"))
    assert (exp / "labels.tsv").read_bytes() == kept


def test_a_training_goes_on_without_the_tagger(command, trained):
    qsep_train(command(trained, "--max_epoch", 2, "--resume", "true", "--init_param", "gone.pth:net:query_net"))
    assert (trained / "2epoch.pth").exists()


@pytest.mark.parametrize(
    "more, message",
    [
        ([], "query_net hts_at is frozen .* nothing gives it trained weights"),
        (["--init_param", "gone.pth:net:query_net"], "gone.pth: no such file"),
        (["--init_param", "{tagger}:nets:query_net"], "no weights under 'nets'; available: net"),
    ],
)
def test_training_and_its_check_refuse_a_random_network(command, tagger, tmp_path, more, message):
    more = [x.format(tagger=tagger) for x in more]
    for main in (qsep_train, qsep_check):
        with pytest.raises(DataError, match=message):
            main(command(tmp_path / "bad", *more))


def test_check_takes_a_step_with_initial_weights(command, tagger, tmp_path, caplog):
    with caplog.at_level("INFO"):
        qsep_check(command(tmp_path / "check", "--init_param", f"{tagger}:net:query_net"))
    assert "into query_net: " in caplog.text and "first step:" in caplog.text


def test_bundle_of_two_networks_separates(trained, bank, tmp_path):
    write_bundle(trained / "config.yaml", trained / "1epoch.pth", f"{bank.path}/labels.tsv", tmp_path / "b.zip")
    separator = Separator.from_bundle(tmp_path / "b.zip", "cpu")
    assert "extractor_conf" in (config := read_bundle(tmp_path / "b.zip", weights=False).config)
    assert not PLACES & config.keys() and PLACES & yaml.safe_load((trained / "config.yaml").read_text()).keys()
    wave = np.random.default_rng(0).standard_normal((1, 4000)).astype(np.float32)
    query, tags = separator.embed_batch(wave)
    assert tags.shape == (1, 4) and separator.separate_batch(wave, query).shape == wave.shape


def test_anchors_of_a_tagger_are_drawn(command, bank, tmp_path):
    counts = sum(len(bank.labels(i)) for i in range(len(bank)))
    random = ["--random_query_net", "true"]
    for num, message in ((NUM, None), (NUM + 1, "segments are .* long")):
        write_anchors(tmp_path / "a.npz", bank, np.zeros(counts, int), num, "tagger")
        cmd = command(tmp_path / "x", "--anchor_file", tmp_path / "a.npz", *random)
        if message is None:
            qsep_check(cmd)
        else:
            with pytest.raises(DataError, match=message):
                qsep_check(cmd)
    conf = yaml.safe_load(Path(command("x")[1]).read_text())
    conf |= {"pair_conf": {"segment": None, "anchor": "whole"}}
    (tmp_path / "whole.yaml").write_text(yaml.safe_dump(conf))
    cmd += ["--config", str(tmp_path / "whole.yaml")]
    with pytest.raises(DataError, match="a.npz: anchors place segments, but pair_conf has"):
        qsep_check(cmd)
