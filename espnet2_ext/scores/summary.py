"""From rows of scores to the figures of a table: means, counts, classes, examples."""

import importlib.metadata
from collections.abc import Sequence

from espnet2_ext import __version__
from espnet2_ext.core.metrics import MAX_DB, SILENCE, summarise
from espnet2_ext.data.outputs import PROTOCOLS, RESIDUAL
from espnet2_ext.scores.espnet import SCORES
from espnet2_ext.scores.test_set import MODEL, ClassSet, Outputs, QuerySet, TestSet

# An output less than this far under its input, when silence was right, is a false extraction.
FALSE_EXTRACTION_DB = 10.0
ABSENT_DB = 20.0  # the same where the query is absent from a mixture: the output is to lie this far under the mixture
THRESHOLD = 0.5  # a class counts as active from this probability on
FIRST = "-1"  # end of the key of a mixture's first target
UNPROCESSED = ("sdr", "si_sdr", "bss_eval_sdr")
GAINS = tuple(f"{metric}_gain" for metric in UNPROCESSED)
OWN = (*UNPROCESSED, *GAINS, "clean_sdr", "clean_si_sdr", "silence_sdr")
QUERY_FORMULAS = {
    "sdr": "10 log10(|ref|^2 / |ref - est|^2): the SDR of BSSEval v4 over the whole signal",
    "si_sdr": "the same with the reference scaled to the estimate; means are kept",
    "bss_eval_sdr": "BSSEval v3 (bss_eval_sources): a distortion filter of 512 taps is forgiven",
    "clean_sdr": "sdr with the target alone as the input",
    "silence_sdr": "10 log10(ms(input) / ms(output)) on a clip without the class; mean squares (ms) floored at 1e-8",
    "gain": "score of the estimate minus score of the unprocessed mixture",
    "worse": "share of outputs whose si_sdr is below that of their mixture",
    "false_extraction": f"share of outputs above -{ABSENT_DB:g} dB of the mixture, where the query is absent from it",
    "espnet": "the scores of espnet2.bin.enh_scoring on the mixture pass; keys with a silent signal and "
    "mixtures of a single source left out",
}
CLASS_FORMULAS = {
    "si_sdr": "10 log10(|a ref|^2 / |a ref - est|^2) with a = <est, ref> / |ref|^2; means are kept",
    "input": "si_sdr of the unprocessed mixture",
    "gain": "si_sdr of the estimate minus that of the mixture (the paper's delta SI-SDR)",
    "left out": "classes that are silent in a mixture (mean square under 1e-8), and what is alone in its mixture",
    "level_db": "10 log10(ms(output) / ms(mixture)) where the class is silent; mean squares (ms) floored at 1e-8",
    "overall": "over all scored sources of all classes",
    "f": f"2 TP / (2 TP + FP + FN) of the classifier on the mixture, threshold {THRESHOLD:g}",
    "espnet": "the scores of espnet2.bin.enh_scoring, one class at a time, on scored sources",
}
PACKAGES = ("espnet", "torch", "numpy", "scipy", "mir_eval", "pystoi", "scikit-learn")
_EXAMPLES = 3

# What a report reads, as shapes of `util.documents.check`: a summary and a row of each kind.
_VALUE = (float, None)
_FIGURES = {"mean": _VALUE, "median": _VALUE, "count": int}
_ESPNET = {"espnet?": {str: _FIGURES}, "espnet_input?": {str: _FIGURES}}
VERSIONS = {"espnet": (str, None), "espnet2_ext": str, "torch": (str, None), str: (str, None)}
_SUMMARY = {"data_dir": str, "keys": int, "seconds": float, "fs": int, "formulas": {str: str}, "versions": VERSIONS}
_PROTOCOL = {name: _FIGURES for name in (*UNPROCESSED, *GAINS)} | {f"{name}?": _FIGURES for name in OWN[-3:]} | _ESPNET
_PROTOCOL |= {"classes": [{"mid": str, "name": str, "keys": int, "sdr_gain": _FIGURES, str: (dict, str, int)}]}
_PROTOCOL |= {"silent_references": {"count": int, "false_extractions": int, "level_db": _FIGURES}}
_PROTOCOL |= {n: int for n in ("false_extractions", "silent_estimates", "single_sources", "without_query")}
_PROTOCOL |= {"first_targets?": ({"sdr": _FIGURES, "sdr_gain": _FIGURES}, None)}
_CONDITION = {"name": str, "targets": int, "input_sdr": _FIGURES, "worse": _VALUE, "false_extraction": _VALUE}
_CONDITION |= {name: _FIGURES for name in ("sdr", "sdr_gain", "si_sdr", "si_sdr_gain", "level_db")}
_PROTOCOL |= {"conditions?": [_CONDITION]}
QUERY_SUMMARY = _SUMMARY | {
    "list": dict,
    "false_extraction_db": float,
    "mixture": dict.fromkeys(UNPROCESSED, _FIGURES) | _ESPNET,
    "protocols": {f"{name}?": _PROTOCOL for name in PROTOCOLS},
    "tagging": {str: {"map": float, "classes": int, "classes_without_clips": int, "keys": int}},
    "examples": {str: {str: [str]}},
}
_SOURCE = {"input": _FIGURES, "si_sdr": _FIGURES, "gain": _FIGURES, "silent_estimates": int} | _ESPNET
_SOURCE |= {"silent": {"count": int, "level_db": _FIGURES}}
CLASS_SUMMARY = _SUMMARY | {
    "classes": [str],
    "alone": int,
    "table": {"events": (int, None), "settings": (dict, None)},
    "scores": {str: _SOURCE},
    "overall": _SOURCE,
    "detection": ({str: {"f": [_VALUE], "mean_f": _VALUE}}, None),
}
_SCORES = dict.fromkeys(("sdr", "sdr_gain", "si_sdr_gain", "silence_sdr?"), _VALUE)
QUERY_ROW = {"key": str, "class": str, "mixture": {"sdr": _VALUE}} | {f"{name}?": _SCORES for name in PROTOCOLS}
CLASS_ROW = {"key": str, "classes": {str: {"state": str, "level_db": float, "gain?": _VALUE, "input?": _VALUE}}}


def summarise_queries(rows: list[dict], data: QuerySet, outputs: Outputs, tagging: dict | None) -> dict:
    """The content of summary.json except its paths.

    Args:
        rows: of scores.jsonl, one per key.
        tagging: of `tagging.query_tagging`; None without tags.
    """
    systems = [p for p in PROTOCOLS if any(p in row for row in rows)]
    return _common(rows, data, QUERY_FORMULAS) | {
        "silent_references": sum(row["silent_reference"] for row in rows),
        "single_sources": sum(row["single_source"] for row in rows),
        "false_extraction_db": FALSE_EXTRACTION_DB,
        "mixture": _figures([row["mixture"] for row in rows], UNPROCESSED),
        "protocols": {p: _protocol(rows, p, data) for p in systems},
        "tagging": tagging or {},
        "examples": {p: examples(rows, p) for p in systems},
    }


def summarise_classes(rows: list[dict], data: ClassSet, outputs: Outputs, tagging: dict | None) -> dict:
    """The content of summary.json except its paths.

    Args:
        rows: of scores.jsonl, one per mixture.
        tagging: of `tagging.class_detection`; None without a classifier.
    """
    table = ("mixtures", "events", "seed", "settings", "bank_hash", "table_hash")
    return _common(rows, data, CLASS_FORMULAS) | {
        "classes": data.classes,
        "outputs": list(outputs.systems[MODEL]),
        "alone": sum(any(s["state"] == "alone" for s in r["classes"].values()) for r in rows),
        "table": {name: data.table.info.get(name) for name in table},
        "scores": {name: _class([row["classes"][name] for row in rows]) for name in rows[0]["classes"]},
        "overall": _class([s for r in rows for n, s in r["classes"].items() if n != RESIDUAL]),
        "detection": tagging,
    }


def _common(rows: list[dict], data: TestSet, formulas: dict[str, str]) -> dict:
    return {
        "keys": len(rows),
        "seconds": sum(row["seconds"] for row in rows),
        "fs": rows[0]["fs"],
        "list": data.info,
        "formulas": formulas,
        "silence_floor": SILENCE,
        "max_db": MAX_DB,
        "versions": versions(PACKAGES),
    }


def versions(packages: Sequence[str]) -> dict[str, str | None]:
    """Version of this package and of others; None where one is not installed."""
    found: dict[str, str | None] = {"espnet2_ext": __version__}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def examples(rows: list[dict], protocol: str) -> dict[str, list[str]]:
    """Keys of the worst, the median and the best SDR gains of a protocol, none twice."""
    ranked = [r for r in rows if protocol in r and r[protocol]["sdr_gain"] is not None]
    ranked.sort(key=lambda row: (row[protocol]["sdr_gain"], row["key"]))
    return ranks([row["key"] for row in ranked], _EXAMPLES)


def ranks(keys: list[str], count: int) -> dict[str, list[str]]:
    """`count` keys, or fewer, of the beginning, the middle and the end of `keys` (the worst first), none twice."""
    count = min(count, len(keys) // 3)
    if count == 0:
        return {"worst": keys[:1], "median": [], "best": keys[1:2]}
    middle = (len(keys) - count) // 2
    return {"worst": keys[:count], "median": keys[middle : middle + count], "best": keys[-count:][::-1]}


def scored_names(summary: dict) -> list[str]:
    """The classes with scores, and the residual where it was scored."""
    return [*summary["classes"], *([RESIDUAL] if RESIDUAL in summary["scores"] else [])]


def _protocol(rows: list[dict], protocol: str, data: QuerySet) -> dict:
    keys, rows = len(rows), [row for row in rows if protocol in row]
    scores = [row[protocol] for row in rows]
    figures = {"without_query": keys - len(rows)} | _figures(scores, OWN)
    figures["silent_estimates"] = sum(s["silent_estimate"] for s in scores)
    silent = [row[protocol]["level_db"] for row in rows if row["silent_reference"]]
    figures["silent_references"] = {
        "count": len(silent),
        "level_db": summarise(silent),
        "false_extractions": sum(level > -FALSE_EXTRACTION_DB for level in silent),
    }
    silence = [s["silence_sdr"] for s in scores if s.get("silence_sdr") is not None]
    figures["single_sources"] = sum(row["single_source"] for row in rows)
    figures["false_extractions"] = sum(value < FALSE_EXTRACTION_DB for value in silence)
    figures["classes"] = _by_class(rows, protocol, data)
    first = [row[protocol] for row in rows if row["key"].endswith(FIRST)]
    figures["first_targets"] = {m: summarise(s[m] for s in first) for m in ("sdr", "sdr_gain")}
    if data.conditions:
        figures["first_targets"] = None
        figures["conditions"] = _by_condition(rows, protocol)
    return figures


def _by_condition(rows: list[dict], protocol: str) -> list[dict]:
    """The figures of each condition: levels first, the lowest first; at last all that are scored."""
    found: dict[str, list[dict]] = {}
    for row in rows:
        found.setdefault(row["condition"], []).append(row)
    names = sorted(found, key=lambda name: (0, int(name[:-3]), "") if name.endswith(" dB") else (1, 0, name))
    scored = [row for row in rows if row[protocol]["sdr"] is not None]
    return [_condition(name, members, protocol) for name, members in [*((n, found[n]) for n in names), ("all", scored)]]


def _condition(name: str, rows: list[dict], protocol: str) -> dict:
    scores = [row[protocol] for row in rows]
    gains = [s["si_sdr_gain"] for s in scores if s["si_sdr_gain"] is not None]
    levels = [s["level_db"] for row, s in zip(rows, scores) if row["silent_reference"]]
    figures: dict = {"name": name, "targets": len(rows), "input_sdr": summarise(row["mixture"]["sdr"] for row in rows)}
    for metric in ("sdr", "si_sdr"):  # of a target alone: the output's, there is no gain
        figures[metric] = summarise(
            s.get(f"clean_{metric}") if row["single_source"] else s[metric] for row, s in zip(rows, scores)
        )
        figures[f"{metric}_gain"] = summarise(s[f"{metric}_gain"] for s in scores)
    figures["worse"] = sum(gain < 0 for gain in gains) / len(gains) if gains else None
    figures["level_db"] = summarise(levels)
    figures["false_extraction"] = sum(level > -ABSENT_DB for level in levels) / len(levels) if levels else None
    return figures


def _figures(scores: list[dict], metrics: Sequence[str]) -> dict:
    """Means and so on of `metrics`, as far as they were computed, and of ESPnet's scores, as far as asked for."""
    figures = {m: summarise(s.get(m) for s in scores) for m in metrics if any(m in s for s in scores)}
    for system in ("espnet", "espnet_input"):
        found = [s[system] or {} for s in scores if system in s]
        if found:
            figures[system] = {name: summarise(f.get(name) for f in found) for name in SCORES}
    return figures


def _by_class(rows: list[dict], protocol: str, data: QuerySet) -> list[dict]:
    """The figures of each class, the smallest mean gain first; classes without any gain at the end."""
    by_class: dict[str, list[dict]] = {}
    for row in rows:
        by_class.setdefault(row["class"], []).append(row)
    table = []
    for mid, members in by_class.items():
        scores = [row[protocol] for row in members]
        figures = {m: summarise(s.get(m) for s in scores) for m in OWN if any(m in s for s in scores)}
        figures["mixture_sdr"] = summarise(row["mixture"]["sdr"] for row in members)
        table.append({"mid": mid, "name": data.names[mid], "keys": len(members)} | figures)

    def gain(row: dict) -> tuple:
        mean = row["sdr_gain"]["mean"]
        return (mean is None, mean or 0.0, row["mid"])

    return sorted(table, key=gain)


def _class(scores: list[dict]) -> dict:
    """Means, medians and counts over the scores of a class (or of all)."""
    scored = [s for s in scores if s["state"] == "scored"]
    silent = [s["level_db"] for s in scores if s["state"] == "silent"]
    found: dict = {name: summarise(s[name] for s in scored) for name in ("input", "si_sdr", "gain")}
    return found | {
        "silent": {"count": len(silent), "level_db": summarise(silent)},
        "alone": sum(s["state"] == "alone" for s in scores),
        "silent_estimates": sum(s["silent_estimate"] for s in scored),
        **_figures(scored, ()),
    }
