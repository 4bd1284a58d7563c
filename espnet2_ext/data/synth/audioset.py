"""A small corpus in AudioSet's own layout, made from a General MIDI sound font.

Real sampled instruments, drums and effects play random scores (`score`), so that the whole
pipeline runs, and learns something, on a machine that has nothing but Python's packages. The sound
font comes with pretty_midi, the synthesizer is midirenderer's.

Layout:
    class_labels_indices.csv, ontology.json         the part of AudioSet's that is in use
    balanced_train_segments.csv, eval_segments.csv  as published; train and test
    audio/balanced_train_segments/, audio/eval_segments/
        16-bit FLAC, 32 kHz, mono, named by the 11-character id; half with the extra letter "Y"
        that many copies of AudioSet have
    settings.json, done.json                        what it was made from; written first and last
"""

import base64
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from espnet2_ext.audio.flac import encode_flac, to_int16
from espnet2_ext.data.synth.embedded import at_random_level, make_corpus, play_mono, rng_of
from espnet2_ext.data.synth.score import compose
from espnet2_ext.errors import DataError
from espnet2_ext.util.documents import read_yaml, write_json
from espnet2_ext.util.files import atomic_path, write_text


@dataclass(frozen=True)
class Voice:
    """How one class sounds and moves.

    Attributes:
        mid, name: AudioSet's identifier and display name.
        styles: names in `score.STYLES`; a clip draws one.
        programs: General MIDI programs (drum kits when `drum`); a clip draws one.
        keys: lowest and highest key, or the drum keys in use when `drum`.
        grid: shortest and longest time unit in seconds; a clip draws one.
        steps: time units from one beat to the next; a beat draws one.
        hold: range of a note's length as a share of the time to the next beat.
        cents: largest detuning of a whole clip.
        vibrato: largest depth, as a value of the modulation controller (0 to 127).
        volume: value of the volume controller; lower where loud strokes meet and would clip.
        drum: keys name instruments of a kit, not pitches.
        also: mid of a parent class that some of the clips carry as a second label.
    """

    mid: str
    name: str
    styles: tuple[str, ...]
    programs: tuple[int, ...]
    keys: tuple[int, ...]
    grid: tuple[float, float] = (0.11, 0.19)
    steps: tuple[int, ...] = (1, 2, 3, 4)
    hold: tuple[float, float] = (0.7, 1.0)
    cents: float = 40.0
    vibrato: int = 0
    volume: int = 127
    drum: bool = False
    also: str = ""


@functools.cache
def all_voices() -> tuple[Voice, ...]:
    """Every class that can be played, in the order of AudioSet's class list."""
    rows = ({k: tuple(v) if isinstance(v, list) else v for k, v in row.items()} for row in _read()["voices"])
    return tuple(Voice(**row) for row in rows)


def branches() -> tuple[tuple[str, str, list[str]], ...]:
    """The ontology above and between these classes: mid, name, mids of the children."""
    return tuple((mid, name, children.split()) for mid, name, children in _read()["branches"])


@functools.cache
def _read() -> dict:
    return read_yaml(Path(__file__).with_name("voices.yaml"))


FS = 32000
VERSION = 1  # of the scores and sounds; another one makes the corpus anew
SPLITS = {"train": "balanced_train_segments", "eval": "eval_segments"}
ALSO_EVERY = 6  # of the clips of a class with a parent in use, each sixth carries both labels


class Clip(NamedTuple):
    """One clip: its split ("train" or "eval"), class and number within the two."""

    split: str
    mid: str
    number: int


def make_mini_audioset(
    out: Path | str,
    *,
    train_clips: int = 60,
    eval_clips: int = 12,
    clip_seconds: float = 5.0,
    classes: Sequence[str] = (),
    seed: int = 0,
    **work,
) -> Path:
    """Make the corpus in folder `out`, see `make_corpus`.

    Args:
        train_clips, eval_clips: clips a class.
        clip_seconds: length of a clip, at least 1.
        classes: names or mids from `all_voices`; empty: all.

    Raises:
        DataError: as `make_corpus`; an unknown class or impossible number.
    """
    root = Path(out)
    voices = _choose(classes)
    if train_clips < 1 or eval_clips < 1 or clip_seconds < 1:
        raise DataError(
            f"train_clips {train_clips}, eval_clips {eval_clips} and clip_seconds {clip_seconds} must be 1 or more"
        )
    settings = {
        "train": train_clips,
        "eval": eval_clips,
        "clip_seconds": float(clip_seconds),
        "classes": [v.mid for v in voices],
        "seed": seed,
        "version": VERSION,
    }
    clips = [Clip(s, v.mid, n) for v in voices for s in SPLITS for n in range(settings[s])]
    fn = functools.partial(write_part, root=str(root), seconds=settings["clip_seconds"], seed=seed)
    finish = functools.partial(_write_tables, root, voices, clips, settings)
    return make_corpus(root, settings, ["audio"], fn, clips, 16, finish, **work)


def _choose(classes: Sequence[str]) -> tuple[Voice, ...]:
    known = {name for v in all_voices() for name in (v.mid, v.name)}
    for name in classes:
        if name not in known:
            names = "; ".join(v.name for v in all_voices())
            raise DataError(f"unknown class {name!r}: the embedded corpus has {names}")
    return tuple(v for v in all_voices() if not classes or v.mid in classes or v.name in classes)


def write_part(clips: Sequence[Clip], tmp: Path, *, root: str, seconds: float, seed: int) -> None:
    """Write the sounds of `clips` under `root` where they are missing, and their ids to `tmp`."""
    names = []
    for clip in (Clip(*c) for c in clips):
        name = clip_id(clip, seed)
        names.append(name)
        path = Path(root) / "audio" / SPLITS[clip.split] / file_name(name)
        if not path.is_file():
            sound = encode_flac(to_int16(make_clip(clip, seconds, seed)), FS)
            with atomic_path(path) as new:
                new.write_bytes(sound)
    tmp.write_text("".join(f"{n}\n" for n in names), encoding="utf-8")


def clip_id(clip: Clip, seed: int) -> str:
    """An id of 11 characters from the alphabet that AudioSet's have."""
    digest = hashlib.blake2b(repr((*clip, seed)).encode(), digest_size=8).digest()
    return base64.urlsafe_b64encode(digest).decode()[:11]


def file_name(name: str) -> str:
    """File of a clip, with or without the extra letter."""
    return f"{'Y' if ord(name[-2]) % 2 else ''}{name}.flac"


def clip_labels(clip: Clip, voices: Sequence[Voice]) -> list[str]:
    """Labels of a clip: its class, now and then with the parent class, if that is in use."""
    also = next(v.also for v in voices if v.mid == clip.mid)
    both = also in {v.mid for v in voices} and clip.number % ALSO_EVERY == 0
    return [also, clip.mid] if both else [clip.mid]


def make_clip(clip: Clip, seconds: float, seed: int) -> np.ndarray:
    """Compose and render one clip: float32 [T], T = seconds * 32000, at its random level."""
    voice = next(v for v in all_voices() if v.mid == clip.mid)
    rng = rng_of(*clip, seed, VERSION)
    x = play_mono(compose(voice, clip.split, seconds, rng), seconds, FS)
    return at_random_level(x, FS, rng)


def _write_tables(root: Path, voices: Sequence[Voice], clips: list[Clip], settings: dict, parts: list[Path]) -> None:
    rows = "".join(f'{i},{v.mid},"{v.name}"\n' for i, v in enumerate(voices))
    write_text(root / "class_labels_indices.csv", f"index,mid,display_name\n{rows}")
    write_json(root / "ontology.json", ontology(voices))
    for split, name in SPLITS.items():
        labels = {clip_id(c, settings["seed"]): clip_labels(c, voices) for c in clips if c.split == split}
        write_text(root / f"{name}.csv", _segments(labels, settings["clip_seconds"]))


def _segments(labels: dict[str, list[str]], seconds: float) -> str:
    """A segment list as AudioSet publishes it: three comment lines, then a line a segment."""
    used = {m for mids in labels.values() for m in mids}
    head = (
        "# Segments csv of the embedded corpus (synthetic; not YouTube ids)\n"
        f"# num_ytids={len(labels)}, num_segs={len(labels)}, num_unique_labels={len(used)},"
        f" num_positive_labels={sum(map(len, labels.values()))}\n"
        "# YTID, start_seconds, end_seconds, positive_labels\n"
    )
    lines = (f'{name}, 0.000, {seconds:.3f}, "{",".join(mids)}"\n' for name, mids in sorted(labels.items()))
    return head + "".join(lines)


def ontology(voices: Sequence[Voice]) -> list[dict]:
    """The branches of AudioSet's ontology that end in `voices`: id, name and child_ids."""
    names = {v.mid: v.name for v in voices}
    tree = branches()
    children = {mid: below for mid, _, below in tree}
    grown = True
    while grown:  # a branch is in when one of its children is
        found = {m: n for m, n, _ in tree if m not in names and names.keys() & children[m]}
        names.update(found)
        grown = bool(found)
    return [{"id": m, "name": n, "child_ids": [c for c in children.get(m, []) if c in names]} for m, n in names.items()]
