"""How long a one-cycle schedule lasts."""

import argparse

import pytest
import torch
from small_confs import parse

from espnet2_ext.errors import DataError
from espnet2_ext.tasks.common import fit_schedule
from espnet2_ext.tasks.qsep import QSepTask
from espnet2_ext.train.schedulers import WarmupHalvingLR


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


def factors(epochs, **conf):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, found = WarmupHalvingLR(optimizer, **conf), []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_warm_up_then_half_every_ten_epochs():
    found = factors(60)
    assert found[:4] == [0.05, 0.1, 0.2, 1.0] and found[9:11] == [1.0, 0.5]
    assert found[20] == 0.25 and found[30] == 0.125 and found[40] == 0.0625 and found[50] == 0.05
    found = factors(40, peak=0.2)  # the other reading of the paper
    assert found[:4] == [0.05, 0.1, 0.2, 0.2] and found[10] == 0.1
    assert found[20] == found[39] == 0.05
