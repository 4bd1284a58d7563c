"""The driver of taggers, and the recipes that call it, with a stand-in Python."""

import os
import shutil
import subprocess
import sys

import pytest
from fake_recipe import ROOT, Recipe, fake_driver, options_of

from espnet2_ext.recipe.tag import TagOptions

PREPARATION = ["data"] + ["scan"] * 3 + ["archive"] * 3
TRAINING = ["tag_check", "tag_train"]
USE = ["tag_inference", "tag_scoring", "tag_report", "tag_anchors"]


@pytest.fixture
def recipe(tmp_path):
    return Recipe(tmp_path, "tag1")


def test_all_stages_in_order_then_training_is_not_done_again(recipe):
    status, out, err = recipe("--anchor_seconds", "3")
    assert status == 0, err
    assert recipe.names() == PREPARATION + TRAINING + USE
    assert [n for n in range(1, 11) if f"Stage {n}: " not in out] == [4]  # there are no lists
    call = recipe.call("tag_train")
    assert "--train_bank dump/train --valid_bank dump/valid" in call
    assert "--query_net_conf num_classes=2" in call and "--output_dir exp/tag_train_x " in call
    model = "--train_config exp/tag_train_x/config.yaml --model_file exp/tag_train_x/valid.loss"
    tags = "--bank dump/test --output_dir exp/tag_train_x/tagging_test " + model
    assert tags in recipe.call("tag_inference")
    assert "--tags_dir exp/tag_train_x/tagging_test" in recipe.call("tag_scoring")
    anchors = f"--bank dump/train --out exp/tag_train_x/anchors_train.npz --segment 3 {model}"
    assert anchors in recipe.call("tag_anchors")
    status, out, _ = recipe()
    assert status == 0 and "tag_train" not in recipe.names() and "trained already" in out


def test_options_reach_the_steps_and_name_the_experiment(recipe):
    shutil.copy(recipe.folder / "conf/train_x.yaml", recipe.folder / "conf/tag_y.yaml")
    args = ["--config", "conf/tag_y.yaml", "--tag_args", "--query_net_conf num_classes=7 --seed 2"]
    assert (
        recipe(
            *args,
            "--inference_nj",
            "3",
            "--inference_args",
            "--batch_size 2",
            "--anchor_sets",
            "train valid",
            "--gpu_inference",
            "false",
        )[0]
        == 0
    )
    assert recipe.names().count("tag_anchors") == 2
    call = recipe.call("tag_train")  # what the user says comes last, and counts
    assert call.index("num_classes=2") < call.index("num_classes=7")
    assert "--output_dir exp/tag_y_query_net_confnum_classes7_seed2 " in call
    for step in ("tag_inference", "tag_anchors"):
        assert "--device cpu --num_workers 3 --batch_size 2" in recipe.call(step)


def test_a_stage_without_the_one_before_it_says_which(recipe):
    for number, words in (
        (5, "bank.json is not there; run stage 3 first"),
        (8, "about.json is not there; run stage 7 first"),
        (9, "scores.json is not there; run stage 8 first"),
    ):
        status, _, err = recipe("--stage", str(number), "--stop_stage", str(number))
        assert status == 1 and words in err
    recipe("--stop_stage", "3")
    status, _, err = recipe("--stage", "10")
    assert status == 1 and "valid.loss.best.pth is not there; run stage 6 first" in err


def test_outputs_of_another_checkpoint_and_frames(recipe):
    args = ["--inference_tag", "map", "--inference_args", "--frames --batch_size 2"]
    assert recipe(*args)[0] == 0
    call = recipe.call("tag_inference")
    assert "/tagging_map_test " in call and "--frames --batch_size 2" in call
    assert "/tagging_map_test" in recipe.call("tag_report")
    call = recipe.call("tag_anchors")  # which needs no asking for frames
    assert "--frames" not in call and "--batch_size 2" in call


def test_other_clips_under_an_old_checkpoint_are_refused(recipe):
    recipe("--stop_stage", "6")
    status, _, err = recipe("--stop_stage", "6", HASH="2")
    assert status == 1 and "was begun with other clips in dump/train:" in err and "--tag_tag" in err


def test_help_names_every_option(recipe):
    status, out, _ = recipe("--help", PATH="/usr/bin:/bin")
    names = options_of(TagOptions)
    assert status == 0 and len(names) > 30
    assert [n for n in names if f"  --{n} " not in out] == []


# ---- recipes -------------------------------------------------------------------------------------


def run_recipe(tmp_path, name: str, script: str, *args: str) -> tuple[int, str]:
    """Status and words of a recipe's script, which end up in the drivers or the error."""
    folder = tmp_path / "project/egs2" / name
    if not folder.exists():
        shutil.copytree(ROOT / "egs2/TEMPLATE/tag1", folder)
        for file in ("run.sh", "db.sh", *(["five_folds.sh"] if name == "esc50_qsep" else [])):
            shutil.copy(ROOT / "egs2" / name / file, folder)
        for driver in ("qsep", "tag"):
            fake_driver(folder, driver, head=f"'{driver}',")
        (folder / "path.sh").write_text("")
    done = subprocess.run(
        [str(folder / script), *args],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
    )
    return done.returncode, done.stdout.strip() + done.stderr


def test_a_task_chooses_the_driver_on_the_same_data(tmp_path):
    for quick, corpus, config in (("false", "embedded", "mini/tag_care_cls"), ("true", "quick", "debug/train_tag")):
        args = ["audioset_qsep", "run.sh", "--quick", quick]
        _, told = run_recipe(tmp_path, *args)
        _, tagging = run_recipe(tmp_path, *args, "--task", "tagging", "--ngpu", "2")
        assert told.startswith("qsep|") and tagging.startswith("tag|")
        assert tagging.split("--local_data_opts")[0][4:] == told.split("--local_data_opts")[0][5:]
        assert f"--dumpdir|dump/{corpus}|" in tagging and tagging.endswith("--ngpu|2|")
        assert f"--tag_config|conf/{config}.yaml|" in tagging
    assert "--task takes separation or tagging" in run_recipe(tmp_path, "audioset_qsep", "run.sh", "--task", "x")[1]


def test_folds_of_esc50_are_those_that_are_there(tmp_path):
    meta = tmp_path / "ESC-50/meta"
    meta.mkdir(parents=True)
    (meta / "esc50.csv").write_text("filename,fold,target,category\na,1,0,x\nb,4,0,x\nc,2,0,x\n")
    args = ["esc50_qsep", "five_folds.sh", "--esc50", "ESC-50"]
    status, told = run_recipe(tmp_path, *args, "--config", "my/tag_y.yaml", "--ngpu", "0")
    assert status == 0, told
    for fold, others in ((1, "2 4"), (2, "1 4"), (4, "1 2")):
        train = f"folds{others.replace(' ', '')}"
        assert f"tag|--train_set|{train}|--valid_set|{train}|--test_sets|folds{fold}|" in told
        assert f"--tag_tag|y_fold{fold}|--stop_stage|9|" in told
    assert told.count(f"--config|{tmp_path}/my/tag_y.yaml|--ngpu|0|") == 3 and "is not scored yet" in told
    (meta / "esc50.csv").write_text("filename,fold,target,category\na,1,0,x\n")
    status, told = run_recipe(tmp_path, *args)
    assert status == 1 and "has one fold alone" in told


def test_folds_of_esc50_end_in_their_mean(tmp_path):
    meta = tmp_path / "ESC-50/meta"
    meta.mkdir(parents=True)
    (meta / "esc50.csv").write_text("filename,fold\na,1\nb,2\n")
    python = tmp_path / "python"
    real = f'case $3 in recipe-*) exec "{sys.executable}" "$@" ;; esac'
    python.write_text(f'#!/usr/bin/env bash\n{real}\nprintf "%s|" "$@"\n')
    python.chmod(0o755)
    for given, tag in (([], ""), (["--inference_tag", "last"], "last_")):
        for fold in (1, 2):
            folder = tmp_path / f"exp/tag_care_cls_fold{fold}/tagging_{tag}folds{fold}"
            folder.mkdir(parents=True)
            (folder / "scores.json").touch()
        _, told = run_recipe(
            tmp_path,
            "esc50_qsep",
            "five_folds.sh",
            "--esc50",
            "ESC-50",
            "--expdir",
            "exp",
            "--python",
            str(python),
            *given,
        )
        exp = tmp_path / "exp/tag_care_cls"
        assert told.count(f"|--inference_tag|{tag[:-1]}|") == (2 if tag else 0)
        assert told.endswith(
            f"-m|espnet2_ext|tag-scoring|--folds|{exp}_fold1/tagging_{tag}folds1|"
            f"{exp}_fold2/tagging_{tag}folds2|--out|{exp}_folds/{tag}scores.json|"
        )
