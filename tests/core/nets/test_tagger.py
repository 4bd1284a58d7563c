"""Mixup, as all taggers do it."""

import torch

from espnet2_ext.core.nets.contracts import mix_up


def test_mixup_is_a_weighted_sum_with_the_mirrored_batch():
    x = torch.tensor([[[1.0], [2.0]], [[10.0], [0.0]], [[100.0], [200.0]]])  # [B, L, N]
    mixed, frames = mix_up(x, torch.tensor([2, 1, 2]), torch.tensor([0.75, 0.5, 0.25]))
    assert mixed[:, :, 0].tolist() == [[25.75, 51.5], [10.0, 0.0], [25.75, 51.5]]
    assert frames.tolist() == [2, 1, 2]


def test_a_mixed_item_is_as_long_as_the_longer_one():
    assert mix_up(torch.zeros(2, 5, 1), torch.tensor([2, 5]), torch.ones(2))[1].tolist() == [5, 5]


def test_without_weights_nothing_is_mixed():
    x, frames = torch.randn(3, 4, 2), torch.tensor([4, 2, 3])
    assert mix_up(x, frames, None) == (x, frames)


def test_complex_spectra_of_more_axes_mix_too():
    x = torch.randn(2, 3, 4, 5, dtype=torch.cfloat)
    mixed, _ = mix_up(x, torch.tensor([3, 3]), torch.tensor([1.0, 0.0]))
    assert torch.equal(mixed, torch.stack([x[0], x[0]]))
