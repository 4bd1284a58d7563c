"""Clip poolings against the same formula on probabilities, and where that one breaks down."""

import doctest

import pytest
import torch

from espnet2_ext.core.layers import pooling
from espnet2_ext.core.layers.pooling import POOLINGS, make_pooling

B, K, L = 3, 4, 7


def on_probabilities(name: str, net, logits: torch.Tensor) -> torch.Tensor:
    """The poolings as the papers write them, on probabilities `[B, K, L]`."""
    p = logits.sigmoid()
    weights = {
        "average": lambda: torch.ones_like(p),
        "linear_softmax": lambda: p,
        "auto": lambda: (net.sharpness[:, None] * p).exp(),
        "attention": lambda: torch.einsum("kj,bjl->bkl", net.attention, logits).exp(),
    }
    if name == "max":
        return p.amax(-1)
    weight = weights[name]()
    return (weight * p).sum(-1) / weight.sum(-1)


def learned(name: str):
    torch.manual_seed(0)
    net = make_pooling(name, K).double()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    return net


def test_examples_in_docstrings():
    result = doctest.testmod(pooling, extraglobs={"torch": torch})
    assert result.attempted and not result.failed


@pytest.mark.parametrize("name", POOLINGS)
def test_the_formula_on_probabilities(name):
    net = learned(name)
    logits = torch.randn(B, K, L, dtype=torch.double)
    got = net(logits).sigmoid()
    assert torch.allclose(got, on_probabilities(name, net, logits), atol=1e-12)


def test_values_by_hand():
    logits = torch.tensor([[[0.2, 0.5, 0.8]]]).logit()
    got = {name: make_pooling(name, 1)(logits).sigmoid().item() for name in POOLINGS}
    assert got["max"] == pytest.approx(0.8)
    assert got["average"] == pytest.approx(0.5)
    assert got["linear_softmax"] == pytest.approx((0.04 + 0.25 + 0.64) / 1.5)
    odds = (0.25, 1.0, 4.0)  # attention starts with these as weights
    want = (0.25 * 0.2 + 1.0 * 0.5 + 4.0 * 0.8) / sum(odds)
    assert got["attention"] == pytest.approx(want)
    assert got["average"] < got["auto"] < got["linear_softmax"] < got["attention"] < got["max"]


def test_autopool_lies_between_mean_and_maximum():
    torch.manual_seed(0)
    logits, net = torch.randn(B, K, L), make_pooling("auto", K)
    net.sharpness.data.zero_()
    assert torch.allclose(net(logits), make_pooling("average", K)(logits), atol=1e-5)
    net.sharpness.data.fill_(1e4)
    assert torch.allclose(net(logits), make_pooling("max", K)(logits), atol=1e-5)


@pytest.mark.parametrize("name", POOLINGS)
def test_padding_and_repetition_change_nothing(name):
    net, logits = learned(name), torch.randn(B, K, L, dtype=torch.double)
    lengths = torch.tensor([L, 4, 1])
    got = net(logits, lengths)
    for i, n in enumerate(lengths.tolist()):
        assert torch.allclose(got[i], net(logits[i : i + 1, :, :n])[0])
    assert torch.allclose(got[2], logits[2, :, 0])  # one frame is the clip
    assert torch.allclose(net(logits.repeat(1, 1, 2)), net(logits))


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("level", [-300.0, -80.0, 0.0, 80.0, 300.0])
def test_certain_frames_keep_a_finite_logit_and_a_gradient(name, level):
    logits = torch.full((1, K, L), level).requires_grad_()
    got = make_pooling(name, K)(logits, torch.tensor([5]))
    got.sum().backward()
    assert torch.allclose(got, torch.tensor(level), rtol=1e-4)
    assert logits.grad.isfinite().all() and (logits.grad[..., :5].sum(-1) > 0).all()
    assert logits.grad[..., 5:].eq(0).all()


@pytest.mark.parametrize("name", ["attention", "auto"])
def test_learned_poolings_learn(name):
    net = make_pooling(name, K)
    net(torch.randn(B, K, L)).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in net.parameters())


def test_half_precision_is_pooled_in_full():
    logits = torch.randn(B, K, L).bfloat16()
    got = make_pooling("average", K)(logits)
    assert got.equal(make_pooling("average", K)(logits.float()))


def test_refusals():
    with pytest.raises(ValueError, match=r"expected frame logits \[B, K, L\], got \[3, 4\]"):
        make_pooling("max", K)(torch.zeros(B, K))
    with pytest.raises(ValueError, match="pooling must be one of .*linear_softmax.*, not 'mean'"):
        make_pooling("mean", K)
