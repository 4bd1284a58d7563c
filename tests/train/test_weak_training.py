"""Real training from weak labels: both parts, both trainers, resume, two processes."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
import yaml
from weak_corpus import CLASSES, FS, HOP, N_FFT, ROOT, command, trainer, write_config

from espnet2_ext.cli.train import weak_train, weak_train_asteroid
from espnet2_ext.core.mixing.events import clip_activity, render
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.mixtures.event_table import MixtureTable, write_table
from espnet2_ext.errors import DataError
from espnet2_ext.tasks.weak import WeakLabelTask
from espnet2_ext.train.experiment import training_curves
from espnet2_ext.train.weak_data import seen_priors

BEST = "valid.loss.best.pth"


@pytest.fixture(scope="module")
def config(weak_corpus):
    return write_config(weak_corpus / "train.yaml")


@pytest.fixture(scope="module")
def run(weak_corpus, config, tmp_path_factory):
    return trainer(weak_corpus, config, weak_train, tmp_path_factory)


@pytest.fixture(scope="module")
def classifier(run):
    return run("--part", "classifier") / BEST


@pytest.fixture(scope="module")
def straight(run, classifier):
    return run("--classifier_file", classifier)


def weights(path):
    return torch.load(path, weights_only=True)


def same(a, b, **tolerance):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.allclose(a[key], b[key], **tolerance), key


def reported(out, epoch=1, mode="valid"):
    states = torch.load(out / "checkpoint.pth", weights_only=False)
    return states["reporter"]["stats"][epoch][mode].keys()


def in_processes(module, cmd, launcher=()):
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "espnet2_ext", module, *cmd],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]


# ---- both parts --------------------------------------------------------------------------------


def test_the_classifier_alone(classifier):
    state = weights(classifier)
    assert all(key.startswith("classifier.") for key in state)
    first = weights(classifier.parent / "1epoch.pth")
    assert all(not torch.equal(state[k], first[k]) for k in state)
    conf = yaml.safe_load((classifier.parent / "config.yaml").read_text())
    table = MixtureTable(conf["train_table"])
    assert conf["class_names"] == CLASSES and conf["frame_prior"] == table.info["frame_prior"]
    assert {"loss", "class_mix"} <= reported(classifier.parent)


def test_a_fixed_classifier_is_left_as_it_was(straight, classifier):
    final, trained = weights(straight / "2epoch.pth"), weights(classifier)
    for key, value in trained.items():
        assert torch.equal(final[key], value), key
    first = weights(straight / "1epoch.pth")
    assert all(not torch.equal(v, first[k]) for k, v in final.items() if k not in trained)
    assert {"loss", "mixture", "class_est", "si_sdr_gain"} <= reported(straight)
    assert "si_sdr_gain" not in reported(straight, mode="train")


def test_finetuning_begins_with_the_file_and_joint_does_not(run, classifier):
    still = ["--optim_conf", "lr=0", "--max_epoch", 1]
    out = run("--strategy", "finetune", "--classifier_file", classifier, *still)
    final, trained = weights(out / BEST), weights(classifier)
    assert all(torch.equal(final[k], trained[k]) for k in trained)
    assert "class_mix" in reported(out)
    joint = weights(run("--strategy", "joint", *still) / BEST)
    assert any(not torch.equal(joint[k], trained[k]) for k in trained)


def test_a_model_is_loaded_without_data_and_classifier_file(straight, tmp_path):
    conf = yaml.safe_load((straight / "config.yaml").read_text())
    conf |= {k: "gone" for k in conf if k.endswith(("_table", "_bank", "_file"))}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(conf))
    model, _ = WeakLabelTask.build_model_from_file(tmp_path / "config.yaml", straight / BEST)
    same(model.state_dict(), weights(straight / BEST), rtol=0, atol=0)


def test_resumed_training_is_the_straight_one(run, classifier, straight, tmp_path):
    out, given = tmp_path / "resumed", ["--classifier_file", classifier]
    run(*given, "--max_epoch", 1, out=out)
    run("--classifier_file", "gone", "--resume", "true", out=out)
    same(weights(out / "2epoch.pth"), weights(straight / "2epoch.pth"), rtol=0, atol=0)


def test_training_stops_early_in_both_trainers(run):
    still = ["--part", "classifier", "--optim_conf", "lr=0", "--max_epoch", 9, "--patience", 1]
    states = torch.load(run(*still) / "checkpoint.pth", weights_only=False)
    lightning = weights(run(*still, main=weak_train_asteroid) / "lightning/last.ckpt")
    assert max(states["reporter"]["stats"]) == 3 and lightning["epoch"] == 2  # from 1, and from 0


def test_clip_labels_are_all_that_is_read(run, weak_corpus, tmp_path):
    """The same training where clip labels are all that is known."""
    table = MixtureTable(weak_corpus / "data/train")
    for name in ("train", "valid"):
        table = MixtureTable(weak_corpus / "data" / name)
        rows = [table.row(i)._replace(known="clip") for i in range(len(table))]
        write_table(tmp_path / name, rows, fs=FS, classes=CLASSES, n_fft=N_FFT, hop=HOP)
    given = ["--label_type", "clip", "--strategy", "joint", "--max_epoch", 1]
    known = run(*given)
    less = run(*given, "--train_table", tmp_path / "train", "--valid_table", tmp_path / "valid")
    same(weights(less / BEST), weights(known / BEST), rtol=0, atol=0)
    assert "si_sdr_gain" in reported(known) and "si_sdr_gain" not in reported(less)


@pytest.mark.parametrize(
    "separator, conf",
    [
        ("rnn", {"unit": 4, "layer": 1}),
        ("asteroid_masker", {"masker": "LSTMMasker", "masker_conf": {"hid_size": 4, "n_layers": 1, "dropout": 0}}),
    ],
)
def test_other_separators(run, weak_corpus, classifier, separator, conf):
    path = write_config(
        weak_corpus / f"{separator}.yaml", separator=separator, separator_conf=conf, num_iters_per_epoch=1, max_epoch=1
    )
    out = run("--classifier_file", classifier, config=path)
    assert (out / BEST).exists()


def test_mixtures_of_mixtures_in_both_trainers(run, classifier):
    given = ["--classifier_file", classifier, "--remix", 30]
    espnet, lightning = run(*given), run(*given, main=weak_train_asteroid)
    assert "remix" in reported(espnet)
    conf = yaml.safe_load((espnet / "config.yaml").read_text())
    table = MixtureTable(conf["train_table"])
    seen = seen_priors(table, N_FFT, HOP, remix=True)
    assert conf["frame_prior"] == seen["frame_prior"] != table.info["frame_prior"]
    same(weights(lightning / BEST), weights(espnet / BEST), rtol=0, atol=0)


def test_an_asteroid_loss_in_espnets_trainer(run, weak_corpus):
    path = write_config(weak_corpus / "asteroid.yaml", "conf/debug/train_weak_asteroid_loss.yaml")
    out = run(config=path)
    assert {"loss", "pairwise_neg_snr", "si_sdr_gain"} <= reported(out)
    assert not any(key.startswith("classifier") for key in weights(out / BEST))


def test_espnets_own_data_files(weak_corpus, config, tmp_path):
    """Sound files and lists of labels, no table."""
    table, bank = MixtureTable(weak_corpus / "data/train"), ClipBank(weak_corpus / "dump/train")
    wav, label = [], []
    for i in range(4):
        row = table.row(i)
        soundfile.write(tmp_path / f"{row.id}.wav", render(row, bank, 3)["mix"], FS)
        wav.append(f"{row.id} {tmp_path / row.id}.wav\n")
        label.append(f"{row.id} {','.join(map(str, clip_activity(row, 3)))}\n")
    (tmp_path / "wav.scp").write_text("".join(wav))
    (tmp_path / "labels").write_text("".join(label))
    cmd = [
        x
        for x in command(
            weak_corpus,
            config,
            tmp_path / "exp",
            "--label_type",
            "clip",
            "--strategy",
            "joint",
            "--max_epoch",
            1,
            "--class_names",
            *CLASSES,
        )
    ]
    for name in ("train", "valid"):
        for option in (f"--{name}_table", f"--{name}_bank"):
            del cmd[cmd.index(option) : cmd.index(option) + 2]
        cmd += [f"--{name}_shape_file", str(tmp_path / "wav.scp")]
        for file, key, kind in (("wav.scp", "speech_mix", "sound"), ("labels", "clip_label", "csv_float")):
            cmd += [f"--{name}_data_path_and_name_and_type", f"{tmp_path / file},{key},{kind}"]
    weak_train(cmd)
    assert (tmp_path / "exp" / BEST).exists()


# ---- several processes, the other trainer ------------------------------------------------------


def test_two_processes_give_the_gradients_of_one(run, weak_corpus, config, tmp_path):
    """DDP over gloo, mixed labels, a classifier that learns along."""
    more = [
        "--label_type",
        "mixed",
        "--strategy",
        "joint",
        "--preprocessor_conf",
        "shares=[1, 1, 1]",
        "--classifier_conf",
        "pooling=auto",
    ]
    one = run(*more)
    out = tmp_path / "ddp"
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    in_processes("weak_train", command(weak_corpus, config, out, *more, "--dist_backend", "gloo"), launcher)
    same(weights(out / "2epoch.pth"), weights(one / "2epoch.pth"), rtol=1e-3, atol=2e-5)
    first = weights(one / "1epoch.pth")
    assert any(not torch.equal(v, first[k]) for k, v in weights(one / "2epoch.pth").items())


def test_lightning_takes_espnets_steps(run, classifier, straight):
    out = run("--classifier_file", classifier, main=weak_train_asteroid)
    for file in (BEST, "latest.pth"):
        same(weights(out / file), weights(straight / file), rtol=0, atol=0)
    ours, theirs = (yaml.safe_load((p / "config.yaml").read_text()) for p in (out, straight))
    differ = {k for k in ours if ours[k] != theirs.get(k)}
    assert differ <= {"output_dir", "version"} and theirs.keys() - ours.keys() <= {"version", "distributed"}
    log = (out / "lightning/metrics.csv").read_text().splitlines()
    assert {"loss", "mixture", "val_loss", "val_si_sdr_gain"} <= set(log[0].split(","))
    checkpoint = weights(out / "lightning/last.ckpt")["state_dict"]
    assert all(key.startswith("model.") for key in checkpoint)


def test_lightning_tells_its_epochs_as_espnet_does(run, classifier, straight, tmp_path, caplog):
    caplog.set_level("INFO")
    run("--classifier_file", classifier, main=weak_train_asteroid)
    (tmp_path / "train.log").write_text(caplog.text)
    curves = training_curves(tmp_path)
    stats = torch.load(straight / "checkpoint.pth", weights_only=False)["reporter"]["stats"]
    for stage in ("train", "valid"):
        for name in ("loss", "class_est"):
            told = {n: epoch[stage][name] for n, epoch in stats.items()}
            assert curves[name][stage] == pytest.approx(told, rel=1e-3)
    assert "si_sdr_gain" in curves and "val_loss" not in curves


def test_lightning_resumes(run, classifier, straight, tmp_path, caplog):
    given = ["--classifier_file", classifier]
    lightning = {"main": weak_train_asteroid, "out": tmp_path / "resumed"}
    run(*given, "--max_epoch", 1, **lightning)
    run(*given, "--resume", "true", **lightning)
    same(weights(tmp_path / "resumed" / BEST), weights(straight / BEST), rtol=1e-6, atol=1e-7)
    last = tmp_path / "resumed/lightning/last.ckpt"
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 1
    last.write_bytes(data)
    run(*given, "--resume", "true", **lightning)
    assert "resuming from the checkpoint before it, last.prev.ckpt" in caplog.text
    same(weights(tmp_path / "resumed" / BEST), weights(straight / BEST), rtol=1e-6, atol=1e-7)


def test_lightning_on_two_devices_gives_the_gradients_of_one(weak_corpus, config, classifier, straight, tmp_path):
    out = tmp_path / "ddp"
    in_processes(
        "weak_train_asteroid",
        command(weak_corpus, config, out, "--classifier_file", classifier, "--devices", 2, "--accelerator", "cpu"),
    )
    same(weights(out / BEST), weights(straight / BEST), rtol=1e-3, atol=2e-5)


# ---- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more, message",
    [
        ([], "strategy fixed needs --classifier_file.*--part classifier"),
        (["--classifier_file", "nowhere/a.pth"], "no file nowhere/a.pth; train one.*--part classifier"),
        (["--train_bank", "nowhere"], "nowhere/bank.json: no such file"),
        (["--valid_table", "nowhere"], "nowhere"),
        (["--class_names", "bell", "drum"], "its classes are bell, drum, rain.*bell, drum"),
        (["--encoder_conf", "sample_rate=16000"], "at 8000 Hz, but the model at 16000 Hz"),
    ],
)
def test_bad_options_are_named(run, more, message):
    with pytest.raises(DataError, match=message):
        run(*more)


def test_another_classifier_is_refused(run, classifier, tmp_path):
    with pytest.raises(DataError, match="classifier_conf is .*'hidden': 8.*'hidden': 4"):
        run("--classifier_file", classifier, "--classifier_conf", "hidden=4")
    with pytest.raises(DataError, match="STFT is .*'hop_length': 64.*'hop_length': 32"):
        run("--classifier_file", classifier, "--encoder_conf", "hop_length=32", "--decoder_conf", "hop_length=32")
    conf = yaml.safe_load((classifier.parent / "config.yaml").read_text())
    changed = {**conf, "class_names": ["bell", "rain", "drum"]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(changed))
    torch.save(weights(classifier), tmp_path / "model.pth")
    with pytest.raises(DataError, match=r"classes is \['bell', 'rain', 'drum'\].*'drum', 'rain'"):
        run("--classifier_file", tmp_path / "model.pth")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(conf))
    state = weights(classifier)
    state["classifier.out.weight"] = state["classifier.out.weight"][:2]
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(DataError, match="of another classifier; they differ in out.weight"):
        run("--classifier_file", tmp_path / "model.pth")
    with pytest.raises(DataError, match="holds no weights of a classifier"):
        torch.save({"separator.x": torch.zeros(1)}, tmp_path / "model.pth")
        run("--classifier_file", tmp_path / "model.pth")
    (tmp_path / "model.pth").write_bytes(b"no zip")
    with pytest.raises(DataError, match="is not a whole file of weights"):
        run("--classifier_file", tmp_path / "model.pth")


def test_audio_that_is_no_number_is_named(run, monkeypatch):
    monkeypatch.setattr(ClipBank, "read", lambda *_: np.float32("nan"))
    with pytest.raises(DataError, match="m0.: holds samples that are not finite"):
        run("--part", "classifier")
