"""The driver with a stand-in Python: options, stages, what is done twice, and how it ends."""

import functools
import shutil
import signal
import time
from pathlib import Path

import pytest
from fake_recipe import DATA, ROOT, Recipe, alive, copy_recipe, words_of

from espnet2_ext.util.names import bundle_file

PREPARATION = ["data"] + ["scan"] * 3 + ["archive"] * 3 + ["draw_lists"] * 2 + ["render_lists"]
TRAINING = ["qsep_check", "qsep_train"]
USE = ["qsep_inference", "qsep_scoring", "qsep_pack", "qsep_report"]


@pytest.fixture
def recipe(tmp_path):
    return Recipe(tmp_path, "qsep1")


def test_all_stages_in_order_then_training_is_not_done_again(recipe):
    status, out, err = recipe()
    assert status == 0, err
    assert recipe.names() == PREPARATION + TRAINING + USE
    for number in range(1, 10):
        assert f"Stage {number}: " in out
    assert "1epoch results: fine" in out and "noise" not in out
    assert "noise" in (recipe.folder / "exp/qsep_train_x/train.log").read_text()
    assert "--extractor_conf num_classes=2" in recipe.call("qsep_train")
    status, out, _ = recipe()
    assert status == 0 and "qsep_train" not in recipe.names() and "trained already" in out
    recipe("--stage", "6", "--qsep_args", "--max_epoch 3", "--qsep_exp", "exp/qsep_train_x")
    assert "qsep_train" in recipe.names() and "--max_epoch 3" in recipe.call("qsep_train")


def test_a_model_that_tags_is_scored_on_every_clip(recipe):
    status, _, err = recipe("--inference_args", "--protocols self", TAGS="1")
    assert status == 0, err
    assert recipe.names()[-6:] == [
        "qsep_inference",
        "tag_inference",
        "qsep_scoring",
        "tag_scoring",
        "qsep_pack",
        "qsep_report",
    ]
    call, folder = recipe.call("tag_inference"), "exp/qsep_train_x"
    assert f"--bank dump/test --output_dir {folder}/tagging_test --train_config {folder}/c" in call
    assert "--protocols" not in call
    assert recipe.call("tag_scoring") == (f"tag_scoring --bank dump/test --tags_dir {folder}/tagging_test")


@pytest.mark.parametrize("stage", ["7", "8"])
def test_mixtures_rendered_from_another_list_are_not_used(recipe, stage):
    recipe("--stop_stage", "7")
    (recipe.folder / "data/test/pairs.json").write_text('{"list_hash": "m"}')
    status, _, err = recipe("--stage", stage)
    assert status == 1 and recipe.names() == []
    assert "dump/test_pairs holds other mixtures than data/test/pairs.json lists" in err


def test_anchors_of_a_tagger_for_the_lists(recipe):
    folder = str(recipe.folder / "exp/tag_x")
    recipe("--stop_stage", "4", "--list_anchors", folder, "--test_seconds", "2")
    lists = [v for v in recipe.calls.read_text().splitlines() if v.startswith("draw_lists")]
    for call, name in zip(lists, ("valid", "test"), strict=True):
        assert f"--bank dump/{name} " in call and "--segment 2" in call
        assert call.endswith(f"--anchor_file {folder}/anchors_{name}.npz")


def test_number_of_classes_reaches_each_network_that_tags_unless_told(recipe):
    conf = recipe.folder / "conf/train_x.yaml"
    conf.write_text(
        "extractor_conf:  # no head\n  num_classes: 0\nquery_net_conf:  # tags\n  dim: 8\n  num_classes: 527\n"
    )
    assert recipe("--stop_stage", "6", "--qsep_args", "--query_net_conf num_classes=9")[0] == 0
    for step in ("qsep_check", "qsep_train"):
        call = recipe.call(step)
        assert "--extractor_conf" not in call
        assert call.index("--query_net_conf num_classes=2") < call.index("num_classes=9")


def test_a_training_that_begins_with_a_bundle(recipe, tmp_path, monkeypatch):
    (tmp_path / "my.zip").touch()
    status, out, err = recipe("--stop_stage", "6", "--init", f"{tmp_path}/my.zip")
    assert status == 0, err
    folder = "exp/qsep_train_x_from_my"
    assert recipe.call("unpack") == f"unpack {tmp_path}/my.zip --config conf/train_x.yaml -o {folder}/init"
    for step in ("qsep_check", "qsep_train"):
        call = recipe.call(step)
        assert f"--config {folder}/init/config.yaml --output_dir {folder} " in call
        assert f"--init_param {folder}/init/model.pth --ignore_init_mismatch true" in call
        assert "--extractor_conf num_classes=2" in call
    assert recipe.names().count("unpack") == 1 and "--init none: with those of conf/train_x.yaml" in out
    status, _, err = recipe("--init", "gone.zip")
    assert status == 1 and "--init: there is no bundle" in err
    for word, begins in (("none", False), ("auto", Path(bundle_file("starter")).exists())):
        recipe("--stage", "6", "--stop_stage", "6", "--caller", "/", "--init", word, "--qsep_tag", f"x_{word}")
        assert ("unpack" in recipe.names()) == ("--init_param" in recipe.call("qsep_train")) == begins


def test_lists_of_few_clips(recipe):
    """Validation mixtures in proportion to the clips, other queries from the training set."""
    recipe("--stop_stage", "4", "--valid_pairs", "auto", "--query_set", "train", CLIPS="5")
    assert "--bank dump/valid " in recipe.call("draw_lists") and "--num_pairs 40 " in recipe.call("draw_lists")
    assert "--query_bank dump/train" in recipe.call("render_lists")
    for clips, number in (("2", 24), ("900", 500)):
        recipe("--stage", "3", "--stop_stage", "4", "--valid_pairs", "auto", CLIPS=clips)
        assert f"--num_pairs {number} " in recipe.call("draw_lists")
    assert "--query_bank" not in recipe.call("render_lists")


def test_stage_and_stop_stage(recipe):
    assert recipe("--stop_stage", "4")[0] == 0
    assert recipe.names() == PREPARATION
    assert recipe("--stage", "3", "--stop_stage", "3")[0] == 0
    assert recipe.names() == ["archive"] * 3
    assert recipe("--stage=5", "--stop-stage", "5")[0] == 0
    assert recipe.names() == ["qsep_check"]


def test_skips(recipe):
    recipe("--stop_stage", "4")
    recipe("--skip_data_prep", "true", "--skip_eval", "true")
    assert recipe.names() == TRAINING
    recipe("--skip_data_prep", "true", "--skip_train", "true")
    assert recipe.names() == USE


def test_a_stage_without_the_one_before_it_says_which(recipe):
    status, _, err = recipe("--stage", "3", "--stop_stage", "3")
    assert status == 1 and "data/train/manifest.tsv is not there; run stage 2 first" in err


@pytest.mark.parametrize(
    "args, words",
    [
        (["--stagee", "3"], "unknown option --stagee"),
        (["--skip_train", "yes"], "--skip_train takes true or false, not 'yes'"),
        (["--stage"], "--stage needs a value"),
        (["extra"], "what is 'extra'?"),
        (["--config", "conf/nothing.yaml"], "no file conf/nothing.yaml"),
    ],
)
def test_wrong_options(recipe, args, words):
    status, _, err = recipe(*args)
    assert status == 1 and words in err and recipe.names() == []


def test_a_wrong_number_of_gpus_is_refused_before_the_training(recipe):
    status, _, err = recipe("--stop_stage", "6", "--ngpu", "two")
    assert status == 1 and "--ngpu takes a number or auto, not 'two'" in err and "qsep_check" not in recipe.names()
    status, _, err = recipe("--stage", "5", "--ngpu", "2")
    assert status == 1 and recipe.names() == []
    assert err == "error: --ngpu 2: PyTorch finds no GPU on this machine; give --ngpu 0\n"
    status, _, err = recipe("--stage", "5", "--ngpu", "2", GPUS="1")
    assert err == "error: --ngpu 2: PyTorch finds 1 GPU on this machine; give --ngpu 1\n"
    assert recipe("--stage", "5", "--stop_stage", "6", "--ngpu", "2", GPUS="2")[0] == 0


def test_help_needs_no_set_up(recipe):
    status, out, _ = recipe("--help", PATH="/usr/bin:/bin")
    assert status == 0 and "--inference_model" in out


def test_config_is_the_same_as_qsep_config_and_names_the_experiment(recipe):
    shutil.copy(recipe.folder / "conf/train_x.yaml", recipe.folder / "conf/train_y.yaml")
    recipe("--config", "conf/train_y.yaml", "--stop_stage", "6", "--qsep_args", "--lr 1 --seed=2")
    assert "--output_dir exp/qsep_train_y_lr1_seed2 " in recipe.call("qsep_train")


def test_sets_tags_and_options_reach_the_steps(recipe):
    recipe.script("local/data.sh", DATA.replace("train valid test", "tr va te1 te2"))
    args = ["--train_set", "tr", "--valid_set", "va", "--test_sets", "te1 te2", "--nj", "3"]
    args += ["--scheduler", "tcp://h:1", "--inference_tag", "x", "--fs", "16k"]
    args += ["--gpu_inference", "false", "--inference_args", "--batch_size 2"]
    assert recipe(*args, "--scoring_args", "--espnet_keys 4")[0] == 0
    assert recipe.names().count("render_lists") == recipe.names().count("qsep_scoring") == 2
    assert "--fs 16000 " in recipe.call("archive")
    assert "--dump dump --fs 16000 --format flac " in recipe.call("scan")  # one pass, as stage 3 follows
    for step in ("scan", "archive", "render_lists", "qsep_scoring"):
        assert "--num_workers 3 --scheduler tcp://h:1" in recipe.call(step)
    call = recipe.call("qsep_inference")
    assert "--output_dir exp/qsep_train_x/inference_x_te1 " in call
    assert "--device cpu" in call and "--batch_size 2" in call and "--scheduler tcp://h:1" in call
    assert "--espnet_keys 4" in recipe.call("qsep_scoring")
    assert "--train_bank dump/tr --valid_bank dump/va" in recipe.call("qsep_train")


def test_further_test_lists(recipe):
    protocols = ["--test_protocols", "conditions:24 dcase2024", "--scoring_args", "--espnet_keys 4"]
    assert recipe(*protocols, TAGS="1")[0] == 0
    calls = recipe.calls.read_text().splitlines()
    draws, infer, scoring = (
        [call for call in calls if call.startswith(name) and "dump/test" in call]
        for name in ("draw_lists", "qsep_inference", "qsep_scoring")
    )
    assert [call.partition(" --seed 0")[2].strip() for call in draws] == [
        "",
        "--protocol conditions",
        "--protocol dcase2024",
    ]
    assert ["--num_pairs 0 " in call for call in draws] == [True, False, True] and "--num_pairs 24 " in draws[1]
    assert "--out data/test_conditions/pairs.tsv" in draws[1]
    assert ["--passes mixture --no_tags" in call for call in infer] == [False, True, True]
    assert "--data_dir dump/test_conditions_pairs " in infer[1]
    assert [call.endswith("--espnet_keys 0") for call in scoring] == [False, True, True]
    report, pack = recipe.call("qsep_report"), recipe.call("qsep_pack")
    assert report.count("--inference_dir") == 3 and pack.count("--inference_dir") == 1
    assert "--held_out dump/valid --mixtures 100 " in pack
    recipe("--stage", "9", "--presence_mixtures", "0")
    assert "--held_out" not in recipe.call("qsep_pack")


def test_failure_keeps_the_steps_status_and_shows_the_logs_end(recipe):
    status, out, err = recipe(FAIL_IN="scan")
    assert status == 3 and "status 3 from:" in err and "the reason why" in err
    assert recipe.names() == ["data", "scan"]
    status, out, err = recipe(FAIL_IN="qsep_train")
    assert status == 3 and "The last lines of exp/qsep_train_x/train.log" in err
    assert "the reason why" in err
    assert not (recipe.folder / "exp/qsep_train_x/.done").exists()


def test_training_that_leaves_no_model_is_a_failure(recipe):
    status, _, err = recipe("--inference_model", "valid.map.best.pth")
    assert status == 1 and "no exp/qsep_train_x/valid.map.best.pth" in err


def test_other_clips_under_an_old_checkpoint_are_refused(recipe):
    recipe("--stop_stage", "6")
    status, _, err = recipe("--stop_stage", "6", HASH="2")
    assert status == 1 and "begun with other clips in dump/train: give another --qsep_tag" in err


def test_other_initial_weights_under_an_old_checkpoint_are_refused(recipe):
    (recipe.folder / "tagger.pth").write_text("weights")
    options = ("--stop_stage", "6", "--qsep_tag", "x", "--qsep_args", "--init_param tagger.pth:net:query_net")
    assert recipe(*options)[0] == 0
    assert "trained already" in recipe(*options)[1]
    (recipe.folder / "tagger.pth").write_text("of a longer training")
    status, _, err = recipe(*options)
    assert status == 1 and "was begun with other files:" in err


def test_other_options_under_an_old_checkpoint_are_refused(recipe):
    config = recipe.folder / "conf/train_x.yaml"
    options = ("--stop_stage", "6", "--qsep_tag", "x")
    assert recipe(*options, "--qsep_args", "--max_epoch 1")[0] == 0
    config.write_text("max_epoch: 3 # longer\nnum_workers: 2\n" + config.read_text())
    status, out, err = recipe(*options, "--qsep_args", "--patience=2 --max_epoch 4")
    assert status == 0 and "going on from the last checkpoint" in out, err
    status, _, err = recipe(*options, "--qsep_args", "--optim_conf lr=1")
    assert status == 1 and "exp/qsep_x was begun with other options: give another --qsep_tag" in err
    config.write_text("optim: adam\n" + config.read_text())
    (recipe.folder / "exp/qsep_x/.begun_with").unlink()
    status, _, err = recipe(*options)
    assert status == 1 and "other clips in dump/train, files, options:" in err


@pytest.mark.parametrize("step, sent, status", [("scan", signal.SIGINT, 130), ("qsep_train", signal.SIGTERM, 143)])
def test_ctrl_c_and_kill_end_the_step_and_its_workers(recipe, step, sent, status):
    recipe.calls.touch()
    process = recipe.start(SLEEP_IN=step)
    worker = Path(f"{recipe.calls}.worker")
    while not (worker.exists() and worker.read_text()):
        time.sleep(0.02)
    process.send_signal(sent)
    out, _ = process.communicate(timeout=180)
    assert process.returncode == status and "run again to resume" in out
    assert not alive(int(worker.read_text()))
    assert recipe("--stop_stage", "6")[0] == 0  # goes on; the lock is free
    assert step in recipe.names()


@pytest.mark.skipif(not shutil.which("flock"), reason="no flock here")
def test_two_runs_in_one_folder_do_not_mix(recipe):
    recipe.calls.touch()
    first = recipe.start(SLEEP_IN="scan")
    while "scan" not in recipe.names():
        time.sleep(0.02)
    status, _, err = recipe()
    assert status == 1 and "another run is still working in" in err
    first.terminate()
    first.communicate(timeout=180)


def test_several_machines_go_through_espnets_launcher(recipe):
    recipe("--stop_stage", "4")
    recipe("--stage", "6", "--stop_stage", "6", "--num_nodes", "2", "--ngpu", "4")
    call = recipe.call("launch")
    assert "slurm.pl" in call and "--num_nodes 2" in call and "--ngpu 4" in call
    assert " -- " in call and "espnet2_ext.bin.qsep_train --config conf/train_x.yaml" in call


@pytest.mark.parametrize("name", ["audioset_qsep", "esc50_qsep", "own_qsep", "starter_qsep"])
def test_recipes_hold_links_and_few_lines(name):
    folder = ROOT / "egs2" / name
    for link in ("qsep.sh", "path.sh", "cmd.sh", "utils.sh", "launch", "conf"):
        assert (folder / link).is_symlink() and (folder / link).exists()
    assert len((folder / "run.sh").read_text().splitlines()) <= 45


def test_ones_own_sounds(tmp_path):
    folder = tmp_path / "egs2/own_qsep"
    copy_recipe(folder, "qsep1", " ", 'os.environ["SOUNDS"] + "|" + os.environ["background"] + "|",')
    for name in ("dog", "street"):
        (tmp_path / name).mkdir()

    run = functools.partial(words_of, folder, tmp_path)
    told = run("--sounds", "dog")
    assert told.startswith(f"{tmp_path}/dog||") and "--query_set train" in told
    assert "--qsep_config conf/train_qsep_own.yaml --init auto --valid_pairs auto" in told
    told = run("--sounds", "dog", "--init", "none")
    assert "--qsep_config conf/train_qsep_few.yaml --init none" in told
    told = run("--sounds", "dog", "--background", "street", "--quick", "true", "--init", "none")
    assert told.startswith(f"{tmp_path}/dog|{tmp_path}/street|") and "conf/debug/" in told and "dump/quick" in told
    assert "--init none" in told
    assert "there is no road" in run("--sounds", "dog", "--background", "road")


def test_paths_on_the_command_line_are_meant_from_where_the_user_stands(tmp_path):
    folder = tmp_path / "project/egs2/esc50_qsep"
    copy_recipe(folder, "qsep1", " ", 'os.environ["ESC50"] + "|",')
    (tmp_path / "sounds/ESC-50").mkdir(parents=True)
    sounds = str(tmp_path / "sounds/ESC-50")

    run = functools.partial(words_of, folder)
    assert run(folder, "--esc50", "../../../sounds/ESC-50").startswith(sounds + "|")
    assert run(folder, "--esc50=../../../sounds/ESC-50").startswith(sounds + "|")
    assert run(tmp_path, "--esc50", "sounds/ESC-50").startswith(sounds + "|")
    assert run(folder, ESC50="../sounds/ESC-50").startswith(sounds + "|")
    assert f"--config {tmp_path}/my.yaml" in run(tmp_path, "--esc50", sounds, "--config", "my.yaml")
    assert "--config my.yaml" in run(folder, "--esc50", sounds, "--config", "my.yaml")
    assert "there is no nowhere" in run(folder, "--esc50", "nowhere")
    assert "where is ESC-50?" in run(folder)
