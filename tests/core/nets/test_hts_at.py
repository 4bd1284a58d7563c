"""HTS-AT: what must hold whatever its weights are. Its equality with the public network is tested
where the weights of that one are converted (test_public_hts_at)."""

import pytest
import torch
from small_nets import made, noise

from espnet2_ext.core.nets.care_sep import CaRESep
from espnet2_ext.core.nets.hts_at import HTSAT

# 16 bands folded twice to 32 x 32, 8 x 8 tokens, a span of 64 frames of 4 ms and 8 framewise frames
SMALL = dict(
    sample_rate=8000,
    n_fft=256,
    hop_length=32,
    mel_bands=16,
    high=4000.0,
    spec_size=32,
    dim=8,
    depths=[2, 2],
    heads=[2, 4],
    window=4,
    num_classes=5,
    drop_path=0.0,
)
SPAN = 64 * 32  # samples


def make(**kw):
    return made(HTSAT, std=0.3, **SMALL | kw)


def ramp(frames, bands=16):
    """Log-mels whose value is the frame's number."""
    return torch.arange(float(frames))[None, :, None].expand(1, -1, bands)


def test_fold_lays_stretches_of_time_side_by_side():
    net, x = make(), noise(1, 64, 16)
    image = net.fold(x)[0]
    assert image.shape == (32, 32)
    assert torch.equal(image[:, :16], x[0, :32]) and torch.equal(image[:, 16:], x[0, 32:])


def test_unfold_brings_time_into_one_row():
    net = make()
    image = net.fold(ramp(64))
    tokens = image.view(1, 4, 8, 4, 8).mean((2, 4))[..., None]  # what two stages see: 8 x 8 each
    assert net.unfold(tokens)[0, :, 0, 0].tolist() == [3.5 + 8 * i for i in range(8)]


def test_a_short_clip_is_repeated_then_stretched():
    net = make()
    assert [net.copies(n) for n in (64, 63, 33, 32, 20, 1)] == [1, 1, 1, 2, 3, 64]
    assert torch.equal(net.fold(noise(1, 16, 16)), net.fold(noise(1, 16, 16).repeat(1, 4, 1)))
    once = make(repeat=False)
    assert [once.copies(n) for n in (64, 20, 1)] == [1, 1, 1]
    row = once.fold(ramp(22))[0].unflatten(1, (2, 16)).transpose(0, 1).reshape(64, 16)
    assert torch.allclose(row[[0, -1], 0], torch.tensor([0.0, 21.0]), atol=1e-4)  # ends stay
    assert torch.allclose(row[[21, 42], 0], torch.tensor([7.0, 14.0]), atol=0.1)


def test_windows_of_a_long_clip_reach_from_its_start_to_its_end():
    net = make()
    assert net.starts(64) == [0] and net.starts(65) == [0, 1] and net.starts(128) == [0, 64]
    assert net.starts(164) == [0, 50, 100]


def test_a_long_clip_is_the_mean_of_its_windows():
    net, wave = make(), noise(1, 2 * SPAN - 32)  # two windows of 64 frames that do not overlap
    x, _ = net.log_mel(wave)
    assert x.shape[1] == 128
    first, second = (net.embed_image(net.fold(part)) for part in x.split(64, 1))
    out = net(wave)
    assert torch.allclose(out.embedding, (first.embedding + second.embedding) / 2, atol=1e-5)
    assert torch.allclose(out.clipwise, (first.clipwise + second.clipwise) / 2, atol=1e-5)
    both = torch.cat([first.framewise, second.framewise], 1)
    assert torch.allclose(out.framewise, both, atol=1e-5)


def test_where_windows_overlap_the_framewise_frames_are_their_mean():
    net, (first, second) = make(), noise(2, 1, 8, 5)  # windows, B, L', K
    joined = net._join(torch.stack([first, second]), 96)  # windows at 0 and 32: frames of 8
    want = torch.cat([first[:, :4], (first[:, 4:] + second[:, :4]) / 2, second[:, 4:]], 1)
    assert torch.allclose(joined, want, atol=1e-6)


@pytest.mark.parametrize("samples", [1, 300, 800, SPAN - 32, SPAN, 2 * SPAN - 32, 5000, 7001])
@pytest.mark.parametrize("repeat", [True, False])
def test_edges_enclose_the_framewise_frames(samples, repeat):
    net = make(repeat=repeat)
    edges, out = net.edges(samples), net(noise(1, samples))
    assert out.embedding.shape == (1, net.query_dim) == (1, 16) and out.clipwise.shape == (1, 5)
    assert len(edges) == out.framewise.shape[1] + 1
    assert edges[0] == 0 and edges[-1] == samples and (edges.diff() > 0).all()


def test_edges_of_the_full_size():
    net = HTSAT(dim=8, depths=(1, 1, 1, 1), heads=(1, 1, 1, 1), num_classes=1)
    assert net.edges(320000).tolist() == [10000 * i for i in range(33)]
    assert net.edges(64000).tolist() == [*range(0, 64000, 10000), 64000]  # 5 copies of 6.4 frames
    assert len(net.edges(480000)) == 48 and net.edges(480000)[1] == 31.5 * 320


def test_a_batch_of_differing_lengths_is_as_each_alone():
    net, lengths = make(), [5000, 700, 2 * SPAN, 700, 1900]
    waves = [noise(1, n, seed=i) for i, n in enumerate(lengths)]
    batch = torch.cat([torch.nn.functional.pad(w, (0, 5000 - w.shape[1])) for w in waves])
    together = net(batch, torch.tensor(lengths))
    for i, wave in enumerate(waves):
        alone = net(wave)
        frames = alone.framewise.shape[1]
        assert torch.allclose(together.embedding[i], alone.embedding[0], atol=1e-4)
        assert torch.allclose(together.clipwise[i], alone.clipwise[0], atol=1e-4)
        assert torch.allclose(together.framewise[i, :frames], alone.framewise[0], atol=1e-4)
        assert (together.framewise[i, frames:] == 0).all()


def test_mixup_with_weight_one_changes_nothing_and_with_zero_mirrors():
    net, wave = make(), noise(3, 1500)
    plain = net(wave).clipwise
    assert torch.allclose(net(wave, mixup=torch.ones(3)).clipwise, plain, atol=1e-6)
    assert torch.allclose(net(wave, mixup=torch.zeros(3)).clipwise, plain.flip(0), atol=1e-6)
    half = net(wave, mixup=torch.full((3,), 0.5)).clipwise
    assert torch.allclose(half, half.flip(0), atol=1e-6)


def test_every_parameter_gets_a_gradient_in_training():
    net = make(spec_augment={"time_width": 4, "band_width": 4}, drop_path=0.1).train()
    torch.manual_seed(0)
    net(noise(4, 2000), mixup=torch.rand(4)).clipwise.square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_no_head():
    out = make(num_classes=0)(noise(2, 3000), torch.tensor([3000, 900]))
    assert out.embedding.shape == (2, 16) and out.clipwise is None and out.framewise is None


def test_its_stages_have_the_names_and_shapes_of_care_seps_encoder():
    with torch.device("meta"):
        ours, sep = HTSAT().state_dict(), CaRESep().state_dict()
    parts = ("patch_norm", "encoder", "merges", "connector", "connector_norm", "head")
    shapes = [
        {k: v.shape for k, v in state.items() if k.split(".")[0] in parts and ".query." not in k}
        for state in (ours, sep)
    ]
    assert shapes[0].keys() == shapes[1].keys()
    differ = [k for k in shapes[0] if shapes[0][k] != shapes[1][k]]
    # its maps are narrower than a window there: 4 and 2 tokens of frequency
    assert differ == [
        f"{stage}.blocks.{i}.attn.relative_bias"
        for stage, blocks in (("encoder.2", 6), ("connector", 2))
        for i in range(blocks)
    ]


@pytest.mark.parametrize(
    "kw, message",
    [
        ({"heads": [2]}, "differ in number"),
        ({"spec_size": 40}, "spec_size 40, mel_bands 16"),
        ({"mel_bands": 4}, r"of 8 \(patch_size \* 2\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(kw, message):
    with pytest.raises(ValueError, match=message):
        make(**kw)
