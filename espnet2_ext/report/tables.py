"""The tables of a test set, as plain rows: RESULTS.md and the page print the same ones.

Of queries: one model, a row per protocol. Of classes: models trained on different labels side by side.
"""

import dataclasses
from collections.abc import Sequence

from espnet2_ext.report.experiment import Scored
from espnet2_ext.scores.espnet import SCORES
from espnet2_ext.scores.summary import scored_names

NONE = "–"
PROTOCOL_NOTE = {"self": "the query is the clean target itself", "other": "the query is another clip of the class"}


@dataclasses.dataclass(frozen=True)
class Table:
    """A table to print: `rows` hold text, the first column is a name, the others are figures."""

    title: str
    note: str
    columns: list[str]
    rows: list[list[str]]


def db(figures: dict | None, which: str = "mean") -> str:
    """A figure of `core.metrics.summarise` with two decimals."""
    value = (figures or {}).get(which)
    return NONE if value is None else f"{value:z.2f}"


def both(figures: dict | None, text: str = "{} ({})") -> str:
    """Mean and median, the median in brackets."""
    mean = db(figures)
    return mean if mean == NONE else text.format(mean, db(figures, "median"))


def share(value: float | None, digits: int = 4) -> str:
    """A figure between 0 and 1."""
    return NONE if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share as a whole number of percent."""
    return NONE if value is None else f"{100 * value:.0f} %"


def title_of(name: str) -> str:
    """Name of a class, as it is printed."""
    return name.replace("_", " ")


def espnet_row(figures: dict | None) -> list[str]:
    """Count and means of ESPnet's own scores."""
    scores = figures or {}
    return [str(scores["SDR"]["count"] if scores else 0), *(db(scores.get(score)) for score in SCORES)]


ESPNET_COLUMNS = [score.replace("_", "-") for score in SCORES]


# ---- queries -------------------------------------------------------------------------------------


def query_tables(scored: Sequence[Scored], class_rows: int | None = None) -> list[Table]:
    """All tables of a model on a test set, in the order of the report; `class_rows`: at most so many classes."""
    summary = scored[0].summary
    made = [
        protocols(summary),
        conditions(summary),
        first_targets(summary),
        query_espnet(summary),
        left_out(summary),
        tagging(summary),
        by_class(summary, class_rows),
    ]
    return [table for table in made if table is not None]


def protocols(summary: dict) -> Table:
    """SDR on the mixture, the target alone and without the target, a row per protocol."""
    own = summary["mixture"]
    count = str(own["sdr"]["count"])
    rows = [["unprocessed", count, both(own["sdr"]), NONE, both(own["si_sdr"]), *[NONE] * 3]]
    for name, p in summary["protocols"].items():
        figures = ("sdr", "sdr_gain", "si_sdr", "si_sdr_gain", "clean_sdr", "silence_sdr")
        rows.append([name, str(p["sdr"]["count"]), *(both(p.get(f)) for f in figures)])
    columns = ["query", "targets", "mixture-SDR", "gain", "SI-SDR", "gain", "clean-SDR", "silence-SDR"]
    notes = [f"`{p}`: {PROTOCOL_NOTE[p]}" for p in summary["protocols"]]
    return Table("Separation", f"dB, mean (median). {'; '.join(notes)}.", columns, rows)


def gain_in_words(scored: Sequence[Scored]) -> str:
    """The mean gain of each protocol, in a sentence."""
    (s,) = scored
    means = {p: f["sdr_gain"]["mean"] for p, f in s.summary["protocols"].items()}
    parts = [f"{mean:z.1f} dB where {PROTOCOL_NOTE[p]}" for p, mean in means.items() if mean is not None]
    return f"Mean SDR gain over {s.summary['keys']} targets: {', '.join(parts)}." if parts else ""


def conditions(summary: dict) -> Table | None:
    """The means of each condition, a row per protocol; None for mixtures of one kind."""
    found = {p: {c["name"]: c for c in f.get("conditions", ())} for p, f in summary["protocols"].items()}
    rows = []
    for name in max(found.values(), key=len, default={}):  # without a target there is no query `self`
        for protocol, by_name in found.items():
            if c := by_name.get(name):
                figures = (db(c[f]) for f in ("input_sdr", "sdr", "sdr_gain", "si_sdr", "si_sdr_gain"))
                rest = percent(c["worse"]), db(c["level_db"]), percent(c["false_extraction"])
                rows.append([name, protocol, str(c["targets"]), *figures, *rest])
    note = (
        "Means in dB. N dB: two sounds, the target N dB above the other (to the nearest 10 dB); N sources: sounds of "
        "one level; same class: two sounds of one class (the query `other` fits both); alone: nothing else sounds; "
        "absent: nothing that sounds is asked for. Worse: outputs with a lower SI-SDR than their mixture. False "
        "extractions: outputs above -20 dB of the mixture where the query is absent from it."
    )
    columns = ["mixture", "query", "targets", "input SDR", "SDR", "gain", "SI-SDR", "gain", "worse"]
    columns += ["output level", "false extractions"]
    return Table("Conditions", note, columns, rows) if rows else None


def first_targets(summary: dict) -> Table | None:
    """mixture-SDR of the first target of each mixture alone; None where that was not counted."""
    found = {p: f.get("first_targets") for p, f in summary["protocols"].items()}
    if not any((f or {}).get("sdr", {}).get("count") for f in found.values()):
        return None
    rows = [[p, str(f["sdr"]["count"]), both(f["sdr"]), both(f["sdr_gain"])] for p, f in found.items() if f]
    note = (
        "The figures above are over both targets of each mixture; here those of its first one, "
        "which in a list of whole clips is each clip once. dB, mean (median)."
    )
    return Table("First targets", note, ["query", "first targets", "mixture-SDR", "gain"], rows)


def query_espnet(summary: dict) -> Table:
    """BSSEval v3 over all keys and ESPnet's own scores, a row per system."""
    systems = {"unprocessed": summary["mixture"]} | summary["protocols"]
    rows = [[name, both(f["bss_eval_sdr"]), *espnet_row(f.get("espnet"))] for name, f in systems.items()]
    note = (
        "SDR v3 is that of BSSEval v3 (bss_eval_sources, a 512-tap filter is forgiven), mean (median); the columns "
        "from `keys` on are the means of ESPnet's `enh_scoring` (dB; STOI in %)."
    )
    columns = ["query", "SDR v3, all keys", "keys", *ESPNET_COLUMNS]
    return Table("BSSEval v3 and ESPnet's scoring", note, columns, rows)


def left_out(summary: dict) -> Table:
    """What left the means and what stands for it instead."""
    rows = []
    for name, p in summary["protocols"].items():
        silent, checked = p["silent_references"], (p.get("silence_sdr") or {}).get("count", 0)
        false = f"{silent['false_extractions']} of {silent['count']}", f"{p['false_extractions']} of {checked}"
        counts = [str(p[what]) for what in ("silent_estimates", "single_sources", "without_query")]
        rows.append([name, str(silent["count"]), both(silent["level_db"]), *false, *counts])
    note = (
        "Silent references and mixtures of one source have no SDR and are excluded from the means above, as are "
        "targets without a query (a class of one clip has no `other`). Output level: dB against the mixture. A false "
        f"extraction lies less than {summary['false_extraction_db']:g} dB under its input."
    )
    columns = ["query", "silent references", "their output level", "false extractions"]
    columns += ["false extractions of silence-SDR", "silent estimates", "mixtures of one source", "no query"]
    return Table("Excluded from the means", note, columns, rows)


def tagging(summary: dict) -> Table | None:
    """mAP, where the model tags."""
    if not summary["tagging"]:
        return None
    counted = ("classes", "classes_without_clips", "keys")
    rows = [[name, share(t["map"]), *(str(t[n]) for n in counted)] for name, t in summary["tagging"].items()]
    columns = ["query", "mAP", "classes", "classes without a target", "targets"]
    note = "Average precision (scikit-learn), mean over the classes that occur in the labels."
    return Table("Tagging", note, columns, rows)


def by_class(summary: dict, limit: int | None = None) -> Table:
    """Scores of each class under every protocol; the worst gain of the first protocol first.

    Args:
        limit: at most so many rows: the worst, but for a quarter that is left to the best.
    """
    names = list(summary["protocols"])
    by_mid = {p: {c["mid"]: c for c in summary["protocols"][p]["classes"]} for p in names}
    order = summary["protocols"][names[0]]["classes"]
    total = len(order)
    if limit is not None and total > limit:
        order = order[: limit - limit // 4] + order[-(limit // 4) :]
    rows = []
    for c in order:
        row = [c["name"], str(c["keys"]), db(c["mixture_sdr"])]
        for p in names:
            figures = by_mid[p].get(c["mid"], {})
            row += [db(figures.get(f)) for f in ("sdr", "sdr_gain", "silence_sdr")]
        rows.append(row)
    columns = ["class", "keys", "unprocessed SDR"]
    columns += [f"{p}: {what}" for p in names for what in ("SDR", "gain", "silence-SDR")]
    shown = "" if len(rows) == total else f" {len(rows)} of {total} classes: worst and best."
    note = f"Means in dB; the class with the smallest gain under `{names[0]}` first.{shown}"
    return Table("Classes", note, columns, rows)


# ---- classes: tables IV, V and VI of Pishdadian et al., "Finding Strength in Weakness"; XII as VI -----

# Labels whose classifiers learned from frames; the others' frames were never compared with labels.
FRAME_LABELS = ("frame", "mixed")


def class_tables(scored: Sequence[Scored], class_rows: int | None = None) -> list[Table]:
    """All tables of a test set, in the order of the report, a column per class."""
    made = [separation(scored), detection(scored, "frame"), detection(scored, "clip"), silence(scored)]
    return [*(table for table in made if table is not None), *class_espnet(scored)]


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


def class_espnet(scored: Sequence[Scored]) -> list[Table]:
    """ESPnet's own scores, a row per system: over all classes, and the SDR class by class; none where not asked for."""
    kept = [s for s in scored if "espnet" in s.summary["overall"]]
    if not kept:
        return []
    first, classes = kept[0].summary, scored_names(kept[0].summary)

    def cells(summary: dict, system: str) -> list[str]:
        return [db(summary["scores"].get(c, {}).get(system, {}).get("SDR")) for c in classes]

    over_all = [["mixture", *espnet_row(first["overall"]["espnet_input"])]]
    over_all += [[s.label, *espnet_row(s.summary["overall"]["espnet"])] for s in kept]
    by_name = [["mixture", *cells(first, "espnet_input")], *([s.label, *cells(s.summary, "espnet")] for s in kept)]
    note = (
        "Means of ESPnet's `enh_scoring`, one class at a time where it sounds (dB; STOI in %; "
        "its SDR forgives a filter of 512 taps)."
    )
    short = "Means in dB; the residual, where there is one, is `rest`."
    return [
        Table("ESPnet's scoring", note, ["labels", "sources", *ESPNET_COLUMNS], over_all),
        Table("ESPnet's SDR by class", short, ["labels", *map(title_of, classes)], by_name),
    ]
