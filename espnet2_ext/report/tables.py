"""The tables of a scored set, as plain rows: RESULTS.md and the page print the same ones."""

import dataclasses

from espnet2_ext.scores.espnet import SCORES

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
    return NONE if value is None else f"{value:.2f}".replace("-0.00", "0.00")


def both(figures: dict | None) -> str:
    """Mean and, in brackets, median."""
    text = db(figures)
    return text if text == NONE else f"{text} ({db(figures, 'median')})"


def overall(summary: dict) -> Table:
    """SDR on the mixture, the target alone and without the target, a row a protocol."""
    own = summary["mixture"]
    count = str(own["sdr"]["count"])
    rows = [["unprocessed", count, both(own["sdr"]), NONE, both(own["si_sdr"]), *[NONE] * 3]]
    for name, p in summary["protocols"].items():
        figures = ("sdr", "sdr_gain", "si_sdr", "si_sdr_gain", "clean_sdr", "silence_sdr")
        rows.append([name, str(p["sdr"]["count"]), *(both(p.get(f)) for f in figures)])
    columns = ["query", "targets", "mixture-SDR", "gain", "SI-SDR", "gain"]
    columns += ["clean-SDR", "silence-SDR"]
    notes = [f"`{p}`: {PROTOCOL_NOTE[p]}" for p in summary["protocols"]]
    return Table("Separation", f"dB, mean (median). {'; '.join(notes)}.", columns, rows)


def first_targets(summary: dict) -> Table | None:
    """mixture-SDR of the first target of each mixture alone; None where that was not counted."""
    found = {p: f.get("first_targets") for p, f in summary["protocols"].items()}
    if not any((f or {}).get("sdr", {}).get("count") for f in found.values()):
        return None
    rows = [[p, str(f["sdr"]["count"]), both(f["sdr"]), both(f["sdr_gain"])] for p, f in found.items() if f]
    columns = ["query", "first targets", "mixture-SDR", "gain"]
    note = (
        "The figures above are over both targets of each mixture; here those of its first one, "
        "which in a list of whole clips is each clip once. dB, mean (median)."
    )
    return Table("First targets", note, columns, rows)


def espnet(summary: dict) -> Table:
    """BSSEval v3 over all keys and ESPnet's own scores, a row a system."""
    systems = {"unprocessed": summary["mixture"]} | summary["protocols"]
    rows = []
    for name, figures in systems.items():
        scores = figures.get("espnet", {})
        count = scores["SDR"]["count"] if scores else 0
        rows.append([name, both(figures["bss_eval_sdr"]), str(count)])
        rows[-1] += [db(scores.get(score)) for score in SCORES]
    columns = ["query", "SDR v3, all keys", "keys", *(s.replace("_", "-") for s in SCORES)]
    note = (
        "SDR v3 is that of BSSEval v3 (bss_eval_sources, a 512-tap filter is forgiven), mean "
        "(median); the columns from `keys` on are the means of ESPnet's `enh_scoring` (dB; STOI "
        "in %)."
    )
    return Table("BSSEval v3 and ESPnet's scoring", note, columns, rows)


def silence(summary: dict) -> Table:
    """What left the means and what stands for it instead."""
    columns = [
        "query",
        "silent references",
        "their output level",
        "false extractions",
        "false extractions of silence-SDR",
        "silent estimates",
        "mixtures of one source",
        "no query",
    ]
    rows = []
    for name, p in summary["protocols"].items():
        silent, count = p["silent_references"], p["silent_references"]["count"]
        checked = p.get("silence_sdr", {}).get("count", 0)
        rows.append(
            [
                name,
                str(count),
                both(silent["level_db"]),
                f"{silent['false_extractions']} of {count}",
                f"{p['false_extractions']} of {checked}",
                str(p["silent_estimates"]),
                str(p["single_sources"]),
                str(p["without_query"]),
            ]
        )
    note = (
        "Silent references and mixtures of one source have no SDR and are in no mean above, nor "
        "are targets without a query (a class of one clip has no `other`). Output level: dB "
        "against the mixture. A false extraction lies less than "
        f"{summary['false_extraction_db']:g} dB under its input."
    )
    return Table("What is in no mean", note, columns, rows)


def tagging(summary: dict) -> Table | None:
    """mAP, where the model tags."""
    if not summary["tagging"]:
        return None
    counted = ("classes", "classes_without_clips", "keys")
    rows = [[name, f"{t['map']:.4f}", *(str(t[n]) for n in counted)] for name, t in summary["tagging"].items()]
    columns = ["query", "mAP", "classes", "classes without a target", "targets"]
    note = "Average precision (scikit-learn), mean over the classes that occur in the labels."
    return Table("Tagging", note, columns, rows)


def classes(summary: dict, limit: int | None = None) -> Table:
    """Scores of each class under every protocol; the worst gain of the first protocol first.

    Args:
        limit: at most so many rows: the worst, but for a quarter that is left to the best.
    """
    protocols = list(summary["protocols"])
    by_mid = {p: {c["mid"]: c for c in summary["protocols"][p]["classes"]} for p in protocols}
    order = summary["protocols"][protocols[0]]["classes"]
    total = len(order)
    if limit is not None and total > limit:
        order = order[: limit - limit // 4] + order[-(limit // 4) :]
    rows = []
    for c in order:
        row = [c["name"], str(c["keys"]), db(c["mixture_sdr"])]
        for p in protocols:
            figures = by_mid[p].get(c["mid"], {})
            row += [db(figures.get(f)) for f in ("sdr", "sdr_gain", "silence_sdr")]
        rows.append(row)
    columns = ["class", "keys", "unprocessed SDR"]
    for p in protocols:
        columns += [f"{p}: SDR", f"{p}: gain", f"{p}: silence-SDR"]
    shown = "" if len(rows) == total else f" {len(rows)} of {total} classes: worst and best."
    note = f"Means in dB; the class with the smallest gain under `{protocols[0]}` first.{shown}"
    return Table("Classes", note, columns, rows)
