"""Scores every key of a test set, in parallel and resumable: `score` -> scores.jsonl, summary.json.

Formulas are in `core.metrics` and `scores.bss_eval`. A row of scores.jsonl is one key:
its reference, the unprocessed mixture's own scores, and for each protocol the scores of its
passes, where the key has a query. What is not defined is null: a silent reference has no SDR, and
a mixture of the target and silence (`single_source`) none either, for nothing is to be separated
and the unprocessed mixture would count as perfect.
"""

import functools
import json
import logging
import math
import os
import shutil
from pathlib import Path

import numpy as np

from espnet2_ext.core.metrics import METRICS, is_silent, level_db
from espnet2_ext.errors import DataError
from espnet2_ext.scores.bss_eval import bss_eval_sdr
from espnet2_ext.scores.espnet import score_by_espnet
from espnet2_ext.scores.summary import summarise_scores
from espnet2_ext.scores.tagging import mean_average_precision
from espnet2_ext.scores.test_set import (
    INPUTS,
    DataFolder,
    fingerprint,
    load_data_folder,
    load_outputs,
    read_signal,
    read_tags,
)
from espnet2_ext.util.files import atomic_path, write_text
from espnet2_ext.util.parallel import map_parts

VERSION = 1
_PART = 32  # keys a part: some seconds of work, so that little is lost and the bar moves


def score(
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
        espnet_keys: how many keys ESPnet's own scoring gets too (`score_by_espnet`); None: all.
        num_workers, scheduler: see `util.parallel.map_parts`.
    Raises:
        DataError: the two folders do not fit, or a key's audio is not as it should be.
    """
    data = load_data_folder(data_dir)
    inference_dir = Path(inference_dir)
    outputs = load_outputs(inference_dir, data)
    out = inference_dir / "scores"
    stamp = f"{fingerprint(data, inference_dir, outputs)} v{VERSION} espnet_keys={espnet_keys}"
    if is_done(out / "summary.json", stamp):
        logging.info("%s is there already", out / "summary.json")
        return out / "summary.json"
    (out / "summary.json").unlink(missing_ok=True)  # the figures of other outputs
    run = {"num_workers": num_workers, "scheduler": scheduler}
    fn, items = functools.partial(score_part, stamp=stamp), _items(data, outputs)
    rows = read_rows(map_parts(fn, items, out / "parts", part_size=_PART, desc="scoring", **run))
    if espnet_keys != 0:
        score_by_espnet(rows, data, outputs, out, max_keys=espnet_keys, stamp=stamp, **run)
    summary = {"stamp": stamp, "data_dir": str(data_dir), "inference_dir": str(inference_dir)}
    summary |= summarise_scores(rows, data, _tagging(inference_dir, outputs, data))
    with atomic_path(out / "scores.jsonl") as tmp, tmp.open("w", encoding="utf-8") as f:
        f.writelines(json.dumps(row) + "\n" for row in rows)
    write_text(out / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
    for parts in ("parts", "espnet_parts"):
        shutil.rmtree(out / parts, ignore_errors=True)
    return out / "summary.json"


def _tagging(inference_dir: Path, outputs: dict, data: DataFolder) -> dict[str, dict]:
    """Protocol -> figures of the tagging, where there is a tags.npz."""
    found = {}
    for protocol in outputs:
        path, keys = inference_dir / protocol / "tags.npz", data.keys_of(protocol)
        if path.is_file():
            found[protocol] = mean_average_precision(read_tags(path, data, keys), data, keys)
    return found


def score_part(items: list[dict], path: Path, *, stamp: str) -> None:
    """Score `items` into the JSON lines file `path`; `stamp` ties the part to its inputs."""
    import torch

    torch.set_num_threads(1)  # the parts are what runs side by side
    with open(path, "w", encoding="utf-8") as f:
        for item in items:
            f.write(json.dumps(score_key(item), allow_nan=False) + "\n")


def score_key(item: dict) -> dict:
    """All scores of one key.

    Args:
        item: key, class, wav.scp, spk1.scp, absent.scp (places of audio) and est: protocol ->
            pass -> place of the estimate.
    Raises:
        DataError: names the key and the file whose length, rate or content is wrong.
    """
    key = item["key"]
    ref, fs = read_signal(item["spk1.scp"], key)
    mix = _read_like(item, "wav.scp", ref, fs)
    inputs = {"mixture": mix, "clean": ref}
    if "absent.scp" in item:
        inputs["silence"] = read_signal(item["absent.scp"], key)[0]
    silent_ref = bool(is_silent(ref[None])[0])
    single = not silent_ref and bool(is_silent((mix - ref)[None])[0])
    unprocessed = _scores(key, "the mixture", mix, ref, single)
    row = {
        "key": key,
        "class": item["class"],
        "seconds": len(ref) / fs,
        "fs": fs,
        "reference_db": metric_value(level_db(ref[None])),
        "silent_reference": silent_ref,
        "single_source": single,
        "mixture": unprocessed,
    }
    for protocol, passes in item["est"].items():
        signals = {p: _read_like(passes, p, inputs[p], fs, key) for p in passes}
        scores = _score_passes(key, protocol, signals, inputs, single)
        row[protocol] = scores | _gains(scores, unprocessed)
    return row


def _score_passes(key: str, protocol: str, signals: dict, inputs: dict, single: bool) -> dict:
    """Scores of all passes of a protocol; `level_db` is the output's level against the mixture."""
    what, est, ref = f"the estimate of {protocol}", signals["mixture"], inputs["clean"]
    scores = _scores(key, f"{what}/mixture", est, ref, single)
    pushed = _metric(key, f"{what}/mixture", "silence_sdr", est=est, mix=inputs["mixture"])
    scores |= {"level_db": -pushed, "silent_estimate": bool(is_silent(est[None])[0])}
    if "clean" in signals:
        for metric in ("sdr", "si_sdr"):
            scores[f"clean_{metric}"] = _metric(key, f"{what}/clean", metric, est=signals["clean"], ref=ref)
    if "silence" in signals:
        scores["silence_sdr"] = _metric(
            key, f"{what}/silence", "silence_sdr", est=signals["silence"], mix=inputs["silence"]
        )
    return scores


def _gains(scores: dict, unprocessed: dict) -> dict:
    """Each score of the estimate minus the mixture's own; null where either is not defined."""
    gains = {}
    for metric in ("sdr", "si_sdr", "bss_eval_sdr"):
        pair = scores[metric], unprocessed[metric]
        gains[f"{metric}_gain"] = None if None in pair else pair[0] - pair[1]
    return gains


def _scores(key: str, what: str, est: np.ndarray, ref: np.ndarray, single: bool) -> dict:
    """Scores of `est` on the mixture pass; where there is nothing to separate, none is defined."""
    scores = {m: _metric(key, what, m, est=est, ref=ref) for m in ("sdr", "si_sdr")}
    value = bss_eval_sdr(est=est, ref=ref)
    scores["bss_eval_sdr"] = None if math.isnan(value) else value
    return dict.fromkeys(scores) if single else scores


def _metric(key: str, what: str, metric: str, **signals: np.ndarray) -> float | None:
    try:
        return metric_value(METRICS[metric](**{n: x[None] for n, x in signals.items()}))
    except ValueError as e:
        raise DataError(f"key {key}, {what}: {e}") from e


def metric_value(scores) -> float | None:
    """The one value of a metric; None where it is not defined."""
    value = float(scores[0])
    return None if math.isnan(value) else value


def _read_like(places: dict, name: str, like: np.ndarray, fs: int, key: str | None = None):
    """Audio of `places[name]`, refused when its rate or length is not that of `like`."""
    key = places["key"] if key is None else key
    audio, rate = read_signal(places[name], key)
    if rate != fs:
        raise DataError(f"key {key}: {places[name]}: {rate} Hz, but the reference has {fs} Hz")
    if len(audio) != len(like):
        raise DataError(f"key {key}: {places[name]}: {len(audio)} samples, but {len(like)} are expected")
    return audio


def _items(data: DataFolder, outputs: dict) -> list[dict]:
    used = {INPUTS[p] for passes in outputs.values() for p in passes} | {"spk1.scp"}
    items = []
    for key in data.keys:
        item = {"key": key, "class": data.classes[key], "est": {}}
        item |= {name: data.scp[name][key] for name in sorted(used)}
        for protocol, passes in outputs.items():
            if key in passes["mixture"]:  # not where the key has no query of this protocol
                item["est"][protocol] = {p: scp[key] for p, scp in passes.items()}
        items.append(item)
    return items


def read_rows(parts: list[Path]) -> list[dict]:
    """Rows of JSON lines files, in the order of their keys."""
    rows = [json.loads(x) for p in parts for x in p.read_text(encoding="utf-8").splitlines()]
    return sorted(rows, key=lambda row: row["key"])


def is_done(path: Path, stamp: str) -> bool:
    """Whether `path`, a summary, was made of what `stamp` tells."""
    if not path.is_file():
        return False
    return json.loads(path.read_text(encoding="utf-8")).get("stamp") == stamp
