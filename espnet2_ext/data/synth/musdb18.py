"""A small corpus in MUSDB18-HQ's own layout, made from a General MIDI sound font.

Songs (`songs`) of sampled instruments: bass, drum kit, choir as vocals, and a fourth
instrument as other. The sound font comes with pretty_midi, the synthesizer is midirenderer's.

Layout:
    train/SONG/, test/SONG/    {mixture,bass,drums,vocals,other}.wav, 16 bit, 44.1 kHz, mono
                               (the original is stereo; `channels` 2 makes it so, twice as large)
    settings.json, done.json   what it was made from; written first and last
A mixture is the sum of its stems, sample for sample. Where a part pauses there are zeros.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from espnet2_ext.audio.flac import to_int16
from espnet2_ext.audio.read import resample
from espnet2_ext.data.synth.embedded import make_corpus, play_score, rng_of
from espnet2_ext.data.synth.songs import STEMS, Song, compose_song
from espnet2_ext.errors import DataError
from espnet2_ext.util.files import atomic_path

FS = 44100
VERSION = 1  # of the songs and sounds; another one makes the corpus anew
SPLITS = {"train": "train", "test": "eval"}  # folder -> whose motifs it has
LOUDNESS = {"bass": -20.0, "drums": -20.0, "vocals": -19.0, "other": -21.0}  # dB while it plays
SPREAD = 3.0  # dB up and down
PEAK = 0.97
LIMIT = 5.0  # times the RMS: where peaks are pressed down, as a mixing desk does with drums
FADE = 0.03  # seconds, at both ends of a span

_ARTISTS = ("Plain Tones", "Ada & the Loops", "Low Tide", "The O'Sines", "North Stair", "Paper Kites")
_TITLES = ("Morning", "Two Rivers", "Hold the Line", "Salt", "Under Glass", "Late Bus", "Ember")


class Place(NamedTuple):
    """A song's folder ("train" or "test") and its number there."""

    part: str
    number: int


def make_mini_musdb18(
    out: Path | str,
    *,
    train_songs: int = 24,
    test_songs: int = 6,
    seconds: tuple[float, float] = (24.0, 30.0),
    channels: int = 1,
    seed: int = 0,
    **work,
) -> Path:
    """Make the corpus in folder `out`, see `make_corpus`.

    Args:
        seconds: lengths of the shortest and the longest song, at least 4.
        channels: 1 or 2.

    Raises:
        DataError: as `make_corpus`; an impossible number.
    """
    root = Path(out)
    if train_songs < 1 or test_songs < 1 or channels not in (1, 2):
        raise DataError(
            f"train_songs {train_songs} and test_songs {test_songs} must be 1 or more, channels {channels} 1 or 2"
        )
    if not 4 <= seconds[0] <= seconds[1]:
        raise DataError(f"seconds {seconds} must be two rising lengths of 4 or more")
    settings = {
        "train": train_songs,
        "test": test_songs,
        "seconds": list(map(float, seconds)),
        "channels": channels,
        "seed": seed,
        "version": VERSION,
    }
    songs = [Place(part, n) for part in SPLITS for n in range(settings[part])]
    fn = functools.partial(write_part, root=str(root), seconds=settings["seconds"], channels=channels, seed=seed)
    return make_corpus(root, settings, SPLITS, fn, songs, 1, **work)


def write_part(songs: Sequence, tmp: Path, *, root: str, seconds: Sequence[float], channels: int, seed: int) -> None:
    """Write the WAV files of `songs` under `root`, and their names to `tmp`."""
    names = []
    for place in (Place(*s) for s in songs):
        names.append(song_name(place))
        folder = Path(root) / place.part / names[-1]
        for stem, pcm in make_song(place, seconds, channels, seed).items():
            with atomic_path(folder / f"{stem}.wav") as new:
                soundfile.write(new, pcm, FS, "PCM_16", format="WAV")
    tmp.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def song_name(place: Place) -> str:
    """Artist and title as MUSDB18 names its folders."""
    number = place.number + (500 if place.part == "test" else 1)
    artist, title = _ARTISTS[number % len(_ARTISTS)], _TITLES[number % len(_TITLES)]
    return f"{artist} - {title} No. {number}"


def draw_song(place: Place, seconds: Sequence[float], seed: int) -> tuple[Song, dict[str, float]]:
    """The song at a place, and the level of each stem in dB of full scale while it plays."""
    rng = rng_of(*place, seed, VERSION)
    song = compose_song(SPLITS[place.part], float(rng.uniform(*seconds)), rng)
    return song, {stem: LOUDNESS[stem] + rng.uniform(-SPREAD, SPREAD) for stem in STEMS}


def make_song(place: Place, seconds: Sequence[float], channels: int, seed: int) -> dict[str, np.ndarray]:
    """Compose and render one song: "mixture" and each stem, int16 [T, C] at 44.1 kHz."""
    song, levels = draw_song(place, seconds, seed)
    stems = {stem: _render_stem(song, stem, channels, levels[stem]) for stem in STEMS}
    peak = np.abs(sum(stems.values())).max()
    peak = max(peak, *(np.abs(x).max() for x in stems.values()))
    gain = np.float32(min(1.0, PEAK / peak))
    pcm = {stem: to_int16(gain * x) for stem, x in stems.items()}
    return {"mixture": sum(pcm.values()), **pcm}


def _render_stem(song: Song, stem: str, channels: int, level: float) -> np.ndarray:
    """A stem at its level while it plays, zeros elsewhere: float32 [T, C]."""
    num = round(song.seconds * FS)
    if not song.scores[stem].notes:  # it pauses all the time: seen in songs of a few seconds
        return np.zeros((num, channels), np.float32)
    x, fs = play_score(song.scores[stem])
    if channels == 1:
        x = x.mean(axis=1, keepdims=True)
    x = resample(x, fs, FS)[:num]
    x = np.pad(x, ((0, num - len(x)), (0, 0)))
    gate = np.zeros(num, np.float32)
    at = np.arange(num) / FS
    for first, last in song.spans[stem]:
        np.maximum(gate, np.clip(np.minimum(at - first, last - at) / FADE, 0, 1), out=gate)
    x *= gate[:, None]
    if not x.any():
        raise DataError(f"the sound font is silent for program {song.scores[stem].program}")
    x = LIMIT * np.tanh(x / (LIMIT * _rms(x, gate)))
    return x * np.float32(10 ** (level / 20) / _rms(x, gate))


def _rms(x: np.ndarray, gate: np.ndarray) -> np.float32:
    """Root mean square of [T, C] where the gate is open."""
    return np.sqrt(np.mean(x[gate > 0] ** 2))
