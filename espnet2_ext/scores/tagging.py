"""Scores of probabilities: average precision of clips' tags, F-measure of a separator's classifier, scores of a tagger.

`tagging_of` gives what stands in a test set's summary.json; `score_tags` scores a tagger on a clip bank (scores.json).
"""

import os
import warnings
from pathlib import Path

import numpy as np

from espnet2_ext.core.mixing.events import clip_activity, frame_activity
from espnet2_ext.data.bank.bank import ClipBank, bank_key
from espnet2_ext.data.outputs import Activity, read_about, read_activity, read_tags, same_keys
from espnet2_ext.errors import DataError
from espnet2_ext.scores.summary import THRESHOLD, VERSIONS, versions
from espnet2_ext.scores.test_set import MODEL, ClassSet, Outputs, QuerySet
from espnet2_ext.util.documents import read_fields
from espnet2_ext.util.files import write_record

TAG_FORMULAS = {
    "mAP": "average precision as scikit-learn's `average_precision_score` (no interpolation), "
    "mean over the classes that occur in the labels",
    "accuracy": "share of clips whose likeliest class is their label; only where every clip has exactly one",
}
MEANS = ("accuracy", "map")
MEAN_FIELDS = {"map": float, "accuracy": (float, None), "keys": int}
_CLASS = {"name": str, "ap": float, "clips": int}
_SCORES = MEAN_FIELDS | {"classes": {str: _CLASS}, "classes_without_clips": int}
_SCORES |= {"seconds": float, "fs": int, "manifest_hash": str, "versions": VERSIONS}


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


def mean_average_precision(clipwise: np.ndarray, truth: np.ndarray) -> tuple[dict[int, float], dict]:
    """Average precision by class, for those that occur in `truth` [N, K]; and map, classes_without_clips."""
    values = average_precision(scores=clipwise, truth=truth)
    by_index = {int(k): float(values[k]) for k in np.flatnonzero(~np.isnan(values))}
    mean = float(values[list(by_index)].mean())
    return by_index, {"map": mean, "classes_without_clips": len(values) - len(by_index)}


def f_measure(*, truth: np.ndarray, probability: np.ndarray, threshold: float = THRESHOLD) -> dict:
    """Counts and F-measure of each class: F = 2 P R / (P + R) = 2 TP / (2 TP + FP + FN).

    (Pishdadian et al., "Finding Strength in Weakness", III-C.)

    Args:
        truth: [N, K], 0 or 1.  probability: [N, K]; active from `threshold` on.
    Returns:
        tp, fp, fn: lists of K counts; precision, recall, f: lists of K, None where 0 / 0; mean_f: over the classes
        that have an F.
    Raises:
        ValueError: shapes that differ.
    """
    if truth.shape != probability.shape or truth.ndim != 2:
        raise ValueError(f"truth and probability: expected [N, K], got {truth.shape} and {probability.shape}")
    truth, active = truth > 0.5, probability >= threshold
    tp, fp, fn = (x.sum(axis=0) for x in (truth & active, ~truth & active, truth & ~active))

    def ratio(part, whole) -> list[float | None]:
        return [float(a / b) if b else None for a, b in zip(part, whole)]

    f = ratio(2 * tp, 2 * tp + fp + fn)
    known = [value for value in f if value is not None]
    return {
        "tp": tp.tolist(),
        "fp": fp.tolist(),
        "fn": fn.tolist(),
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "f": f,
        "mean_f": float(np.mean(known)) if known else None,
    }


def shrink(labels: np.ndarray, time_pool: int, frames: int) -> np.ndarray:
    """Labels [L, K] max-pooled to `frames` steps of `time_pool`, as the classifier's time is."""
    padded = np.zeros((max(frames * time_pool, len(labels)), labels.shape[1]), labels.dtype)
    padded[: len(labels)] = labels
    return padded[: frames * time_pool].reshape(frames, time_pool, -1).max(axis=1)


# ---- of a test set -------------------------------------------------------------------------------


def query_tagging(data: QuerySet, outputs: Outputs) -> dict[str, dict]:
    """Protocol -> mAP over the classes that occur, with the figure of each class; for protocols with tags.

    Raises:
        DataError: tags of other keys or classes than the data's, or that are not finite.
    """
    index = {mid: k for k, mid in enumerate(data.names)}
    found = {}
    for protocol, path in outputs.tags.items():
        keys = data.keys_of(protocol)
        tagged, clipwise = read_tags(path, len(index))
        rows = same_keys({key: n for n, key in enumerate(tagged)}, keys, path)
        truth = np.zeros((len(keys), len(index)), dtype=bool)
        for n, key in enumerate(keys):
            for mid in data.labels.get(key, [data.classes[key]]):
                truth[n, index[mid]] = True
        by_index, figures = mean_average_precision(clipwise[[rows[key] for key in keys]], truth)
        by_class = {mid: by_index[k] for mid, k in index.items() if k in by_index}
        found[protocol] = figures | {"classes": len(by_class), "keys": len(keys), "by_class": by_class}
    return found


def class_detection(data: ClassSet, outputs: Outputs) -> dict:
    """F-measure of the separator's classifier at frame and clip level.

    Frames count where the set knows them: a mixture known by its clip's labels alone has none.

    Returns:
        level -> `f_measure`, and frames or mixtures: how many.
    Raises:
        DataError: activity of other keys or classes than the data's.
    """
    activity = _activity(outputs.tags[MODEL], data)
    table, k = data.table, len(data.classes)
    mixtures = [table.row(table.index_of(key)) for key in data.keys]
    clips = np.stack([clip_activity(m, k) for m in mixtures])
    found = {"clip": f_measure(truth=clips, probability=activity.clip) | {"mixtures": len(clips)}}
    known = [(m, p) for m, p in zip(mixtures, activity.frames) if m.known != "clip"]
    if known:
        sizes = activity.n_fft, activity.hop
        truth = [shrink(frame_activity(m, k, *sizes), activity.time_pool, len(p)) for m, p in known]
        probability = np.concatenate([p for _, p in known])
        found["frame"] = f_measure(truth=np.concatenate(truth), probability=probability)
        found["frame"] |= {"frames": len(probability), "time_pool": activity.time_pool}
    return found


def _activity(path: Path, data: ClassSet) -> Activity:
    activity = read_activity(path)
    classes = [] if activity.classes is None else list(activity.classes.astype(str))
    if classes != data.classes:
        names = ", ".join(data.classes)
        raise DataError(f"{path}: of the classes {', '.join(classes)}, but those of {data.path} are {names}")
    return activity.select(data.keys, path)


# ---- of a tagger ---------------------------------------------------------------------------------


def score_tags(bank_dir: str | os.PathLike, tags_dir: str | os.PathLike) -> Path:
    """Score `tags_dir/tags.npz` against the labels of the bank that was tagged (CaRE-SEP paper, table 1).

    Returns:
        `tags_dir/scores.json`: map; accuracy (None where a clip has not exactly one class); classes: mid -> {name, ap,
        clips}; classes_without_clips, keys, seconds and what identifies the data.

    Raises:
        DataError: no tags, tags of other clips or classes than the bank's, no labels.
    """
    bank, tags_dir = ClipBank(bank_dir), Path(tags_dir)
    clipwise, digest = _tags_of(tags_dir, bank)
    truth = np.zeros((len(bank), bank.num_classes), bool)
    for i in range(len(bank)):
        truth[i, bank.labels(i)] = True
    if not truth.any():
        raise DataError(f"{bank.path}: no clip has a label, so there is nothing to score")
    by_index, figures = mean_average_precision(clipwise, truth)
    classes = {
        c.mid: {"name": c.name, "ap": by_index[c.index], "clips": int(truth[:, c.index].sum())}
        for c in bank.classes
        if c.index in by_index
    }
    scores = figures | {
        "accuracy": accuracy(clipwise, truth),
        "classes": classes,
        "keys": len(bank),
        "seconds": sum(bank.num_samples(i) for i in range(len(bank))) / bank.fs,
        "fs": bank.fs,
        "bank": str(bank_dir),
        "manifest_hash": bank.info["manifest_hash"],
        "tags": digest,
        "versions": versions(("espnet", "torch", "numpy", "scikit-learn")),
    }
    path = tags_dir / "scores.json"
    write_record(path, scores)
    return path


def accuracy(clipwise: np.ndarray, truth: np.ndarray) -> float | None:
    """Share of clips whose highest tag is their class, [N, K] both; None with several labels."""
    if not (truth.sum(axis=1) == 1).all():
        return None
    return float((clipwise.argmax(axis=1) == truth.argmax(axis=1)).mean())


def _tags_of(tags_dir: Path, bank: ClipBank) -> tuple[np.ndarray, str]:
    """Probabilities [N, K], and the digest of what they were made of."""
    path = tags_dir / "tags.npz"
    about = read_about(tags_dir / "about.json", {"digest": str})
    keys, clipwise = read_tags(path, bank.num_classes)
    if any(about.get(k) != v for k, v in bank_key(bank).items()) or len(keys) != len(bank):
        raise DataError(f"{path}: is of other clips or classes than {bank.path} holds; tag them anew")
    return clipwise, about["digest"]


def load_tag_scores(folder: str | os.PathLike, fields: dict | None = None) -> dict:
    """`scores.json` of a folder, or `fields` of it. Raises a DataError where there is none, or one of former tags."""
    path, about = Path(folder) / "scores.json", Path(folder) / "about.json"
    scores = read_fields(path, fields or _SCORES, hint="run the scoring first")
    if about.is_file() and read_about(about, {"digest": str})["digest"] != scores.get("tags"):
        raise DataError(f"{path}: scores of other tags than lie there now; run the scoring again")
    return scores
