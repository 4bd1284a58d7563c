"""A small corpus in UrbanSound8K's own layout, made from a General MIDI sound font.

Five effect classes and, asked for, two of background, in ten folds. General MIDI has no car horn, dog, jackhammer or
siren; what stands for each was chosen to share the class's course in time and to be unlike the other classes:

    car_horn          two held brass notes a third apart, once or twice
    dog_bark          cuica strokes (a friction drum), in bursts of one to six
    gun_shot          the effect "gunshot" with its echoes, single shots and short bursts
    jackhammer        tom and side stick, eleven to twenty strokes a second without a pause
    siren             a synthesizer's held note whose pitch wails, yelps or steps between two tones
    children_playing  choir notes, short and high (background)
    street_music      guitar chords (background)

So scores on it say that the software works and that something was learned, not how well real recordings are separated.
As in the original, the slices of a recording (`fsID`) lie in one fold, have any of
several rates, one or two channels, and 0.3 to 4 s. Folds share no sound: each has its own tuning,
within ten cents that no other fold uses, so that a test event is never a copy of a training one.

Layout:
    metadata/UrbanSound8K.csv      columns and names as published
    audio/fold1/ .. audio/fold10/  FSID-CLASSID-OCCURRENCE-SLICE.wav
    settings.json, done.json       what it was made from; written first and last
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from espnet2_ext.audio.read import resample
from espnet2_ext.data.corpora.urbansound8k import COLUMNS
from espnet2_ext.data.synth.embedded import make_corpus, play_instrument, rng_of
from espnet2_ext.data.synth.score import Note, one_of
from espnet2_ext.errors import DataError
from espnet2_ext.util.files import atomic_path, write_text

FS = 48000  # of the synthesizer


class Take(NamedTuple):
    """One occurrence as it is played.

    Attributes:
        program, drum: General MIDI instrument. notes: times before `speed` is applied.
        seconds: length. speed: [N] factors on tempo and pitch, evenly spread over the length.
    """

    program: int
    drum: bool
    notes: tuple[Note, ...]
    seconds: float
    speed: np.ndarray


def _even(pitch: float = 1.0) -> np.ndarray:
    return np.array([pitch])


def _horn(rng) -> Take:
    low, third = int(rng.integers(60, 73)), int(rng.integers(3, 5))
    seconds = rng.uniform(0.4, 3.5)
    cuts = [0.0, seconds]
    if seconds > 0.9 and rng.random() < 0.5:
        middle = seconds * rng.uniform(0.35, 0.6)
        cuts = [0.0, middle - 0.1, middle, seconds]
    notes = [Note(a, b, key, 110) for a, b in zip(cuts[::2], cuts[1::2], strict=True) for key in (low, low + third)]
    return Take(one_of((61, 62, 63), rng), False, tuple(notes), seconds, _even())


def _bark(rng) -> Take:
    count, gap = int(rng.integers(1, 7)), rng.uniform(0.22, 0.6)
    keys, pitch = one_of(((78, 79), (79, 78)), rng), 2 ** rng.uniform(-0.9, 0.1)
    starts = np.cumsum([0.05, *rng.uniform(0.8, 1.2, count - 1) * gap])
    seconds, delay = min(float(starts[-1]) + 0.4, 4.0), rng.uniform(0.02, 0.1)
    speed = pitch * 2 ** (rng.uniform(-3, 3, 4 + int(seconds * 8)) / 12)  # no two barks alike
    notes = [
        Note(start * pitch + late * delay, start * pitch + 0.5, key, int(rng.integers(60, 125)))
        for start in starts
        for late, key in enumerate(keys)
    ]
    return Take(0, True, tuple(notes), seconds, speed)


def _shot(rng) -> Take:
    count, gap = one_of((1, 1, 1, 2, 3, 4), rng), rng.uniform(0.12, 0.5)
    starts = np.arange(count) * gap
    seconds = float(starts[-1]) + rng.uniform(0.35, 1.4)
    echoes = [
        (delay, int(rng.integers(45, 76)), int(rng.integers(70, 127))) for delay in (0.0, *rng.uniform(0.01, 0.12, 3))
    ]  # of the place; without them two single shots would be much the same
    notes = [Note(s + delay, s + 1.5, key, force) for s in starts for delay, key, force in echoes]
    return Take(127, False, tuple(notes), seconds, _even())


def _hammer(rng) -> Take:
    seconds, rate = rng.uniform(2.0, 5.0), rng.uniform(11.0, 20.0)
    kit, tom = one_of((0, 16, 24), rng), one_of((41, 43, 45), rng)
    notes = []
    for n in range(int(seconds * rate) + 1):
        start = max(n + rng.normal(0, 0.02), 0.0) / rate
        notes.append(Note(start, start + 0.2, tom, int(rng.integers(85, 115))))
        notes.append(Note(start, start + 0.2, 37, int(rng.integers(70, 100))))
    return Take(kit, True, tuple(notes), seconds, _even())


def _siren(rng) -> Take:
    seconds, kind = rng.uniform(2.0, 5.0), one_of(("wail", "yelp", "steps"), rng)
    period = {"wail": (2.0, 4.0), "yelp": (0.25, 0.5), "steps": (0.7, 1.4)}[kind]
    phase = np.arange(round(seconds * 200)) / 200 / rng.uniform(*period) + rng.random()
    curve = np.abs(phase % 1 * 2 - 1) * 2 - 1  # a triangle between -1 and 1
    curve = np.sign(curve) if kind == "steps" else np.sin(curve * np.pi / 2)
    speed = 2 ** (curve * rng.uniform(2.5, 6.0) / 12)
    key, program = int(rng.integers(72, 82)), one_of((79, 80, 81), rng)
    return Take(program, False, (Note(0.0, 2 * seconds, key, 100),), seconds, speed)


def _children(rng) -> Take:
    seconds = rng.uniform(3.0, 5.0)
    starts = np.cumsum(rng.uniform(0.1, 0.4, 40))
    notes = [
        Note(s, s + rng.uniform(0.1, 0.6), int(rng.integers(72, 93)), int(rng.integers(60, 110)))
        for s in starts[starts < seconds]
    ]
    return Take(one_of((52, 53), rng), False, tuple(notes), seconds, _even())


def _music(rng) -> Take:
    seconds, beat = rng.uniform(3.0, 5.0), rng.uniform(0.2, 0.45)
    notes, root = [], int(rng.integers(48, 60))
    for s in np.arange(0, seconds, beat):
        root = root if rng.random() < 0.7 else int(rng.integers(48, 60))
        for step in (0, 7, 12, 15 + int(rng.integers(2))):
            notes.append(Note(s, s + beat, root + step, int(rng.integers(60, 100))))
    return Take(one_of((24, 25, 26), rng), False, tuple(notes), seconds, _even())


# name -> UrbanSound8K's class number, what makes a take
EFFECTS: dict[str, tuple[int, Callable]] = {
    "car_horn": (1, _horn),
    "dog_bark": (3, _bark),
    "gun_shot": (6, _shot),
    "jackhammer": (7, _hammer),
    "siren": (8, _siren),
}
BACKGROUND: dict[str, tuple[int, Callable]] = {"children_playing": (2, _children), "street_music": (9, _music)}


def play(take: Take, tuning: float) -> np.ndarray:
    """Play a take on the sound font: float32 [T, 2] at 48 kHz, T = seconds * 48000.

    Args:
        tuning: in cents, a factor on the speed of everything.
    """
    num = round(take.seconds * FS)
    speed = np.interp(np.linspace(0, 1, num), np.linspace(0, 1, len(take.speed)), take.speed)
    place = np.cumsum(speed * 2 ** (tuning / 1200))  # samples of the synthesizer's sound
    x = _synthesize(take, place[-1] / FS + 0.1)
    at = np.arange(len(x))
    y = np.stack([np.interp(place, at, x[:, c], right=0.0) for c in (0, 1)], axis=1)
    if not y.any():
        raise DataError(f"the sound font is silent for program {take.program}")
    fade = np.minimum(1, np.arange(num) / (0.003 * FS)) * np.minimum(1, np.arange(num, 0, -1) / (0.02 * FS))
    return (y * fade[:, None]).astype(np.float32)


def _synthesize(take: Take, seconds: float) -> np.ndarray:
    """The notes that begin within `seconds`: [T, 2] at 48 kHz."""
    import pretty_midi

    part = pretty_midi.Instrument(take.program, is_drum=take.drum)
    part.notes = [
        pretty_midi.Note(n.velocity, n.key, n.start, min(n.end, seconds)) for n in take.notes if n.start < seconds
    ]
    pcm, fs = play_instrument(part)
    if fs != FS or pcm.shape[1] != 2:
        raise DataError("midirenderer: expected stereo at 48 kHz; install another version")
    return pcm / 32768


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
