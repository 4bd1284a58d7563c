"""ESPnet's own scoring class by class, where the class sounds.

`espnet2.bin.enh_scoring` on all classes at once stops at the first silent reference. So each class
of a mixture is scored as one source, silent ones are left out, and no permutation is searched.
"""

import functools
import json
from pathlib import Path

import numpy as np

from espnet2_ext.scores.espnet import SCORES, part_size, score_part
from espnet2_ext.util.files import write_text
from espnet2_ext.util.parallel import map_parts

SYSTEMS = {"espnet_input": "mixture", "espnet": "estimate"}  # name in a row, name of the folder


def score_classes_by_espnet(
    rows: list[dict], items: list[dict], out: Path, *, max_keys: int | None, stamp: str, **run
) -> None:
    """Put ESPnet's scores into `rows` (classes[NAME]["espnet"] and ["espnet_input"]).

    Its files go into `out`/espnet/CLASS: `SDR_spk1` and so on for the estimates, and the same in
    the folder `mixture` for the unprocessed mixture.

    Args:
        rows: of scores.jsonl; changed in place.  items: what they were made of (`_items`).
        max_keys: at most so many mixtures, drawn with a fixed seed; None: all.
        run: num_workers and scheduler of `util.parallel.map_parts`.
    """
    wanted = _wanted(rows, items, max_keys)
    found: dict = {}
    if wanted:
        run |= {"part_size": part_size(len(wanted)), "desc": "ESPnet's scoring"}
        fn = functools.partial(score_part, stamp=stamp)
        for part in map_parts(fn, wanted, out / "espnet_parts", **run):
            found |= json.loads(part.read_text(encoding="utf-8"))
    for row in rows:
        for name, scores in row["classes"].items():
            for system in SYSTEMS:
                if (values := found.get(f"{system}:{name}:{row['key']}")) is not None:
                    scores[system] = values
    _write(rows, out / "espnet")


def _wanted(rows: list[dict], items: list[dict], max_keys: int | None) -> list[dict]:
    """What ESPnet can score, as `espnet_scoring.score_part` takes it."""
    drawn = np.random.default_rng(0).permutation(len(rows))[:max_keys]
    places = {item["key"]: item for item in items}
    wanted = []
    for row in (rows[n] for n in sorted(drawn)):
        item = places[row["key"]]
        for name, ref, est in item["pairs"]:
            scores = row["classes"][name]
            if scores["state"] == "scored" and not scores["silent_estimate"]:
                for system, place in zip(SYSTEMS, (item["mix"], est)):
                    key = f"{system}:{name}:{row['key']}"
                    wanted.append({"key": key, "ref": ref, "est": place})
    return wanted


def _write(rows: list[dict], folder: Path) -> None:
    """ESPnet's text files, one line a key."""
    for name in rows[0]["classes"]:
        for system, place in SYSTEMS.items():
            to = folder / name / ("" if system == "espnet" else place)
            for score in SCORES:
                values = ((r["key"], r["classes"][name].get(system, {}).get(score)) for r in rows)
                lines = (f"{key} {value}\n" for key, value in values if value is not None)
                write_text(to / f"{score}_spk1", "".join(lines))
