"""Mel band split: the grouping is exact."""

import pytest
import torch

from espnet2_ext.core.layers.spectrum import STFT, BandSplit, mel_band_edges


@pytest.mark.parametrize(
    "n_fft, fs, bands", [(1024, 32000, 64), (512, 16000, 64), (126, 8000, 64), (2048, 44100, 128), (1024, 32000, 1)]
)
def test_every_bin_is_in_one_band(n_fft, fs, bands):
    edges = mel_band_edges(n_fft, fs, bands)
    assert edges[0] == 0 and edges[-1] == n_fft // 2 + 1 and len(edges) == bands + 1
    assert all(b > a for a, b in zip(edges, edges[1:]))


def test_edges_lie_on_the_mel_scale():
    # HTK mel of 16 kHz is 2595 lg(1 + 16000 / 700) = 3564.0; half of it is 3018.6 Hz = bin 96.8
    edges = mel_band_edges(1024, 32000, 64)
    hertz = 700 * (10 ** (3564.0 / 2 / 2595) - 1)
    assert edges[32] == round(hertz / 16000 * 513)


def test_more_bands_than_bins_is_refused():
    with pytest.raises(ValueError, match="1 to 65 for n_fft 128, not 66"):
        mel_band_edges(128, 8000, 66)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_merge_inverts_split_bit_by_bit(dtype):
    bands = BandSplit(1024, 32000, 64)
    x = torch.randn(2, 3, 513, dtype=dtype)
    assert torch.equal(bands.merge(bands.split(x)), x)
    assert bands.split(x).shape == (2, 3, 64, bands.band_width)


def test_unused_places_are_zero_and_ignored():
    bands = BandSplit(1024, 32000, 64)
    x = bands.split(torch.ones(1, 513))
    assert x.sum() == 513
    x = x.contiguous().masked_fill(x == 0, 7.0)
    assert torch.equal(bands.merge(x), torch.ones(1, 513))


def test_another_spectrum_is_refused():
    with pytest.raises(ValueError, match="513 bins, got 257"):
        BandSplit(1024, 32000, 64).split(torch.zeros(1, 257))


@pytest.mark.parametrize("length", [1, 300, 1023, 1024, 5000])
def test_stft_gives_the_waveform_back(length):
    stft = STFT(1024, 320)
    x = torch.randn(2, length)
    spec = stft(x)
    assert spec.shape == (2, length // 320 + 1, 513)
    assert torch.allclose(stft.inverse(spec, length), x, atol=1e-5)


def test_stft_of_a_clip_does_not_depend_on_its_batch():
    stft = STFT(1024, 320)
    x = torch.randn(1, 5000)
    longer = torch.nn.functional.pad(x, (0, 3000))
    frames = int(stft.frames(torch.tensor(5000)))
    assert torch.equal(stft(longer)[:, :frames], stft(x))
