"""From rows of class-wise scores to the figures of a table."""

from espnet2_ext import __version__
from espnet2_ext.core.metrics import MAX_DB, SILENCE, summarise
from espnet2_ext.scores.espnet import SCORES
from espnet2_ext.scores.summary import PACKAGES, version
from espnet2_ext.scores.weak_detection import THRESHOLD, detection
from espnet2_ext.scores.weak_espnet_scoring import SYSTEMS
from espnet2_ext.scores.weak_folders import REST, Activity, Outputs, WeakData

OWN = ("input", "si_sdr", "gain")
FORMULAS = {
    "si_sdr": "10 log10(|a ref|^2 / |a ref - est|^2) with a = <est, ref> / |ref|^2; means are kept",
    "input": "si_sdr of the unprocessed mixture",
    "gain": "si_sdr of the estimate minus that of the mixture (the paper's delta SI-SDR)",
    "left out": "classes that are silent in a mixture (mean square under 1e-8), and what is alone in its mixture",
    "level_db": "10 log10(ms(output) / ms(mixture)) where the class is silent; mean squares (ms) floored at 1e-8",
    "overall": "over all scored sources of all classes",
    "f": f"2 TP / (2 TP + FP + FN) of the classifier on the mixture, threshold {THRESHOLD:g}",
    "espnet": "espnet2.bin.enh_scoring, one class at a time, on scored sources",
}


def summarise_weak(rows: list[dict], data: WeakData, outputs: Outputs, activity: Activity | None) -> dict:
    """The content of summary.json but for its paths.

    Args:
        rows: of scores.jsonl, one a mixture.
        activity: what the classifier heard; None without one.
    """
    return {
        "keys": len(rows),
        "seconds": sum(row["seconds"] for row in rows),
        "fs": rows[0]["fs"],
        "classes": data.classes,
        "outputs": outputs.names,
        "alone": sum(any(s["state"] == "alone" for s in r["classes"].values()) for r in rows),
        "list": data.info,
        "table": _table(data),
        "formulas": FORMULAS,
        "silence_floor": SILENCE,
        "max_db": MAX_DB,
        "versions": {"espnet2_ext": __version__} | {p: version(p) for p in PACKAGES},
        "scores": {name: figures([row["classes"][name] for row in rows]) for name in rows[0]["classes"]},
        "overall": figures([s for r in rows for n, s in r["classes"].items() if n != REST]),
        "detection": None if activity is None else detection(data, activity),
    }


def figures(scores: list[dict]) -> dict:
    """Means, medians and counts over the scores of a class (or of all)."""
    scored = [s for s in scores if s["state"] == "scored"]
    silent = [s["level_db"] for s in scores if s["state"] == "silent"]
    found: dict = {name: summarise(s[name] for s in scored) for name in OWN}
    found |= {
        "silent": {"count": len(silent), "level_db": summarise(silent)},
        "alone": sum(s["state"] == "alone" for s in scores),
        "silent_estimates": sum(s["silent_estimate"] for s in scored),
    }
    for system in SYSTEMS:
        values = [s[system] for s in scored if system in s]
        if values:
            found[system] = {name: summarise(v[name] for v in values) for name in SCORES}
    return found


def _table(data: WeakData) -> dict:
    """What tells the table of mixtures."""
    names = ("mixtures", "events", "seed", "settings", "bank_hash", "table_hash")
    return {name: data.table.info.get(name) for name in names}


def classes_of(summary: dict) -> list[str]:
    """The classes with scores, and the residual where it was scored."""
    return [*summary["classes"], *([REST] if REST in summary["scores"] else [])]
