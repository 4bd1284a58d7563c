"""Scores every key of a test set, in parallel and resumable: `score` -> scores.jsonl, summary.json.

`score_target` is the one way to score: a target of a mixture, for the unprocessed mixture and each system. The rules
are the same for queries and classes: a silent target has no SDR, and a target that is alone in its mixture has none
either, for nothing is to be separated and the unprocessed mixture would count as perfect. There the output's level
against the mixture is what can be said (Pishdadian et al., "Finding Strength in Weakness", III-C). Recordings without
isolated sounds have no scores but those of the tagging. Formulas are in `core.metrics` and `scores.measures`.

A row of scores.jsonl is, for queries, a key: its target, the mixture's own scores, and those of each protocol, where
the key has a query; for classes, a mixture, whose `classes` hold the scores of each class.
"""

import functools
import logging
import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from espnet2_ext.core.metrics import METRICS, is_silent, level_db
from espnet2_ext.errors import DataError
from espnet2_ext.scores.espnet import class_pairs, draw_keys, espnet_scores, query_pairs, score_by_espnet, write_espnet
from espnet2_ext.scores.measures import bss_eval_sdr
from espnet2_ext.scores.summary import summarise_classes, summarise_queries
from espnet2_ext.scores.tagging import class_detection, query_tagging
from espnet2_ext.scores.test_set import ClassSet, QuerySet, fingerprint, load_outputs, load_test_set, read_signal
from espnet2_ext.util.documents import read_json_lines, write_json_lines
from espnet2_ext.util.files import made, write_record
from espnet2_ext.util.locks import holding
from espnet2_ext.util.parallel import map_parts, part_of

VERSION = 1
MOST = 32  # keys in a part: few, so that little is lost and a song is a part
QUERY_METRICS = ("sdr", "si_sdr", "bss_eval_sdr")
CLASS_METRICS = ("si_sdr",)


@holding("inference_dir")
def score(
    data_dir: str | os.PathLike,
    inference_dir: str | os.PathLike,
    *,
    espnet_keys: int | None = None,
    espnet_tool: bool = False,
    num_workers: int | None = None,
    scheduler: str | None = None,
) -> Path:
    """Score the outputs in `inference_dir` against the test set `data_dir`; returns the path of summary.json.

    Scores of the same inputs are not computed again; an interrupted run resumes.

    Args:
        espnet_keys: at most so many keys, drawn with a fixed seed, get the scores of ESPnet's scoring too; None: all.
        espnet_tool: these by ESPnet's own tool (`score_by_espnet`), not by `espnet_scores`.
        num_workers, scheduler: see `util.parallel.map_parts`.
    Raises:
        DataError: the two folders do not fit, or a key's audio is not as it should be.
    """
    data = load_test_set(data_dir)
    outputs = load_outputs(inference_dir, data)
    stamp = f"{fingerprint(data, outputs)} v{VERSION} espnet_keys={espnet_keys}" + " espnet_tool" * espnet_tool
    kind, out = KINDS[data.kind], outputs.path / "scores"
    drawn = draw_keys(data.keys, espnet_keys) if espnet_keys != 0 else set()
    items = [item | {"espnet": item["key"] in drawn and not espnet_tool} for item in data.items(outputs)]
    summary, parts, espnet_parts = (out / name for name in ("summary.json", "parts", "espnet_parts"))
    if made(summary, {"stamp": stamp}) is not None:
        logging.info("%s: up to date, skipped", summary)
    else:
        summary.unlink(missing_ok=True)  # the figures of other outputs
        run = {"num_workers": num_workers, "scheduler": scheduler}
        tagging = kind.tagging(data, outputs) if outputs.tags else None
        fn = functools.partial(score_part, kind=data.kind, stamp=stamp)
        paths = map_parts(fn, items, parts, part_size=part_of(len(items), 64, 1, MOST), desc="scoring", **run)
        rows = [row for path in paths for _, row in read_json_lines(path)]
        if espnet_keys != 0:
            pairs = kind.pairs(rows, items)
            if espnet_tool:
                chosen = [pair for found in pairs.values() for pair in found if pair.key in drawn]
                score_by_espnet(chosen, espnet_parts, stamp=stamp, **run)
            write_espnet(pairs, out / "espnet")
        write_json_lines(out / "scores.jsonl", rows)
        figures = kind.summarise(rows, data, outputs, tagging)
        figures = {"data_dir": data_dir, "inference_dir": inference_dir} | figures
        write_record(summary, {"stamp": stamp}, figures, [out / "scores.jsonl"])
    for folder in (parts, espnet_parts):  # kept until the summary was written
        shutil.rmtree(folder, ignore_errors=True)
    return summary


def score_part(items: list[dict], path: Path, *, kind: str, stamp: str) -> None:
    """Score `items` into the JSON lines file `path`; `stamp` ties the part to its inputs."""
    import torch

    torch.set_num_threads(1)  # the parts are what runs side by side
    write_json_lines(path, (score_item(item, kind) for item in items))


def score_item(item: dict, kind: str) -> dict:
    """The row of one key.

    Args:
        item: what `items` of the test set made: key, mix and the places of its targets and estimates; `espnet`: whether
            ESPnet's scores are asked for.
    Raises:
        DataError: names the key and the file whose length, rate or content is wrong.
    """
    return KINDS[kind].row(item)


def score_target(
    where: str,
    mix: np.ndarray,
    ref: np.ndarray,
    estimates: dict[str, np.ndarray],
    metrics: tuple[str, ...],
    espnet_fs: int | None = None,
) -> tuple[str, dict[str, dict]]:
    """Scores of one target of a mixture.

    Args:
        where: names the target in errors.
        mix, ref: [T].
        estimates: system -> [T].
        espnet_fs: rate in Hz, where ESPnet's scores are asked for too.
    Returns:
        The target's state (silent, alone in the mixture, scored), and the scores of `mixture`, the unprocessed one, and
        of each system: `metrics`, None where they are not defined, and `espnet` of a scored target. A system also has
        METRIC_gain, against the mixture, level_db, its output's level against the mixture, and silent_estimate.
    """
    mix, ref = mix.astype(np.float64), ref.astype(np.float64)
    state = "silent" if is_silent(ref[None])[0] else "alone" if is_silent((mix - ref)[None])[0] else "scored"
    signals, scores = {"mixture": mix} | {name: est.astype(np.float64) for name, est in estimates.items()}, {}
    for system, est in signals.items():
        what = f"{where}, the mixture" if system == "mixture" else f"{where}, the estimate of {system}"
        names = [m for m in metrics if m in METRICS] if state == "scored" else ()
        scores[system] = own = dict.fromkeys(metrics) | measure(what, names, est=est, ref=ref)
        if system != "mixture":
            level = measure(what, ("silence_sdr",), est=est, mix=mix)["silence_sdr"]
            own |= {"level_db": -level, "silent_estimate": bool(is_silent(est[None])[0])}
    if state == "scored" and (espnet_fs or "bss_eval_sdr" in metrics):
        ests = np.stack(list(signals.values()))
        v3 = bss_eval_sdr(est=ests, ref=ref)
        for own, value in zip(scores.values(), v3):
            own |= {"bss_eval_sdr": None if math.isnan(value) else float(value)} if "bss_eval_sdr" in metrics else {}
        if espnet_fs:
            for own, found in zip(scores.values(), espnet_scores(ests, ref, espnet_fs, v3)):
                own["espnet"] = found
    for system in estimates:
        pairs = {f"{m}_gain": (scores[system][m], scores["mixture"][m]) for m in metrics}
        scores[system] |= {gain: None if None in pair else pair[0] - pair[1] for gain, pair in pairs.items()}
    return state, scores


def measure(where: str, metrics: Sequence[str], **signals: np.ndarray) -> dict[str, float | None]:
    """Metrics in dB of `signals` [T]; None where one is not defined. `where` stands in errors."""
    values = {}
    try:
        for name in metrics:
            values[name] = float(METRICS[name](**{n: x[None] for n, x in signals.items()})[0])
    except ValueError as e:
        raise DataError(f"{where}: {e}") from e
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def query_row(item: dict) -> dict:
    """The row of a target: see the module's docstring."""
    key = item["key"]
    ref, fs = read_signal(item["ref"], key)
    mix, _ = read_signal(item["mix"], key, like=ref, fs=fs)
    estimates = {f"{p}/mixture": read_signal(passes["mixture"], key, mix, fs)[0] for p, passes in item["est"].items()}
    asked = fs if item.get("espnet") else None
    state, scores = score_target(f"key {key}", mix, ref, estimates, QUERY_METRICS, asked)
    row = {
        "key": key,
        "class": item["class"],
        **{name: item[name] for name in ("condition",) if name in item},
        "seconds": len(ref) / fs,
        "fs": fs,
        "reference_db": float(level_db(ref[None])[0]),
        "silent_reference": state == "silent",
        "single_source": state == "alone",
        "mixture": scores["mixture"],
    }
    absent = (
        read_signal(item["absent"], key)[0] if any("silence" in passes for passes in item["est"].values()) else None
    )
    for protocol, passes in item["est"].items():
        row[protocol] = scores[f"{protocol}/mixture"]
        where = f"key {key}, the estimate of {protocol}"
        if clean := passes.get("clean", passes["mixture"] if state == "alone" else None):  # its input: the target alone
            est, _ = read_signal(clean, key, ref, fs)
            clean = measure(f"{where}/clean", ("sdr", "si_sdr"), est=est, ref=ref)
            row[protocol] |= {f"clean_{name}": value for name, value in clean.items()}
        if "silence" in passes:  # a clip without the class was the input
            est, _ = read_signal(passes["silence"], key, absent, fs)
            row[protocol] |= measure(f"{where}/silence", ("silence_sdr",), est=est, mix=absent)
    return row


def class_row(item: dict) -> dict:
    """The row of a mixture, see the module's docstring; one class is held in memory at a time."""
    key = item["key"]
    mix, fs = read_signal(item["mix"], key)
    row = {"key": key, "seconds": len(mix) / fs, "fs": fs, "mixture_db": float(level_db(mix[None])[0]), "classes": {}}
    for name, *places in item["targets"]:
        ref, est = (read_signal(place, key, mix, fs)[0] for place in places)
        asked = fs if item.get("espnet") else None
        state, scores = score_target(f"key {key}", mix, ref, {name: est}, CLASS_METRICS, asked)
        own = scores[name]
        row["classes"][name] = {"state": state, "level_db": own["level_db"]}
        if state == "scored":  # input: the SI-SDR of the mixture itself
            row["classes"][name] |= {
                "silent_estimate": not est.any(),
                "input": scores["mixture"]["si_sdr"],
                "si_sdr": own["si_sdr"],
                "gain": own["si_sdr_gain"],
            }
            if asked and est.any():
                row["classes"][name] |= {"espnet_input": scores["mixture"]["espnet"], "espnet": own["espnet"]}
    return row


class Kind(NamedTuple):
    """What differs between test sets of queries and of classes.

    tagging: scores of the probabilities of classes.  row: scores of an item.  pairs: for ESPnet's scoring.
    summarise: rows to the figures of summary.json.
    """

    tagging: Callable
    row: Callable
    pairs: Callable
    summarise: Callable


KINDS = {
    QuerySet.kind: Kind(query_tagging, query_row, query_pairs, summarise_queries),
    ClassSet.kind: Kind(class_detection, class_row, class_pairs, summarise_classes),
}
