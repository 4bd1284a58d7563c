"""Sounds and spectrograms of single targets for the listening page."""

import dataclasses
from pathlib import Path

import numpy as np

from espnet2_ext.audio.flac import encode_flac, to_int16
from espnet2_ext.report.figures import save
from espnet2_ext.report.spectrograms import draw_spectrograms
from espnet2_ext.scores.test_set import QuerySet, read_signal
from espnet2_ext.util.files import atomic_path

PEAK = 0.9
NOTE = {
    "worst": "the smallest gains of the set",
    "median": "gains in the middle",
    "best": "the largest gains",
    "first": "the first of the set, none has a gain",
}


@dataclasses.dataclass(frozen=True)
class Example:
    """One target under one protocol; `sounds` name -> file, in the order of a row of players."""

    rank: str
    key: str
    title: str
    scores: dict
    mixture_sdr: float
    picture: Path
    sounds: dict[str, Path]


def make_examples(
    data: QuerySet, passes: dict, rows: dict[str, dict], protocol: str, summary: dict, out: Path
) -> dict[str, list[Example]]:
    """Write pictures (`out`/figures) and sounds (`out`/audio) of summary["examples"][protocol].

    The sounds of a row share one factor, so that their levels can be compared; only the query,
    which is no part of the mixture, has its own.

    Args:
        passes: pass -> key -> place, of this protocol.  rows: key -> row of scores.jsonl.
    Returns:
        rank -> examples.
    """
    made: dict[str, list[Example]] = {}
    for rank, keys in summary["examples"][protocol].items():
        for key in keys:
            example = _make(data, passes, rows[key], protocol, rank, out)
            made.setdefault(rank, []).append(example)
    return made


def rank_note(rank: str) -> str:
    """What the examples of a rank are, in words."""
    return NOTE[rank]


def _make(data: QuerySet, passes: dict, row: dict, protocol: str, rank: str, out: Path) -> Example:
    key, name = row["key"], _sounds_of(data, row["key"])
    mix, fs = read_signal(data.scp["wav.scp"][key], key)
    target, _ = read_signal(data.scp["spk1.scp"][key], key)
    estimate, _ = read_signal(passes["mixture"][key], key)
    signals = {"mixture": mix, "target": target, "estimate": estimate, "residual": mix - estimate}
    scores, before = row[protocol], row["mixture"]["sdr"]
    title = (
        f"{name}, query {protocol}: SDR {before:.1f} → {scores['sdr']:.1f} dB "
        f"(gain {scores['sdr_gain']:.1f} dB), {rank} gain, key {key}"
    )
    stem = f"{protocol}_{file_name(key)}"
    picture = out / "figures" / f"{stem}.png"
    save(draw_spectrograms(signals, fs, title), picture)
    factor = PEAK / max(max(np.abs(x).max() for x in signals.values()), 1e-6)
    sounds = {"mixture": mix * factor}
    enrolled = data.scp.get(f"enroll_{protocol}.scp")
    if enrolled:
        query, query_fs = read_signal(enrolled[key], key)
        sounds["query"] = query * (PEAK / max(np.abs(query).max(), 1e-6))
    sounds |= {n: signals[n] * factor for n in ("target", "estimate", "residual")}
    files = {}
    for sound, x in sounds.items():
        files[sound] = out / "audio" / f"{stem}_{sound}.flac"
        rate = query_fs if sound == "query" else fs
        write_sound(files[sound], x, rate)
    return Example(rank, key, name, scores, before, picture, files)


def write_sound(path: Path, x: np.ndarray, fs: int) -> None:
    """Write [T] as a FLAC file that a browser plays."""
    with atomic_path(path) as tmp:
        tmp.write_bytes(encode_flac(to_int16(x), fs))


def _sounds_of(data: QuerySet, key: str) -> str:
    """Name of the target's class and, where the key tells its partner, of the other one's."""
    name = data.names[data.classes[key]]
    stem, _, side = key.rpartition("-")
    partner = data.classes.get(f"{stem}-{ {'1': '2', '2': '1'}.get(side) }")
    return name if partner is None else f"{name} (mixed with {data.names[partner]})"


def file_name(key: str) -> str:
    """`key` with what a file's name should not hold replaced."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in key)
