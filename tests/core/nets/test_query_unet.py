"""The query U-Net: what must hold whatever its weights are. Its values: test_public_st_sed_sep."""

import math

import pytest
import torch

from espnet2_ext.core.nets.query_unet import QueryUNet

SMALL = dict(query_dim=5, num_bins=17, widths=(6, 8))


def make(**kw):
    torch.manual_seed(0)
    net = QueryUNet(**{**SMALL, **kw}).eval()
    for name, p in net.named_parameters():
        torch.nn.init.normal_(p, 1.0 if name.endswith("norm.weight") else 0.0, 0.2)
    for name, b in net.named_buffers():
        if name.endswith("running_var"):
            b.uniform_(0.5, 2.0)
    return net


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def spectrum(*shape, seed=0):
    return noise(*shape, seed=seed, dtype=torch.cfloat)


@pytest.mark.parametrize("lengths", [(8, 8), (9, 8), (9, 4, 1), (11, 10, 5), (3, 2)])
def test_a_batch_is_as_each_item_alone_whatever_stands_in_its_padding(lengths):
    net, query = make(), noise(len(lengths), 2, 5, seed=1)
    spec = spectrum(len(lengths), max(lengths) + 2, 17)
    together = net.mask(spec, torch.tensor(lengths), query)
    assert together.shape == (len(lengths), 2, max(lengths) + 2, 17)
    for i, n in enumerate(lengths):
        alone = net.mask(spec[i : i + 1, :n], torch.tensor([n]), query[i : i + 1])
        assert torch.allclose(together[i, :, :n], alone[0], atol=1e-5)
        assert alone.min() >= 0 and alone.max() <= 1 and alone[..., :-1].std() > 0.02


def test_several_queries_are_answered_as_one_after_the_other():
    net, spec, query = make(), spectrum(3, 7, 17), noise(3, 4, 5, seed=1)
    frames, seen = torch.tensor([7, 6, 3]), []
    net.down[0].layers[0].conv.register_forward_hook(lambda _, x, y: seen.append(len(x[0])))
    whole = net.mask(spec, frames, query)
    assert seen == [3]  # not 12
    for q in range(4):
        one = net.mask(spec, frames, query[:, q : q + 1])
        assert torch.allclose(whole[:, q], one[:, 0], atol=1e-5)


def test_the_query_is_added_after_the_activation():
    net = make(widths=(1,))
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
        net.after.layers[1].query.weight[0, 2] = -0.5  # survives only past the ReLU
        net.last.weight.fill_(2.0)
        net.last.bias.fill_(0.25)
    query = torch.tensor([[[9.0, 9.0, 1.5, 9.0, 9.0]]])
    mask = net.mask(spectrum(1, 6, 17), torch.tensor([6]), query)
    want = 1 / (1 + math.exp(-(2.0 * -0.5 * 1.5 + 0.25)))
    assert torch.allclose(mask[..., :-1], torch.tensor(want))
    assert torch.equal(mask[..., -1], torch.full((1, 1, 6), 0.5))  # the highest bin takes no part


def test_batch_norm_over_bins_is_over_the_frames_that_count():
    net, spec = make(momentum=1.0).train(), spectrum(2, 6, 17)
    net.mask(spec, torch.tensor([6, 2]), noise(2, 1, 5))
    counted = torch.cat([spec[0], spec[1, :2]]).abs()
    assert torch.allclose(net.norm.running_mean, counted.mean(0), atol=1e-6)
    assert torch.allclose(net.norm.running_var, counted.var(0), atol=1e-6)


def test_phase_and_the_highest_bin_do_not_matter_loudness_does():
    net, spec, query = make(), spectrum(1, 8, 17), noise(1, 1, 5)
    frames = torch.tensor([8])
    mask = net.mask(spec, frames, query)
    turned = torch.polar(spec.abs(), noise(1, 8, 17, seed=3))
    turned[..., -1] = 7
    assert torch.allclose(net.mask(turned, frames, query), mask, atol=1e-5)
    assert not torch.allclose(net.mask(3 * spec, frames, query), mask, atol=1e-2)
    assert torch.equal(net.mask(spec, frames, query, torch.tensor([9.0])), mask)


def test_every_parameter_and_the_query_get_a_gradient():
    net = make().train()
    query = noise(2, 2, 5).requires_grad_()
    net.mask(spectrum(2, 8, 17), torch.tensor([8, 3]), query).square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert (query.grad.abs().amax(-1) > 0).all()


@pytest.mark.parametrize("query_dim", [527, 2048])
def test_size_of_the_paper(query_dim):
    def layer(c_in, c_out):  # 3x3 convolution, batch norm, linear map of the query
        return 9 * c_in * c_out + 2 * c_out + (query_dim + 1) * c_out

    def block(c_in, c_out):
        return layer(c_in, c_out) + layer(c_out, c_out)

    down = sum(block(a, b) for a, b in [(1, 32), (32, 64), (64, 128), (128, 256), (256, 512), (512, 1024)])
    up = sum(layer(2 * c, c) + block(2 * c, c) for c in (1024, 512, 256, 128, 64, 32))
    want = 2 * 1025 + down + block(1024, 2048) + up + block(32, 32) + 32 + 1
    with torch.device("meta"):
        net = QueryUNet(query_dim)
    assert sum(p.numel() for p in net.parameters()) == want
    assert net.grid_frames == 64 and net.query_dim == query_dim


@pytest.mark.parametrize("bins, blocks", [(18, 2), (4, 2), (1, 2)])
def test_bins_that_cannot_be_halved_are_refused(bins, blocks):
    with pytest.raises(ValueError, match=f"multiple of 4 for 2 down blocks, got num_bins {bins}"):
        make(num_bins=bins)


def test_other_bins_and_queries_are_refused():
    net, frames = make(), torch.tensor([4])
    with pytest.raises(ValueError, match="17 bins, got 16"):
        net.mask(spectrum(1, 4, 16), frames, noise(1, 1, 5))
    with pytest.raises(ValueError, match=r"\[1, Q, 5\], got \[1, 5\]"):
        net.mask(spectrum(1, 4, 17), frames, noise(1, 5))
    with pytest.raises(ValueError, match=r"\[1, Q, 5\], got \[2, 1, 5\]"):
        net.mask(spectrum(1, 4, 17), frames, noise(2, 1, 5))
