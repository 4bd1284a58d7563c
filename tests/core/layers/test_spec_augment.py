"""Where SpecAugment blanks, and where it does not."""

import pytest
import torch

from espnet2_ext.core.layers.mel import SpecAugment


def blanked(**kw):
    torch.manual_seed(0)
    return SpecAugment(**kw)(torch.ones(500, 40, 16, 3)) == 0


def test_whole_stripes_are_blanked_and_as_wide_as_asked():
    gone = blanked(time_width=6, time_stripes=1, band_stripes=0)
    frames = gone[:, :, 0, 0]
    assert torch.equal(gone, frames[:, :, None, None].expand_as(gone))
    assert set(frames.sum(1).tolist()) == {0, 1, 2, 3, 4, 5}
    bands = blanked(time_stripes=0, band_width=3, band_stripes=1)[:, 0, :, 0]
    assert set(bands.sum(1).tolist()) == {0, 1, 2}
    starts = {tuple(row.nonzero()[:, 0].tolist()) for row in bands}
    assert (0, 1) in starts and (14, 15) in starts  # at both ends too


def test_a_stripe_is_in_one_piece():
    frames = blanked(time_width=9, time_stripes=1, band_stripes=0)[:, :, 0, 0]
    ends = frames.int().diff(dim=1).abs().sum(1)
    assert ends.max() == 2


def test_two_stripes_blank_more_than_one():
    one, two = (blanked(time_stripes=n, band_stripes=0).float().mean() for n in (1, 2))
    assert one < two < 2 * one  # they may overlap


def test_map_narrower_than_the_stripes():
    torch.manual_seed(0)
    x = SpecAugment(time_width=64, band_width=8)(torch.ones(200, 5, 2))
    assert {0, 5} <= set((x == 0)[:, :, 0].sum(1).tolist())


def test_nothing_happens_outside_training():
    x = torch.ones(4, 40, 16)
    assert SpecAugment().eval()(x) is x


def test_a_width_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1 wide: 0, 8"):
        SpecAugment(time_width=0)
