"""The scores of ESPnet's scoring (`espnet2.bin.enh_scoring`): by the same formulas (`espnet_scores`), or by the tool.

The tool stops at a silent reference or estimate, needs 8 s to start and takes one pair of scp files. So each target of
a mixture is scored as a source of its own (no permutation is searched), silent signals are left out, and a part scores
the unprocessed mixtures and all estimates in one run. It takes 0.15 s for 5 s of sound at 32 kHz, the formulas 0.01 s.
"""

import functools
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from espnet2_ext.core.metrics import si_sdr
from espnet2_ext.scores.measures import stoi
from espnet2_ext.util.documents import read_json, write_json
from espnet2_ext.util.files import write_text
from espnet2_ext.util.parallel import map_parts
from espnet2_ext.util.tables import read_scp, write_scp

# SIR is left out: with one source it is infinite.
SCORES = ("SDR", "SI_SNR", "SAR", "STOI", "ESTOI")
# What pystoi returns, with a warning, when too little of a signal is loud enough (times 100).
_STOI_UNDEFINED = 1e-3


class Pair(NamedTuple):
    """A reference and an estimate that ESPnet can score, both places of audio; `scores[name]` takes the result."""

    key: str
    ref: str
    est: str
    scores: dict
    name: str = "espnet"


def draw_keys(keys: list[str], most: int | None) -> set[str]:
    """At most `most` of the keys, drawn at random with a fixed seed; None: all."""
    return {keys[n] for n in np.random.default_rng(0).permutation(len(keys))[:most]}


def espnet_scores(ests: np.ndarray, ref: np.ndarray, fs: int, sdr: np.ndarray) -> list[dict | None]:
    """The scores of ESPnet's tool for each of `ests` [S, T] against `ref` [T]; None for an estimate that is all zeros.

    Args:
        fs: rate in Hz. sdr: [S] of `bss_eval_sdr`, which is SDR and, as there is one source only, SAR too.
    """
    import torch

    centred = torch.from_numpy(ests - ests.mean(axis=1, keepdims=True))
    si_snr = si_sdr(est=centred, ref=torch.from_numpy(ref - ref.mean()).expand_as(centred)).tolist()
    found = stoi(est=ests, ref=ref, fs=fs) or [(math.nan, math.nan)] * len(ests)
    values = ((d, n, d, 100 * s, 100 * e) for d, n, (s, e) in zip(sdr.tolist(), si_snr, found))
    rows = [{name: _defined(name, value) for name, value in zip(SCORES, row)} for row in values]
    return [row if est.any() else None for row, est in zip(rows, ests)]


def score_by_espnet(pairs: list[Pair], parts: Path, *, stamp: str, **run) -> None:
    """Put the scores of ESPnet's own tool into the rows that the pairs belong to.

    Args:
        parts: folder of unfinished work.
        run: num_workers and scheduler of `util.parallel.map_parts`.
    """
    items = [{"key": str(n), "ref": pair.ref, "est": pair.est} for n, pair in enumerate(pairs)]
    run |= {"part_size": part_size(len(items)), "desc": "ESPnet's scoring"}
    for part in map_parts(functools.partial(score_part, stamp=stamp), items, parts, **run) if items else ():
        for n, scores in read_json(part).items():
            pairs[int(n)].scores[pairs[int(n)].name] = scores


def write_espnet(pairs: dict[str, list[Pair]], out: Path) -> None:
    """Write the scores of each folder (a system or a class) as ESPnet's tool does: `out`/FOLDER/SCORE_spk1."""
    for folder, found in pairs.items():
        for score in SCORES:
            values = ((p.key, (p.scores.get(p.name) or {}).get(score)) for p in found)
            lines = (f"{key} {value}\n" for key, value in values if value is not None)
            write_text(out / folder / f"{score}_spk1", "".join(lines))


def query_pairs(rows: list[dict], items: list[dict]) -> dict[str, list[Pair]]:
    """System -> pairs: the unprocessed mixture and the mixture pass of each protocol; what is not scored is null."""
    systems = ["mixture", *dict.fromkeys(protocol for item in items for protocol in item["est"])]
    pairs: dict[str, list[Pair]] = {system: [] for system in systems}
    for row, item in zip(rows, items, strict=True):
        places = {"mixture": item["mix"]} | {protocol: passes["mixture"] for protocol, passes in item["est"].items()}
        for system, place in places.items():
            silent = row["silent_reference"] or row[system].get("silent_estimate", False)
            scored = not (silent or row["single_source"])
            row[system]["espnet"] = row[system].get("espnet") if scored else None
            if scored:
                pairs[system].append(Pair(row["key"], item["ref"], place, row[system]))
    return pairs


def class_pairs(rows: list[dict], items: list[dict]) -> dict[str, list[Pair]]:
    """Class -> pairs of its estimates, CLASS/mixture -> those of the unprocessed mixture, where the class sounds."""
    folders = [folder for name in rows[0]["classes"] for folder in (f"{name}/mixture", name)]
    pairs: dict[str, list[Pair]] = {folder: [] for folder in folders}
    for row, item in zip(rows, items, strict=True):
        for name, ref, est in item["targets"]:
            scores = row["classes"][name]
            if scores["state"] == "scored" and not scores["silent_estimate"]:
                pairs[f"{name}/mixture"].append(Pair(row["key"], ref, item["mix"], scores, "espnet_input"))
                pairs[name].append(Pair(row["key"], ref, est, scores))
    return pairs


def score_part(items: list[dict], path: Path, *, stamp: str) -> None:
    """Run ESPnet's scoring on `items` (key, ref, est) and write key -> score -> value as JSON.

    Raises:
        RuntimeError: ESPnet's scoring failed; the end of its output is the message.
    """
    with tempfile.TemporaryDirectory() as tmp:
        tables = {}
        for name in ("ref", "est"):
            tables[name] = Path(tmp) / f"{name}.scp"
            write_scp(tables[name], {item["key"]: item[name] for item in items})
        options = {
            "key_file": tables["ref"],
            "ref_scp": tables["ref"],
            "inf_scp": tables["est"],
            "is_tse": "true",
            "dtype": "float64",
            "log_level": "WARNING",
            "output_dir": f"{tmp}/out",
        }
        command = [sys.executable, "-m", "espnet2.bin.enh_scoring"]
        command += [text for name, value in options.items() for text in (f"--{name}", str(value))]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        if done.returncode != 0:
            raise RuntimeError(f"espnet2.bin.enh_scoring failed:\n{done.stderr[-2000:]}")
        scores: dict = {item["key"]: {} for item in items}
        for name in SCORES:
            for key, value in read_scp(Path(tmp) / "out" / f"{name}_spk1").items():
                scores[key][name] = _defined(name, float(value))
    write_json(path, scores, indent=None)


def part_size(items: int) -> int:
    """At most 128, and an even number of parts, so that two cores end together; a few items: one part."""
    return items if items <= 32 else -(-items // (2 * -(-items // 256)))


def _defined(name: str, value: float) -> float | None:
    stoi = re.fullmatch("E?STOI", name)
    undefined = not math.isfinite(value) or (stoi and abs(value - _STOI_UNDEFINED) < 1e-9)
    return None if undefined else value
