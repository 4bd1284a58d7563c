"""Values of a training's YAML that no training can use: each ends in one line that names the file and the key."""

import pytest
import torch
import yaml
from small_confs import CONF

from espnet2_ext.errors import DataError
from espnet2_ext.tasks.common import check_schedule, first_step
from espnet2_ext.tasks.qsep import QSepTask
from espnet2_ext.tasks.tagging import TaggingTask
from espnet2_ext.tasks.weak import WeakLabelTask

TASKS = {
    "qsep": (QSepTask, "train_qsep_care_sep.yaml"),
    "tag": (TaggingTask, "train_tag.yaml"),
    "weak": (WeakLabelTask, "train_weak.yaml"),
}
HUGE, NAN = 10**30, float("nan")


def prepare(folder, task, **changes):
    """Read a YAML that changes another, then make the model, optimiser and schedule that it asks for."""
    cls, base = TASKS[task]
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"include": f"{CONF}/debug/{base}"} | changes))
    args = cls.get_parser().parse_args(["--config", str(path), "--output_dir", "unused"])
    if task == "weak":
        args.class_names = ["a", "b"]
    check_schedule(args)
    return cls.build_model(args)


@pytest.mark.parametrize("task", TASKS)
def test_nothing_is_wrong(tmp_path, task):
    prepare(tmp_path, task, grad_clip=1, keep_nbest_models=[1, 2], patience=None, optim_conf={"lr": 1})


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("qsep", {"batch_size": 0}, "key batch_size: must be 1 to 1000000, not 0"),
        ("qsep", {"batch_size": "many"}, "key batch_size: expected a whole number, not 'many'"),
        ("qsep", {"max_epoch": [3]}, r"key max_epoch: expected a whole number, not \[3\]"),
        ("qsep", {"max_epoch": None}, "key max_epoch: expected a whole number, not None"),
        ("qsep", {"num_workers": -1}, "key num_workers: must be 0 to"),
        ("qsep", {"accum_grad": HUGE}, "key accum_grad: must be 1 to"),
        ("qsep", {"grad_clip": NAN}, "key grad_clip: expected a number, not nan"),
        ("qsep", {"seed": -1}, "key seed: must be 0 to"),
        ("qsep", {"resume": "maybe"}, "key resume: expected true or false, not 'maybe'"),
        ("qsep", {"optim": "adem"}, "key optim: expected one of adam, .*, not 'adem'"),
        ("qsep", {"extractor_conf": [1]}, "key extractor_conf: should hold `key: value` lines"),
        ("qsep", {"extractor_conf": {"num_classes": -1}}, "extractor_conf of care_sep: .*negative"),
        ("qsep", {"extractor_conf": {"num_classes": "24"}}, "key num_classes: expected a whole number, not '24'"),
        ("qsep", {"extractor_conf": {"heads": 2}}, "key heads: expected a list, each a whole number, not 2"),
        ("qsep", {"extractor_conf": {"heads": []}}, "extractor_conf of care_sep: "),
        ("qsep", {"encoder_conf": {"n_fft": HUGE}}, "encoder_conf of mel_band_split: key n_fft: expected"),
        ("qsep", {"decoder_conf": {"n_fft": 2048}}, "n_fft is 1024 in encoder_conf and 2048 in decoder_conf"),
        (
            "qsep",
            {"optim_conf": {"lr": "1e-3"}},
            "optim_conf of .*: key lr: expected a number.*; YAML writes it 1.0e-3",
        ),
        ("qsep", {"optim_conf": {"betas": [2, 3]}}, "optim_conf of adamw: Invalid beta"),
        ("qsep", {"optim": "muon", "optim_conf": {"muon_rate": 0.0}}, "optim_conf of muon: .*muon_rate above 0"),
        ("qsep", {"scheduler_conf": {"max_lr": {}}}, "scheduler_conf of onecyclelr: key max_lr"),
        ("qsep", {"criterions": {"name": "neg_sdr"}}, "key criterions: expected a list"),
        ("qsep", {"criterions": [{"nome": "neg_sdr"}]}, "key criterions: key 0.name: is missing"),
        ("qsep", {"criterions": [{"name": "neg_sdr", "conf": {"x": 1}}]}, "criterion_conf of neg_sdr: unknown key 'x'"),
        ("qsep", {"best_model_criterion": [["valid", "loss"]]}, r"key best_model_criterion: expected such as \[valid"),
        ("qsep", {"init_param": [[1]]}, "key init_param: expected text"),
        ("qsep", {"model_conf": {"num_spk": 2.5}}, "model_conf: key num_spk: expected a whole number"),
        (
            "weak",
            {"scheduler": "warmuphalvinglr", "scheduler_conf": {"interval": 0}, "max_epoch": 9},
            "warmuphalvinglr: .*zero",
        ),
        ("tag", {"scheduler_conf": {"total_steps": {"a": 1}}}, "scheduler_conf of onecyclelr: "),
        ("weak", {"classifier": "crrn"}, "key classifier: expected one of rnn, crnn, not 'crrn'"),
        ("weak", {"label_type": "weak"}, "key label_type: expected one of strong, frame, clip, mixed"),
        ("weak", {"remix": "x"}, "key remix: expected a number, not 'x'"),
        (
            "weak",
            {"early_stopping_criterion": ["valid", "loss", "least"]},
            "key early_stopping_criterion: expected such",
        ),
        ("weak", {"encoder_conf": {1: 2}}, "key encoder_conf: should hold `key: value` lines"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(tmp_path, task, changes, message):
    with pytest.raises(DataError, match=f"mine.yaml: .*{message}|mine.yaml: {message}") as e:
        prepare(tmp_path, task, **changes)
    assert "\n" not in str(e.value)


def test_what_goes_wrong_before_the_first_step_is_one_line(tmp_path):
    args = type("Args", (), {"config": "mine.yaml"})()
    with pytest.raises(DataError, match="mine.yaml: does not train: mat1 and mat2 shapes cannot be multiplied"):
        with first_step(args):
            torch.nn.Linear(2, 3)(torch.zeros(1, 4))
    with pytest.raises(DataError, match="^x: is gone$"):  # as a loader's worker raises it
        with first_step(args):
            raise DataError(
                "Caught\nOriginal Traceback (most recent call last):\n  File\nespnet2_ext.errors.DataError: x: is gone"
            )
    with pytest.raises(RuntimeError, match="later"):
        with first_step(args, [True]):
            raise RuntimeError("later")
