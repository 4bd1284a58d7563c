"""The driver of separation from weak labels, with a stand-in Python."""

import os
import shutil
import subprocess

import pytest
from fake_recipe import ROOT, Recipe, copy_recipe, options_of, words_of

from espnet2_ext.recipe.weak_options import WeakOptions

PREPARATION = ["data"] + ["scan"] * 3 + ["archive"] * 3
PREPARATION += ["draw_mixtures"] * 3 + ["render_mixtures"]
TRAINING = ["weak_train"] * 5  # two classifiers, three separators
USE = ["weak_inference", "weak_scoring", "weak_report", "weak_pack"]
EXP = "exp/weak_train_x"


@pytest.fixture
def recipe(tmp_path):
    recipe = Recipe(tmp_path, "weak1")
    (recipe.folder / "conf/train_x.yaml").write_text("label_type: frame\nstrategy: fixed # so\n")
    return recipe


def calls(recipe, name: str) -> list[str]:
    return [v for v in recipe.calls.read_text().splitlines() if v.split()[0] == name]


def test_all_stages_in_order_then_training_is_not_done_again(recipe):
    status, out, err = recipe()
    assert status == 0, err
    assert recipe.names() == PREPARATION + TRAINING + USE
    for number in range(1, 10):
        assert f"Stage {number}: " in out
    train = calls(recipe, "weak_train")
    for call, part, label in zip(
        train, ["classifier"] * 2 + ["separator"] * 3, ["frame", "clip", "strong", "frame", "clip"]
    ):
        assert f"--part {part} --label_type {label} " in call
        assert "--train_table data/train/mixtures --train_bank dump/train " in call
    for n, label in ((3, "frame"), (4, "clip")):
        judge = f"--classifier_file {EXP}_classifier_{label}/valid.loss.best.pth"
        assert judge in train[n] and f"--output_dir {EXP}_{label} " in train[n]
    assert "classifier_file" not in train[2]
    report = recipe.call("weak_report")
    assert f"--experiment strong={EXP}_strong --experiment frame={EXP}_frame" in report
    assert f"--output_dir {EXP}_report" in report and "--test_set test" in report
    for name, option in (("weak_inference", "output_dir"), ("weak_scoring", "inference_dir")):
        for label in ("strong", "frame", "clip"):
            assert f"--{option} {EXP}_{label}/inference_test " in recipe.call(name)
    status, out, _ = recipe()
    assert status == 0 and "weak_train" not in recipe.names() and out.count("trained already") == 5


def test_the_training_set_validates_with_other_mixtures(recipe):
    status, _, err = recipe("--valid_set", "train", "--label_types", "strong")
    assert status == 0, err
    drawn = calls(recipe, "draw_mixtures")
    assert [call.split("--seed ")[1].split()[0] for call in drawn] == ["0", "1", "2"]
    assert "--bank dump/train --out data/train/mixtures_valid " in drawn[1]
    call = recipe.call("weak_train")
    assert "--train_table data/train/mixtures " in call
    assert "--valid_table data/train/mixtures_valid --valid_bank dump/train" in call


def test_preparing_takes_one_thread_a_job_and_training_those_given(recipe):
    recipe("--stop_stage", "6", OMP_NUM_THREADS="3")
    threads = (recipe.top / "calls.threads").read_text().splitlines()
    assert "draw_mixtures 1" in threads and "render_mixtures 1" in threads
    assert {v for v in threads if v.startswith("weak_train")} == {"weak_train 3"}


def test_a_separator_whose_classifier_changed_does_not_go_on(recipe):
    args = ["--weak_tag", "t", "--stop_stage", "6", "--label_types", "frame"]
    recipe(*args)
    status, _, err = recipe(*args, "--classifier_args", "--max_epoch 3", WEIGHTS="trained on")
    assert status == 1 and "exp/weak_t_frame was begun with other files:" in err
    assert [c.split("--part ")[1].split()[0] for c in calls(recipe, "weak_train")] == ["classifier"]


def test_another_content_of_a_further_yaml_is_another_training(recipe):
    more = recipe.folder / "conf/more.yaml"
    more.write_text("alpha: 10\n")
    options = ("--stop_stage", "6", "--separator_args", "--config conf/more.yaml")
    assert recipe(*options)[0] == 0
    assert recipe(*options)[1].count("trained already") == 5
    more.write_text("alpha: 100\n")
    status, _, err = recipe(*options)
    assert status == 1 and "was begun with other files:" in err


def test_options_of_the_parts_name_their_experiments(recipe):
    recipe(
        "--stop_stage",
        "6",
        "--weak_args",
        "--seed 1",
        "--classifier_args",
        "--max_epoch 3",
        "--separator_args",
        "--max_epoch=4",
        "--label_types",
        "clip",
    )
    first, second = calls(recipe, "weak_train")
    assert f"--output_dir {EXP}_seed1_max_epoch3_classifier_clip " in first
    assert f"--output_dir {EXP}_seed1_max_epoch3_max_epoch4_clip " in second
    assert "--max_epoch 3" in first and "--max_epoch=4" not in first and "--seed 1" in first
    assert "--max_epoch=4" in second and "--max_epoch 3" not in second and "--seed 1" in second


def test_trials_train_with_several_seeds_and_keep_the_best(recipe):
    status, _, err = recipe("--trials", "2", "--label_types", "frame", "--stop_stage", "8")
    assert status == 0, err
    exps = [f"{EXP}_best_classifier_frame", f"{EXP}_best_frame"]
    train = calls(recipe, "weak_train")
    for n, exp in enumerate(e for e in exps for _ in range(2)):
        assert f"--output_dir {exp}_seed{n % 2} " in train[n] and f" --seed {n % 2} " in train[n]
    for call, exp in zip(calls(recipe, "keep_best"), exps, strict=True):
        assert f"{exp}_seed0 {exp}_seed1 --exp_dir {exp} --model_file valid.loss.best.pth" in call
        assert (recipe.folder / exp).resolve().name.endswith("_seed0")
    # both separators have the kept classifier for their judge
    judge = f"--classifier_file {exps[0]}/valid.loss.best.pth"
    assert judge in train[2] and judge in train[3]
    assert f"--output_dir {exps[1]}/inference_test " in recipe.call("weak_inference")
    recipe("--trials", "3", "--label_types", "frame", "--stop_stage", "6")
    train = calls(recipe, "weak_train")
    assert len(train) == 2 and all(" --seed 2 " in call for call in train)  # the others are there


def test_one_training_does_not_take_the_place_of_several(recipe):
    args = ["--weak_tag", "t", "--label_types", "strong", "--stop_stage", "6"]
    assert recipe(*args, "--trials", "2")[0] == 0
    status, _, err = recipe(*args)
    assert status == 1 and "was chosen from several --trials" in err and "--weak_tag" in err


def test_joint_needs_no_classifier(recipe):
    recipe("--strategy", "joint", "--stop_stage", "6", "--label_types", "frame")
    (call,) = calls(recipe, "weak_train")
    assert "--strategy joint" in call and "classifier_file" not in call
    assert f"--output_dir {EXP}_joint_frame " in call
    (recipe.folder / "conf/train_x.yaml").write_text("strategy: joint\n")
    recipe("--stop_stage", "6", "--label_types", "frame", "--weak_tag", "y")
    assert len(calls(recipe, "weak_train")) == 1


def test_by_query_a_training_can_begin_with_a_bundle(recipe, tmp_path):
    (recipe.folder / "conf/train_x.yaml").write_text("extractor: x\n")
    (tmp_path / "my.zip").write_bytes(b"")
    options = ("--task", "query", "--label_types", "clip", "--init", f"{tmp_path}/my.zip", "--stop_stage", "6")
    status, out, err = recipe(*options)
    assert status == 0, err
    folder = "exp/weak_train_x_from_my_init"
    assert recipe.call("unpack") == f"unpack {tmp_path}/my.zip --config conf/train_x.yaml -o {folder}"
    assert recipe.names().count("unpack") == 1 and "--init none: with those of conf/train_x.yaml" in out
    classifier, separator = calls(recipe, "qweak_train")
    begins = f"--init_param {folder}/model.pth --ignore_init_mismatch true"
    for call, part in ((classifier, "classifier_clip"), (separator, "clip")):
        assert f"--config {folder}/config.yaml --output_dir exp/weak_train_x_from_my_{part} " in call
    assert begins in classifier and begins not in separator and "--classifier_file" in separator
    recipe(*options, "--strategy", "joint", "--stage", "6")
    assert begins in recipe.call("qweak_train")  # there is no classifier to begin with
    status, _, err = recipe("--init", f"{tmp_path}/my.zip")
    assert status == 1 and "--init: a separator of classes begins with random weights" in err


def test_asteroid_trains_the_same(recipe):
    assert recipe("--trainer", "asteroid", "--label_types", "frame", "--ngpu", "2", GPUS="2")[0] == 0
    assert recipe.names().count("weak_train_asteroid") == 2 and not calls(recipe, "weak_train")
    assert "--devices 2" in recipe.call("weak_train_asteroid")
    assert "weak_train_x_asteroid_frame/valid.loss.best.pth" in recipe.call("weak_inference")
    status, _, err = recipe("--trainer", "asteroid", "--num_nodes", "2", "--weak_tag", "z")
    assert status == 1 and "asteroid trains on one machine" in err


def test_mixtures_are_made_as_asked_for(recipe):
    args = ["--train_mixtures", "7", "--mean_events", "2", "--train_known", "strong:0.5,clip:0.5"]
    recipe(
        *args,
        "--background_classes",
        "a,b",
        "--mixture_args",
        "--seconds 2",
        "--stop_stage",
        "4",
        "--test_mixture_args",
        "--lufs -20 -20",
        "--mixtures_seed",
        "5",
    )
    train, valid, test = calls(recipe, "draw_mixtures")
    assert "--mixtures 7 --mean_events 2 --seed 5 --background_classes a,b" in train
    assert "--known strong:0.5,clip:0.5 --seconds 2" in train and "--lufs" not in train
    assert "--seed 6 " in valid and "--known strong:0.5,clip:0.5" in valid
    assert "--seed 7 " in test and "--known" not in test and "--seconds 2 --lufs -20 -20" in test
    assert "--table data/test/mixtures --bank dump/test --out dump/test_mix" in recipe.call("render_mixtures")


def test_several_lambdas_are_several_tests(recipe):
    recipe("--test_mean_events", "5 10", "--label_types", "strong")
    tests = calls(recipe, "draw_mixtures")[2:]
    assert "--out data/test/mixtures_lambda5" in tests[0] and "--mean_events 5 " in tests[0]
    assert "--out data/test/mixtures_lambda10" in tests[1] and "--mean_events 10 " in tests[1]
    outputs = [c.split("--output_dir ")[1].split()[0] for c in calls(recipe, "weak_inference")]
    assert outputs == [f"{EXP}_strong/inference_test_lambda{n}" for n in (5, 10)]
    assert "--test_set test_lambda5 --test_set test_lambda10" in recipe.call("weak_report")


def test_songs(recipe):
    recipe("--mixtures_from", "songs", "--stop_stage", "4", "--mixture_args", "--seconds 3")
    train, valid, test = calls(recipe, "prepare_musdb18")
    assert train.startswith("prepare_musdb18 tables data/train --bank dump/train --out data/train/")
    assert "--seconds 3" in train and "--whole" not in train + valid and "--whole" in test


def test_recordings(recipe):
    recipe("--mixtures_from", "recordings", "--stop_stage", "4", "--mixture_args", "--seconds 3")
    tables = calls(recipe, "prepare_own_weak")
    for call, name in zip(tables, ("train", "valid", "test"), strict=True):
        assert f"tables data/{name} --bank dump/{name} --out data/{name}/mixtures --sec" in call


def test_other_mixtures_under_an_old_training_are_refused(recipe):
    recipe("--stop_stage", "6")
    status, _, err = recipe("--stop_stage", "6", HASH="2")
    assert status == 1 and "--weak_tag" in err
    assert "was begun with other mixtures in data/train/mixtures:" in err


def test_a_stopped_training_goes_on(recipe):
    status, _, _ = recipe("--stop_stage", "5", FAIL_IN="weak_train")
    assert status == 3
    folder = recipe.folder / f"{EXP}_classifier_frame"
    (folder / "checkpoint.pth").write_text("")
    status, out, _ = recipe("--stop_stage", "5")
    assert status == 0 and "going on from the last checkpoint" in out
    assert "--resume true" in recipe.call("weak_train")


@pytest.mark.parametrize(
    "args, words",
    [
        (["--label_types", "frame weak"], "weak is none of strong frame clip mixed"),
        (["--label_types", " "], "name at least one of strong frame clip mixed"),
        (["--trainer", "keras"], "--trainer takes espnet or asteroid, not 'keras'"),
        (["--trials", "0"], "--trials takes a whole number from 1, not '0'"),
        (["--trials", "two"], "--trials takes a whole number from 1, not 'two'"),
        (["--trials", "2", "--weak_args", "--seed 3"], "leave out --seed, or add --trials 1"),
        (["--trials", "2", "--separator_args", "--seed=3"], "leave out --seed, or add --trials 1"),
        (["--trials", "2", "--inference_model", "valid.loss.ave.pth"], "valid.loss.ave.pth is not kn"),
        (["--mixtures_from", "air"], "--mixtures_from takes drawn, songs or recordings"),
        (["--config", "conf/nothing.yaml"], "no file conf/nothing.yaml"),
        (["--qsep_config", "x"], "unknown option --qsep_config"),
        (["--stage", "five"], "option --stage takes a number, not 'five'"),
    ],
)
def test_wrong_options(recipe, args, words):
    status, _, err = recipe(*args)
    assert status == 1 and words in err and recipe.names() == []


def test_a_stage_without_the_one_before_it_says_which(recipe):
    for number, words in (
        (4, "bank.json is not there; run stage 3 first"),
        (5, "table.json is not there; run stage 4 first"),
        (7, "list.json is not there; run stage 4 first"),
        (8, "list.json is not there; run stage 4 first"),
    ):
        status, _, err = recipe("--stage", str(number), "--stop_stage", str(number))
        assert status == 1 and words in err
    recipe("--stop_stage", "6")
    status, _, err = recipe("--stage", "8")
    assert status == 1 and "about.json is not there; run stage 7 first" in err


@pytest.mark.parametrize("stage", ["7", "8"])
def test_mixtures_rendered_from_another_table_are_not_used(recipe, stage):
    recipe("--stop_stage", "7")
    (recipe.folder / "data/test/mixtures/table.json").write_text('{"table_hash": "2"}')
    status, _, err = recipe("--stage", stage)
    assert status == 1 and recipe.names() == []
    assert "dump/test_mix holds other mixtures than data/test/mixtures/table.json lists" in err
    recipe("--skip_train", "true")
    status, _, _ = recipe("--stage", stage, "--stop_stage", stage)
    assert status == 0


def test_help_names_every_option(recipe):
    status, out, _ = recipe("--help", PATH="/usr/bin:/bin")
    names = options_of(WeakOptions)
    assert status == 0 and len(names) > 35
    assert [n for n in names if f"  --{n} " not in out] == []


@pytest.mark.parametrize("name", ["urbansound8k_weak", "musdb18_weak", "own_weak"])
def test_recipes_hold_links_and_few_lines(name):
    folder = ROOT / "egs2" / name
    for link in ("weak.sh", "path.sh", "cmd.sh", "utils.sh", "launch", "conf"):
        assert (folder / link).is_symlink() and (folder / link).exists()
    assert len((folder / "run.sh").read_text().splitlines()) <= 60


def run_recipe(tmp_path, name: str, *args: str, **env: str) -> str:
    """Words that run.sh gives to the driver, or its error."""
    folder = tmp_path / "project/egs2" / name
    if not folder.exists():
        copy_recipe(folder, "weak1")
    return words_of(folder, tmp_path, *args, **env)


@pytest.mark.parametrize(
    "present, folds", [(range(1, 11), ("1-6", "7-8", "9-10")), ((1, 2, 3), ("1,3", "2/1of2", "2/2of2"))]
)
def test_folds_of_urbansound8k(tmp_path, present, folds):
    for n in present:
        (tmp_path / f"us8k/audio/fold{n}").mkdir(parents=True)
    told = run_recipe(tmp_path, "urbansound8k_weak", "--urbansound8k", "us8k")
    names = [f"folds{v.replace(',', '_').replace('/', '.')}" for v in folds]
    assert f"--train_set|{names[0]}|--valid_set|{names[1]}|--test_sets|{names[2]}|" in told
    sets = " ".join(f"{n}:{v}" for n, v in zip(names, folds))
    assert f"--local_data_opts|--corpus urbansound8k {sets}|" in told
    told = run_recipe(
        tmp_path,
        "urbansound8k_weak",
        "--urbansound8k",
        "us8k",
        "--train_folds",
        "1,2",
        "--background_classes",
        "a,b",
        "--ngpu",
        "2",
    )
    assert "--train_set|folds1_2|" in told and "--background a,b folds1_2:1,2" in told
    assert "--background_classes|a,b|" in told and told.endswith("--ngpu|2|")
    few = len(present) < 10
    assert (
        "--mean_events|2|--test_mean_events|5|--inference_model|latest.pth|--trials|2|" in told
    ) == few and "--mean_events|5|" in told
    more = ("--urbansound8k", "us8k", "--config", "x.yaml")  # of a longer training one is enough
    assert "--trials" not in run_recipe(tmp_path, "urbansound8k_weak", *more)


def test_a_part_of_urbansound8k_without_its_fold_2(tmp_path):
    us8k = ("urbansound8k_weak", "--urbansound8k", "us8k")
    (tmp_path / "us8k").mkdir()
    for present in ((), (2,), (3, 4)):
        shutil.rmtree(tmp_path / "us8k")
        (tmp_path / "us8k").mkdir()
        for n in present:
            (tmp_path / f"us8k/audio/fold{n}").mkdir(parents=True)
        assert "us8k/audio there must be fold10, or fold2 and another" in (run_recipe(tmp_path, *us8k))
    told = run_recipe(tmp_path, *us8k, "--train_folds", "3", "--valid_folds", "4/1of2", "--test_folds", "4/2of2")
    assert "--train_set|folds3|--valid_set|folds4.1of2|--test_sets|folds4.2of2|" in told


def test_all_folds_of_urbansound8k(tmp_path):
    folder = tmp_path / "project/egs2/urbansound8k_weak"
    copy_recipe(folder, "weak1")
    (folder / "path.sh").write_text("")
    shutil.copy(ROOT / "egs2/urbansound8k_weak/all_folds.sh", folder)
    for n in (1, 2, 10):
        (tmp_path / f"us8k/audio/fold{n}").mkdir(parents=True)

    def run(*args: str) -> tuple[int, str]:
        command = [str(folder / "all_folds.sh"), "--urbansound8k", "us8k", *args]
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env)
        return done.returncode, done.stdout + done.stderr

    status, told = run("--label_types", "strong clip", "--ngpu", "0")
    assert status == 0, told
    for fold, others in ((1, "2_10"), (2, "1_10"), (10, "1_2")):
        assert f"--train_set|folds{others}|--valid_set|folds{others}|--test_sets|folds{fold}|" in told
        assert f"--corpus urbansound8k folds{others}:{others.replace('_', ',')} folds{fold}:{fold}|" in told
        assert f"--weak_tag|train_weak_few_fold{fold}|--stop_stage|9|" in told
    assert told.count("--label_types|strong clip|--ngpu|0|") == 3
    assert "weak_train_weak_few_fold1_strong/inference_folds1 is not scored yet" in told
    (tmp_path / "us8k/audio/fold3").mkdir()
    _, told = run()
    for fold, valid, train in ((1, 2, "3_10"), (2, 3, "1_10"), (3, 10, "1_2"), (10, 1, "2_3")):
        assert f"--train_set|folds{train}|--valid_set|folds{valid}|--test_sets|folds{fold}|" in told
    status, told = run("--train_folds", "1")
    assert status == 1 and "the folds are taken in turn" in told


def test_embedded_and_quick_corpora_keep_their_own_folders(tmp_path):
    for name in ("urbansound8k_weak", "musdb18_weak"):
        for args, corpus in (((), "embedded"), (("--quick", "true"), "quick")):
            told = run_recipe(tmp_path, name, *args)
            assert f"--expdir|exp/{corpus}|" in told and f"--corpus {corpus} " in told
    assert "there is no nowhere" in run_recipe(tmp_path, "musdb18_weak", "--musdb18", "nowhere")
    (tmp_path / "songs").mkdir()
    told = run_recipe(tmp_path, "musdb18_weak", "--other", "class", MUSDB18="../songs")
    assert "--corpus musdb18 " in told and "--other class|" in told


def test_values_that_look_like_options_stay_values(tmp_path):
    for value in ("--optim_conf lr=1e-3 --max_epoch 2", "--max_epoch=2"):
        told = run_recipe(tmp_path, "urbansound8k_weak", "--weak_args", value, "--ngpu=2")
        assert told.endswith(f"--weak_args|{value}|--ngpu|2|")


def test_wrong_values_of_a_recipes_own_options(tmp_path):
    for args, words in (
        (["urbansound8k_weak", "--quick", "yes"], "option --quick takes true or false, not 'yes'"),
        (["musdb18_weak", "--other", "all"], "--other takes none, class or unlabelled, not 'all'"),
        (["own_weak", "--recordings", "."], "is no table of recordings but a folder"),
    ):
        assert words in run_recipe(tmp_path, *args)


def test_help_has_the_defaults_of_the_recipe(tmp_path):
    told = run_recipe(tmp_path, "own_weak", "--help")
    assert "--mixtures_from|recordings|" in told and told.endswith("--help|")


def test_own_tables_tell_the_label_types(tmp_path):
    (tmp_path / "a.csv").write_text("path,labels\n")
    (tmp_path / "b.tsv").write_text("path\tonset\toffset\tlabel\n")
    for tables, labels in (("a.csv", "clip"), ("b.tsv", "frame clip"), ("a.csv b.tsv", "mixed")):
        told = run_recipe(tmp_path, "own_weak", "--recordings", tables, "--nj", "2")
        assert f"--label_types|{labels}|" in told and told.endswith("--nj|2|"), told
    told = run_recipe(tmp_path, "own_weak", "--recordings", "a.csv", "--classes", "dog, car horn")
    assert "classes" not in told  # they go to local/data.sh by the environment, as the tables do
    assert "where are the recordings?" in run_recipe(tmp_path, "own_weak")
    assert "there is no c.csv" in run_recipe(tmp_path, "own_weak", "--recordings", "a.csv c.csv")


def test_own_tables_in_places_with_blanks(tmp_path):
    here = tmp_path / "my sounds"
    here.mkdir()
    (here / "a b.csv").write_text("path,labels\n")
    (here / "c's.tsv").write_text("path\tonset\toffset\tlabel\n")
    for tables, labels in (("a b.csv", "clip"), ("'a b.csv' \"c's.tsv\"", "mixed"), (str(here / "a b.csv"), "clip")):
        assert f"--label_types|{labels}|" in run_recipe(here, "own_weak", "--recordings", tables)
    for tables, words in (("a b.csv c.csv", "there is no a; a name with blanks"), ("c's", "quotation")):
        assert words in run_recipe(here, "own_weak", "--recordings", tables)
    recipe = Recipe(here, "weak1")
    (recipe.folder / "local/data.sh").unlink()
    shutil.copy(ROOT / "egs2/own_weak/local/data.sh", recipe.folder / "local")
    recipe("--stop_stage", "1", RECORDINGS="/x/a b.csv\n/x/c.csv")
    assert "lists /x/a b.csv /x/c.csv --data_dir data " in recipe.call("prepare_own_weak")


def test_stage_1_makes_the_lists(tmp_path):
    """`local/data.sh` calls with the options that `run.sh` gives."""
    for name, args in (
        ("urbansound8k_weak", ["--background", "x", "folds1:1", "folds2:2/1of2"]),
        ("musdb18_weak", ["--decoded", "d", "--other", "none"]),
        ("own_weak", []),
    ):
        recipe = Recipe(tmp_path / name, "weak1")
        (recipe.folder / "local/data.sh").unlink()
        shutil.copy(ROOT / "egs2" / name / "local/data.sh", recipe.folder / "local")
        done = subprocess.run(
            ["local/data.sh", "--datadir", "data/q", *(["--corpus", "quick"] if args else []), *args],
            cwd=recipe.folder,
            text=True,
            capture_output=True,
            env={
                **os.environ,
                "python": recipe.python,
                "CALLS": str(recipe.calls),
                "RECORDINGS": "a b",
                "allow_unlabelled": "true",
                "classes": "dog, car horn",
            },
        )
        assert done.returncode == 0, done.stderr
        *made, listed = recipe.calls.read_text().splitlines()
        assert "--data_dir data/q" in listed
        assert "--out downloads/quick" in made[0] if args else "lists a b " in listed
        assert args or "--allow_unlabelled" in listed and "--classes dog car horn" in listed
