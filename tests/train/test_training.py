"""Real training through ESPnet: resume, two processes, what is refused."""

import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch
import yaml
from torch.optim.optimizer import register_optimizer_step_post_hook

from espnet2_ext.cli.train import qsep_check, qsep_train
from espnet2_ext.data.mixtures.pair_list import draw_list, write_list
from espnet2_ext.errors import DataError, explain
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.tasks import common
from espnet2_ext.train.checks import check_sum
from espnet2_ext.util.config import read_config
from espnet2_ext.util.locks import hold

ROOT = Path(__file__).parents[2]
STFT = ["sample_rate=8000", "n_fft=256", "hop_length=80", "num_bands=32"]
NET = ["num_bands=32", "depths=[1, 1]", "heads=[1, 2]", "num_classes=4", "window=4"]


@pytest.fixture(scope="session")
def config(tmp_path_factory):
    """The debug YAML with plain SGD (its AdamW options do not fit another optimiser)."""
    conf = read_config(ROOT / "conf/debug/train_qsep_care_sep.yaml")
    conf |= {
        "optim": "sgd",
        "optim_conf": {"lr": 0.01},
        "pair_conf": {"segment": 0.25, "anchor": "random", "query_from": "mixed", "absent_prob": 0.2},
    }
    for key in ("scheduler", "scheduler_conf"):
        conf.pop(key)
    path = tmp_path_factory.mktemp("conf") / "train.yaml"
    path.write_text(yaml.safe_dump(conf))
    return path


def command(bank, config, output_dir, *more):
    pairs = Path(bank.path).parent / "pairs.tsv"
    if not pairs.exists():
        write_list(pairs, draw_list(bank, 6, 0, segment=0.25, anchor="peak"))
    given = ["--config", config, "--output_dir", output_dir, "--train_bank", bank.path, "--valid_pairs", pairs]
    given += "--ngpu 0 --batch_size 4 --num_iters_per_epoch 2 --use_tensorboard false --use_matplotlib false".split()
    given += more
    for conf in ("encoder_conf", "decoder_conf"):
        for value in STFT:
            given += [f"--{conf}", value]
    for value in NET:
        given += ["--extractor_conf", value]
    return [str(x) for x in given]


def weights(output_dir, epoch):
    return torch.load(output_dir / f"{epoch}epoch.pth", weights_only=True)


def same(a, b, **tolerance):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.allclose(a[key], b[key], **tolerance), key


@pytest.fixture(scope="module")
def straight(bank, config, tmp_path_factory):
    out = tmp_path_factory.mktemp("exp") / "straight"
    qsep_train(command(bank, config, out, "--max_epoch", 2, "--keep_nbest_models", 2))
    return out


def test_resumed_training_is_the_straight_one(bank, config, straight, tmp_path):
    out = tmp_path / "resumed"
    keep = ["--keep_nbest_models", 2]
    qsep_train(command(bank, config, out, "--max_epoch", 1, *keep))
    qsep_train(command(bank, config, out, "--max_epoch", 2, "--resume", "true", *keep))
    same(weights(out, 2), weights(straight, 2), rtol=0, atol=0)


def test_muon_goes_on_as_adamw_does(bank, config, tmp_path):
    more = "--optim muon --optim_conf min_side=4 --keep_nbest_models 2".split()
    for name, epochs in (("straight", 2), ("resumed", 1), ("resumed", 2)):
        resume = ["--resume", "true"] if epochs == 2 and name == "resumed" else []
        qsep_train(command(bank, config, tmp_path / name, "--max_epoch", epochs, *more, *resume))
    same(weights(tmp_path / "resumed", 2), weights(tmp_path / "straight", 2), rtol=0, atol=0)


def test_a_damaged_checkpoint_costs_an_epoch(bank, config, straight, tmp_path, caplog):
    out = tmp_path / "damaged"
    shutil.copytree(straight, out, symlinks=True)
    data = bytearray((out / "checkpoint.pth").read_bytes())
    data[len(data) // 2] ^= 1
    (out / "checkpoint.pth").write_bytes(data)
    (out / "2epoch.pth").unlink()
    qsep_train(command(bank, config, out, "--max_epoch", 2, "--resume", "true", "--keep_nbest_models", 2))
    assert "resuming from the checkpoint before it" in caplog.text
    same(weights(out, 2), weights(straight, 2), rtol=0, atol=0)


def test_a_training_that_diverges_ends_with_an_error(bank, config, straight, tmp_path):
    out = tmp_path / "exp"
    qsep_train(command(bank, config, out, "--max_epoch", 1))
    hook = register_optimizer_step_post_hook(lambda o, *_: o.param_groups[0]["params"][0].data.fill_(float("nan")))
    try:
        with pytest.raises(DataError, match="checkpoint.pth: the training has diverged: model.* NaN or infinity"):
            qsep_train(command(bank, config, out, "--max_epoch", 2, "--resume", "true"))
    finally:
        hook.remove()
    qsep_train(command(bank, config, out, "--max_epoch", 2, "--resume", "true"))
    same(weights(out, 2), weights(straight, 2), rtol=0, atol=0)


def test_texts_of_a_model_that_changed_are_refused(straight, tmp_path):
    out = tmp_path / "changed"
    shutil.copytree(straight, out, symlinks=True)
    files = out / "config.yaml", out / "valid.loss.best.pth"
    classes = Separator.from_exp(*files, device="cpu").classes
    assert classes
    for name, old, new in (("labels.tsv", classes[0].name, classes[0].name.upper()), ("config.yaml", "5", "7")):
        text = (out / name).read_text()
        (out / name).write_text(text.replace(old, new, 1))
        with pytest.raises(DataError, match=rf"{name}: changed since it was made.*or remove .*changed/.trained"):
            Separator.from_exp(*files, device="cpu")
        (out / name).write_text(text)
    Separator.from_exp(*files, device="cpu")


def test_two_processes_give_the_gradients_of_one(bank, config, straight, tmp_path):
    """DDP over gloo: after SGD steps on the same data the weights are the same."""
    out = tmp_path / "ddp"
    more = ["--max_epoch", 2, "--dist_backend", "gloo", "--keep_nbest_models", 2]
    run = [
        sys.executable,
        *"-m torch.distributed.run --nproc_per_node 2 --standalone -m espnet2_ext.bin.qsep_train".split(),
    ]
    done = subprocess.run(
        run + command(bank, config, out, *more), cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, start = weights(straight, 2), weights(straight, 1)
    same(weights(out, 2), one, rtol=1e-3, atol=2e-5)
    assert any(not torch.equal(one[key], start[key]) for key in one)


def test_one_of_two_processes_is_killed_and_the_other_ends_with_a_line(bank, config, tmp_path, rank=0):
    out = tmp_path / "ddp"
    cmd = command(bank, config, out, "--dist_backend", "gloo", "--num_iters_per_epoch", 100_000, "--log_interval", 1)
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = str(s.getsockname()[1])
    env = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    logs = [tmp_path / f"{i}.log" for i in range(2)]
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "espnet2_ext", "qsep-train", *cmd],
            env={**env, "RANK": str(i), "LOCAL_RANK": str(i)},
            stderr=open(log, "w"),
            stdout=subprocess.DEVNULL,
        )
        for i, log in enumerate(logs)
    ]
    try:
        until = time.monotonic() + 120
        while ":train:" not in logs[0].read_text():
            assert time.monotonic() < until and not any(p.poll() for p in both), logs[0].read_text()[-2000:]
            time.sleep(0.1)
        both[rank].kill()
        begin = time.monotonic()
        assert both[1 - rank].wait(60) == 1
        assert time.monotonic() - begin < 10
    finally:
        for process in both:
            process.kill()
            process.wait()
    text = logs[1 - rank].read_text()
    assert "error: another process of this training ended" in text and "Traceback" not in text, text[-3000:]


def fail(error):
    common.check_schedule = lambda args: None
    with common.training(Namespace(output_dir="unused", resume=False)):
        raise error


def test_a_process_that_espnet_started_ends_with_a_line(capfd):
    child = multiprocessing.get_context("fork").Process(target=fail, args=(DataError("x.tsv: is empty"),))
    child.start()
    child.join()
    assert child.exitcode == 1 and capfd.readouterr().err.endswith("error: x.tsv: is empty\n")
    error = torch.multiprocessing.ProcessExitedException("process 0 terminated with signal SIGKILL", 0, 1, -9)
    assert explain(error).startswith("a training's process ended early (process 0 terminated with signal SIGKILL)")


def test_gpus_that_are_not_there_and_a_folder_in_use_are_refused(bank, config, tmp_path):
    with pytest.raises(DataError, match="--ngpu 64: PyTorch finds .* on this machine"):
        qsep_train(command(bank, config, tmp_path, "--ngpu", 64))
    with hold(tmp_path):
        with pytest.raises(DataError, match=f"another run is still working in {tmp_path}"):
            qsep_train(command(bank, config, tmp_path))


def test_check_reads_data_and_takes_a_step(bank, config, tmp_path, caplog):
    with caplog.at_level("INFO"):
        qsep_check(command(bank, config, tmp_path / "check"))
    assert "speech_ref2: [4, 2000]" in caplog.text and "first step:" in caplog.text


def test_targets_that_do_not_sum_are_refused():
    batch = {
        "speech_mix": torch.ones(2, 8),
        "speech_ref1": torch.full((2, 8), 0.5),
        "speech_ref2": torch.full((2, 8), 0.5),
    }
    check_sum(["a", "b"], batch)
    batch["speech_ref2"][1] = 0.0  # an absent target is no fault
    check_sum(["a", "b"], batch)
    batch["speech_ref2"][1] = 0.4
    with pytest.raises(DataError, match="b: targets do not sum"):
        check_sum(["a", "b"], batch)


@pytest.mark.parametrize(
    "more, message",
    [
        (["--pair_conf", "segmnt=1"], "pair_conf: unknown key 'segmnt'"),
        (["--train_bank", "nowhere"], "nowhere/bank.json: no such file"),
        (["--valid_pairs", "nowhere.tsv"], "nowhere.tsv"),
    ],
)
def test_bad_options_are_named(bank, config, tmp_path, more, message):
    with pytest.raises((DataError, OSError), match=message):
        qsep_train(command(bank, config, tmp_path / "bad", "--max_epoch", 1, *more))
