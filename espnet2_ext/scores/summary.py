"""From rows of scores to the figures of a table: means, counts, classes, examples."""

import importlib.metadata

from espnet2_ext import __version__
from espnet2_ext.core.metrics import MAX_DB, SILENCE, summarise
from espnet2_ext.scores.espnet import SCORES
from espnet2_ext.scores.test_set import PROTOCOLS, DataFolder

# An output less than this far under its input, when silence was right, is a false extraction.
FALSE_EXTRACTION_DB = 10.0
FIRST = "-1"  # end of the key of a mixture's first target
UNPROCESSED = ("sdr", "si_sdr", "bss_eval_sdr")
GAINS = tuple(f"{metric}_gain" for metric in UNPROCESSED)
OWN = (*UNPROCESSED, *GAINS, "clean_sdr", "clean_si_sdr", "silence_sdr")
FORMULAS = {
    "sdr": "10 log10(|ref|^2 / |ref - est|^2): the SDR of BSSEval v4 over the whole signal",
    "si_sdr": "the same with the reference scaled to the estimate; means are kept",
    "bss_eval_sdr": "BSSEval v3 (bss_eval_sources): a distortion filter of 512 taps is forgiven",
    "clean_sdr": "sdr with the target alone as the input",
    "silence_sdr": "10 log10(ms(input) / ms(output)) on a clip without the class; mean squares (ms) floored at 1e-8",
    "gain": "score of the estimate minus score of the unprocessed mixture",
    "espnet": "espnet2.bin.enh_scoring on the mixture pass; keys with a silent signal and "
    "mixtures of a single source left out",
}
PACKAGES = ("espnet", "torch", "numpy", "scipy", "mir_eval", "pystoi", "scikit-learn")
_EXAMPLES = 3


def summarise_scores(rows: list[dict], data: DataFolder, tagging: dict) -> dict:
    """The content of summary.json but for its paths.

    Args:
        rows: of scores.jsonl, one a key.
        tagging: protocol -> figures of `tagging.mean_average_precision`.
    """
    systems = [p for p in PROTOCOLS if any(p in row for row in rows)]
    return {
        "keys": len(rows),
        "seconds": sum(row["seconds"] for row in rows),
        "fs": rows[0]["fs"],
        "silent_references": sum(row["silent_reference"] for row in rows),
        "single_sources": sum(row["single_source"] for row in rows),
        "list": data.info,
        "formulas": FORMULAS,
        "silence_floor": SILENCE,
        "max_db": MAX_DB,
        "false_extraction_db": FALSE_EXTRACTION_DB,
        "versions": {"espnet2_ext": __version__} | {p: version(p) for p in PACKAGES},
        "mixture": _figures([row["mixture"] for row in rows], UNPROCESSED),
        "protocols": {p: _protocol(rows, p, data) for p in systems},
        "tagging": tagging,
        "examples": {p: examples(rows, p) for p in systems},
    }


def examples(rows: list[dict], protocol: str, count: int = _EXAMPLES) -> dict[str, list[str]]:
    """Keys of the worst, the median and the best SDR gains of a protocol, none twice."""
    ranked = [r for r in rows if protocol in r and r[protocol]["sdr_gain"] is not None]
    ranked.sort(key=lambda row: (row[protocol]["sdr_gain"], row["key"]))
    keys = [row["key"] for row in ranked]
    count = min(count, len(keys) // 3) if len(keys) >= 3 else 0
    if count == 0:
        return {"worst": keys[:1], "median": [], "best": keys[1:2]}
    middle = (len(keys) - count) // 2
    return {"worst": keys[:count], "median": keys[middle : middle + count], "best": keys[-count:][::-1]}


def _protocol(rows: list[dict], protocol: str, data: DataFolder) -> dict:
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
    figures["classes"] = _classes(rows, protocol, data)
    first = [row[protocol] for row in rows if row["key"].endswith(FIRST)]
    figures["first_targets"] = {m: summarise(s[m] for s in first) for m in ("sdr", "sdr_gain")}
    return figures


def _figures(scores: list[dict], metrics: tuple[str, ...]) -> dict:
    figures = {m: summarise(s[m] for s in scores) for m in metrics if m in scores[0]}
    if "espnet" in scores[0]:
        found = [s["espnet"] or {} for s in scores]
        figures["espnet"] = {name: summarise(f.get(name) for f in found) for name in SCORES}
    return figures


def _classes(rows: list[dict], protocol: str, data: DataFolder) -> list[dict]:
    """One row a class, the smallest mean gain first; classes without any gain at the end."""
    by_class: dict[str, list[dict]] = {}
    for row in rows:
        by_class.setdefault(row["class"], []).append(row)
    table = []
    for mid, members in by_class.items():
        scores = [row[protocol] for row in members]
        figures = {m: summarise(s[m] for s in scores) for m in OWN if m in scores[0]}
        figures["mixture_sdr"] = summarise(row["mixture"]["sdr"] for row in members)
        table.append({"mid": mid, "name": data.names[mid], "keys": len(members)} | figures)

    def gain(row: dict) -> tuple:
        mean = row["sdr_gain"]["mean"]
        return (mean is None, mean or 0.0, row["mid"])

    return sorted(table, key=gain)


def version(package: str) -> str | None:
    """Version of an installed package; None where it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
