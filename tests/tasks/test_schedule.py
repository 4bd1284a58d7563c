"""Learning rates over a training, and the step of the optimiser."""

import argparse
import copy

import pytest
import torch
from small_confs import parse, separation_batch, small_separator

from espnet2_ext.errors import DataError
from espnet2_ext.tasks.common import check_schedule, fit_schedule, fuse_optimizer
from espnet2_ext.tasks.qsep import QSepTask
from espnet2_ext.tasks.tagging import TaggingTask
from espnet2_ext.tasks.weak import WeakLabelTask
from espnet2_ext.train.step import WarmupHalvingLR


def fitted(scheduler="onecyclelr", per_epoch=50, accum_grad=1, **conf):
    args = argparse.Namespace(
        scheduler=scheduler, scheduler_conf=conf, max_epoch=8, num_iters_per_epoch=per_epoch, accum_grad=accum_grad
    )
    fit_schedule(args)
    return args.scheduler_conf


def test_it_lasts_as_long_as_the_training():
    assert fitted(max_lr=1.0) == {"max_lr": 1.0, "total_steps": 400}
    assert fitted(accum_grad=4)["total_steps"] == 8 * 12  # ESPnet drops what is left of an epoch
    assert fitted(total_steps=500) == {"total_steps": 500}
    assert fitted(per_epoch=None, total_steps=5) == {"total_steps": 5}
    assert fitted(epochs=8, steps_per_epoch=50) == {"epochs": 8, "steps_per_epoch": 50}
    assert fitted("warmuphalvinglr", floor=0.1) == {"floor": 0.1}
    assert fitted(None) == {}


def test_what_cannot_be_is_refused():
    with pytest.raises(DataError, match="total_steps 399 ends before the training, .* 400 steps"):
        fitted(total_steps=399)
    with pytest.raises(DataError, match="--num_iters_per_epoch or total_steps"):
        fitted(per_epoch=None)


def test_a_shipped_yaml_trained_longer_steps_to_its_end():
    args = parse(QSepTask, "mini/care_sep.yaml", "--max_epoch", "9")
    fit_schedule(args)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, **args.scheduler_conf)
    for _ in range(9 * args.num_iters_per_epoch):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] < 1e-6


def rates(epochs, lr=1.0, **conf):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    schedule, found = WarmupHalvingLR(optimizer, **conf), []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_warm_up_then_half_every_ten_epochs():
    found = rates(60)
    assert found[:4] == [0.05, 0.1, 0.2, 1.0] and found[9:11] == [1.0, 0.5]
    assert found[20] == 0.25 and found[30] == 0.125 and found[40] == 0.0625 and found[50] == 0.05


PAPERS = ["tag_care_cls_768", *(f"qsep_{name}" for name in ("care_sep_768", "care_sep_2048", "care_cls_sep_768"))]
PAPERS += [f"qsep_{name}" for name in ("st_sed_sep_2048", "pann_sep_2048", "pann_sep_527")]


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_rate(name):
    args = parse(TaggingTask if name.startswith("tag") else QSepTask, f"train_{name}.yaml")
    check_schedule(args)
    assert (args.optim, args.scheduler, args.max_epoch) == ("adamw", "warmuphalvinglr", 100)
    assert args.optim_conf.pop("fused")
    assert args.optim_conf == {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 5e-4}
    found = rates(100, args.optim_conf["lr"], **args.scheduler_conf)
    assert found == pytest.approx([5e-5, 1e-4, *8 * [2e-4], *10 * [1e-4], *80 * [5e-5]], rel=1e-12)


# ---- the optimiser ---------------------------------------------------------------------------


@pytest.mark.parametrize("task, path", [(QSepTask, "qsep_care_sep"), (WeakLabelTask, "weak"), (TaggingTask, "tag")])
def test_adam_takes_its_step_in_one_kernel(task, path):
    args = parse(task, f"debug/train_{path}.yaml")
    check_schedule(args)
    (optimizer,) = task.build_optimizers(args, torch.nn.Linear(2, 2))
    assert optimizer.param_groups[0]["fused"] is True


@pytest.mark.parametrize("conf", [{"fused": False}, {"foreach": True}, {"lr": 1e-3, "differentiable": True}])
def test_its_way_is_the_users(conf):
    args = parse(QSepTask, "debug/train_qsep_care_sep.yaml")
    args.optim_conf = conf
    fuse_optimizer(args)
    assert args.optim_conf == conf
    args.optim, args.optim_conf = "sgd", {"lr": 1.0}
    fuse_optimizer(args)
    assert args.optim_conf == {"lr": 1.0}


def trained(fused, steps, model=None, state=None):
    """Losses of steps with the debug YAML's optimiser, from one start."""
    args = parse(QSepTask, "debug/train_qsep_care_sep.yaml", "--optim_conf", f"fused={fused}")
    model = model or small_separator("debug/train_qsep_care_sep.yaml")
    (optimizer,) = QSepTask.build_optimizers(args, model.train())
    if state is not None:
        optimizer.load_state_dict(state)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(**separation_batch())[0]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, model, optimizer


def test_the_loss_is_that_of_the_plain_step_and_goes_on_from_its_checkpoint():
    plain, model, optimizer = trained("false", 3)
    assert trained("true", 3)[0] == pytest.approx(plain, rel=1e-5)
    more = copy.deepcopy(model), copy.deepcopy(optimizer.state_dict())
    straight = trained("false", 2, model, optimizer.state_dict())[0]
    assert straight[-1] < plain[0]
    assert trained("true", 2, *more)[0] == pytest.approx(straight, rel=1e-5)
