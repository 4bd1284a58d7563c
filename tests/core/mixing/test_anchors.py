"""Energies of segments by hand; the choice among them is tested with the drawing of pairs."""

import numpy as np

from espnet2_ext.core.mixing.pairs import segment_energies


def test_segment_energies_by_hand():
    # three frames of 100 samples and one of 50, energies 1 4 9 16 a sample; segments of 150
    starts, energy = segment_energies(np.array([1, 4, 9, 16.0]), 350, 150, 100.0)
    np.testing.assert_array_equal(starts, [0, 100, 200])
    np.testing.assert_allclose(energy, [100 + 200, 400 + 450, 900 + 800])
    starts, energy = segment_energies(np.array([1, 4, 9, 16.0]), 350, 220, 100.0)
    np.testing.assert_array_equal(starts, [0, 100, 130])
    np.testing.assert_allclose(energy, [500 + 180, 400 + 900 + 320, 280 + 900 + 800])
