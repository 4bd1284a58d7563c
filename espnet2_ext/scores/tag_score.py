"""Scores of a tagger on a bank: average precision of each class, and accuracy where that applies.

CaRE-SEP paper, table 1 (mAP); ESC-50's protocol (accuracy, mean over the folds).
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from espnet2_ext import __version__
from espnet2_ext.data.bank.bank import ClipBank, bank_key
from espnet2_ext.errors import DataError
from espnet2_ext.scores.summary import version
from espnet2_ext.scores.tagging import average_precision
from espnet2_ext.util.files import write_text

PACKAGES = ("espnet", "torch", "numpy", "scikit-learn")
FORMULAS = {
    "mAP": "average precision as scikit-learn's `average_precision_score` (no interpolation), "
    "mean over the classes that occur in the labels",
    "accuracy": "share of clips whose likeliest class is their label; only where every clip has exactly one",
}
MEANS = ("map", "accuracy")


def score_tags(bank_dir: str | os.PathLike, tags_dir: str | os.PathLike) -> Path:
    """Score `tags_dir/tags.npz` against the labels of the bank that was tagged.

    Returns:
        `tags_dir/scores.json`: map; accuracy (None where a clip has not exactly one class);
        classes: mid -> {name, ap, clips}; classes_without_clips, keys, seconds and what tells the
        data.

    Raises:
        DataError: no tags, tags of other clips or classes than the bank's, no labels.
    """
    bank, tags_dir = ClipBank(bank_dir), Path(tags_dir)
    clipwise, digest = _read_tags(tags_dir, bank)
    truth = np.zeros((len(bank), bank.num_classes), bool)
    for i in range(len(bank)):
        truth[i, bank.labels(i)] = True
    if not truth.any():
        raise DataError(f"{bank.path}: no clip has a label, so there is nothing to score")
    values = average_precision(scores=clipwise, truth=truth)
    occurs = ~np.isnan(values)
    classes = {
        c.mid: {"name": c.name, "ap": float(values[c.index]), "clips": int(truth[:, c.index].sum())}
        for c in bank.classes
        if occurs[c.index]
    }
    scores = {
        "map": float(values[occurs].mean()),
        "accuracy": accuracy(clipwise, truth),
        "classes": classes,
        "classes_without_clips": int((~occurs).sum()),
        "keys": len(bank),
        "seconds": sum(bank.num_samples(i) for i in range(len(bank))) / bank.fs,
        "fs": bank.fs,
        "bank": str(bank_dir),
        "manifest_hash": bank.info["manifest_hash"],
        "tags": digest,
        "versions": {"espnet2_ext": __version__} | {p: version(p) for p in PACKAGES},
    }
    path = tags_dir / "scores.json"
    write_text(path, json.dumps(scores, indent=1, allow_nan=False) + "\n")
    return path


def accuracy(clipwise: np.ndarray, truth: np.ndarray) -> float | None:
    """Share of clips whose highest tag is their class, [N, K] both; None with several labels."""
    if not (truth.sum(axis=1) == 1).all():
        return None
    return float((clipwise.argmax(axis=1) == truth.argmax(axis=1)).mean())


def _read_tags(tags_dir: Path, bank: ClipBank) -> tuple[np.ndarray, str]:
    """Probabilities [N, K], and the digest of what they were made of."""
    path = tags_dir / "tags.npz"
    if not (tags_dir / "about.json").is_file() or not path.is_file():
        raise DataError(f"{tags_dir}: no tags.npz that is whole; run the tagging first")
    about = json.loads((tags_dir / "about.json").read_text(encoding="utf-8"))
    with np.load(path) as z:
        keys, clipwise = z["keys"].astype(str), z["clipwise"]
    if any(about.get(k) != v for k, v in bank_key(bank).items()) or len(keys) != len(bank):
        raise DataError(f"{path}: is of other clips or classes than {bank.path} holds; tag them anew")
    if clipwise.shape[1] != bank.num_classes:
        raise DataError(f"{path}: has tags of {clipwise.shape[1]} classes, {bank.path} has {bank.num_classes}")
    return clipwise, about["digest"]


def load_scores(folder: str | os.PathLike) -> dict:
    """`scores.json` of a folder. Raises a DataError where there is none, or one of former tags."""
    path, about = Path(folder) / "scores.json", Path(folder) / "about.json"
    if not path.is_file():
        raise DataError(f"{folder}: no scores.json; run the scoring first")
    scores = json.loads(path.read_text(encoding="utf-8"))
    made = json.loads(about.read_text(encoding="utf-8")) if about.is_file() else None
    if made and made["digest"] != scores.get("tags"):
        raise DataError(f"{path}: scores of other tags than lie there now; run the scoring again")
    return scores


def mean_scores(folders: Sequence[str | os.PathLike]) -> dict:
    """Mean of scores over folds: {folds: [{folder, map, accuracy, keys}], map, accuracy, keys}.

    Means go over the folds, not the clips, as ESC-50's protocol asks; the key `std` holds the
    standard deviations (n - 1).
    """
    folds = [
        {"folder": str(folder)} | {k: scores[k] for k in (*MEANS, "keys")}
        for folder, scores in ((f, load_scores(f)) for f in folders)
    ]
    found: dict = {"folds": folds, "keys": sum(f["keys"] for f in folds), "std": {}}
    for name in MEANS:
        values = [f[name] for f in folds]
        known = values and None not in values
        found[name] = float(np.mean(values)) if known else None
        found["std"][name] = float(np.std(values, ddof=1)) if known and values[1:] else None
    return found
