"""The BLSTM masker: bounds, padding, silence."""

import pytest
import torch

from espnet2_ext.core.nets.mask_nets import MASK_TYPES, BLSTMMasker, bounded_mask

B, S, L, F = 3, 2, 8, 5
LENGTHS = torch.tensor([L, 5, 2])


def masker(**options) -> BLSTMMasker:
    torch.manual_seed(0)
    return BLSTMMasker(F, S, hidden=4, layers=2, **options)


def spectrum() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(B, L, F, dtype=torch.complex64)


@pytest.mark.parametrize("mask_type", MASK_TYPES)
@pytest.mark.parametrize("input_norm", [True, False])
def test_shapes_gradients_and_bounds(mask_type, input_norm):
    net = masker(mask_type=mask_type, input_norm=input_norm, bound=1.5)
    mask = net(spectrum(), LENGTHS)
    assert mask.shape == (B, S, L, F) and mask.is_complex() == (mask_type == "complex")
    mask.abs().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    net.out.weight.data *= 1e4
    loud = net(spectrum(), LENGTHS)
    assert loud.abs().max() <= (1.0 if mask_type == "magnitude" else 1.5) * (1 + 1e-6)
    assert loud.abs().max() > 0.99
    if mask_type != "complex":
        assert (loud.min() < -1.4) == (mask_type == "phase_sensitive")


def test_masks_by_hand():
    x = torch.tensor([0.0, 1.0, -1.0])
    assert torch.allclose(bounded_mask(x, "magnitude", 2.0), 1 / (1 + (-x).exp()))
    assert torch.allclose(bounded_mask(x, "phase_sensitive", 2.0), 2 * torch.tanh(x / 2))
    odds = bounded_mask(torch.tensor([[[1.0], [0.0]], [[-2.0], [1.0]]]), "share", 2.0)
    want = torch.tensor([1.0, -3.0]).sigmoid()  # of two outputs: of their difference
    assert torch.allclose(odds[:, 0, 0], want)
    assert torch.allclose(odds.sum(1), torch.ones(2, 1))
    z = bounded_mask(torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.003, -0.004]]), "complex", 2.0)
    want = 2 * torch.tanh(torch.tensor(2.5)) * torch.tensor(0.6 + 0.8j)  # the phase stays
    assert torch.allclose(z, torch.stack([want, torch.tensor(0j), torch.tensor(0.003 - 0.004j)]), atol=1e-6)


@pytest.mark.parametrize("mask_type", MASK_TYPES)
@pytest.mark.parametrize("input_norm", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_padding_changes_nothing(mask_type, input_norm, training):
    spec = spectrum()
    other = spec.clone()
    for i, n in enumerate(LENGTHS.tolist()):
        other[i, n:] = 1e3
    nets = [masker(mask_type=mask_type, input_norm=input_norm).train(training) for _ in range(2)]
    got, want = nets[0](spec, LENGTHS), nets[1](other, LENGTHS)
    for i, n in enumerate(LENGTHS.tolist()):
        assert torch.allclose(got[i, :, :n], want[i, :, :n], atol=1e-6)
        if not (training and input_norm):  # there the items share their statistics
            assert torch.allclose(got[i, :, :n], nets[0](spec[i : i + 1, :n])[0], atol=1e-6)
    if training and input_norm:
        assert torch.allclose(nets[0].norm.running_mean, nets[1].norm.running_mean)


def test_a_single_frame_trains():
    net = masker(input_norm=True)
    before = net.norm.running_var.clone()
    mask = net.train()(spectrum()[:1, :1])  # no variance in one value: as in evaluation
    assert torch.allclose(mask, net.eval()(spectrum()[:1, :1])) and torch.equal(net.norm.running_var, before)


def test_input_norm_makes_the_level_of_the_recording_irrelevant():
    net = masker(input_norm=True).train()
    spec = 1e3 * spectrum()
    assert torch.allclose(net(spec), net(10 * spec), atol=1e-4)


def test_a_magnitude_will_do():
    net = masker()
    assert torch.allclose(net(spectrum()), net(spectrum().abs()))


@pytest.mark.parametrize("mask_type", MASK_TYPES)
def test_silence_is_finite(mask_type):
    spec = torch.zeros(1, L, F, dtype=torch.complex64, requires_grad=True)
    net = masker(mask_type=mask_type)
    net.out.bias.data.zero_()
    net.out.weight.data.zero_()  # raw outputs of exactly 0
    mask = net(spec)
    (mask * spec).abs().sum().backward()
    assert torch.view_as_real(mask + 0j).isfinite().all()
    assert torch.view_as_real(spec.grad).isfinite().all()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_the_papers_sizes():
    net = BLSTMMasker(257, 5)
    assert (net.rnn.hidden_size, net.rnn.num_layers, net.rnn.bidirectional) == (600, 3, True)
    assert net.out.weight.shape == (5 * 257, 1200)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: masker()(torch.zeros(1, 4, 6)), r"expected a spectrum \[B, L, 5\], got \[1, 4, 6\]"),
        (lambda: masker(mask_type="ratio"), "mask_type must be one of .*complex.*, not 'ratio'"),
        (lambda: masker(bound=0.0), "bound must be positive, not 0"),
        (lambda: masker(temperature=0.0), "temperature must be positive, not 0"),
        (lambda: masker(mask_type="complex", temperature=2.0), "temperature is for .*share, not complex"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
