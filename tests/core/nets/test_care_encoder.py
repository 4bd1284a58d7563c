"""The embedding half of CaRE-SEP; what it shares with the separating half is in test_care_sep."""

import pytest
import torch
from small_nets import CARE, made, spectrum

from espnet2_ext.core.nets.care_sep import CaREEncoder


def make(**kw):
    return made(CaREEncoder, **CARE | kw)


def test_without_a_query_there_are_no_weights_for_one():
    assert not any(".query." in name for name, _ in make().named_parameters())
    assert sum(".query.weight" in n for n, _ in make(query_at="all").named_parameters()) == 6


def test_every_parameter_gets_a_gradient():
    net = make().train()
    net.embed(spectrum(2, 70), torch.tensor([70, 40])).clipwise.sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_clipwise_is_the_mean_of_the_frames_that_count():
    net = make()
    out = net.embed(spectrum(2, 128), torch.tensor([128, 40]))
    assert net.token_frames == 32 and out.framewise.shape == (2, 4, 5)
    assert torch.allclose(out.clipwise[0], out.framewise[0].mean(0), atol=1e-6)
    assert torch.allclose(out.clipwise[1], out.framewise[1, :2].mean(0), atol=1e-6)


def test_a_framewise_frame_looks_at_its_own_frames():
    net = make(depths=(1, 1, 1), connector_depth=1)  # no shifted windows: 128 frames are a window
    spec, frames = spectrum(1, 512), torch.tensor([512])
    before = net.embed(spec, frames).framewise
    spec[:, 400:] = spec[:, 400:].flip(1)  # the level stays
    after = net.embed(spec, frames).framewise
    changed = ((after - before).abs().amax((0, 2)) > 1e-5).tolist()
    assert changed == [False] * 11 + [True] * 5  # frames 384 to 511, and the head's neighbour


def test_no_head():
    out = make(num_classes=0).embed(spectrum(1, 40), torch.tensor([40]))
    assert out.embedding.shape == (1, 64) and out.clipwise is None and out.framewise is None


@pytest.mark.parametrize(
    "kw, message",
    [
        ({"num_bands": 40}, "multiple of 32: 40"),
        ({"depths": (1, 1)}, "differ in number"),
        ({"num_bands": 96, "num_bins": 129, "window": 8}, "windows of 8 tokens do not fill 12"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(kw, message):
    with pytest.raises(ValueError, match=message):
        make(**kw)
