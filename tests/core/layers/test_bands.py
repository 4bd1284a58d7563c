"""Mel-scale bands: the grouping is exact, and the maps are those of bands that are padded to the widest."""

import pytest
import torch

from espnet2_ext.core.layers.bands import BandExpand, BandProject, Bands, mel_band_edges

UNUSED = (0.0, 0.25)


@pytest.mark.parametrize(
    "num_bins, fs, bands", [(513, 32000, 64), (257, 16000, 64), (64, 8000, 64), (1025, 44100, 128), (513, 32000, 1)]
)
def test_every_bin_is_in_one_band(num_bins, fs, bands):
    edges = mel_band_edges(num_bins, fs, bands)
    assert edges[0] == 0 and edges[-1] == num_bins and len(edges) == bands + 1
    assert all(b > a for a, b in zip(edges, edges[1:]))
    places = [(n, i, f) for n, i, f in Bands(num_bins, fs, bands).places() if f < num_bins]
    assert [f for _, _, f in places] == list(range(num_bins))
    assert all(f == edges[n] + i for n, i, f in places)


def test_edges_lie_on_the_mel_scale():
    # HTK mel of 16 kHz is 2595 lg(1 + 16000 / 700) = 3564.0; half of it is 3018.6 Hz = bin 96.8
    edges = mel_band_edges(513, 32000, 64)
    hertz = 700 * (10 ** (3564.0 / 2 / 2595) - 1)
    assert edges[32] == round(hertz / 16000 * 513)


def test_more_bands_than_bins_is_refused():
    with pytest.raises(ValueError, match="1 to 65, the number of bins, not 66"):
        mel_band_edges(65, 8000, 66)


def test_narrow_bands_are_not_worked_on_as_wide_ones():
    bands = Bands(513, 32000, 64)
    assert sum(bands.sizes) == 64 and bands.width == 26
    assert len(bands.places()) < 0.45 * 64 * bands.width


def shaken(layer):
    torch.manual_seed(0)
    for p in layer.parameters():
        torch.nn.init.normal_(p)
    return layer.double()


def bins_of(bands, n):
    return range(bands.edges[n], bands.edges[n + 1])


@pytest.mark.parametrize("sizes", [(513, 32000, 64), (33, 8000, 8), (40, 8000, 1)])
def test_project_is_a_map_of_each_padded_band(sizes):
    bands = Bands(*sizes)
    layer, x = shaken(BandProject(bands, 2, 3, UNUSED)), torch.randn(2, 2, sizes[0], 5).double()
    got = layer(x)
    assert got.shape == (2, sizes[2], 3, 5)
    for n in range(sizes[2]):
        padded = torch.tensor(UNUSED).double()[:, None, None].repeat(2, 1, 1, bands.width, 5).view(2, 2, -1, 5)
        padded[:, :, : bands.widths[n]] = x[:, :, bins_of(bands, n)]
        want = layer.weight[n].T @ padded.flatten(1, 2) + layer.bias[n].T
        assert torch.allclose(got[:, n], want)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("shared", [0, 2])
def test_expand_is_a_map_to_each_band(parts, shared):
    bands = Bands(33, 8000, 8)
    layer = shaken(BandExpand(bands, 4 + shared, parts))
    x, rest = torch.randn(2, 3, 8, 4, 5).double(), torch.randn(2, 8, shared, 5).double()
    got = layer(x, rest if shared else None)
    assert got.shape == (2, 3, parts * 33, 5)
    both = torch.cat([x, rest[:, None].expand(-1, 3, -1, -1, -1)], 3)
    for n in range(8):
        want = layer.weight[n].T @ both[:, :, n] + layer.bias[n].T  # [2, 3, parts * W, 5]
        first, wide = bands.edges[n] * parts, bands.widths[n] * parts
        assert torch.allclose(got[:, :, first : first + wide], want[:, :, :wide])
