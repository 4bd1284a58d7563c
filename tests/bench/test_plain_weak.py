"""The plain training from weak labels is the same training as ours."""

import math
from pathlib import Path

import pytest
import torch

from espnet2_ext.bench import plain_weak
from espnet2_ext.bench.configs import build
from espnet2_ext.bench.measure import parameters
from espnet2_ext.bench.weak import training_batch

CONF = Path(__file__).parents[2] / "conf"
CPU = torch.device("cpu")


@pytest.mark.parametrize("alpha", [0.0, 100.0])
def test_the_same_loss_and_gradients(weak_yaml, alpha):
    model = build(weak_yaml, CPU)[0].train()
    model.weak_wrappers[0].criterion.loss.alpha = alpha
    g = torch.Generator().manual_seed(1)
    for block in model.classifier.blocks:  # a batch norm that does something
        block.norm.running_mean.normal_(std=0.1, generator=g)
        block.norm.running_var.uniform_(0.5, 2.0, generator=g)
    plain, batch = plain_weak.plain_of(model), training_batch(model, 2, 0.5, CPU)
    ours, theirs = model(**batch)[0], plain(**batch)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    ours.backward(), theirs.backward()
    wanted = dict(plain.masker.named_parameters())
    for name, p in model.separator.net.named_parameters():
        assert p.grad.abs().max() > 0
        torch.testing.assert_close(p.grad, wanted[name].grad, rtol=1e-4, atol=1e-9)
    assert all(p.grad is None for p in plain.classifier.parameters())
    assert parameters(plain.masker) == parameters(model.separator)
    assert parameters(plain.classifier) == parameters(model.classifier)


def test_mixture_loss_by_hand():
    est = torch.tensor([[2.0, 1.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)  # class, frame
    mix, active = torch.tensor([[[5.0], [7.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    # frame 0: |5 - 2| and the silent class's 3; frame 1 has no active class
    assert plain_weak.mixture_loss(est, mix, active).tolist() == [6.0]


def test_class_losses_by_hand():
    labels, weight = torch.tensor([[[1.0], [0.0]]]), torch.tensor([[[3.0], [5.0]]])
    yes, no = (math.log(1 + math.exp(x)) for x in (-2.0, 2.0))  # H(1, p) and H(0, p) at logit 2
    logits = torch.full((1, 2, 1), 2.0)
    assert plain_weak.class_loss(logits, labels, weight).item() == pytest.approx(3 * yes + 5 * no)
    both = torch.stack([logits, logits], 1)  # in estimate 1 neither class may be heard
    wanted = (3 * yes + 5 * no) + (3 * no + 5 * no)
    assert plain_weak.estimates_loss(both, labels, weight).item() == pytest.approx(wanted)


def test_masker_has_the_papers_size():
    with torch.device("meta"):
        masker = plain_weak.PlainMasker(257, 5, 600, 3)
    assert parameters(masker) == pytest.approx(23.0, abs=0.05)


@pytest.mark.parametrize(
    "option",
    [
        ("--label_type", "clip"),
        ("--strategy", "joint"),
        ("--residual", "true"),
        ("--separator_conf", "mask_type=share"),
        ("--separator_conf", "input_norm=true"),
        ("--classifier_conf", "mel_bands=20"),
    ],
)
def test_no_plain_version_of_another_training(weak_yaml, option):
    assert plain_weak.plain_of(build(weak_yaml, CPU)[0]) is not None
    assert plain_weak.plain_of(build(weak_yaml, CPU, *option)[0]) is None


@pytest.mark.parametrize("name", ["train_weak_small", "debug/train_weak"])
def test_no_plain_version_of_other_networks(name):
    assert plain_weak.plain_of(build(CONF / f"{name}.yaml", CPU)[0]) is None
