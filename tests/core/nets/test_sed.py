"""Classifiers of sound events against the plain forward pass, step by step."""

import copy

import pytest
import torch
import torch.nn.functional as F

from espnet2_ext.core.layers.mel import hertz_to_mel, mel_filterbank, mel_to_hertz
from espnet2_ext.core.nets.sed import ConvPool, CRNNClassifier, RNNClassifier

B, K, L, BINS = 3, 2, 14, 33


def shaken(net):
    """`net` in double precision with statistics and parameters that are not the initial ones."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.normal_(module.weight)  # of both signs
            torch.nn.init.normal_(module.bias)
    return net.double()


def crnn(**options):
    return shaken(CRNNClassifier(BINS, K, channels=(3, 4, 5), hidden=4, **options))


def rnn(**options):
    return shaken(RNNClassifier(BINS, K, mel_bands=8, hidden=4, **options))


def plain(net: CRNNClassifier, mag: torch.Tensor) -> torch.Tensor:
    """What the paper's figure 2c says, one step after the other."""
    x = mag[:, None]
    for block in net.blocks:
        x = F.max_pool2d(F.relu(block.norm(block.conv(x))), block.pool, ceil_mode=True)
    x = x.permute(0, 2, 3, 1).flatten(2)
    return net.out(torch.nn.LSTM.forward(net.rnn, x)[0]).transpose(1, 2)


def mags(length: int = L) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.rand(B, length, BINS, dtype=torch.double)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_quick_convolutions_equal_the_plain_ones(training, frozen):
    net = crnn().train(training).requires_grad_(not frozen)
    other = copy.deepcopy(net)
    mag, same = mags().requires_grad_(), mags().requires_grad_()
    got, want = net(mag), plain(other, same)
    assert torch.allclose(got, want, atol=1e-12)
    weight = torch.randn_like(got)
    (got * weight).sum().backward()
    (want * weight).sum().backward()
    assert torch.allclose(mag.grad, same.grad, atol=1e-12) and mag.grad.abs().sum() > 0
    for (name, a), b in zip(net.named_parameters(), other.parameters()):
        assert a.grad is None if frozen else torch.allclose(a.grad, b.grad, atol=1e-10), name
    for a, b in zip(net.buffers(), other.buffers()):  # running statistics among them
        assert torch.allclose(a, b)


@pytest.mark.parametrize("channels", [1, 2])
def test_channels_lie_last_in_memory(channels):
    x = torch.randn(2, channels, 9, 11)
    for training in (True, False):
        block = ConvPool(channels, 4, 5, (2, 2)).train(training)
        assert block(x).is_contiguous(memory_format=torch.channels_last)


def test_quick_convolutions_in_single_precision():
    net = crnn().float().eval().requires_grad_(False)
    mag = mags(40).float()
    assert torch.allclose(net(mag), plain(net, mag), atol=1e-5)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_gradient_of_a_frozen_convolution_from_one_channel(kernel):
    block = shaken(ConvPool(1, 3, kernel, (1, 2))).eval()
    x = torch.randn(2, 1, 6, 7, dtype=torch.double)
    grads = []
    for frozen in (False, True):  # the library's, then ours
        block.requires_grad_(not frozen)
        x_ = x.clone().requires_grad_()
        block(x_).square().sum().backward()
        grads.append(x_.grad)
    assert torch.allclose(*grads, atol=1e-12)


@pytest.mark.parametrize("make", [crnn, rnn])
@pytest.mark.parametrize("training", [True, False])
def test_padding_changes_nothing(make, training):
    mag, lengths = mags(), torch.tensor([L, 9, 5])
    net = make().train(training)
    short = copy.deepcopy(net)
    got = net(mag, lengths)
    other = mag.clone()
    for i, n in enumerate(lengths.tolist()):
        other[i, n:] = 1e3
    again = copy.deepcopy(short)(other, lengths)
    frames = net.frames(lengths)
    for i, n in enumerate(lengths.tolist()):
        assert torch.allclose(got[i, :, : frames[i]], again[i, :, : frames[i]])
        if not training:  # in training, a batch norm mixes the items
            alone = short(mag[i : i + 1, :n])
            assert alone.shape[-1] == frames[i]
            assert torch.allclose(got[i, :, : frames[i]], alone[0])
    assert torch.allclose(net.pool(got, frames), net.pool(again, frames))


def test_batch_norm_counts_no_padding():
    block = ConvPool(1, 3, 3, (2, 2)).double().train()
    x, lengths = torch.randn(2, 1, 8, 6, dtype=torch.double), torch.tensor([8, 4])
    x[1, :, 4:] = 0
    block(x, lengths)
    y = block.conv(x)
    frames = torch.cat([y[0].flatten(1), y[1, :, :4].flatten(1)], 1)  # [C, values]
    assert torch.allclose(block.norm.running_mean, 0.1 * frames.mean(1))
    assert torch.allclose(block.norm.running_var, 0.9 + 0.1 * frames.var(1))


@pytest.mark.parametrize("make", [crnn, rnn])
@pytest.mark.parametrize("length", [1, 2, 4, 5, 13])
def test_logits_labels_and_lengths_have_the_same_frames(make, length):
    net = make()
    logits = net(mags(length))
    labels = net.shrink(torch.ones(B, K, length))
    assert logits.shape == labels.shape == (B, K, int(net.frames(torch.tensor(length))))


def test_labels_are_pooled_as_time_is():
    labels = torch.zeros(1, 1, 10)
    labels[..., 3] = labels[..., 9] = 1
    assert crnn().shrink(labels).tolist() == [[[1, 0, 1]]]
    assert rnn().shrink(labels) is labels


def test_a_sound_moves_the_logits_of_its_frames_most():
    net = crnn().eval()
    quiet = torch.zeros(1, 40, BINS, dtype=torch.double)
    loud = quiet.clone()
    loud[:, 20:24] = 10
    change = (net(loud) - net(quiet)).abs().sum((0, 1))
    assert change.argmax() in (4, 5, 6)  # frame 5 holds 20 to 23


@pytest.mark.parametrize("make", [crnn, rnn])
@pytest.mark.parametrize("pooling", ["max", "attention", "auto"])
def test_every_parameter_gets_a_gradient(make, pooling):
    net = make(pooling=pooling).train()
    logits = net(mags())
    (net.pool(logits).sum() + logits.square().sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("make", [crnn, rnn])
@pytest.mark.parametrize("compress", [0.0, 10.0])
def test_silence_is_finite(make, compress):
    mag = torch.zeros(B, L, BINS, dtype=torch.double, requires_grad=True)
    for training in (True, False):
        make(compress=compress).train(training)(mag).sum().backward()
    assert mag.grad.isfinite().all()


def test_recurrent_layers_stay_in_training_mode():  # cuDNN's backward pass knows no other
    net = crnn().eval()
    assert net.rnn.training and not net.blocks[0].norm.training


def test_the_papers_sizes():
    net = CRNNClassifier(257, 5)
    assert [b.conv.weight.shape[:2] for b in net.blocks] == [(32, 1), (64, 32), (128, 64)]
    assert net.time_pool == 4 and net.rnn.hidden_size == 100 and net.cpu_values >= 501 * 257
    net = RNNClassifier(257, 5)
    assert (net.rnn.input_size, net.rnn.hidden_size, net.rnn.num_layers) == (40, 100, 2)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: crnn()(torch.zeros(1, 4, 5)), r"expected real magnitudes \[B, L, 33\], got .*1, 4, 5"),
        (lambda: rnn()(torch.zeros(1, 4, BINS) + 0j), "expected real magnitudes .* got .*complex"),
        (lambda: CRNNClassifier(BINS, K, channels=(1, 2)), r"channels must hold 3 numbers"),
        (lambda: CRNNClassifier(BINS, K, kernel=4), "kernel must be odd, not 4"),
        (lambda: RNNClassifier(BINS, K, pooling="mean"), "pooling must be one of"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- mel filterbank --------------------------------------------------------------------------
def test_mel_scales_by_hand():
    assert hertz_to_mel(1000) == pytest.approx(999.99, abs=0.01)  # what HTK's scale is made for
    assert hertz_to_mel(500, "slaney") == 7.5 and hertz_to_mel(6400, "slaney") == pytest.approx(42)
    for scale in ("htk", "slaney"):
        for hertz in (0.0, 440.0, 1000.0, 7999.0):
            assert mel_to_hertz(hertz_to_mel(hertz, scale), scale) == pytest.approx(hertz)


def test_triangles_by_hand():
    # slaney below 1 kHz is linear: edges at 0, 200, 400, 600 Hz; bins at 0, 100, ... 600 Hz
    bank = mel_filterbank(7, 2, 1200, scale="slaney")
    want = torch.tensor([[0, 0.5, 1, 0.5, 0, 0, 0], [0, 0, 0, 0.5, 1, 0.5, 0]]).T
    assert torch.allclose(bank, want, atol=1e-6)
    assert torch.allclose(mel_filterbank(7, 2, 1200, scale="slaney", norm=True), want / 200, atol=1e-8)


@pytest.mark.parametrize("bands", [10, 20, 30, 40, 56])
def test_neighbouring_bands_share_every_bin(bands):
    bank = mel_filterbank(257, bands, 16000)
    top = hertz_to_mel(8000)
    first, last = (mel_to_hertz(top * n / (bands + 1)) for n in (1, bands))
    bins = torch.linspace(0, 8000, 257)
    inside = (bins >= first) & (bins <= last)
    assert torch.allclose(bank.sum(1)[inside], torch.ones(int(inside.sum())), atol=1e-5)
    assert (bank.sum(0) > 0).all() and (bank >= 0).all()


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_the_same_bank_as_librosa(scale, norm):
    librosa = pytest.importorskip("librosa")
    want = librosa.filters.mel(sr=16000, n_fft=512, n_mels=40, htk=scale == "htk", norm="slaney" if norm else None)
    got = mel_filterbank(257, 40, 16000, scale=scale, norm=norm)
    assert torch.allclose(got, torch.from_numpy(want).T, atol=1e-6)


def test_a_band_too_narrow_takes_the_nearest_bin():
    bank = mel_filterbank(9, 12, 16000)
    assert (bank.sum(0) > 0).all()
    assert bank[:, 0].tolist() == [1] + [0] * 8


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: mel_filterbank(9, 4, 16000, scale="bark"), "scale must be 'htk' or 'slaney'"),
        (lambda: mel_filterbank(9, 0, 16000), "at least one band between 0 Hz and 8000 Hz, got 0"),
        (lambda: mel_filterbank(9, 4, 16000, high=9000.0), "got 4 between 0 Hz and 9000 Hz"),
    ],
)
def test_mel_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
