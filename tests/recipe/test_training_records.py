"""What a training was begun with and made of, also in folders of earlier versions."""

import shlex
import subprocess

import pytest
import yaml

from espnet2_ext.errors import DataError
from espnet2_ext.recipe.training import BEGUN, CHECKED, DONE, Training, begun_data, flatten

CONFIG = {"optim": "adam", "optim_conf": {"lr": "1e-3"}, "max_epoch": 3, "init": None}


def training(exp, *args, config=CONFIG, data="abc", valid="v"):
    return Training(exp, "clips in dump/train", data, valid, config, args)


def begin(exp, *args, **how):
    exp.mkdir(exist_ok=True)
    (exp / "checkpoint.pth").touch()
    training(exp, *args, **how).mark(BEGUN)


def refusal(exp, *args, **how) -> str:
    with pytest.raises(DataError) as e:
        training(exp, *args, **how).refuse_another("--qsep_tag")
    return str(e.value)


def test_options_for_the_trainer(tmp_path):
    words = "--lr 1 --optim_conf lr=1e-2 --optim_conf a.b=[1,2] c=x --optim_conf '{d: 3}' --use-amp --lr 2 --f 1 x"
    options = training(tmp_path, *shlex.split(words)).options
    assert options["lr"] == 2 and options["use_amp"] is True and options["f"] == "1 x" and options["optim"] == "adam"
    assert {k: v for k, v in options.items() if k.startswith("optim_conf")} == {
        "optim_conf.lr": 0.01,
        "optim_conf.a.b": [1, 2],
        "optim_conf.c": "x",
        "optim_conf.d": 3,
    }
    assert flatten({"a": {"b": {"c": "1e-2"}}, "d": "nan", "e": True}) == {"a.b.c": 0.01, "d": "nan", "e": True}


def test_a_refusal_says_which_option_differs_with_both_values(tmp_path):
    begin(tmp_path, "--seed", "1")
    training(tmp_path, "--seed", "1").refuse_another("--qsep_tag")  # the same
    training(tmp_path, "--seed=1", "--patience", "2", "--max_epoch", "9").refuse_another("--qsep_tag")
    text = refusal(tmp_path, "--optim_conf", "lr=1e-4", "--accum_grad", "2")
    assert "was begun with other options: give another --qsep_tag, or remove that folder" in text
    for line in ("optim_conf.lr: 0.001 then, 0.0001 now", "accum_grad: not given then, 2 now"):
        assert f"\n  {line}" in text
    assert "\n  seed: 1 then, not given now" in text
    assert "other clips in dump/train:" in refusal(tmp_path, "--seed", "1", data="other")


def test_the_length_of_a_schedule_that_is_as_long_as_the_training(tmp_path):
    begin(tmp_path, config={**CONFIG, "scheduler": "onecyclelr"})
    assert "max_epoch: 3 then, 4 now" in refusal(tmp_path, config={**CONFIG, "scheduler": "onecyclelr", "max_epoch": 4})


def test_what_is_done_and_checked(tmp_path):
    begin(tmp_path)
    first = training(tmp_path)
    assert not first.is_done() and not first.is_checked()
    first.mark(CHECKED)
    assert first.is_checked() and not first.is_done()
    first.mark(DONE)
    assert training(tmp_path, config=dict(reversed(CONFIG.items()))).is_done()
    for other in (training(tmp_path, "--max_epoch", "4"), training(tmp_path, valid="w"), training(tmp_path, data="d")):
        assert not other.is_done() and not other.is_checked()
    assert begun_data(tmp_path) == ("clips in dump/train", "abc")


def earlier(exp, weights=None):
    """A folder of the driver in bash: checksums, and the trainer's config.yaml."""
    sums = subprocess.run(["cksum"], stdin=open(weights), capture_output=True, text=True).stdout if weights else ""
    begin(exp)
    (exp / BEGUN).write_text(f"clips in dump/train: abc\nfiles: {sums.strip()}\noptions: 1542929707 1123\n")
    (exp / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "optim_conf": {"lr": 0.001}, "seed": 0, "config": "x"}))


def test_folders_of_earlier_versions_go_on(tmp_path):
    earlier(tmp_path)
    training(tmp_path).refuse_another("--qsep_tag")
    training(tmp_path, "--max_epoch", "7").refuse_another("--qsep_tag")
    assert "optim_conf.lr: 0.001 then, 0.01 now" in refusal(tmp_path, "--optim_conf", "lr=0.01")
    assert "seed: 0 then, 1 now" in refusal(tmp_path, "--seed", "1")
    assert "other clips in dump/train:" in refusal(tmp_path, data="other")
    assert not training(tmp_path).is_done()
    (tmp_path / DONE).write_text("4281495866-1438\n")
    assert training(tmp_path).is_done() and training(tmp_path).is_checked()
    assert not training(tmp_path, "--max_epoch", "7").is_done() and not training(tmp_path, data="other").is_done()


def test_what_earlier_versions_were_begun_data(tmp_path):
    assert begun_data(tmp_path) is None
    earlier(tmp_path)
    assert begun_data(tmp_path) == ("clips in dump/train", "abc")


def test_initial_weights_of_earlier_versions(tmp_path):
    weights = tmp_path / "w.pth"
    weights.write_text("weights")
    earlier(tmp_path / "exp", weights)
    args = ["--init_param", f"{weights}:net:query_net"]
    training(tmp_path / "exp", *args).refuse_another("--qsep_tag")
    weights.write_text("others")
    assert "begun with other files:" in refusal(tmp_path / "exp", *args)


def test_nothing_is_known_of_a_checkpoint_without_a_record(tmp_path):
    begin(tmp_path)
    (tmp_path / BEGUN).unlink()
    assert "other clips in dump/train, files, options:" in refusal(tmp_path)
