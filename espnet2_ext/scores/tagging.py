"""Tagging: mean average precision of the clip-wise class probabilities."""

import warnings

import numpy as np

from espnet2_ext.scores.test_set import DataFolder


def average_precision(*, scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Average precision of each class (scikit-learn's, no interpolation).

    Args:
        scores: [B, K], higher is likelier.  truth: [B, K] bool.
    Returns:
        [K] float64 in 0 .. 1; NaN for classes that do not occur in `truth`.
    Raises:
        ValueError: shapes that differ.
    """
    from sklearn.metrics import average_precision_score

    if scores.shape != truth.shape or truth.ndim != 2:
        raise ValueError(f"scores and truth: expected [B, K], got {scores.shape}, {truth.shape}")
    occurs = truth.any(axis=0)
    values = np.full(truth.shape[1], np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for k in np.flatnonzero(occurs):
            values[k] = average_precision_score(truth[:, k], scores[:, k])
    return values


def mean_average_precision(clipwise: np.ndarray, data: DataFolder, keys: list[str]) -> dict:
    """mAP over the classes that occur in the labels of `keys`, with the figure of each class.

    Args:
        clipwise: [N, K] probabilities, rows in the order of `keys`.
    """
    index = {mid: k for k, mid in enumerate(data.names)}
    truth = np.zeros(clipwise.shape, dtype=bool)
    for row, key in enumerate(keys):
        for mid in data.labels.get(key, [data.classes[key]]):
            truth[row, index[mid]] = True
    values = average_precision(scores=clipwise, truth=truth)
    occurs = ~np.isnan(values)
    by_class = {mid: float(values[k]) for mid, k in index.items() if occurs[k]}
    return {
        "map": float(values[occurs].mean()),
        "classes": int(occurs.sum()),
        "classes_without_clips": int((~occurs).sum()),
        "keys": len(keys),
        "by_class": by_class,
    }
