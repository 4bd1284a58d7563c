"""The driver with a trained model instead of a training, and ESC-50's short form of it."""

import functools
import zipfile

import pytest
from fake_recipe import Recipe, copy_recipe, words_of

STEPS = [
    *"data scan archive draw_lists render_lists qsep_inference qsep_scoring qsep_describe".split(),
    *"qsep_report".split(),
]


@pytest.fixture
def recipe(tmp_path):
    return Recipe(tmp_path, "qsep1")


def test_a_bundle_is_scored_on_the_test_set_alone(recipe):
    with zipfile.ZipFile(recipe.folder / "some_model.zip", "w") as z:
        z.writestr("bundle.yaml", "")
    status, out, err = recipe("--bundle", "some_model.zip")
    assert status == 0, err
    assert recipe.names() == STEPS
    assert "Stage 6" not in out
    call = recipe.call("qsep_inference")
    assert "--output_dir exp/qsep_some_model/inference_test " in call
    assert "--bundle some_model.zip" in call and "--model_file" not in call
    assert "--no_tags" not in call
    assert "--labels dump/test_pairs/labels.tsv --bundle some_m" in recipe.call("qsep_describe")
    assert "--inference_dir exp/qsep_some_model/inference_test" in recipe.call("qsep_report")


def test_so_is_an_experiments_checkpoint(recipe):
    folder = recipe.folder / "exp_old/qsep_x"
    folder.mkdir(parents=True)
    status, _, err = recipe("--bundle", "exp_old/qsep_x")
    assert status == 1 and "exp_old/qsep_x is no trained experiment: it has no config.yaml" in err
    (folder / "config.yaml").touch()
    assert "it has no valid.loss.best.pth" in recipe("--bundle", "exp_old/qsep_x")[2]
    assert recipe.names() == []
    (folder / "9epoch.pth").touch()
    options = ["--bundle", "exp_old/qsep_x", "--inference_model", "9epoch.pth"]
    assert recipe(*options)[0] == 0
    call = recipe.call("qsep_inference")
    assert "--output_dir exp/qsep_x/inference_test " in call and "--no_tags" in call
    model = "--train_config exp_old/qsep_x/config.yaml --model_file exp_old/qsep_x/9epoch.pth"
    assert model in call and model in recipe.call("qsep_describe")
    assert "qsep_pack" not in recipe.names()
    assert sorted(p.name for p in folder.iterdir()) == ["9epoch.pth", "config.yaml"]


def test_scores_of_a_bundle_do_not_lie_in_the_folder_of_its_training(recipe):
    folder = recipe.folder / "exp/qsep_x"
    folder.mkdir(parents=True)
    for name in ("config.yaml", "checkpoint.pth", "valid.loss.best.pth"):
        (folder / name).touch()
    status, _, err = recipe("--bundle", "exp/qsep_x")
    assert status == 1 and "--bundle: exp/qsep_x holds a training" in err and recipe.names() == []
    assert recipe("--bundle", "exp/qsep_x", "--qsep_tag", "scores")[0] == 0


def test_a_bundle_that_is_not_there(recipe):
    status, _, err = recipe("--bundle", "nothing.zip")
    assert status == 1 and "--bundle: there is no nothing.zip" in err and recipe.names() == []


def test_a_zip_that_is_no_bundle_is_refused_before_anything_is_made(recipe):
    with zipfile.ZipFile(recipe.folder / "some.zip", "w") as z:
        z.writestr("a.txt", "")
    status, _, err = recipe("--bundle", "some.zip")
    assert status == 1 and "--bundle: some.zip is no bundle" in err and recipe.names() == []


def test_esc50_zero_shot_takes_all_folds_and_folders_of_its_own(tmp_path):
    folder = tmp_path / "project/egs2/esc50_qsep"
    copy_recipe(folder, "qsep1", " ", 'os.environ["ESC50"] + "|",')
    esc50 = tmp_path / "ESC-50"
    (esc50 / "meta").mkdir(parents=True)
    (tmp_path / "M.zip").touch()

    run = functools.partial(words_of, folder, tmp_path)
    options = ["--esc50", "ESC-50", "--zero_shot", "M.zip", "--nj", "2"]
    assert "meta/esc50.csv is not there" in run(*options)
    lines = ["filename,fold,target,category", "a,2,0,x", "b,1,0,x", "c,5,1,y"]
    (esc50 / "meta/esc50.csv").write_text("\n".join(lines))
    out = run(*options)
    assert out.startswith(f"{esc50}|") and "--test_sets folds125" in out
    assert "--local_data_opts 1 2 5/1 2 5/1 2 5" in out
    assert f"--bundle {tmp_path}/M.zip --datadir data/zero_shot --dumpdir dump/zero_shot " in out
    assert out.endswith("--expdir exp/zero_shot --nj 2")
    assert "the model (--zero_shot): there is no N.zip" in run(*options[:3], "N.zip")
