"""ESPnet's own scoring (`espnet2.bin.enh_scoring`) on the same signals, in parallel.

It refuses a silent reference or estimate, needs 8 s to start and takes one pair of scp files. So
keys with a silent signal are left out here, and a part scores the unprocessed mixture and every
protocol in one run, under keys `system:key`. It takes 0.15 s for 2 s of sound at 32 kHz and 0.8 s
for 10 s, so a large set can be scored on a part of its keys, drawn with a fixed seed.
"""

import functools
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from espnet2_ext.scores.test_set import DataFolder
from espnet2_ext.util.files import write_text
from espnet2_ext.util.parallel import map_parts

# SIR is left out: with one source it is infinite.
SCORES = ("SDR", "SI_SNR", "SAR", "STOI", "ESTOI")
# What pystoi returns, with a warning, when too little of a signal is loud enough (times 100).
_STOI_UNDEFINED = 1e-3


def score_by_espnet(
    rows: list[dict], data: DataFolder, outputs: dict, out: Path, *, max_keys: int | None, stamp: str, **run
) -> None:
    """Put ESPnet's scores into `rows` (as row[system]["espnet"]) and its files into `out`/espnet.

    Systems are `mixture` (the unprocessed one) and the protocols; their mixture pass is scored.

    Args:
        rows: of scores.jsonl; changed in place.
        max_keys: at most so many keys, drawn at random; None: all.
        run: num_workers and scheduler of `util.parallel.map_parts`.
    """
    estimates = {"mixture": data.scp["wav.scp"]}
    estimates |= {protocol: passes["mixture"] for protocol, passes in outputs.items()}
    scores = {}
    if items := _items(rows, data.scp["spk1.scp"], estimates, max_keys):
        run |= {"part_size": part_size(len(items)), "desc": "ESPnet's scoring"}
        fn = functools.partial(score_part, stamp=stamp)
        for part in map_parts(fn, items, out / "espnet_parts", **run):
            scores |= json.loads(part.read_text(encoding="utf-8"))
    for system in estimates:
        scored = [row for row in rows if system in row]
        for row in scored:
            row[system]["espnet"] = scores.get(f"{system}:{row['key']}")
        for name in SCORES:
            found = ((row["key"], (row[system]["espnet"] or {}).get(name)) for row in scored)
            lines = (f"{key} {value}\n" for key, value in found if value is not None)
            write_text(out / "espnet" / system / f"{name}_spk1", "".join(lines))


def _items(rows: list[dict], refs: dict, estimates: dict, max_keys: int | None) -> list[dict]:
    """What ESPnet can score: sounding references and estimates of at most `max_keys` keys."""
    drawn = np.random.default_rng(0).permutation(len(rows))[:max_keys]
    return [
        {"key": f"{system}:{row['key']}", "ref": refs[row["key"]], "est": estimates[system][row["key"]]}
        for row in (rows[n] for n in sorted(drawn))
        for system in estimates
        if system in row
        and not (row["silent_reference"] or row["single_source"])
        and not row[system].get("silent_estimate", False)
    ]


def score_part(items: list[dict], path: Path, *, stamp: str) -> None:
    """Run ESPnet's scoring on `items` (key, ref, est) and write key -> score -> value as JSON.

    Raises:
        RuntimeError: ESPnet's scoring failed; the end of its output is the message.
    """
    with tempfile.TemporaryDirectory() as tmp:
        tables = {}
        for name in ("ref", "est"):
            tables[name] = Path(tmp) / f"{name}.scp"
            lines = (f"{item['key']} {item[name]}\n" for item in items)
            tables[name].write_text("".join(lines), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "espnet2.bin.enh_scoring",
            "--key_file",
            str(tables["ref"]),
            "--ref_scp",
            str(tables["ref"]),
            "--inf_scp",
            str(tables["est"]),
            "--is_tse",
            "true",
            "--dtype",
            "float64",
            "--log_level",
            "WARNING",
            "--output_dir",
            f"{tmp}/out",
        ]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        if done.returncode != 0:
            raise RuntimeError(f"espnet2.bin.enh_scoring failed:\n{done.stderr[-2000:]}")
        scores: dict = {item["key"]: {} for item in items}
        for name in SCORES:
            text = (Path(tmp) / "out" / f"{name}_spk1").read_text(encoding="utf-8")
            for line in text.splitlines():
                key, value = line.split()
                scores[key][name] = _defined(name, float(value))
    path.write_text(json.dumps(scores, allow_nan=False), encoding="utf-8")


def part_size(items: int) -> int:
    """At most 128, and an even number of parts, so that two cores end together; a few: one part."""
    return items if items <= 32 else -(-items // (2 * -(-items // 256)))


def _defined(name: str, value: float) -> float | None:
    stoi = re.fullmatch("E?STOI", name)
    undefined = not math.isfinite(value) or (stoi and abs(value - _STOI_UNDEFINED) < 1e-9)
    return None if undefined else value
