"""Scores every key of a test set, in parallel and resumable: `score` -> scores.jsonl, summary.json.

`score_target` is the one way to score: a target of a mixture, for the unprocessed mixture and each system. The rules
are the same for queries and classes: a silent target has no SDR, and a target that is alone in its mixture has none
either, for nothing is to be separated and the unprocessed mixture would count as perfect. There the output's level
against the mixture is what can be said (Pishdadian et al., "Finding Strength in Weakness", III-C). Recordings without
isolated sounds have no scores but those of the tagging. Formulas are in `core.metrics` and `scores.bss_eval`.

A row of scores.jsonl is, for queries, a key: its target, the mixture's own scores, and those of each protocol, where
the key has a query; for classes, a mixture, whose `classes` hold the scores of each class.
"""

import functools
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from espnet2_ext.core.metrics import METRICS, is_silent, level_db
from espnet2_ext.errors import DataError
from espnet2_ext.scores.bss_eval import bss_eval_sdr
from espnet2_ext.scores.espnet import class_pairs, query_pairs, score_by_espnet
from espnet2_ext.scores.summary import summarise_classes, summarise_queries
from espnet2_ext.scores.tagging import class_detection, query_tagging
from espnet2_ext.scores.test_set import (
    MODEL,
    ClassSet,
    Outputs,
    QuerySet,
    TestSet,
    fingerprint,
    load_outputs,
    load_test_set,
    read_like,
    read_signal,
)
from espnet2_ext.util.files import atomic_path
from espnet2_ext.util.once import make_once
from espnet2_ext.util.parallel import map_parts

VERSION = 1
QUERY_METRICS = ("sdr", "si_sdr", "bss_eval_sdr")
CLASS_METRICS = ("si_sdr",)


def score(
    data_dir: str | os.PathLike,
    inference_dir: str | os.PathLike,
    *,
    espnet_keys: int | None = None,
    num_workers: int | None = None,
    scheduler: str | None = None,
) -> Path:
    """Score the outputs in `inference_dir` against the test set `data_dir`; returns the path of summary.json.

    Scores of the same inputs are not computed again; an interrupted run resumes.

    Args:
        espnet_keys: how many keys ESPnet's own scoring gets too (`score_by_espnet`); None: all.
        num_workers, scheduler: see `util.parallel.map_parts`.
    Raises:
        DataError: the two folders do not fit, or a key's audio is not as it should be.
    """
    data = load_test_set(data_dir)
    outputs = load_outputs(inference_dir, data)
    summary = outputs.path / "scores" / "summary.json"
    stamp = f"{fingerprint(data, outputs)} v{VERSION} espnet_keys={espnet_keys}"
    paths = {"data_dir": str(data_dir), "inference_dir": str(inference_dir)}
    run = {"stamp": stamp, "num_workers": num_workers, "scheduler": scheduler}
    make_once(summary, {"stamp": stamp}, lambda: paths | _score(data, outputs, summary.parent, espnet_keys, **run))
    for parts in ("parts", "espnet_parts"):
        shutil.rmtree(summary.parent / parts, ignore_errors=True)
    return summary


def _score(data: TestSet, outputs: Outputs, out: Path, espnet_keys: int | None, *, stamp: str, **run) -> dict:
    """Write `out`/scores.jsonl; returns the figures of summary.json."""
    kind = KINDS[data.kind]
    tagging, items = kind.tagging(data, outputs), kind.items(data, outputs)
    fn = functools.partial(score_part, kind=data.kind, stamp=stamp)
    rows = read_rows(map_parts(fn, items, out / "parts", part_size=part_size(len(items)), desc="scoring", **run))
    if espnet_keys != 0:
        score_by_espnet(kind.pairs(rows, items), data.keys, out, max_keys=espnet_keys, stamp=stamp, **run)
    with atomic_path(out / "scores.jsonl") as tmp, tmp.open("w", encoding="utf-8") as f:
        f.writelines(json.dumps(row) + "\n" for row in rows)
    return kind.summarise(rows, data, outputs, tagging)


def part_size(items: int) -> int:
    """Keys per part: few, so that little is lost and a song is a part, but 32 of 5,000 mixtures."""
    return min(max(items // 64, 1), 32)


def score_part(items: list[dict], path: Path, *, kind: str, stamp: str) -> None:
    """Score `items` into the JSON lines file `path`; `stamp` ties the part to its inputs."""
    import torch

    torch.set_num_threads(1)  # the parts are what runs side by side
    with open(path, "w", encoding="utf-8") as f:
        for item in items:
            f.write(json.dumps(score_item(item, kind), allow_nan=False) + "\n")


def score_item(item: dict, kind: str) -> dict:
    """The row of one key.

    Args:
        item: what `KINDS[kind].items` made: key, mix and the places of its targets and estimates.
    Raises:
        DataError: names the key and the file whose length, rate or content is wrong.
    """
    return KINDS[kind].row(item)


def score_target(
    where: str, mix: np.ndarray, ref: np.ndarray, estimates: dict[str, np.ndarray], metrics: tuple[str, ...]
) -> tuple[str, dict[str, dict]]:
    """Scores of one target of a mixture.

    Args:
        where: names the target in errors.
        mix, ref: [T].
        estimates: system -> [T].
    Returns:
        The target's state (silent, alone in the mixture, scored), and the scores of `mixture`, the unprocessed one, and
        of each system: `metrics`, null where they are not defined. A system also has METRIC_gain, against the mixture,
        level_db, its output's level against the mixture, and silent_estimate.
    """
    state = "silent" if is_silent(ref[None])[0] else "alone" if is_silent((mix - ref)[None])[0] else "scored"

    def ratios(what: str, est: np.ndarray) -> dict[str, float | None]:
        if state != "scored":
            return dict.fromkeys(metrics)
        return {name: _metric(f"{where}, {what}", name, est=est, ref=ref) for name in metrics}

    scores = {"mixture": ratios("the mixture", mix)}
    for system, est in estimates.items():
        what = f"the estimate of {system}"
        level = -_metric(f"{where}, {what}", "silence_sdr", est=est, mix=mix)
        own = ratios(what, est)
        gains = {f"{m}_gain": _difference(own[m], scores["mixture"][m]) for m in metrics}
        scores[system] = own | gains | {"level_db": level, "silent_estimate": bool(is_silent(est[None])[0])}
    return state, scores


def _metric(where: str, name: str, **signals: np.ndarray) -> float | None:
    """A metric in dB of signals [T]; None where it is not defined."""
    try:
        if name == "bss_eval_sdr":
            value = bss_eval_sdr(**signals)
        else:
            value = float(METRICS[name](**{n: x[None] for n, x in signals.items()})[0])
    except ValueError as e:
        raise DataError(f"{where}: {e}") from e
    return None if math.isnan(value) else value


def _difference(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


# ---- queries: a key is a target ------------------------------------------------------------------


def query_items(data: QuerySet, outputs: Outputs) -> list[dict]:
    """key, class, mix, ref and absent (places of audio), est: protocol -> pass -> place of the estimate."""
    items = []
    for key in data.keys:
        item = {"key": key, "class": data.classes[key], "mix": data.scp["wav.scp"][key]}
        item |= {"ref": data.scp["spk1.scp"][key], "absent": data.scp.get("absent.scp", {}).get(key)}
        # a key without a query of a protocol is in none of its passes
        answered = {p: passes for p, passes in outputs.systems.items() if key in passes["mixture"]}
        items.append(item | {"est": {p: {name: scp[key] for name, scp in ps.items()} for p, ps in answered.items()}})
    return items


def query_row(item: dict) -> dict:
    """The row of a target: see the module's docstring."""
    key = item["key"]
    ref, fs = read_signal(item["ref"], key)
    mix = read_like(item["mix"], key, ref, fs)
    estimates = {f"{p}/mixture": read_like(passes["mixture"], key, mix, fs) for p, passes in item["est"].items()}
    state, scores = score_target(f"key {key}", mix, ref, estimates, QUERY_METRICS)
    row = {
        "key": key,
        "class": item["class"],
        "seconds": len(ref) / fs,
        "fs": fs,
        "reference_db": float(level_db(ref[None])[0]),
        "silent_reference": state == "silent",
        "single_source": state == "alone",
        "mixture": scores["mixture"],
    }
    for protocol, passes in item["est"].items():
        row[protocol] = scores[f"{protocol}/mixture"]
        where = f"key {key}, the estimate of {protocol}"
        if "clean" in passes:  # the target alone was the input
            est = read_like(passes["clean"], key, ref, fs)
            row[protocol] |= {f"clean_{m}": _metric(f"{where}/clean", m, est=est, ref=ref) for m in ("sdr", "si_sdr")}
        if "silence" in passes:  # a clip without the class was the input
            absent = read_signal(item["absent"], key)[0]
            est = read_like(passes["silence"], key, absent, fs)
            row[protocol]["silence_sdr"] = _metric(f"{where}/silence", "silence_sdr", est=est, mix=absent)
    return row


# ---- classes: a key is a mixture -----------------------------------------------------------------


def class_items(data: ClassSet, outputs: Outputs) -> list[dict]:
    """key, mix (place of audio), targets: class, place of its reference and its estimate, where it has both."""
    estimates, references = outputs.systems[MODEL], data.references
    known = [name for name in estimates if name in references]
    return [
        {
            "key": key,
            "mix": data.scp["wav.scp"][key],
            "targets": [(name, references[name][key], estimates[name][key]) for name in known],
        }
        for key in data.keys
    ]


def class_row(item: dict) -> dict:
    """The row of a mixture, see the module's docstring; one class is held in memory at a time."""
    key = item["key"]
    mix, fs = read_signal(item["mix"], key)
    row = {"key": key, "seconds": len(mix) / fs, "fs": fs, "mixture_db": float(level_db(mix[None])[0]), "classes": {}}
    for name, *places in item["targets"]:
        ref, est = (read_like(place, key, mix, fs) for place in places)
        state, scores = score_target(f"key {key}", mix, ref, {name: est}, CLASS_METRICS)
        own = scores[name]
        row["classes"][name] = {"state": state, "level_db": own["level_db"]}
        if state == "scored":  # input: the SI-SDR of the mixture itself
            row["classes"][name] |= {
                "silent_estimate": not est.any(),
                "input": scores["mixture"]["si_sdr"],
                "si_sdr": own["si_sdr"],
                "gain": own["si_sdr_gain"],
            }
    return row


# ---- what differs --------------------------------------------------------------------------------


class Kind(NamedTuple):
    """What differs between test sets of queries and of classes.

    tagging: scores of the probabilities, if any.  items: what is scored, a key each.  row: scores of an item.
    pairs: for ESPnet's scoring.  summarise: rows to the figures of summary.json.
    """

    tagging: Callable
    items: Callable
    row: Callable
    pairs: Callable
    summarise: Callable


KINDS = {
    QuerySet.kind: Kind(query_tagging, query_items, query_row, query_pairs, summarise_queries),
    ClassSet.kind: Kind(class_detection, class_items, class_row, class_pairs, summarise_classes),
}


def read_rows(parts: list[Path]) -> list[dict]:
    """Rows of JSON lines files, in the order of their keys."""
    rows = [json.loads(x) for p in parts for x in p.read_text(encoding="utf-8").splitlines()]
    return sorted(rows, key=lambda row: row["key"])
