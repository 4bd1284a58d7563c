"""The tables of class-wise separation: the paper's VI, IV and V, and what stands beside them.

(Pishdadian et al., "Finding Strength in Weakness"; Table XII has the layout of VI.)
"""

from collections.abc import Sequence

from espnet2_ext.report.tables import NONE, Table, both, db
from espnet2_ext.report.weak_sets import Scored
from espnet2_ext.scores.espnet import SCORES
from espnet2_ext.scores.summary import scored_names

# Labels whose classifiers learned from frames; the others' frames were never compared with labels.
FRAME_LABELS = ("frame", "mixed")


def separation(scored: Sequence[Scored]) -> Table | None:
    """Table VI: input SI-SDR and its improvement by label type, class by class and over all.

    None without isolated sounds to compare with.
    """
    first = scored[0].summary
    if not first["scores"]:
        return None
    classes = scored_names(first)
    columns = ["", *map(_name, classes), "overall"]
    rows = [["input SI-SDR", *_cells(first, classes, "input")]]
    rows += [[f"ΔSI-SDR {s.label}", *_cells(s.summary, classes, "gain")] for s in scored]
    note = (
        "Mean / median in dB over the mixtures in which a class sounds beside another sound; "
        "Δ: improvement over the unprocessed mixture; overall: all sources of all classes."
    )
    return Table("Separation (Table VI)", note, columns, rows)


def _cells(summary: dict, classes: list[str], name: str) -> list[str]:
    found = [summary["scores"].get(c, {}) for c in classes] + [summary["overall"]]
    return [_pair(figures.get(name)) for figures in found]


def _pair(figures: dict | None) -> str:
    text = db(figures)
    return text if text == NONE else f"{text} / {db(figures, 'median')}"


def detection(scored: Sequence[Scored], level: str) -> Table | None:
    """Table IV (level "frame") or V ("clip"): F-measure of the classifiers; None without any."""
    kept = [s for s in scored if (s.summary["detection"] or {}).get(level)]
    if level == "frame":
        kept = [s for s in kept if s.label in FRAME_LABELS]
    if not kept:
        return None
    rows = []
    for s in kept:
        found = s.summary["detection"][level]
        rows.append([f"trained on {s.label} labels", *map(_share, found["f"]), _share(found["mean_f"])])
    number, what = ("IV", "frame") if level == "frame" else ("V", "clip")
    note = "F-measure of the classifier on the mixtures, threshold 0.5; mean: over the classes."
    columns = ["classifier", *map(_name, kept[0].summary["classes"]), "mean"]
    return Table(f"Detection by {what} (Table {number})", note, columns, rows)


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def silence(scored: Sequence[Scored]) -> Table | None:
    """How far outputs lie under the mixture where their class is silent; None where none is."""
    first = scored[0].summary
    if not first["overall"]["silent"]["count"] and not any(s.summary["overall"]["silent_estimates"] for s in scored):
        return None
    classes = first["classes"]
    rows = []
    for s in scored:
        cells = [both(s.summary["scores"][c]["silent"]["level_db"]) for c in classes]
        overall = s.summary["overall"]
        rows.append([s.label, *cells, both(overall["silent"]["level_db"]), str(overall["silent_estimates"])])
    counts = [str(first["scores"][c]["silent"]["count"]) for c in classes]
    rows.append(["mixtures without it", *counts, str(first["overall"]["silent"]["count"]), NONE])
    note = (
        "Level of a class's output against the mixture in dB, mean (median), over the mixtures "
        "in which the class is silent. Last column: outputs that are all zeros where their "
        "class sounds; they have no SI-SDR and are in no mean."
    )
    columns = ["labels", *map(_name, classes), "overall", "silent outputs"]
    return Table("Outputs of classes that are not there", note, columns, rows)


def espnet(scored: Sequence[Scored]) -> Table | None:
    """ESPnet's own scores over all classes, a row a system; None where it was not asked for."""
    kept = [s for s in scored if "espnet" in s.summary["overall"]]
    if not kept:
        return None
    systems = [("mixture", kept[0].summary["overall"]["espnet_input"])]
    systems += [(s.label, s.summary["overall"]["espnet"]) for s in kept]
    rows = [[name, str(f["SDR"]["count"]), *(db(f[x]) for x in SCORES)] for name, f in systems]
    note = (
        "Means of ESPnet's `enh_scoring`, one class at a time where it sounds (dB; STOI in %; "
        "its SDR forgives a filter of 512 taps)."
    )
    return Table("ESPnet's scoring", note, ["labels", "sources", *(x.replace("_", "-") for x in SCORES)], rows)


def espnet_classes(scored: Sequence[Scored]) -> Table | None:
    """The SDR of ESPnet's scoring class by class."""
    kept = [s for s in scored if "espnet" in s.summary["overall"]]
    if not kept:
        return None
    classes = scored_names(kept[0].summary)

    def cells(s: Scored, system: str) -> list[str]:
        return [db(s.summary["scores"].get(c, {}).get(system, {}).get("SDR")) for c in classes]

    rows = [["mixture", *cells(kept[0], "espnet_input")]]
    rows += [[s.label, *cells(s, "espnet")] for s in kept]
    note = "Means in dB; the residual, where there is one, is `rest`."
    return Table("ESPnet's SDR by class", note, ["labels", *map(_name, classes)], rows)


def set_tables(scored: Sequence[Scored]) -> list[Table]:
    """All tables of a test set, in the order of the report."""
    made = [
        separation(scored),
        detection(scored, "frame"),
        detection(scored, "clip"),
        silence(scored),
        espnet(scored),
        espnet_classes(scored),
    ]
    return [table for table in made if table is not None]


def _name(cls: str) -> str:
    return cls.replace("_", " ")
