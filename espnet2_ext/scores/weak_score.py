"""Scores of class-wise separation: `score_weak` -> scores.jsonl, summary.json.

A row of scores.jsonl is one mixture; its `classes` hold the scores of each class. The rules are
the paper's (Pishdadian et al., "Finding Strength in Weakness", III-C): a class that is silent in a
mixture has no SI-SDR, and what is alone in its mixture has none either, for nothing is to be
separated. Where a class is silent its output should be too: `level_db` says how far it lies under
the mixture. Recordings without isolated sounds have no such scores; there the classifier's
F-measure is all that can be told.
"""

import functools
import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np

from espnet2_ext.core.metrics import METRICS, is_silent, level_db
from espnet2_ext.errors import DataError
from espnet2_ext.scores.score import is_done, metric_value, read_rows
from espnet2_ext.scores.test_set import read_signal
from espnet2_ext.scores.weak_espnet_scoring import score_classes_by_espnet
from espnet2_ext.scores.weak_folders import (
    REST,
    Outputs,
    WeakData,
    load_activity,
    load_weak_data,
    load_weak_outputs,
    weak_fingerprint,
)
from espnet2_ext.scores.weak_summary import summarise_weak
from espnet2_ext.util.files import write_text
from espnet2_ext.util.parallel import map_parts

VERSION = 1


def score_weak(
    data_dir: str | os.PathLike,
    inference_dir: str | os.PathLike,
    *,
    espnet_keys: int | None = None,
    num_workers: int | None = None,
    scheduler: str | None = None,
) -> Path:
    """Score the outputs in `inference_dir` against `data_dir`; returns the path of summary.json.

    Nothing is done when the scores of the same inputs are there already; a stopped run goes on.

    Args:
        espnet_keys: how many mixtures ESPnet's own scoring gets too; None: all.
        num_workers, scheduler: see `util.parallel.map_parts`.
    Raises:
        DataError: the two folders do not fit, or a key's audio is not as it should be.
    """
    data = load_weak_data(data_dir)
    outputs = load_weak_outputs(inference_dir, data)
    out = outputs.path / "scores"
    stamp = f"{weak_fingerprint(data, outputs)} v{VERSION} espnet_keys={espnet_keys}"
    if is_done(out / "summary.json", stamp):
        logging.info("%s is there already", out / "summary.json")
        return out / "summary.json"
    (out / "summary.json").unlink(missing_ok=True)  # the figures of other outputs
    activity = load_activity(outputs.path / "activity.npz", data)
    run = {"num_workers": num_workers, "scheduler": scheduler}
    fn, items = functools.partial(score_part, stamp=stamp), _items(data, outputs)
    size = min(max(len(items) // 64, 1), 32)  # a song is a part, and so are 32 of 5,000 mixtures
    rows = read_rows(map_parts(fn, items, out / "parts", part_size=size, desc="scoring", **run))
    if espnet_keys != 0:
        score_classes_by_espnet(rows, items, out, max_keys=espnet_keys, stamp=stamp, **run)
    summary = {"stamp": stamp, "data_dir": str(data_dir), "inference_dir": str(inference_dir)}
    summary |= summarise_weak(rows, data, outputs, activity)
    write_text(out / "scores.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write_text(out / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
    for parts in ("parts", "espnet_parts"):
        shutil.rmtree(out / parts, ignore_errors=True)
    return out / "summary.json"


def _items(data: WeakData, outputs: Outputs) -> list[dict]:
    """What is to be scored: key, mix, and for each output with a reference (name, ref, est)."""
    refs = dict(zip(data.classes, data.refs))
    if data.rest is not None:
        refs[REST] = data.rest
    pairs = [(n, refs[n], est) for n, est in zip(outputs.names, outputs.scps) if n in refs]
    return [
        {"key": key, "mix": data.mix[key], "pairs": [(n, r[key], e[key]) for n, r, e in pairs]} for key in data.keys
    ]


def score_part(items: list[dict], path: Path, *, stamp: str) -> None:
    """Score `items` into the JSON lines file `path`; `stamp` ties the part to its inputs."""
    import torch

    torch.set_num_threads(1)  # the parts are what runs side by side
    with open(path, "w", encoding="utf-8") as f:
        for item in items:
            f.write(json.dumps(score_mixture(item), allow_nan=False) + "\n")


def score_mixture(item: dict) -> dict:
    """All scores of one mixture; one class is held in memory at a time.

    Args:
        item: key; mix, the place of the mixture; pairs of (name, reference, estimate) places.
    Raises:
        DataError: names the key and the file whose length, rate or content is wrong.
    """
    key = item["key"]
    mix, fs = read_signal(item["mix"], key)
    row = {
        "key": key,
        "seconds": len(mix) / fs,
        "fs": fs,
        "mixture_db": metric_value(level_db(mix[None])),
        "classes": {},
    }
    for name, *places in item["pairs"]:
        ref, est = (_read_like(key, place, mix, fs) for place in places)
        row["classes"][name] = _scores(key, name, est, ref, mix)
    return row


def _scores(key: str, name: str, est: np.ndarray, ref: np.ndarray, mix: np.ndarray) -> dict:
    """Scores of one class: `input` is the SI-SDR of the mixture itself."""

    def metric(metric: str, **signals: np.ndarray) -> float | None:
        try:
            return metric_value(METRICS[metric](**{n: x[None] for n, x in signals.items()}))
        except ValueError as e:
            raise DataError(f"key {key}, class {name}: {e}") from e

    level = -metric("silence_sdr", est=est, mix=mix)
    if is_silent(ref[None])[0]:
        return {"state": "silent", "level_db": level}
    if is_silent((mix - ref)[None])[0]:
        return {"state": "alone", "level_db": level}
    scores = {
        "state": "scored",
        "level_db": level,
        "silent_estimate": not est.any(),
        "input": metric("si_sdr", est=mix, ref=ref),
        "si_sdr": metric("si_sdr", est=est, ref=ref),
    }
    known = scores["si_sdr"] is not None
    return scores | {"gain": scores["si_sdr"] - scores["input"] if known else None}


def _read_like(key: str, place: str, like: np.ndarray, fs: int) -> np.ndarray:
    """Audio of `place`, refused when its rate or length is not that of the mixture."""
    audio, rate = read_signal(place, key)
    if rate != fs or len(audio) != len(like):
        raise DataError(
            f"key {key}: {place}: {len(audio)} samples at {rate} Hz, but the mixture has {len(like)} at {fs} Hz"
        )
    return audio
