"""Random scores for the embedded corpus: what is played, as plain notes.

Train and eval share no motif. A motif is four neighbouring beats of a phrase: for pitched sounds
their intervals (so that transposing a tune does not make it new), for drums their keys and
rhythm. A digest of the motif says to which of the two splits it belongs, and a phrase grows beat
by beat out of its own split's motifs only; where none is left, it ends.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from espnet2_ext.data.synth.audioset import Voice

MOTIF = 4  # beats
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10), (0, 2, 4, 7, 9))
_CHORDS = ((0, 4, 7), (0, 3, 7), (0, 4, 7, 11), (0, 3, 7, 10), (0, 5, 7), (0, 3, 6), (0, 7, 12))
LONGEST_GAP = 0.7  # seconds from one beat to the next


class Beat(NamedTuple):
    """Keys struck together and the grid units until the next beat."""

    keys: tuple[int, ...]
    steps: int


class Note(NamedTuple):
    """One note: start and end in seconds, MIDI key and velocity."""

    start: float
    end: float
    key: int
    velocity: int


class Control(NamedTuple):
    """A MIDI controller's new value (0 to 127) at a time in seconds."""

    time: float
    number: int
    value: int


@dataclass(frozen=True)
class Score:
    """One clip: phrases as composed, the notes that play them, and how they are played.

    `cents` is the detuning of the whole clip.
    """

    program: int
    drum: bool
    phrases: tuple[tuple[Beat, ...], ...]
    notes: tuple[Note, ...]
    controls: tuple[Control, ...]
    cents: float


def motif_code(beats: tuple[Beat, ...], drum: bool) -> tuple:
    """What makes a motif the same: intervals from its first key; keys and rhythm for drums."""
    if drum:
        return tuple((b.keys, b.steps) for b in beats)
    return tuple(tuple(k - beats[0].keys[0] for k in b.keys) for b in beats)


def motif_split(code: tuple) -> str:
    """The split, "train" or "eval", that owns a motif; half of all motifs each."""
    digest = hashlib.blake2b(repr(code).encode(), digest_size=1).digest()
    return ("train", "eval")[digest[0] & 1]


def motifs(score: Score) -> set[tuple]:
    """Codes of all motifs in a score."""
    return {motif_code(p[i : i + MOTIF], score.drum) for p in score.phrases for i in range(len(p) - MOTIF + 1)}


# A proposal gives the beats that may come next and their weights, from the phrase so far.
Proposal = Callable[[list[Beat]], tuple[list[Beat], np.ndarray]]


def _pick(options: Sequence, weights: np.ndarray, rng: np.random.Generator):
    """Draw one option; ten times as fast as `Generator.choice` on lists this short."""
    total = np.cumsum(weights)
    return options[int(np.searchsorted(total, rng.random() * total[-1], side="right"))]


def one_of(options: Sequence, rng: np.random.Generator):
    """Draw one option, all alike."""
    return options[int(rng.integers(len(options)))]


def near(keys: Sequence[int] | np.ndarray, last: int | None, width: float) -> np.ndarray:
    """Weights of keys [N]: those near the last one are likelier, it itself less; without one all alike."""
    if last is None:
        return np.ones(len(keys))
    distance = np.abs(np.asarray(keys) - last)
    return np.exp(-distance / width) * np.where(distance == 0, 0.5, 1.0)


def _steps(voice: "Voice", grid: float) -> list[int]:
    return [s for s in voice.steps if s * grid <= LONGEST_GAP] or [min(voice.steps)]


def _span(voice: "Voice") -> range:
    return range(voice.keys[0], voice.keys[1] + 1)


def _scale(voice: "Voice", rng: np.random.Generator) -> list[int]:
    tonic, scale = int(rng.integers(12)), one_of(SCALES, rng)
    return [k for k in _span(voice) if (k - tonic) % 12 in scale]


def _walk(keys: Sequence[int], start: int | None, width: float, steps, rng) -> Proposal:
    """Single keys: near the last one, or around `start` where that is given."""
    where = np.array(keys)

    def propose(phrase: list[Beat]) -> tuple[list[Beat], np.ndarray]:
        last = start
        if last is None:
            last = phrase[-1].keys[0] if phrase else one_of(keys, rng)
        step = one_of(steps, rng)
        return [Beat((k,), step) for k in keys], near(where, last, width)

    return propose


def _melody(voice: "Voice", grid: float, rng: np.random.Generator) -> Proposal:
    return _walk(_scale(voice, rng), None, 3.0, _steps(voice, grid), rng)


def _texture(voice: "Voice", grid: float, rng: np.random.Generator) -> Proposal:
    keys = _span(voice)
    return _walk(keys, one_of(keys, rng), 4.0, _steps(voice, grid), rng)


def _arpeggio(voice: "Voice", grid: float, rng: np.random.Generator) -> Proposal:
    """The keys of a chord; another chord every six beats."""
    scale, step = _scale(voice, rng), [one_of(_steps(voice, grid)[:2], rng)]
    walk: Proposal

    def propose(phrase: list[Beat]) -> tuple[list[Beat], np.ndarray]:
        nonlocal walk
        if len(phrase) % 6 == 0:
            root, shape = one_of(scale, rng), one_of(_CHORDS, rng)
            keys = [k for k in _span(voice) if (k - root) % 12 in {s % 12 for s in shape}]
            walk = _walk(keys, None, 6.0, step, rng)
        return walk(phrase)

    return propose


def _chords(voice: "Voice", grid: float, rng: np.random.Generator) -> Proposal:
    steps = _steps(voice, grid)[-2:]
    roots = [k for k in _scale(voice, rng) if k + 12 <= voice.keys[1]]
    where = np.array(roots)
    beats = {n: [Beat(tuple(k + s for s in c), n) for k in roots for c in _CHORDS] for n in steps}

    def propose(phrase: list[Beat]) -> tuple[list[Beat], np.ndarray]:
        last = phrase[-1].keys[0] if phrase else one_of(roots, rng)
        return beats[one_of(steps, rng)], np.repeat(near(where, last, 4.0), len(_CHORDS))

    return propose


def _strokes(voice: "Voice", grid: float, rng: np.random.Generator) -> Proposal:
    beats = [Beat((k,), s) for k in voice.keys for s in _steps(voice, grid)]
    weights = rng.uniform(0.3, 1.0, len(beats))
    return lambda phrase: (beats, weights)


def _beat(voice: "Voice", grid: float, rng: np.random.Generator) -> Proposal:
    """A kit: bass drum on even beats, snare drum on odd ones, toms now and then."""
    kick, snare, *toms = voice.keys
    hits = [(kick,), (snare,), (kick, snare), *((t,) for t in toms), (kick, toms[-1])]
    beats = [Beat(h, s) for h in hits for s in _steps(voice, grid)]
    likes = rng.uniform(0.2, 1.0, len(beats))

    def propose(phrase: list[Beat]) -> tuple[list[Beat], np.ndarray]:
        strong = (kick, snare)[len(phrase) % 2]
        return beats, likes * np.array([3.0 if strong in b.keys else 1.0 for b in beats])

    return propose


STYLES: dict[str, Callable[["Voice", float, np.random.Generator], Proposal]] = {
    "melody": _melody,
    "texture": _texture,
    "arpeggio": _arpeggio,
    "chords": _chords,
    "strokes": _strokes,
    "beat": _beat,
}


def _phrase(propose: Proposal, drum: bool, split: str, length: int, rng: np.random.Generator) -> tuple[Beat, ...]:
    phrase: list[Beat] = []
    while len(phrase) < length:
        beats, weights = propose(phrase)
        while weights.any():  # draw until a motif of this split comes out; none left ends it
            beat = _pick(beats, weights, rng)
            motif = (*phrase[1 - MOTIF :], beat)
            if len(motif) < MOTIF or motif_split(motif_code(motif, drum)) == split:
                phrase.append(beat)
                break
            weights = np.where([b == beat for b in beats], 0.0, weights)
        else:
            break
    return tuple(phrase)


def _controls(voice: "Voice", seconds: float, rng: np.random.Generator) -> list[Control]:
    """Volume, place, reverberation and vibrato of a clip, and a slow swell."""
    pan, reverb, vibrato = rng.integers((24, 0, 0), (105, 60, voice.vibrato + 1))
    depth, rate, phase = rng.uniform((0, 0.1, 0), (0.35, 0.8, 2 * np.pi))
    times = np.arange(0, seconds, 0.2)
    swell = 127 * (1 - depth * (0.5 + 0.5 * np.sin(2 * np.pi * rate * times + phase)))
    fixed = [(7, voice.volume), (10, pan), (91, reverb), (1, vibrato)]
    return [
        *(Control(0.0, number, int(value)) for number, value in fixed),
        *(Control(float(t), 11, int(v)) for t, v in zip(times, swell, strict=True)),
        Control(seconds, 11, 127),  # the renderer stops at the last event
    ]


def _untangle(notes: list[Note]) -> tuple[Note, ...]:
    """End a note where its key is struck again: MIDI knows one note a key."""
    out, after = [], {}
    for n in sorted(notes, reverse=True):
        end = min(n.end, after.get(n.key, n.end))
        if end - n.start >= 0.02:
            out.append(n._replace(end=end))
            after[n.key] = n.start
    return tuple(reversed(out))


def _play(phrase: tuple[Beat, ...], time: float, grid: float, voice: "Voice", loud: float, rng) -> list[Note]:
    notes = []
    for beat in phrase:
        length = beat.steps * grid
        start = max(0.0, time + rng.normal(0, 0.006))
        for key in beat.keys:
            velocity = int(min(127, max(30, loud + rng.normal(0, 12))))
            notes.append(Note(start, start + length * rng.uniform(*voice.hold), key, velocity))
        time += length
    return notes


def compose(voice: "Voice", split: str, seconds: float, rng: np.random.Generator) -> Score:
    """Draw a clip of `voice`; all randomness comes from `rng`.

    Args:
        split: "train" or "eval": whose motifs may be used.
        seconds: length of the clip.
    """
    grid = rng.uniform(*voice.grid)
    propose = STYLES[one_of(voice.styles, rng)](voice, grid, rng)
    loud, time = rng.uniform(70, 110), rng.uniform(0.0, 0.1)
    phrases, notes = [], []
    while time < seconds - 0.1:
        phrase = _phrase(propose, voice.drum, split, int(rng.integers(5, 14)), rng)
        phrases.append(phrase)
        notes += _play(phrase, time, grid, voice, loud, rng)
        time += sum(b.steps for b in phrase) * grid + rng.uniform(0.0, 0.3)
    ends = seconds - 0.05
    return Score(
        program=one_of(voice.programs, rng),
        drum=voice.drum,
        phrases=tuple(phrases),
        notes=_untangle([n._replace(end=min(n.end, seconds)) for n in notes if n.start < ends]),
        controls=tuple(_controls(voice, seconds, rng)),
        cents=float(rng.uniform(-voice.cents, voice.cents)),
    )
