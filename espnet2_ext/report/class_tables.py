"""The tables of a test set of class mixtures: models trained on different labels side by side.

Tables IV, V and VI of Pishdadian et al., "Finding Strength in Weakness"; XII has the layout of VI.
"""

from collections.abc import Sequence

from espnet2_ext.report.experiment import Scored
from espnet2_ext.report.tables import ESPNET_COLUMNS, NONE, Table, both, db, espnet_row, share, title_of
from espnet2_ext.scores.summary import scored_names

# Labels whose classifiers learned from frames; the others' frames were never compared with labels.
FRAME_LABELS = ("frame", "mixed")


def class_tables(scored: Sequence[Scored], class_rows: int | None = None) -> list[Table]:
    """All tables of a test set, in the order of the report, a column per class."""
    made = [
        separation(scored),
        detection(scored, "frame"),
        detection(scored, "clip"),
        silence(scored),
        class_espnet(scored),
        espnet_by_class(scored),
    ]
    return [table for table in made if table is not None]


def separation(scored: Sequence[Scored]) -> Table | None:
    """Table VI: input SI-SDR and its improvement by label type, class by class and over all.

    None without isolated sounds to compare with.
    """
    first = scored[0].summary
    if not first["scores"]:
        return None
    classes = scored_names(first)

    def cells(summary: dict, name: str) -> list[str]:
        found = [summary["scores"].get(c, {}) for c in classes] + [summary["overall"]]
        return [both(figures.get(name), "{} / {}") for figures in found]

    rows = [["input SI-SDR", *cells(first, "input")]]
    rows += [[f"ΔSI-SDR {s.label}", *cells(s.summary, "gain")] for s in scored]
    note = (
        "Mean / median in dB over the mixtures in which a class sounds beside another sound; "
        "Δ: improvement over the unprocessed mixture; overall: all sources of all classes."
    )
    return Table("Separation (Table VI)", note, ["", *map(title_of, classes), "overall"], rows)


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
        values = [share(f, 3) for f in (*found["f"], found["mean_f"])]
        rows.append([f"trained on {s.label} labels", *values])
    number = {"frame": "IV", "clip": "V"}[level]
    note = "F-measure of the classifier on the mixtures, threshold 0.5; mean: over the classes."
    columns = ["classifier", *map(title_of, kept[0].summary["classes"]), "mean"]
    return Table(f"Detection by {level} (Table {number})", note, columns, rows)


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
        "class sounds; they have no SI-SDR and are excluded from the means."
    )
    columns = ["labels", *map(title_of, classes), "overall", "silent outputs"]
    return Table("Outputs of absent classes", note, columns, rows)


def class_espnet(scored: Sequence[Scored]) -> Table | None:
    """ESPnet's own scores over all classes, a row per system; None where it was not asked for."""
    kept = [s for s in scored if "espnet" in s.summary["overall"]]
    if not kept:
        return None
    rows = [["mixture", *espnet_row(kept[0].summary["overall"]["espnet_input"])]]
    rows += [[s.label, *espnet_row(s.summary["overall"]["espnet"])] for s in kept]
    note = (
        "Means of ESPnet's `enh_scoring`, one class at a time where it sounds (dB; STOI in %; "
        "its SDR forgives a filter of 512 taps)."
    )
    return Table("ESPnet's scoring", note, ["labels", "sources", *ESPNET_COLUMNS], rows)


def espnet_by_class(scored: Sequence[Scored]) -> Table | None:
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
    return Table("ESPnet's SDR by class", note, ["labels", *map(title_of, classes)], rows)
