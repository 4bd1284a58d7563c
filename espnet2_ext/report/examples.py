"""Sounds and spectrograms of single targets and mixtures, to look at and listen to on the page."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from espnet2_ext.audio.flac import encode_flac, to_int16
from espnet2_ext.report.experiment import Scored
from espnet2_ext.report.figures import new_figure, save
from espnet2_ext.report.tables import PROTOCOL_NOTE, title_of
from espnet2_ext.scores.summary import ranks
from espnet2_ext.scores.test_set import MODEL, ClassSet, QuerySet, load_outputs, load_test_set, read_signal
from espnet2_ext.util.files import atomic_path
from espnet2_ext.util.names import file_name, unique

PEAK = 0.9
REFERENCE = "reference"
COUNT = 2  # mixtures of each rank, where models stand side by side
LONGEST = 15.0  # seconds of such a mixture
RANKS = {
    "median": "gains in the middle",
    "worst": "the smallest gains of the set",
    "best": "the largest gains",
    "first": "the first of the set, none has a gain",
}
QUERY_NOTE = (
    "Examples are picked by SDR gain. The sounds of a row share one volume "
    "factor, the query has its own; the residual is mixture minus estimate."
)
CLASS_NOTE = (
    "Mixtures are ranked by their mean gain over classes and label types. All sounds of a mixture share one volume "
    "factor. Classes that are absent have no reference; their outputs should be silent."
)


class Sound(NamedTuple):
    """A sound file and what is said of it."""

    path: Path
    note: str = ""


class Example(NamedTuple):
    """A target or mixture with a `picture` of its sounds.

    sounds: name -> a sound, in the order of a row of players.  table: row -> column -> a sound, below them.
    """

    rank: str
    title: str
    note: str
    picture: Path
    sounds: dict[str, Sound]
    table: dict[str, dict[str, Sound]]

    @property
    def columns(self) -> list[str]:
        """Columns of the table, the reference first."""
        names = dict.fromkeys(name for row in self.table.values() for name in row)
        return sorted(names, key=lambda name: name != REFERENCE)


class Listening(NamedTuple):
    """Examples that stand under one title."""

    title: str
    note: str
    examples: list[Example]


def query_examples(scored: Sequence[Scored], out: Path, data_dir: str | None = None) -> list[Listening]:
    """Write pictures (`out`/figures) and sounds (`out`/audio) of summary["examples"]: a `Listening` per protocol.

    Args:
        data_dir: the test set, where it is not where scoring found it.
    """
    (s,) = scored
    data, rows = load_test_set(data_dir or s.summary["data_dir"]), {row["key"]: row for row in s.rows}
    found = []
    for protocol, passes in load_outputs(s.folder, data).systems.items():
        picked = [(rank, key) for rank, keys in s.summary["examples"][protocol].items() for key in keys]
        made = [_target(data, passes, rows[key], protocol, rank, out) for rank, key in picked]
        note = f"Here {PROTOCOL_NOTE[protocol]}. {QUERY_NOTE}"
        found.append(Listening(f"Listen: query {protocol}", note, made))
    return found


def _target(data: QuerySet, passes: dict, row: dict, protocol: str, rank: str, out: Path) -> Example:
    """The example of a target under one protocol."""
    key, name, stem = row["key"], _sounds_of(data, row["key"]), f"{protocol}_{file_name(row['key'])}"
    mix, fs = read_signal(data.scp["wav.scp"][key], key)
    target, _ = read_signal(data.scp["spk1.scp"][key], key)
    estimate, _ = read_signal(passes["mixture"][key], key)
    signals = {"mixture": mix, "target": target, "estimate": estimate, "residual": mix - estimate}
    factor = _factor(signals.values())
    sounds = {n: _write(out / "audio" / f"{stem}_{n}.flac", x * factor, fs) for n, x in signals.items()}
    if enrolled := data.scp.get(f"enroll_{protocol}.scp"):  # no part of the mixture: it has a factor of its own
        query, query_fs = read_signal(enrolled[key], key)
        query = _write(out / "audio" / f"{stem}_query.flac", query * _factor([query]), query_fs)
        sounds = {"mixture": sounds.pop("mixture"), "query": query} | sounds
    scores, before = row[protocol], row["mixture"]["sdr"]
    figures = f"SDR {before:z.1f} → {scores['sdr']:z.1f} dB"
    gain = f"gain {scores['sdr_gain']:z.1f} dB"
    title = f"{name}, query {protocol}: {figures} ({gain}), {rank} gain, key {key}"
    picture = save(draw_grid({"": signals}, fs, title), out / "figures" / f"{stem}.png")
    si_sdr = scores["si_sdr_gain"]
    note = f"{figures}, {gain}{'' if si_sdr is None else f', SI-SDR gain {si_sdr:z.1f} dB'}; key {key}"
    return Example(rank, name, note, picture, sounds, {})


def _sounds_of(data: QuerySet, key: str) -> str:
    """Name of the target's class and, where the key tells its partner, of the other one's."""
    name = data.names[data.classes[key]]
    stem, _, side = key.rpartition("-")
    partner = data.classes.get(f"{stem}-{ {'1': '2', '2': '1'}.get(side) }")
    return name if partner is None else f"{name} (mixed with {data.names[partner]})"


def class_examples(scored: Sequence[Scored], out: Path, data_dir: str | None = None) -> list[Listening]:
    """Write pictures (`out`/figures) and sounds (`out`/audio) of the mixtures of `pick`, the models side by side.

    Of a long recording the stretch is taken in which its quietest class is loudest.
    """
    data = load_test_set(data_dir or scored[0].summary["data_dir"])
    outputs = {s.label: load_outputs(s.folder, data).systems[MODEL] for s in scored}
    rows = {s.label: {row["key"]: row for row in s.rows} for s in scored}
    picked = [(rank, key) for rank, keys in pick(scored).items() for key in keys]
    made = [_mixture(data, outputs, {x: r[key] for x, r in rows.items()}, key, rank, out) for rank, key in picked]
    return [Listening(f"Listen: {out.name}", CLASS_NOTE, made)]


def pick(scored: Sequence[Scored], count: int | None = None) -> dict[str, list[str]]:
    """Keys of the worst, the median and the best `count` (COUNT) mixtures, none twice.

    Mixtures are ranked by the mean gain over their classes and all label types; where nothing has a gain, the first
    ones are taken.
    """
    gains: dict[str, list[float]] = {}
    for s in scored:
        for row in s.rows:
            found = [v["gain"] for v in row["classes"].values() if v.get("gain") is not None]
            if found:
                gains.setdefault(row["key"], []).append(float(np.mean(found)))
    keys = sorted(gains, key=lambda key: (np.mean(gains[key]), key))
    found = ranks(keys, COUNT if count is None else count)
    if not found["median"]:
        found["first"] = [] if keys else [row["key"] for row in scored[0].rows[:COUNT]]
    return found


def _mixture(
    data: ClassSet, outputs: dict[str, dict], rows: dict[str, dict], key: str, rank: str, out: Path
) -> Example:
    """The example of a mixture. outputs: label -> class -> key -> place; rows: label -> row of `key`."""
    mix, signals, fs = _signals(data, outputs, rows, key)
    stem = file_name(key, 80)
    names = sorted({name for found in signals.values() for name in found})
    parts = [dict(zip(keys, unique(file_name(k, 60) for k in keys))) for keys in (list(signals), names)]
    factor = _factor([mix, *(x for found in signals.values() for x in found.values())])
    table: dict[str, dict[str, Sound]] = {}
    for c, found in signals.items():
        for name, x in found.items():
            path = out / "audio" / f"{stem}_{parts[0][c]}_{parts[1][name]}.flac"
            table.setdefault(title_of(c), {})[name] = _write(path, x * factor, fs, _note(name, rows, c))
    sounds = {"mixture": _write(out / "audio" / f"{stem}_mixture.flac", mix * factor, fs)}
    shown = {title_of(c): {"mixture": mix, **x} for c, x in signals.items() if REFERENCE in x}
    present = ", ".join(shown)
    shown = shown or {title_of(c): {"mixture": mix, **x} for c, x in signals.items()}
    title = f"{present}; {rank} mean gain, mixture {key}" if present else f"mixture {key}"
    picture = save(draw_grid(shown, fs, title), out / "figures" / f"{stem}.png", dpi=90)  # many panels
    return Example(rank, present or key, f"mixture {key}", picture, sounds, table)


def _signals(
    data: ClassSet, outputs: dict[str, dict], rows: dict[str, dict], key: str
) -> tuple[np.ndarray, dict[str, dict[str, np.ndarray]], int]:
    """The mixture, class -> name -> [T] (no reference where a class is silent), and the rate."""
    mix, fs = read_signal(data.scp["wav.scp"][key], key)
    states = {c: s["state"] for c, s in next(iter(rows.values()))["classes"].items()}
    refs = {c: read_signal(data.references[c][key], key)[0] for c in states if states[c] != "silent"}
    part = excerpt(mix, list(refs.values()) or [mix], fs)
    signals = {}
    for c in states or next(iter(outputs.values())):
        signals[c] = {REFERENCE: refs[c][part]} if c in refs else {}
        signals[c] |= {x: read_signal(o[c][key], key)[0][part] for x, o in outputs.items() if c in o}
    return mix[part], signals, fs


def excerpt(mix: np.ndarray, refs: list[np.ndarray], fs: int) -> slice:
    """The stretch of a recording to show, in samples: all of a short one; `mix` [T], `refs` [T] each."""
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
        return "" if value is None else f"input {value:z.1f} dB"
    scores = rows[name]["classes"].get(cls, {})
    if scores.get("gain") is not None:
        return f"gain {scores['gain']:z.1f} dB"
    return f"silent class, {scores['level_db']:.0f} dB" if scores.get("state") == "silent" else ""


def _factor(signals: Iterable[np.ndarray]) -> float:
    """What brings the loudest sample to PEAK; one factor keeps the levels comparable."""
    return PEAK / max(1e-6, *(float(np.abs(x).max()) for x in signals))


def _write(path: Path, x: np.ndarray, fs: int, note: str = "") -> Sound:
    """Write [T] as a FLAC file that a browser plays."""
    with atomic_path(path) as tmp:
        tmp.write_bytes(encode_flac(to_int16(x), fs))
    return Sound(path, note)


_RANGE_DB = 80.0
_LOW_HZ = 40.0
_BANDS = 200
_GAP = 0.35  # inches between rows of panels
_TICKS = (50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000)


def draw_grid(rows: dict[str, dict[str, np.ndarray]], fs: int, title: str):
    """Rows of panels on one colour scale, a signal each; a row without a name is titled by its panels alone.

    0 dB is the loudest point of all panels; what lies 80 dB below it is black. The frequency axis
    is logarithmic, from 40 Hz to half the rate.

    Args:
        rows: name of a row -> name of a panel -> [T].  fs: rate in Hz.  title: of the figure.
    """
    images = {r: {n: _spectrogram(x, fs) for n, x in row.items()} for r, row in rows.items()}
    top = max(max(i.max() for row in images.values() for i in row.values()), -200.0)
    columns, high = max(map(len, rows.values())), 1.155 + 2.345 * len(rows) + _GAP * (len(rows) - 1)
    figure, axes = new_figure(3.3 * columns, high, len(rows), columns, layout=None, sharey=True, sharex=True)
    bottom, up = 0.525 / high, 1 - 0.63 / high
    figure.subplots_adjust(left=0.05, right=0.935, bottom=bottom, top=up, wspace=0.14, hspace=_GAP / 2.345)
    for line, (row, panels) in zip(axes, images.items(), strict=True):
        for axis, (name, image) in zip(line, panels.items()):
            seconds = len(rows[row][name]) / fs
            shown = axis.imshow(
                image - top,
                origin="lower",
                aspect="auto",
                cmap="magma",
                vmin=-_RANGE_DB,
                vmax=0,
                extent=(0, seconds, 0, _BANDS),
                interpolation="nearest",
            )
            axis.set_title(f"{row}: {name}" if row else name, fontsize=12 if len(rows) == 1 else 10)
    for axis in axes[-1]:
        axis.set_xlabel("time (s)", fontsize=10)
    ticks = [f for f in _TICKS if _LOW_HZ <= f <= fs / 2]
    for axis in axes[:, 0]:
        axis.set_yticks([_band(f, fs) for f in ticks], [_hertz(f) for f in ticks])
        axis.set_ylabel("frequency (Hz)", fontsize=10)
    scale = figure.add_axes((0.945, bottom, 0.01, up - bottom))
    figure.colorbar(shown, cax=scale, label="dB re loudest point")
    figure.suptitle(title, fontsize=12, y=1 - 0.105 / high)
    return figure


def _spectrogram(x: np.ndarray, fs: int) -> np.ndarray:
    """Power in dB [_BANDS, L] at logarithmically spaced frequencies."""
    size = 2 ** round(np.log2(fs * 0.046))
    hop = max(size // 4, len(x) // 1000)
    x = np.pad(np.asarray(x, dtype=np.float64), size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(x, size)[::hop] * np.hanning(size)
    power = np.square(np.abs(np.fft.rfft(frames)))  # [L, F]
    edges = np.geomspace(_LOW_HZ, fs / 2, _BANDS + 1) * size / fs
    bands = np.stack([_between(power, a, b) for a, b in zip(edges, edges[1:], strict=False)])
    return 10 * np.log10(bands + 1e-20)


def _between(power: np.ndarray, low: float, high: float) -> np.ndarray:
    """Largest power of the bins from `low` to `high`; between two bins: drawn straight. -> [L]"""
    first, last = int(np.ceil(low)), int(np.floor(high))
    if first <= last:
        return power[:, first : min(last, power.shape[1] - 1) + 1].max(axis=1)
    below, share = int(low), (low + high) / 2 - int(low)
    return (1 - share) * power[:, below] + share * power[:, min(below + 1, power.shape[1] - 1)]


def _band(hertz: float, fs: int) -> float:
    """Place of a frequency on the axis of the picture."""
    return _BANDS * np.log(hertz / _LOW_HZ) / np.log(fs / 2 / _LOW_HZ)


def _hertz(f: int) -> str:
    return str(f) if f < 1000 else f"{f // 1000}k"
