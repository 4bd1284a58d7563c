"""Random songs for the embedded MUSDB18: four parts in one key and tempo, as plain notes.

A song has sections of two bars. Each part pauses for some of them, so that not every part sounds
everywhere. Chords move bar by bar; bass, vocals and the other instrument follow them, near the
note they come from. Train and test share no motif, by the rule of `score`: each motif of four
beats belongs to one of the two, and parts grow out of their own side's motifs only.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from espnet2_ext.data.synth.score import (
    MOTIF,
    SCALES,
    Beat,
    Control,
    Note,
    Score,
    motif_code,
    motif_split,
    near,
    one_of,
)

STEMS = ("bass", "drums", "vocals", "other")
SECTION = 16  # eighth notes
BAR = 8
_KICK, _SNARE, _HAT, _OPEN, _CRASH, _TOMS = 36, 38, 42, 46, 49, (45, 48)
_HITS = (
    (_KICK, _HAT),
    (_SNARE, _HAT),
    (_HAT,),
    (_KICK,),
    (_SNARE,),
    (_OPEN,),
    (_KICK, _OPEN),
    (_KICK, _CRASH),
    (_KICK, _SNARE, _HAT),
    *((t,) for t in _TOMS),
)


class Style(NamedTuple):
    """How a kind of song goes.

    Attributes:
        bpm: slowest and fastest. bass, vocals, other: eighth notes from one beat to the next, a
            beat draws one. basses, others: General MIDI programs. kits: drum kits.
        chords: whether the other instrument plays chords, else single notes of them.
    """

    bpm: tuple[int, int]
    bass: tuple[int, ...]
    vocals: tuple[int, ...]
    other: tuple[int, ...]
    basses: tuple[int, ...]
    others: tuple[int, ...]
    kits: tuple[int, ...]
    chords: bool


STYLES = {
    "rock": Style((110, 150), (1, 1, 2), (1, 2, 2, 4), (2, 2, 4), (33, 34), (29, 30), (0, 16), True),
    "ballad": Style((72, 96), (2, 4), (2, 4, 4), (1,), (32, 35), (0, 1, 46), (0, 40), False),
    "dance": Style((116, 132), (1,), (2, 4), (1, 2), (38, 39), (80, 81, 90), (24, 25), False),
    "folk": Style((88, 116), (2, 2, 4), (1, 1, 2), (1, 2), (32, 33), (24, 25, 21), (0, 8), True),
}


@dataclass(frozen=True)
class Song:
    """A song of `seconds`: for each stem its score and the spans (seconds) in which it plays."""

    style: str
    bpm: float
    tonic: int
    seconds: float
    scores: dict[str, Score]
    spans: dict[str, tuple[tuple[float, float], ...]]


@dataclass(frozen=True)
class _Frame:
    """What the parts of a song share: style, sounding keys, chord roots of the bars, time unit."""

    style: Style
    tonic: int
    scale: tuple[int, ...]
    roots: tuple[int, ...]
    grid: float

    def chord(self, place: int) -> tuple[int, int, int]:
        """Pitch classes of the triad at an eighth note: root, third and fifth of the scale."""
        degree = self.roots[place // BAR % len(self.roots)]
        return tuple((self.tonic + self.scale[(degree + n) % 7]) % 12 for n in (0, 2, 4))

    def keys(self, low: int, high: int) -> list[int]:
        """Keys of the scale from `low` to `high`."""
        return [k for k in range(low, high + 1) if (k - self.tonic) % 12 in self.scale]


def compose_song(split: str, seconds: float, rng: np.random.Generator) -> Song:
    """Draw a song; all randomness comes from `rng`.

    Args:
        split: "train" or "eval": whose motifs may be used.
        seconds: its length.
    """
    name = one_of(list(STYLES), rng)
    style = STYLES[name]
    bpm = float(rng.uniform(*style.bpm))
    roots = (0, *(int(v) for v in rng.integers(7, size=3)))
    frame = _Frame(style, int(rng.integers(12)), one_of(SCALES[:3], rng), roots, 30 / bpm)
    plays = draw_plan(int(np.ceil(seconds / (SECTION * frame.grid))), rng)
    cents = float(rng.uniform(-30, 30))
    programs = {"bass": style.basses, "drums": style.kits, "vocals": (52, 53), "other": style.others}
    scores, spans = {}, {}
    for stem in STEMS:
        drum = stem == "drums"
        phrases, notes = [], []
        runs = list(_runs(plays[stem]))
        for first, end in runs:
            for at, phrase in _grow(_PARTS[stem], frame, drum, split, first, end, rng):
                phrases.append(phrase)
                notes += _play(phrase, at, frame.grid, _HOLD[stem], rng)
        ends = seconds - 0.05
        notes = [n._replace(end=min(n.end, seconds)) for n in notes if n.start < ends]
        program = one_of(programs[stem], rng)
        controls = _controls(seconds, rng)
        detuned = 0.0 if drum else cents
        scores[stem] = Score(program, drum, tuple(phrases), tuple(notes), controls, detuned)
        times = ((a * frame.grid, min(b * frame.grid, seconds)) for a, b in runs)
        spans[stem] = tuple((a, b) for a, b in times if a < seconds)
    return Song(name, bpm, frame.tonic, seconds, scores, spans)


def draw_plan(sections: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Which parts play in which sections: stem -> bool [sections].

    Each pauses once, for a third to two thirds of the song, one in eight not at all. Where bass,
    drums and vocals would all pause, one of them plays.
    """
    plan = {}
    for stem in STEMS:
        plan[stem] = np.ones(sections, bool)
        if rng.random() < 7 / 8:
            length = int(rng.integers(max(1, sections // 3), max(1, 2 * sections // 3) + 1))
            first = int(rng.integers(sections - length + 1))
            plan[stem][first : first + length] = False
    named = STEMS[:3]
    for n in range(sections):
        if not any(plan[stem][n] for stem in named):
            plan[one_of(named, rng)][n] = True
    return plan


def _runs(plays: np.ndarray) -> Iterator[tuple[int, int]]:
    """First and last-but-one eighth notes of the runs of sections in which a part plays."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], plays.astype(int), [0]]))) * SECTION
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _grow(
    part: Callable, frame: _Frame, drum: bool, split: str, first: int, end: int, rng
) -> Iterator[tuple[int, tuple[Beat, ...]]]:
    """Phrases that fill eighth notes `first` to `end`, each with where it begins.

    A beat is drawn by its weight among those whose motif is the split's own; where there is none,
    the phrase ends and the next one begins with a motif of its own.
    """
    phrase: list[Beat] = []
    start = place = first
    while place < end:
        last = phrase[-1].keys[0] if phrase else None
        beats, weights = part(frame, place, end - place, last, rng)
        beat = _draw(beats, weights, phrase[1 - MOTIF :], drum, split, rng)
        if beat is None:
            yield start, tuple(phrase)
            phrase, start = [], place
            continue
        phrase.append(beat)
        place += beat.steps
    yield start, tuple(phrase)


def _draw(beats: Sequence[Beat], weights, before: Sequence[Beat], drum: bool, split: str, rng):
    """A beat that makes no motif of the other split; None where each would."""
    order = np.argsort(rng.exponential(size=len(beats)) / np.maximum(weights, 1e-9))
    for n in order:  # drawn by weight, without putting back
        motif = (*before, beats[n])
        if len(motif) < MOTIF or motif_split(motif_code(motif, drum)) == split:
            return beats[n]
    return None


def _bass(frame: _Frame, place: int, left: int, last: int | None, rng):
    keys = frame.keys(28, 48)
    root, _, fifth = frame.chord(place)
    likes = {root: 8.0 if place % 4 == 0 else 4.0, fifth: 2.0}
    weights = near(keys, last, 5.0) * np.array([likes.get(k % 12, 0.7) for k in keys])
    steps = min(one_of(frame.style.bass, rng), left)
    return [Beat((k,), steps) for k in keys], weights


def _vocals(frame: _Frame, place: int, left: int, last: int | None, rng):
    keys = frame.keys(57, 76)
    chord = frame.chord(place)
    weights = near(keys, last, 3.0) * np.array([3.0 if k % 12 in chord else 1.0 for k in keys])
    steps = min(one_of(frame.style.vocals, rng), left)
    return [Beat((k,), steps) for k in keys], weights


def _other(frame: _Frame, place: int, left: int, last: int | None, rng):
    keys = frame.keys(50, 79)
    chord = frame.chord(place)
    steps = min(one_of(frame.style.other, rng), left)
    if not frame.style.chords:
        weights = near(keys, last, 6.0) * np.array([4.0 if k % 12 in chord else 0.3 for k in keys])
        return [Beat((k,), steps) for k in keys], weights
    tones = [k for k in keys if k % 12 in chord]
    shapes = [tuple(tones[n : n + 3]) for n in range(len(tones) - 2)]  # the chord's inversions
    shapes += [tuple(tones[n : n + 2]) for n in range(len(tones) - 1)]
    return [Beat(s, steps) for s in shapes], near([s[0] for s in shapes], last, 6.0)


def _drums(frame: _Frame, place: int, left: int, last: int | None, rng):
    beats = [Beat(h, s) for h in _HITS for s in (1, 2) if s <= left]
    main = {0: _KICK, 4: _KICK, 2: _SNARE, 6: _SNARE}.get(place % BAR, _HAT)
    weights = [
        (6.0 if main in b.keys else 1.0)
        * (0.25 if b.steps > 1 else 1.0)
        * (0.3 if _CRASH in b.keys and place % SECTION else 1.0)
        for b in beats
    ]
    return beats, np.array(weights)


_PARTS = {"bass": _bass, "drums": _drums, "vocals": _vocals, "other": _other}
_HOLD = {"bass": (0.7, 0.95), "drums": (0.5, 0.9), "vocals": (0.85, 1.0), "other": (0.6, 0.98)}


def _play(phrase: Sequence[Beat], place: int, grid: float, hold, rng) -> list[Note]:
    """Notes of a phrase that begins at eighth note `place`; none lasts into the next beat."""
    notes = []
    for beat in phrase:
        start, end = place * grid, (place + beat.steps) * grid
        late = rng.uniform(0, 0.012)
        until = start + (end - start) * rng.uniform(*hold) - 0.005
        velocity = int(np.clip(rng.normal(92, 10) + (8 if place % 4 == 0 else 0), 45, 124))
        notes += [Note(start + late, until, key, velocity) for key in beat.keys]
        place += beat.steps
    return notes


def _controls(seconds: float, rng: np.random.Generator) -> tuple[Control, ...]:
    """Volume, place and reverberation; the last event tells the renderer how long the song is."""
    pan, reverb = (int(v) for v in rng.integers((30, 0), (98, 50)))
    return (Control(0.0, 7, 100), Control(0.0, 10, pan), Control(0.0, 91, reverb), Control(seconds, 11, 127))
