"""A small corpus in UrbanSound8K's own layout, made from a General MIDI sound font.

Five effect classes (and, asked for, two of background), ten folds. `effects` says what stands
for each class. As in the original, the slices of a recording (`fsID`) lie in one fold, have any of
several rates, one or two channels, and 0.3 to 4 s. Folds share no sound: each has its own tuning,
within ten cents that no other fold uses, so that a test event is never a copy of a training one.

Layout:
    metadata/UrbanSound8K.csv      columns and names as published
    audio/fold1/ .. audio/fold10/  FSID-CLASSID-OCCURRENCE-SLICE.wav
    settings.json, done.json       what it was made from; written first and last
"""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from espnet2_ext.audio.read import resample
from espnet2_ext.data.corpora.urbansound8k import COLUMNS
from espnet2_ext.data.synth.effects import BACKGROUND, EFFECTS, FS, play
from espnet2_ext.data.synth.embedded import make_corpus, rng_of
from espnet2_ext.errors import DataError
from espnet2_ext.util.files import atomic_path, write_text

VERSION = 1  # of the sounds; another one makes the corpus anew
FOLDS = 10
RATES = (22050, 44100, 48000)
LONGEST = 4.0  # seconds of a slice
HOP = 1.0  # seconds from one slice of a long occurrence to the next
PEAK = (0.1, 0.9)


class Recording(NamedTuple):
    """A recording: its class, fold (1 to 10), number within the two, and identifier."""

    name: str
    fold: int
    number: int
    fsid: int


class Slice(NamedTuple):
    """A row of the metadata and its sound, float32 [T, C] at `rate` Hz."""

    file: str
    row: tuple
    sound: np.ndarray
    rate: int


def make_mini_urbansound8k(out: Path | str, *, recordings: int = 5, background: int = 0, seed: int = 0, **work) -> Path:
    """Make the corpus in folder `out`, see `make_corpus`.

    Args:
        recordings: of each effect class in each fold. background: of each background class.

    Raises:
        DataError: as `make_corpus`; an impossible number.
    """
    root = Path(out)
    if recordings < 1 or background < 0:
        raise DataError(f"recordings {recordings} must be 1 or more, background {background} not negative")
    settings = {"recordings": recordings, "background": background, "seed": seed, "version": VERSION}
    items = _recordings(recordings, background)
    fn = functools.partial(write_part, root=str(root), seed=seed)
    return make_corpus(
        root, settings, ["audio", "metadata"], fn, items, 8, functools.partial(_write_list, root), **work
    )


def _write_list(root: Path, parts: list[Path]) -> None:
    lines = [",".join(COLUMNS)] + [line for part in parts for line in part.read_text("utf-8").splitlines()]
    write_text(root / "metadata" / "UrbanSound8K.csv", "".join(f"{line}\n" for line in lines))


def _recordings(effects: int, background: int) -> list[Recording]:
    counts = {name: effects for name in EFFECTS} | {name: background for name in BACKGROUND}
    places = [(c, f, n) for f in range(1, FOLDS + 1) for c, k in counts.items() for n in range(k)]
    return [Recording(*place, 100001 + i) for i, place in enumerate(places)]


def write_part(recordings: Sequence, tmp: Path, *, root: str, seed: int) -> None:
    """Write the slices of `recordings` under `root`, and their lines of the metadata to `tmp`."""
    lines = []
    for recording in (Recording(*r) for r in recordings):
        folder = Path(root) / "audio" / f"fold{recording.fold}"
        for piece in make_slices(recording, seed):
            with atomic_path(folder / piece.file) as new:
                soundfile.write(new, piece.sound, piece.rate, "PCM_16", format="WAV")
            lines.append(",".join(map(str, piece.row)))
    tmp.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def make_slices(recording: Recording, seed: int) -> Iterator[Slice]:
    """Play a recording's occurrences and cut them into slices of at most 4 s."""
    rng = rng_of(*recording, seed, VERSION)
    number, take_of = (EFFECTS | BACKGROUND)[recording.name]
    rate, channels = RATES[rng.integers(len(RATES))], int(rng.integers(1, 3))
    tuning = 10 * (recording.fold - 1 + rng.uniform(0.05, 0.95)) - 50  # cents
    peak = 10 ** rng.uniform(*np.log10(PEAK))
    side = np.float32(rng.uniform(0.5, 1.0, 2))  # level of left and right
    clock = 0.0  # seconds since the recording's begin
    for occurrence in range(int(rng.integers(1, 4))):
        take = take_of(rng)
        x = play(take, tuning)
        x = x * side if channels == 2 else x.mean(axis=1, keepdims=True)
        x = resample(x * np.float32(peak / np.abs(x).max()), FS, rate)
        clock += float(rng.uniform(0.5, 3.0))
        for i, begin in enumerate(_cuts(take.seconds)):
            end = min(begin + LONGEST, take.seconds)
            sound = x[round(begin * rate) : round(end * rate)]
            file = f"{recording.fsid}-{number}-{occurrence}-{i}.wav"
            times = f"{clock + begin:.6f}", f"{clock + end:.6f}"
            row = (file, recording.fsid, *times, 1 if peak > 0.3 else 2, recording.fold, number, recording.name)
            yield Slice(file, row, sound, rate)
        clock += take.seconds


def _cuts(seconds: float) -> list[float]:
    """Where the slices of an occurrence begin."""
    return [0.0] if seconds <= LONGEST else [0.0, min(HOP, seconds - LONGEST)]
