"""F-measure of a classifier on mixtures, by frame and by clip."""

import numpy as np

from espnet2_ext.core.mixing.events import clip_activity, frame_activity
from espnet2_ext.scores.weak_folders import Activity, WeakData

THRESHOLD = 0.5


def f_measure(*, truth: np.ndarray, probability: np.ndarray, threshold: float = THRESHOLD) -> dict:
    """Counts and F-measure of each class: F = 2 P R / (P + R) = 2 TP / (2 TP + FP + FN).

    (Pishdadian et al., "Finding Strength in Weakness", III-C.)

    Args:
        truth: [N, K], 0 or 1.  probability: [N, K]; active from `threshold` on.
    Returns:
        tp, fp, fn: lists of K counts; precision, recall, f: lists of K, None where 0 / 0.
    Raises:
        ValueError: shapes that differ.
    """
    if truth.shape != probability.shape or truth.ndim != 2:
        raise ValueError(f"truth and probability: expected [N, K], got {truth.shape} and {probability.shape}")
    truth, heard = truth > 0.5, probability >= threshold
    tp, fp, fn = (x.sum(axis=0) for x in (truth & heard, ~truth & heard, truth & ~heard))

    def ratio(part, whole) -> list[float | None]:
        return [float(a / b) if b else None for a, b in zip(part, whole)]

    return {
        "tp": tp.tolist(),
        "fp": fp.tolist(),
        "fn": fn.tolist(),
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "f": ratio(2 * tp, 2 * tp + fp + fn),
    }


def shrink(labels: np.ndarray, time_pool: int, frames: int) -> np.ndarray:
    """Labels [L, K] max-pooled to `frames` steps of `time_pool`, as the classifier's time is."""
    padded = np.zeros((max(frames * time_pool, len(labels)), labels.shape[1]), labels.dtype)
    padded[: len(labels)] = labels
    return padded[: frames * time_pool].reshape(frames, time_pool, -1).max(axis=1)


def detection(data: WeakData, activity: Activity) -> dict:
    """F-measure of all classes at frame and clip level.

    Frames count where the set knows them: a mixture known by its clip's labels alone has none.

    Returns:
        level -> `f_measure` and mean_f (over the classes that have an F), frames or mixtures.
    """
    table, k = data.table, len(data.classes)
    mixtures = [table.row(table.index_of(key)) for key in data.keys]
    clips = np.stack([clip_activity(m, k) for m in mixtures])
    found = {"clip": _mean(f_measure(truth=clips, probability=activity.clip)) | {"mixtures": len(clips)}}
    sizes = activity.n_fft, activity.hop
    known = [(m, p) for m, p in zip(mixtures, activity.frames) if m.known != "clip"]
    if known:
        truth = [shrink(frame_activity(m, k, *sizes), activity.time_pool, len(p)) for m, p in known]
        probability = np.concatenate([p for _, p in known])
        found["frame"] = _mean(f_measure(truth=np.concatenate(truth), probability=probability))
        found["frame"] |= {"frames": len(probability), "time_pool": activity.time_pool}
    return found


def _mean(found: dict) -> dict:
    values = [f for f in found["f"] if f is not None]
    return found | {"mean_f": float(np.mean(values)) if values else None}
