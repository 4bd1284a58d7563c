"""Cross-validation: the scores of each fold and their mean, as JSON and as a table."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from espnet2_ext.report.experiment import load_summary
from espnet2_ext.report.tables import Table, db, share, title_of
from espnet2_ext.scores.summary import scored_names
from espnet2_ext.scores.tagging import MEAN_FIELDS, MEANS, load_tag_scores


def tag_folds(folders: Sequence[str | os.PathLike]) -> tuple[dict, Table]:
    """mAP and accuracy of scored taggers, one a fold; see `_mean`."""
    folds = [
        {"folder": str(folder)} | {k: scores[k] for k in (*MEANS, "keys")}
        for folder, scores in ((f, load_tag_scores(f, MEAN_FIELDS)) for f in folders)
    ]
    mean = _mean(folds, MEANS)
    note = f"{len(folds)} folds, each tested with a tagger trained on the others."
    return mean, _table(mean, note, {"accuracy": "accuracy", "map": "mAP"}, share, "clips")


def class_folds(folders: Sequence[str | os.PathLike]) -> tuple[dict, Table]:
    """Mean gain in SI-SDR of separators of classes, one a fold: each class and `overall`; see `_mean`."""
    folds = []
    for folder in folders:
        summary = load_summary(Path(folder))
        names = {name: summary["scores"][name] for name in scored_names(summary)} | {"overall": summary["overall"]}
        gains = {name: figures["gain"]["mean"] for name, figures in names.items()}
        folds.append({"folder": str(folder)} | gains | {"keys": summary["overall"]["gain"]["count"]})
    shown = {name: title_of(name) for fold in folds for name in fold if name not in ("folder", "keys", "overall")}
    mean = _mean(folds, [*shown, "overall"])
    note = f"Mean ΔSI-SDR in dB; {len(folds)} folds, each tested with a separator trained on the others."
    return mean, _table(mean, note, shown | {"overall": "overall"}, lambda gain: db({"mean": gain}), "sources")


def _mean(folds: list[dict], names: Sequence[str]) -> dict:
    """`folds`, and of each of `names` the mean over them, as ESPnet's and ESC-50's habit is (not over the clips).

    The key `std` holds the standard deviations (n - 1). What a fold lacks has no mean.
    """
    found: dict = {"folds": folds, "keys": sum(f["keys"] for f in folds), "std": {}}
    for name in names:
        values = [f.get(name) for f in folds]
        known = values and None not in values
        found[name] = float(np.mean(values)) if known else None
        found["std"][name] = float(np.std(values, ddof=1)) if known and values[1:] else None
    return found


def _table(mean: dict, note: str, names: dict[str, str], show: Callable[[float | None], str], keys: str) -> Table:
    """A row per fold, the mean and the spread; `names` of the figures and what heads them, `show` writes one."""

    def cells(figures: dict) -> list[str]:
        return [show(figures.get(name)) for name in names]

    rows = [[f["folder"], str(f["keys"]), *cells(f)] for f in mean["folds"]]
    rows += [["mean", str(mean["keys"]), *cells(mean)], ["standard deviation", "", *cells(mean["std"])]]
    return Table("Cross-validation", note, ["fold", keys, *names.values()], rows)
