"""CNN14: what must hold whatever its weights are. Its values: test_public_cnn14."""

import pytest
import torch
from small_nets import made, noise

from espnet2_ext.core.nets.cnn14 import CNN14

SMALL = dict(
    sample_rate=8000, n_fft=128, hop_length=40, mel_bands=8, low=50.0, high=4000.0, num_classes=5, widths=(3, 4, 6)
)


def make(**kw):
    return made(CNN14, std=0.5, **SMALL | kw)


def test_a_batch_is_as_each_item_alone_whatever_stands_in_its_padding():
    net, wave = make(), noise(6, 1000)
    lengths = torch.tensor([1000, 960, 640, 479, 119, 1])  # 26, 25, 17, 12, 3 and 1 frames
    together = net(wave, lengths)
    assert together.embedding.shape == (6, 6) and together.clipwise.shape == (6, 5)
    assert together.framewise is None
    for i, n in enumerate(lengths):
        alone = net(wave[i : i + 1, :n])
        assert torch.allclose(together.embedding[i], alone.embedding[0], atol=1e-4)
        assert torch.allclose(together.clipwise[i], alone.clipwise[0], atol=1e-4)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_clip_of_less_than_a_last_frame_is_continued_with_zeros(frames):
    net = make()  # two poolings: the last map's frame is 4 frames wide
    x = noise(1, 4, 8)
    x[:, frames:] = 0
    net.log_mel.forward = lambda *_: (x[:, :frames], torch.tensor([frames]))
    short = net(None)
    net.log_mel.forward = lambda *_: (x, torch.tensor([4]))
    assert torch.allclose(short.clipwise, net(None).clipwise, atol=1e-6)


def test_probabilities_as_the_embedding():
    wave = noise(2, 1000)
    latent, probabilities = make(), make(embedding="probabilities")
    assert (latent.query_dim, probabilities.query_dim) == (6, 5)
    out = probabilities(wave)
    assert torch.equal(out.embedding, out.clipwise.sigmoid())
    probabilities.load_state_dict(latent.state_dict())  # one checkpoint serves both
    assert torch.equal(probabilities(wave).clipwise, latent(wave).clipwise)


def test_without_a_head_there_are_no_tags():
    out = make(num_classes=0)(noise(1, 1000))
    assert out.clipwise is None and out.embedding.shape == (1, 6)


def test_mixup_with_weight_one_changes_nothing_and_with_zero_mirrors():
    net, wave = make(), noise(3, 1000)
    plain = net(wave).clipwise
    assert torch.allclose(net(wave, mixup=torch.ones(3)).clipwise, plain, atol=1e-5)
    assert torch.allclose(net(wave, mixup=torch.zeros(3)).clipwise, plain.flip(0), atol=1e-5)


def test_the_head_gets_the_latent_embedding_before_its_dropout():
    net = make(conv_dropout=0.0, dropout=1.0).train()
    out = net(noise(2, 1000))
    assert not out.embedding.any()
    want = net.head(net.latent.bias.relu())
    assert torch.allclose(out.clipwise, want.expand(2, -1))
    assert net.eval()(noise(2, 1000)).embedding.any()


def test_dropout_after_each_block():
    net = make(conv_dropout=1.0, dropout=0.0).train()
    assert torch.allclose(net(noise(2, 1000)).embedding, net.latent.bias.relu().expand(2, -1))


def test_spec_augment_in_training_only():
    wave = noise(1, 2000)
    net = make(spec_augment={"time_width": 30}, conv_dropout=0.0, dropout=0.0)
    assert torch.equal(net(wave).clipwise, make()(wave).clipwise)
    net.train()
    torch.manual_seed(1)
    assert not torch.allclose(net(wave).clipwise, net(wave).clipwise)


def test_every_parameter_gets_a_gradient_in_training():
    net = make().train()
    net(noise(4, 2000), mixup=torch.full((4,), 0.7)).clipwise.square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_clip_is_the_only_frame():
    assert make().edges(1234).tolist() == [0, 1234]


def test_size_of_the_paper():
    def block(c_in, c_out):
        return 9 * c_in * c_out + 9 * c_out * c_out + 4 * c_out

    blocks = [(1, 64), (64, 128), (128, 256), (256, 512), (512, 1024), (1024, 2048)]
    want = 2 * 64 + sum(block(*b) for b in blocks) + 2048 * 2049 + 527 * 2049
    assert want == 80_753_615  # as published with the network
    with torch.device("meta"):
        net = CNN14()
    assert sum(p.numel() for p in net.parameters()) == want
    assert net.query_dim == 2048 and CNN14(embedding="probabilities", widths=(1,)).query_dim == 527


@pytest.mark.parametrize(
    "kw, message",
    [
        ({"embedding": "softmax"}, "'softmax'"),
        ({"embedding": "probabilities", "num_classes": 0}, "num_classes above 0"),
        ({"mel_bands": 3}, "3 blocks need 4 mel bands or more, got 3"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(kw, message):
    with pytest.raises(ValueError, match=message):
        make(**kw)
