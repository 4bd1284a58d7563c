"""Losses against values computed by hand."""

import doctest
import math

import pytest
import torch

from espnet2_ext.core.losses import separation, tagging
from espnet2_ext.core.losses.separation import neg_sdr, wave_l1
from espnet2_ext.core.losses.tagging import tagging_bce


@pytest.mark.parametrize("module", [separation, tagging])
def test_examples_in_docstrings(module):
    result = doctest.testmod(module, extraglobs={"torch": torch})
    assert result.attempted and not result.failed


def test_neg_sdr_by_hand():
    ref = torch.tensor([[3.0, 4.0], [1.0, 0.0]])  # energies 25 and 1
    est = torch.tensor([[3.0, 3.0], [1.0, 0.1]])  # error energies 1 and 0.01
    got = neg_sdr(est=est, ref=ref, mix=ref, max_db=200.0)
    assert torch.allclose(got, torch.tensor([-10 * math.log10(25), -20.0]), atol=1e-4)


def test_neg_sdr_ends_at_max_db():
    ref = torch.randn(1, 100)
    assert neg_sdr(est=ref, ref=ref, mix=ref, max_db=30.0).item() == pytest.approx(-30.0, abs=1e-3)


@pytest.mark.parametrize("there", [True, False])
def test_level_changes_nothing(there):
    """From 0 to -60 dBFS: the value, what the best output gets, and the gradient's direction."""
    ref, rest, off = torch.randn(3, 2, 400, generator=torch.Generator().manual_seed(0))
    ref = ref * there
    mix = ref + rest
    seen = []
    for level in (1.0, 0.1, 0.01, 0.001):
        est = (level * (ref + 0.2 * off)).requires_grad_()
        loss = neg_sdr(est=est, ref=level * ref, mix=level * mix)
        loss.sum().backward()
        best = neg_sdr(est=level * ref, ref=level * ref, mix=level * mix)
        assert best.tolist() == pytest.approx([-60.0 if there else -30.0] * 2, abs=1e-3)
        seen.append((loss.detach(), level * est.grad))
    for loss, grad in seen[1:]:
        assert torch.allclose(loss, seen[0][0], atol=1e-4) and torch.allclose(grad, seen[0][1], rtol=1e-3)


def test_a_reference_far_below_the_mixture_is_silent():
    mix = torch.ones(2, 10)
    ref = torch.tensor([[0.9e-4], [1.1e-4]]) * mix  # -81 and -79 dB
    got = neg_sdr(est=0.1 * mix, ref=ref, mix=mix)
    assert got.tolist() == pytest.approx([10 * math.log10(0.01 + 1e-3), 20 * math.log10(0.1 / 1.1e-4)], abs=0.02)


def test_a_mixture_of_zeros_counts_as_one_of_full_scale():
    zero = torch.zeros(2, 10)
    est = torch.stack([zero[0], torch.full((10,), 0.1)])
    want = [-30.0, 10 * math.log10(0.01 + 1e-3)]
    assert neg_sdr(est=est, ref=zero, mix=zero).tolist() == pytest.approx(want, abs=1e-3)


def test_padding_does_not_count():
    g = torch.Generator().manual_seed(0)
    est, ref, mix = torch.randn(3, 3, 100, generator=g)
    ref[2] = 0.0
    lengths = torch.tensor([100, 30, 60])
    for loss, given in ((wave_l1, {"ref": ref}), (neg_sdr, {"ref": ref, "mix": mix})):
        alone = [loss(est=est[[i], :n], **{k: x[[i], :n] for k, x in given.items()}) for i, n in enumerate(lengths)]
        assert torch.allclose(loss(est=est, lengths=lengths, **given), torch.cat(alone), atol=1e-5)


def test_half_precision_is_summed_in_full():
    est, ref = torch.full((1, 3000), 1.01, dtype=torch.half), torch.ones(1, 3000, dtype=torch.half)
    assert wave_l1(est=est, ref=ref).item() == pytest.approx(float(est[0, 0]) - 1, rel=1e-4)
    assert neg_sdr(est=est.double(), ref=ref.double(), mix=ref.double()).dtype == torch.double


def test_silent_target_is_the_outputs_level():
    mix = torch.ones(3, 10)
    est = torch.stack([torch.ones(10), torch.full((10,), 0.1), torch.zeros(10)])
    got = neg_sdr(est=est, ref=torch.zeros(3, 10), mix=mix, silence_db=30.0)
    want = [10 * math.log10(1 + 1e-3), 10 * math.log10(0.01 + 1e-3), -30.0]
    assert torch.allclose(got, torch.tensor(want), atol=1e-3)


@pytest.mark.parametrize("ref", [torch.zeros(2, 50), torch.randn(2, 50)])
@pytest.mark.parametrize("est", [torch.zeros(2, 50), 1e-12 * torch.ones(2, 50), torch.randn(2, 50)])
@pytest.mark.parametrize("mix", [torch.zeros(2, 50), torch.randn(2, 50)])
def test_loss_and_gradient_are_finite_at_every_edge(ref, est, mix):
    est = est.clone().requires_grad_()
    neg_sdr(est=est, ref=ref, mix=mix).sum().backward()
    assert est.grad.isfinite().all()


def test_a_louder_wrong_output_for_silence_costs_more():
    mix = torch.randn(1, 50)
    losses = [neg_sdr(est=g * mix, ref=torch.zeros(1, 50), mix=mix).item() for g in (0.1, 0.5, 1)]
    assert losses == sorted(losses) and losses[0] < losses[2] - 15


def test_wave_l1_and_bce_by_hand():
    est, ref = torch.tensor([[1.0, -1.0, 0.0, 2.0]]), torch.tensor([[0.0, 0.0, 0.0, 0.0]])
    assert wave_l1(est=est, ref=ref).item() == 1.0
    p = torch.tensor([[0.9, 0.2]])
    want = -(math.log(0.9) + math.log(0.8)) / 2
    got = tagging_bce(logits=torch.logit(p), labels=torch.tensor([[1.0, 0.0]]))
    assert got.item() == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda: wave_l1(est=torch.zeros(2, 3), ref=torch.zeros(2, 4)),
        lambda: neg_sdr(est=torch.zeros(3), ref=torch.zeros(3), mix=torch.zeros(3)),
        lambda: neg_sdr(est=torch.zeros(1, 3), ref=torch.zeros(1, 3), mix=torch.zeros(1, 2)),
        lambda: tagging_bce(logits=torch.zeros(1, 3), labels=torch.zeros(1, 2)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call):
    with pytest.raises(ValueError, match="expected .* got"):
        call()
