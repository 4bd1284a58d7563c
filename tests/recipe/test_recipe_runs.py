"""How runs keep out of each other's way, how YAML is read, and recipes copied or begun anew, with a stand-in Python."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from fake_recipe import ROOT, Recipe, alive

from espnet2_ext.cli.train import copy_recipe, recipes
from espnet2_ext.errors import DataError


@pytest.fixture
def recipe(tmp_path):
    return Recipe(tmp_path, "qsep1")


def wait_for(condition) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize(
    "text",
    ["extractor_conf: {num_classes: 24}\n", "{extractor_conf: {'num_classes': 24}}\n", "include: base.yaml\nseed: 1\n"],
)
def test_classes_are_found_however_the_yaml_is_written(recipe, text):
    (recipe.folder / "conf/base.yaml").write_text("extractor_conf:\n    num_classes: 24   # of some corpus\n")
    (recipe.folder / "conf/train_x.yaml").write_text(text)
    status, _, err = recipe("--stop_stage", "5")
    assert status == 0 and "--extractor_conf num_classes=2" in recipe.call("qsep_check"), err


def test_a_refused_experiment_names_the_option(recipe):
    options = ("--stop_stage", "6", "--qsep_tag", "x", "--qsep_args")
    assert recipe(*options, "--optim_conf lr=1e-3")[0] == 0
    status, _, err = recipe(*options, "--optim_conf lr=0.002")
    assert status == 1 and "\n  optim_conf.lr: 0.001 then, 0.002 now\n" in err
    assert recipe(*options, "--optim_conf lr=0.001")[1].count("already") == 2  # checked and trained


def test_a_folder_of_the_bash_driver_is_trained_already(recipe):
    assert recipe("--stop_stage", "6")[0] == 0
    exp = recipe.folder / "exp/qsep_train_x"
    (exp / "config.yaml").write_text("extractor_conf:\n  num_classes: 2\nseed: 0\n")
    (exp / ".begun_with").write_text("clips in dump/train: 1\nfiles: \noptions: 1542929707 1123\n")
    (exp / ".done").write_text("4281495866-1438\n")
    (exp / ".checked").write_text("4281495866-1438\n")
    status, out, _ = recipe("--stop_stage", "6")
    assert status == 0 and "checked already" in out and "trained already" in out


def test_a_run_holds_its_folders_from_the_first_stage_to_the_last(recipe):
    recipe("--stop_stage", "4")
    recipe.calls.write_text("")
    first = recipe.start(SLEEP_IN="qsep_train")  # its data stages are done with
    wait_for(lambda: "qsep_train" in recipe.names())
    begin = time.monotonic()
    status, _, err = Recipe.__call__(recipe, "--qsep_tag", "other")
    assert status == 1 and time.monotonic() - begin < 60
    assert f"error: another run is still working in {recipe.folder}/dump; wait" in err and err.count("\n") == 1
    assert recipe.names() == []
    first.terminate()
    first.communicate(timeout=180)


def test_runs_that_make_no_data_share_it(recipe):
    recipe("--stop_stage", "4")
    recipe.calls.write_text("")
    first = recipe.start("--stage", "5", SLEEP_IN="qsep_train")
    wait_for(lambda: "qsep_train" in recipe.names())
    assert recipe("--stage", "5", "--stop_stage", "6", "--qsep_tag", "other")[0] == 0
    status, _, err = recipe("--stage", "7")
    assert status == 1 and f"still working in {recipe.folder}/exp/qsep_train_x;" in err
    status, _, err = recipe("--stage", "3", "--stop_stage", "3")
    assert status == 1 and f"still working in {recipe.folder}/dump;" in err
    first.terminate()
    first.communicate(timeout=180)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="Linux tells of a parent's end")
def test_a_step_ends_when_the_driver_is_killed(recipe):
    recipe.calls.touch()
    process = recipe.start(SLEEP_IN="scan")
    worker = Path(f"{recipe.calls}.step")
    wait_for(lambda: worker.exists() and worker.read_text())
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not alive(int(worker.read_text())))


def test_a_signal_that_is_ignored_stays_ignored(recipe):
    recipe.calls.touch()
    process = recipe.start(SLEEP_IN="scan", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))  # nohup
    wait_for(lambda: "scan" in recipe.names())
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=180) and process.returncode == 143


def test_logs_of_earlier_runs_are_kept(recipe):
    recipe("--stop_stage", "5")
    for number in range(3):
        (recipe.folder / "exp/qsep_train_x/.done").unlink(missing_ok=True)
        assert recipe(
            "--stage", "6", "--stop_stage", "6", "--qsep_args", f"--max_epoch {number}", "--qsep_tag", "train_x"
        )
    names = sorted(p.name for p in (recipe.folder / "exp/qsep_train_x").glob("*.log"))
    assert names == ["train.1.log", "train.2.log", "train.log"]


# ---- a recipe without a checkout, and a new one ---------------------------------------------------


@pytest.mark.parametrize("name", recipes())
def test_a_copied_recipe_needs_no_checkout(name, tmp_path):
    folder = copy_recipe(name, tmp_path / "mine")
    assert not [p for p in folder.rglob("*") if p.is_symlink()]
    assert (folder / "conf/debug").is_dir() and (folder / "local/data.sh").exists()
    assert not {"data", "dump", "exp", "downloads", "start", "setup.sh"} & {p.name for p in folder.iterdir()}
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["./run.sh", "--help"], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "--inference_model" in done.stdout, done.stderr
    with pytest.raises(DataError, match="exists already"):
        copy_recipe(name, tmp_path / "mine")
    with pytest.raises(DataError, match="no recipe x; there is audioset_qsep, "):
        copy_recipe("x", tmp_path / "x")


@pytest.mark.parametrize("kind", ["qsep", "weak", "tag"])
def test_a_new_recipe_has_what_it_needs_to_start(tmp_path, kind):
    top = tmp_path / "project"
    shutil.copytree(ROOT / "egs2/TEMPLATE", top / "egs2/TEMPLATE", symlinks=True)
    setup = ["egs2/TEMPLATE/" + kind + "1/setup.sh", "egs2/birds"]
    subprocess.run(setup, cwd=top, check=True)
    shutil.copytree(ROOT / "conf", top / "conf")
    folder = top / "egs2/birds"
    (top / "sounds").mkdir()
    python = tmp_path / "python"
    python.write_text('#!/usr/bin/env bash\nprintf "%s|" "$CORPUS" "$@"\n')
    python.chmod(0o755)
    run = [str(folder / "run.sh"), "--python", str(python), "--corpus", "sounds", "--nj", "3"]
    done = subprocess.run(run, cwd=top, capture_output=True, text=True)
    assert done.stdout.startswith(f"{top}/sounds|-m|espnet2_ext|recipe-{kind}|--train_set|train|"), done.stderr
    assert done.stdout.endswith("|--nj|3|") and f"--{kind}_config|conf/" in done.stdout
    config = done.stdout.split("_config|")[1].split("|")[0]
    assert (folder / config).is_file() and "birds" in (folder / "local/data.sh").read_text()
    (folder / "run.sh").write_text("mine")
    subprocess.run(setup, cwd=top, check=True)
    assert (folder / "run.sh").read_text() == "mine"
