"""ESPnet's own scoring (`espnet2.bin.enh_scoring`) on the same signals, in parallel.

It stops at a silent reference or estimate, needs 8 s to start and takes one pair of scp files. So each target of a
mixture is scored as a source of its own (no permutation is searched), silent signals are left out, and a part scores
the unprocessed mixtures and all estimates in one run. It takes 0.15 s for 2 s of sound at 32 kHz and 0.8 s for 10 s, so
a large set can be scored on a part of its keys, drawn with a fixed seed.
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


def score_by_espnet(
    pairs: dict[str, list[Pair]], keys: list[str], out: Path, parts: Path, *, max_keys: int | None, stamp: str, **run
) -> None:
    """Put ESPnet's scores into the rows that the pairs belong to, and its text files into `out`/espnet/FOLDER.

    Args:
        pairs: folder of the text files (a system or a class) -> pairs.
        keys: of the test set.
        parts: folder of unfinished work.
        max_keys: at most so many of them, drawn at random; None: all.
        run: num_workers and scheduler of `util.parallel.map_parts`.
    """
    drawn = {keys[n] for n in np.random.default_rng(0).permutation(len(keys))[:max_keys]}
    chosen = [pair for found in pairs.values() for pair in found if pair.key in drawn]
    if chosen:
        items = [{"key": str(n), "ref": pair.ref, "est": pair.est} for n, pair in enumerate(chosen)]
        run |= {"part_size": part_size(len(items)), "desc": "ESPnet's scoring"}
        for part in map_parts(functools.partial(score_part, stamp=stamp), items, parts, **run):
            for n, scores in read_json(part).items():
                chosen[int(n)].scores[chosen[int(n)].name] = scores
    for folder, found in pairs.items():
        for score in SCORES:
            values = ((p.key, (p.scores.get(p.name) or {}).get(score)) for p in found)
            lines = (f"{key} {value}\n" for key, value in values if value is not None)
            write_text(out / "espnet" / folder / f"{score}_spk1", "".join(lines))


def query_pairs(rows: list[dict], items: list[dict]) -> dict[str, list[Pair]]:
    """System -> pairs: the unprocessed mixture and the mixture pass of each protocol; what is not scored is null."""
    systems = ["mixture", *dict.fromkeys(protocol for item in items for protocol in item["est"])]
    pairs: dict[str, list[Pair]] = {system: [] for system in systems}
    for row, item in zip(rows, items, strict=True):
        places = {"mixture": item["mix"]} | {protocol: passes["mixture"] for protocol, passes in item["est"].items()}
        for system, place in places.items():
            row[system]["espnet"] = None
            silent = row["silent_reference"] or row[system].get("silent_estimate", False)
            if not (silent or row["single_source"]):
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
