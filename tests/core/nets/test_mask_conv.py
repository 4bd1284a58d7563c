"""The small convolutional masker."""

import pytest
import torch

from espnet2_ext.core.layers.mel import mel_filterbank
from espnet2_ext.core.nets.mask_nets import ConvMasker, _spread


def masker(**conf):
    torch.manual_seed(0)
    return ConvMasker(65, 3, **{"mel_bands": 16, "channels": (4, 8), "hidden": 4, **conf}).eval()


def test_bands_share_each_bin():
    share = _spread(mel_filterbank(65, 16, 16000))
    assert torch.allclose(share.sum(0), torch.ones(65)) and share.min() >= 0


def test_what_all_bands_agree_on_reaches_all_bins():
    net = masker()
    torch.nn.init.zeros_(net.last.weight)
    net.last.bias.data.copy_(torch.tensor([0.0, 2.0, -2.0]))
    mask = net(torch.rand(2, 11, 65))
    expected = torch.tensor([0.0, 2.0, -2.0]).sigmoid()[None, :, None, None]
    assert torch.allclose(mask, expected.expand(2, 3, 11, 65), atol=1e-6)


@pytest.mark.parametrize("mask_type", ["magnitude", "share", "phase_sensitive", "complex"])
@pytest.mark.parametrize("frames", [1, 4, 11])
def test_masks_are_bounded_and_of_the_inputs_size(mask_type, frames):
    mask = masker(mask_type=mask_type)(100 * torch.randn(2, frames, 65, dtype=torch.cfloat))
    assert mask.shape == (2, 3, frames, 65)
    assert mask.is_complex() == (mask_type == "complex")
    assert mask.abs().max() <= (1 if mask_type in ("magnitude", "share") else 2)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("frames", [1, 3, 4, 7, 12])
def test_padding_changes_nothing(training, frames):
    """Whatever lies behind an item, and whatever it is batched with."""
    spec = 3 * torch.randn(1, frames, 65, dtype=torch.cfloat)
    other = 1e3 * torch.randn(1, 17, 65, dtype=torch.cfloat)
    other[:, :frames] = spec
    nets = [masker(channels=(4, 8, 8)).train(training) for _ in range(2)]
    want, got = nets[0](spec), nets[1](other, torch.tensor([frames]))
    assert torch.allclose(got[:, :, :frames], want, atol=1e-5)
    for a, b in zip(nets[0].buffers(), nets[1].buffers()):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
    both = nets[1].eval()(torch.cat([other, other]), torch.tensor([17, frames]))
    assert torch.allclose(both[1:, :, :frames], nets[1](spec), atol=1e-5)


def test_padding_gets_no_gradient():
    spec = torch.randn(2, 11, 65, dtype=torch.cfloat, requires_grad=True)
    masker().train()(spec, torch.tensor([11, 5]))[1, :, :5].sum().backward()
    assert (spec.grad[1, :5].abs().sum(-1) > 0).all() and not spec.grad[1, 5:].any()


def test_every_parameter_learns_and_silence_is_finite():
    net = masker().train()
    net(torch.randn(2, 12, 65, dtype=torch.cfloat)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    assert net(torch.zeros(2, 12, 65)).isfinite().all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="multiple of 4, not 18"):
        masker(mel_bands=18)
    with pytest.raises(ValueError, match="mask_type must be one of"):
        masker(mask_type="soft")
    with pytest.raises(ValueError, match=r"expected a spectrum \[B, L, 65\]"):
        masker()(torch.zeros(2, 12, 64))


def test_shares_sum_to_one():
    mask = masker(mask_type="share")(torch.rand(2, 8, 65))
    assert torch.allclose(mask.sum(1), torch.ones(2, 8, 65))


@pytest.mark.parametrize("mask_type", ["magnitude", "share"])
def test_a_temperature_softens_masks_in_use_and_not_in_training(mask_type):
    plain, soft = masker(mask_type=mask_type).eval(), masker(mask_type=mask_type, temperature=3.0).eval()
    soft.load_state_dict(plain.state_dict())
    spec = torch.rand(2, 8, 65)
    expected = plain.logits(spec, None) / 3
    expected = expected.softmax(1) if mask_type == "share" else expected.sigmoid()
    torch.testing.assert_close(soft(spec), expected)
    torch.testing.assert_close(soft.train()(spec), plain.train()(spec))
