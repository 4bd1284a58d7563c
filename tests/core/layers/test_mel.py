"""The log-mel front end against librosa's filters and definitions written out."""

import librosa
import numpy as np
import pytest
import torch

from espnet2_ext.core.layers.mel import LogMel, mel_filterbank


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "fs, n_fft, bands, low, high",
    [(32000, 1024, 64, 50, 14000), (16000, 512, 64, 50, 8000), (44100, 2048, 128, 0, None)],
)
def test_filterbank_is_librosas(fs, n_fft, bands, low, high):
    ours = mel_filterbank(n_fft // 2 + 1, bands, fs, low=low, high=high, scale="slaney", norm=True)
    theirs = librosa.filters.mel(sr=fs, n_fft=n_fft, n_mels=bands, fmin=low, fmax=high).T
    filled = theirs.any(0)  # librosa leaves a band without a bin empty
    assert filled.sum() >= bands - 1
    assert np.abs(ours.numpy() - theirs)[:, filled].max() < 1e-6


@pytest.mark.parametrize("samples", [32000, 32001, 5000])
def test_decibels_by_definition(samples):
    wave = 0.1 * noise(1, samples)
    padded = np.pad(wave[0].numpy(), 512, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    starts = range(0, samples + 1, 320)
    power = np.abs(np.fft.rfft([padded[s : s + 1024] * hann for s in starts])) ** 2
    mel = power @ librosa.filters.mel(sr=32000, n_fft=1024, n_mels=64, fmin=50, fmax=14000).T
    want = 10 * np.log10(np.maximum(mel, 1e-10))
    ours = LogMel().decibels(wave, torch.tensor([samples]))[0].numpy()
    assert ours.shape == want.shape == (samples // 320 + 1, 64)
    assert np.abs(ours - want).max() < 1e-3


def test_silence_is_at_the_floor():
    assert torch.allclose(LogMel().decibels(torch.zeros(1, 999), torch.tensor([999])), torch.tensor(-100.0))


def test_batch_norm_is_over_the_frames_that_count():
    net, wave, lengths = LogMel(), noise(2, 6400), torch.tensor([6400, 3200])
    x, frames = net(wave, lengths)
    assert frames.tolist() == [21, 11]
    assert (x[1, 11:] == 0).all()
    counted = torch.cat([x[0], x[1, :11]])
    assert torch.allclose(counted.mean(0), torch.zeros(64), atol=1e-4)
    assert torch.allclose(counted.var(0, correction=0), torch.ones(64), atol=1e-3)


@pytest.mark.parametrize("samples", [1, 2, 300, 513, 4000])
def test_a_batch_is_as_each_item_alone_whatever_stands_in_its_padding(samples):
    net, wave = LogMel().eval(), noise(2, 4000)
    together, frames = net(wave, torch.tensor([4000, samples]))
    alone, _ = net(wave[1:, :samples])
    assert frames[1] == alone.shape[1] == samples // 320 + 1
    assert torch.allclose(together[1, : frames[1]], alone[0], atol=1e-4)


def test_mixup_is_on_the_normalised_bands():
    net, wave = LogMel().eval(), noise(2, 4000)
    x, _ = net(wave)
    mixed, _ = net(wave, mixup=torch.tensor([0.25, 1.0]))
    assert torch.allclose(mixed, torch.stack([0.25 * x[0] + 0.75 * x[1], x[1]]), atol=1e-6)


def test_spec_augment_in_training_only():
    torch.manual_seed(0)
    net, wave = LogMel(spec_augment={"time_width": 8, "band_width": 20}), noise(2, 32000)
    assert (net(wave)[0] == 0).any()
    assert (net.eval()(wave)[0] != 0).all()


def test_nothing_but_the_batch_norm_is_stored():
    assert {key.split(".")[0] for key in LogMel().state_dict()} == {"bn0"}
