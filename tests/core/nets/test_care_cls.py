"""CaRE-CLS: a tagger around the encoder of CaRE-SEP."""

import pytest
import torch
from small_nets import CARE_CLS, made, noise

from espnet2_ext.core.nets.care_cls import CaRECLS
from espnet2_ext.core.nets.care_sep import CaRESep

SMALL = CARE_CLS | dict(sample_rate=8000, n_fft=256, hop_length=64)


def make(**kw):
    return made(CaRECLS, **SMALL | kw)


def test_a_batch_of_differing_lengths_is_as_each_alone():
    net, lengths = make(), [6000, 3000, 100]
    waves = [noise(1, n, seed=n) for n in lengths]
    batch = torch.cat([torch.nn.functional.pad(w, (0, 6000 - w.shape[1])) for w in waves])
    together = net(batch, torch.tensor(lengths))
    assert together.embedding.shape == (3, net.query_dim) == (3, 64)
    for i, wave in enumerate(waves):
        alone = net(wave)
        frames = alone.framewise.shape[1]
        assert torch.allclose(together.embedding[i], alone.embedding[0], atol=1e-4)
        assert torch.allclose(together.clipwise[i], alone.clipwise[0], atol=1e-4)
        assert torch.allclose(together.framewise[i, :frames], alone.framewise[0], atol=1e-4)


def test_its_net_initialises_a_separator():
    net = make()
    own = {k: v for k, v in SMALL.items() if k not in ("sample_rate", "n_fft", "hop_length")}
    sep = CaRESep(num_bins=129, fs=8000, **own)
    missing, unknown = sep.load_state_dict(net.net.state_dict(), strict=False)
    assert unknown == []
    wave = noise(1, 5000)
    spec = net.stft(wave)
    assert torch.equal(sep.eval().embed(spec, torch.tensor([spec.shape[1]])).embedding, net(wave).embedding)


def test_mixup_with_weight_one_changes_nothing_and_with_zero_mirrors():
    net, wave = make(), noise(3, 4000)
    plain = net(wave)
    same, mirrored = net(wave, mixup=torch.ones(3)), net(wave, mixup=torch.zeros(3))
    assert torch.allclose(same.clipwise, plain.clipwise, atol=1e-4)
    assert torch.allclose(mirrored.clipwise, plain.clipwise.flip(0), atol=1e-4)
    half = net(wave, mixup=torch.full((3,), 0.5)).clipwise
    assert torch.allclose(half, half.flip(0), atol=1e-4)


def test_mixup_does_not_mind_loudness():
    net, wave, w = make(), noise(2, 4000), torch.tensor([0.3, 0.6])
    louder = wave * torch.tensor([[100.0], [0.01]])
    assert torch.allclose(net(louder, mixup=w).clipwise, net(wave, mixup=w).clipwise, atol=1e-4)


@pytest.mark.parametrize("samples", [1, 63, 2047, 2048, 5000])
def test_edges_enclose_the_framewise_frames(samples):
    net = make()
    edges, framewise = net.edges(samples), net(noise(1, samples)).framewise
    assert len(edges) == framewise.shape[1] + 1
    assert edges[0] == 0 and edges[-1] == samples and (edges.diff() > 0).all()
    assert net.edges(5000).tolist() == [0, 31.5 * 64, 63.5 * 64, 5000]


def test_every_parameter_gets_a_gradient_in_training():
    net = make(spec_augment={"time_width": 4, "band_width": 4}).train()
    wave, w = noise(2, 6000), torch.tensor([0.4, 0.8])
    net(wave, mixup=w).clipwise.sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_spec_augment_blanks_the_image_in_training_only():
    net, wave = make(spec_augment={"time_width": 40}), noise(1, 6000)
    assert torch.equal(net(wave).clipwise, make()(wave).clipwise)
    net.train()
    torch.manual_seed(1)
    assert not torch.allclose(net(wave).clipwise, net(wave).clipwise)
