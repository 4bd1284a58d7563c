"""Options of the drivers, and names of experiments."""

import pytest

from espnet2_ext.errors import DataError
from espnet2_ext.recipe.options import bundle_tag, pairs, query_tag, tagger_tag, weak_tags
from espnet2_ext.recipe.qsep import QSepOptions
from espnet2_ext.recipe.weak_options import WeakOptions


def test_options_are_written_as_in_espnet():
    o = QSepOptions.parse(
        ["--stop-stage", "5", "--stage=3", "--qsep-args", "--lr 1", "--skip_train", "true", "--fs=8k"]
    )
    assert (o.stage, o.stop_stage, o.qsep_args, o.skip_train, o.fs) == (3, 5, "--lr 1", True, "8000")


def test_the_last_of_repeated_options_counts():
    o = WeakOptions.parse(["--nj", "1", "--config", "a.yaml", "--nj=2", "--weak_config", "b.yaml"])
    assert (o.nj, o.weak_config) == ("2", "b.yaml")


@pytest.mark.parametrize(
    "given, near", [("--stop_stagee", "--stop_stage"), ("--qsep_arg", "--qsep_args"), ("--confg", "--config")]
)
def test_an_unknown_option_names_the_near_miss(given, near):
    with pytest.raises(DataError, match=f"unknown option {given}; did you mean {near}\\?"):
        QSepOptions.parse([given, "x"])
    with pytest.raises(DataError, match="unknown option --zzz; --help lists"):
        QSepOptions.parse(["--zzz", "x"])


def test_values_of_several_words_are_split_as_a_shell_does():
    o = QSepOptions.parse(["--qsep_args", "--init_param 'my model.pth' --seed=2", "--scoring_args", "--x 'y"])
    assert o.words("qsep_args") == ["--init_param", "my model.pth", "--seed=2"]
    with pytest.raises(DataError, match="--scoring_args: No closing quotation"):
        o.words("scoring_args")


def test_paths_after_the_caller_are_the_users(tmp_path, monkeypatch):
    args = ["--config", "a.yaml", "--caller", "/home/u", "--config", "b.yaml", "--nj", "2", "--config", "/c.yaml"]
    found = [value for _, name, value in pairs(args, ["config"]) if name == "config"]
    assert found == ["a.yaml", "/home/u/b.yaml", "/c.yaml"]
    monkeypatch.chdir(tmp_path)
    assert QSepOptions.parse(["--caller", str(tmp_path), "--config", "b.yaml"]).qsep_config == "b.yaml"


@pytest.mark.parametrize(
    "args, tag",
    [
        ("", "train_x"),
        ("--lr 1 --seed=2", "train_x_lr1_seed2"),
        ("--init_param a/b.pth:net|x --max_epoch 3", "train_x_init_paramab.pth:netx_max_epoch3"),
        ("--optim_conf lr=1e-3", "train_x_optim_conflr1e-3"),
    ],
)
def test_names_of_query_experiments(args, tag):
    assert query_tag("conf/train_x.yaml", args) == tag


def test_names_of_taggers_and_bundles():
    assert tagger_tag("conf/tag_y.yaml", "--seed 2") == "y_seed2"
    assert tagger_tag("conf/train_tag.yaml") == "train_tag"
    assert bundle_tag("a/qsep_x.zip") == bundle_tag("exp/qsep_x") == "x"


@pytest.mark.parametrize(
    "options, tags",
    [
        ({}, ("w", "w")),
        ({"weak_tag": "t", "weak_args": "--seed 1", "trainer": "asteroid", "strategy": "joint"}, ("t", "t")),
        (
            {"weak_args": "--seed 1", "classifier_args": "--max_epoch 3", "separator_args": "--lr=1"},
            ("w_seed1_max_epoch3_lr1", "w_seed1_max_epoch3"),
        ),
        ({"separator_args": "--lr 1", "trainer": "asteroid"}, ("w_lr1_asteroid", "w_asteroid")),
        ({"strategy": "joint", "trainer": "asteroid"}, ("w_asteroid_joint", "w_asteroid")),
        ({"trials": 2, "strategy": ""}, ("w_best", "w_best")),
    ],
)
def test_names_of_separators_and_classifiers(options, tags):
    assert weak_tags("conf/w.yaml", **options) == tags
