"""Sounds and pictures of single mixtures: references beside the outputs of all label types."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from espnet2_ext.report.examples import PEAK, file_name, write_sound
from espnet2_ext.report.figures import save
from espnet2_ext.report.spectrograms import draw_grid
from espnet2_ext.report.weak_sets import Scored
from espnet2_ext.scores.test_set import MODEL, ClassSet, load_outputs, read_signal

REFERENCE = "reference"
COUNT = 2  # examples of each rank
LONGEST = 15.0  # seconds of an example


class Cell(NamedTuple):
    """A sound with what is to be said of it."""

    path: Path
    note: str


class Example(NamedTuple):
    """One mixture. `cells`: class -> reference or label -> its sound; `picture` of all."""

    rank: str
    key: str
    title: str
    mixture: Path
    picture: Path
    cells: dict[str, dict[str, Cell]]


def pick(scored: Sequence[Scored], count: int | None = None) -> dict[str, list[str]]:
    """Keys of the worst, the median and the best `count` (COUNT) mixtures, none twice.

    Mixtures are ranked by the mean gain over their classes and all label types; where nothing has
    a gain, the first ones are taken.
    """
    gains: dict[str, list[float]] = {}
    for s in scored:
        for row in s.rows:
            found = [v["gain"] for v in row["classes"].values() if v.get("gain") is not None]
            if found:
                gains.setdefault(row["key"], []).append(float(np.mean(found)))
    keys = sorted(gains, key=lambda key: (np.mean(gains[key]), key))
    count = min(COUNT if count is None else count, len(keys) // 3)
    if count == 0:
        some = [row["key"] for row in scored[0].rows[:COUNT]] if not keys else []
        return {"worst": keys[:1], "median": [], "best": keys[1:2], "first": some}
    middle = (len(keys) - count) // 2
    return {"worst": keys[:count], "median": keys[middle : middle + count], "best": keys[-count:][::-1]}


def make_weak_examples(data: ClassSet, scored: Sequence[Scored], out: Path) -> list[Example]:
    """Write pictures (`out`/figures) and sounds (`out`/audio) of the mixtures of `pick`.

    All sounds of an example share one factor, so that their levels can be compared. Of a long
    recording the stretch is taken in which its quietest class is loudest.
    """
    scps = {s.label: load_outputs(s.folder, data).systems[MODEL] for s in scored}
    rows = {s.label: {row["key"]: row for row in s.rows} for s in scored}
    return [
        _make(data, scps, {label: by_key[key] for label, by_key in rows.items()}, key, rank, out)
        for rank, keys in pick(scored).items()
        for key in keys
    ]


def _make(data: ClassSet, outputs: dict[str, dict], rows: dict[str, dict], key: str, rank: str, out: Path) -> Example:
    """One example. rows: label -> row of `key`."""
    mix, sounds, fs = _sounds(data, outputs, rows, key)
    stem = file_name(key)
    factor = PEAK / max(
        [1e-6, *(float(np.abs(x).max()) for found in [{"": mix}, *sounds.values()] for x in found.values())]
    )
    cells: dict[str, dict[str, Cell]] = {}
    for c, found in sounds.items():
        cells[c] = {}
        for name, x in found.items():
            path = out / "audio" / f"{stem}_{file_name(c)}_{file_name(name)}.flac"
            write_sound(path, x * factor, fs)
            cells[c][name] = Cell(path, _note(name, rows, c))
    mixture = out / "audio" / f"{stem}_mixture.flac"
    write_sound(mixture, mix * factor, fs)
    there = {c.replace("_", " "): x for c, x in sounds.items() if REFERENCE in x}
    heard = ", ".join(there)
    grid = {c: {"mixture": mix, **x} for c, x in there.items()}
    grid = grid or {c.replace("_", " "): {"mixture": mix, **x} for c, x in sounds.items()}
    title = f"{heard}; {rank} mean gain, mixture {key}" if heard else f"mixture {key}"
    shown = save(draw_grid(grid, fs, title), out / "figures" / f"{stem}.png", dpi=90)  # many panels
    return Example(rank, key, heard or key, mixture, shown, cells)


def _sounds(
    data: ClassSet, outputs: dict[str, dict], rows: dict[str, dict], key: str
) -> tuple[np.ndarray, dict[str, dict[str, np.ndarray]], int]:
    """The mixture, class -> name -> [T] (no reference where a class is silent), and the rate."""
    mix, fs = read_signal(data.scp["wav.scp"][key], key)
    places = data.references
    states = {c: s["state"] for c, s in next(iter(rows.values()))["classes"].items()}
    refs = {c: read_signal(places[c][key], key)[0] for c in states if states[c] != "silent"}
    part = excerpt(mix, list(refs.values()) or [mix], fs)
    sounds = {}
    for c in states or next(iter(outputs.values())):
        sounds[c] = {REFERENCE: refs[c][part]} if c in refs else {}
        for label, o in outputs.items():
            if c in o:
                sounds[c][label] = read_signal(o[c][key], key)[0][part]
    return mix[part], sounds, fs


def excerpt(mix: np.ndarray, refs: list[np.ndarray], fs: int) -> slice:
    """The stretch of a recording to show: all of a short one."""
    num = round(LONGEST * fs)
    if len(mix) <= num:
        return slice(0, len(mix))
    starts = np.arange(0, len(mix) - num + 1, fs)
    energy = [np.concatenate([[0.0], np.cumsum(np.square(x, dtype=np.float64))]) for x in refs]
    quietest = np.min([e[starts + num] - e[starts] for e in energy], axis=0)
    start = int(starts[quietest.argmax()])
    return slice(start, start + num)


def _note(name: str, rows: dict[str, dict], cls: str) -> str:
    if name == REFERENCE:
        value = next(iter(rows.values()))["classes"][cls].get("input")
        return "" if value is None else f"input {value:.1f} dB"
    scores = rows[name]["classes"].get(cls, {})
    if scores.get("gain") is not None:
        return f"gain {scores['gain']:.1f} dB"
    return f"silent class, {scores['level_db']:.0f} dB" if scores.get("state") == "silent" else ""
