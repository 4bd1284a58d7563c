"""Mean average precision: by hand and against scikit-learn."""

import numpy as np
import pytest

from espnet2_ext.scores.tagging import average_precision


def test_hand_computed():
    # Class 0 ranks its two clips first and third: (1/1 + 2/3) / 2. Class 1 does not occur.
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    truth = np.array([[1, 0], [0, 0], [1, 0]], dtype=bool)
    values = average_precision(scores=scores, truth=truth)
    assert values[0] == pytest.approx((1 + 2 / 3) / 2)
    assert np.isnan(values[1])


def test_is_scikit_learns_macro_mean():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores, truth = rng.uniform(size=(50, 7)), rng.uniform(size=(50, 7)) < 0.3
    theirs = metrics.average_precision_score(truth, scores, average="macro")
    assert average_precision(scores=scores, truth=truth).mean() == pytest.approx(theirs)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\), \(2, 2\)"):
        average_precision(scores=np.zeros((2, 3)), truth=np.zeros((2, 2), dtype=bool))
