"""Sounds for the model in the box: instruments of sound fonts, recordings and one-shots of Debian packages, formulas.

Each class has variants (a program of a font, a file, a series of recordings, a formula); each sound is made with one.
Where a class has three variants or more, one of five, at least one, is heard in validation only. `starter.yaml` lists
the classes.

Layout:
    audio/CLASS/ID.flac         16 bit, 32 kHz, mono
    sounds.tsv                  id, set, class, source, path
    settings.json, done.json    what it was made from; written first and last
"""

import dataclasses
import functools
import hashlib
import shutil
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import numpy as np

from espnet2_ext.audio.flac import encode_flac, to_int16
from espnet2_ext.audio.read import read_mono
from espnet2_ext.data.synth.audioset import Voice
from espnet2_ext.data.synth.embedded import at_random_level, load_synthesizer, make_corpus, play_mono, rng_of
from espnet2_ext.data.synth.procedural import GENERATORS, make_sound
from espnet2_ext.data.synth.score import compose, one_of
from espnet2_ext.data.synth.signals import FS, draw, room, steady, strikes
from espnet2_ext.errors import DataError
from espnet2_ext.util.binary import BROKEN, open_zip
from espnet2_ext.util.documents import read_yaml
from espnet2_ext.util.files import atomic_path, digest
from espnet2_ext.util.tables import read_tsv, write_tsv

VERSION = 1  # of the sounds; another one makes them anew
SOUNDS = ("id", "set", "class", "source", "path")
SUFFIXES = {".wav", ".flac", ".ogg", ".mp3"}
HELD_OUT = 5  # one variant of so many is for validation


class Variant(NamedTuple):
    """What a sound of a class is made with: of `source`, a font's program, a file, a pattern of files, a formula."""

    name: str
    source: str
    key: str


class Sound(NamedTuple):
    """One clip: its set ("train" or "valid"), its variant, its number within the class."""

    set: str
    name: str
    source: str
    key: str
    number: int

    @property
    def id(self) -> str:
        """Unique, and made of the class, the set, the number and what it is made with."""
        mark = hashlib.blake2b(repr(self).encode(), digest_size=3).hexdigest()
        return f"{self.name}-{self.source}-{self.set}{self.number:03d}-{mark}"


@functools.cache
def starter_table() -> dict:
    """The table of classes: `sources`, `voices`, `files`, `related`, `holds`, `many`."""
    return read_yaml(Path(__file__).with_suffix(".yaml"))


def is_unheard(source: str) -> bool:
    """Whether a source is for the set that is never trained on."""
    return starter_table()["sources"][source].get("unheard", False)


def find_source(name: str, packages: Path, unpacked: Path) -> Path | None:
    """Folder or file of a source below `packages`; None for one that needs no files.

    What lies in an archive is unpacked below the folder `unpacked`.

    Raises:
        DataError: it is not there: what to install.
    """
    source = starter_table()["sources"][name]
    if name == "timgm6mb":
        load_synthesizer()
    if "path" not in source:
        return None
    path = packages / source["path"]
    if not path.exists():
        package = source["package"]
        raise DataError(
            f"source {name}: there is no {path}; apt-get install {package} (or unpack it elsewhere: apt-get download "
            f"{package}; dpkg -x {package}_*.deb FOLDER; --packages FOLDER), or leave it out of --sources"
        )
    return _unpack(path, source["inside"], unpacked / name) if "inside" in source else path


def _unpack(archive: Path, inside: str, folder: Path) -> Path:
    """Folder `inside` of a zip archive, its sounds alone, as a folder below `folder`; what is there is kept."""
    try:
        with archive.open("rb") as file, open_zip(file) as z:
            for info in z.infolist():
                parts, path = Path(info.filename).parts, folder / info.filename
                if parts[0] == inside and ".." not in parts and path.suffix in SUFFIXES and not path.is_file():
                    with atomic_path(path) as new, z.open(info) as member, new.open("wb") as copy:
                        shutil.copyfileobj(member, copy)
    except BROKEN as error:
        raise DataError(f"{archive}: damaged ({error})") from error
    return folder / inside


def make_starter(
    out: Path | str,
    *,
    sources: Collection[str],
    packages: Path | str = "/",
    clips: int = 40,
    formula_clips: int = 60,
    valid_clips: int = 6,
    clip_seconds: float = 5.0,
    classes: Collection[str] = (),
    seed: int = 0,
    **work,
) -> Path:
    """Make the sounds in folder `out`, see `make_corpus`.

    Args:
        sources: names in the table's `sources`, without those that are recordings as they are.
        packages: where the Debian packages are installed or unpacked.
        clips, formula_clips: training sounds of a class; of one that formulas make.
        valid_clips: validation sounds of a class.
        classes: empty: all.

    Raises:
        DataError: as `make_corpus`; an unknown class.
    """
    root, where = Path(out), Path(packages)
    places = {name: find_source(name, where, root.with_name(f"{root.name}_unpacked")) for name in sources}
    variants = [v for v in all_variants(places) if not classes or v.name in classes]
    if lacking := set(classes) - {v.name for v in variants}:
        raise DataError(f"no sound of class {sorted(lacking)[0]} in the sources {', '.join(sources)}")
    sounds = list(plan(variants, clips, formula_clips, valid_clips))
    settings = {"sounds": digest(sounds), "clip_seconds": float(clip_seconds), "seed": seed, "version": VERSION}
    files = {name: str(path) for name, path in places.items() if path}
    fn = functools.partial(write_part, root=str(root), places=files, seconds=float(clip_seconds), seed=seed)
    finish = functools.partial(_write_list, root, sounds)
    return make_corpus(root, settings, ["audio"], fn, sounds, 32, finish, check=lambda: None, **work)


def all_variants(places: dict[str, Path | None]) -> Iterator[Variant]:
    """Every variant of the sources at `places`, class by class."""
    table = starter_table()
    for source, path in places.items():
        if source == "formula":
            yield from (Variant(name, source, name) for name in GENERATORS)
        elif source in table["files"]:
            for name, patterns in table["files"][source].items():
                if table["sources"][source].get("recordings"):
                    yield from (Variant(name, source, p) for p in patterns if p[0] != "*" and _matching(path, [p]))
                    patterns = [p for p in patterns if p[0] == "*"]
                yield from (Variant(name, source, n) for n in _matching(path, patterns))
        else:
            for name, voice in table["voices"].items():
                yield from (Variant(name, source, str(program)) for program in voice["programs"])


@functools.cache
def _names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix in SUFFIXES)


def _matching(folder: Path, patterns: Sequence[str]) -> list[str]:
    return [n for n in _names(folder) if any(fnmatch(Path(n).with_suffix("").as_posix(), p) for p in patterns)]


def plan(variants: Sequence[Variant], clips: int, formula_clips: int, valid_clips: int) -> Iterator[Sound]:
    """The sounds of all classes: each set goes round its variants."""
    for name in sorted({v.name for v in variants}):
        own = sorted((v for v in variants if v.name == name), key=lambda v: hashlib.blake2b(repr(v).encode()).digest())
        if is_unheard(own[0].source):
            yield from (Sound("unheard", *v, n) for n, v in enumerate(own))
            continue
        held = own[: max(1, len(own) // HELD_OUT)] if len(own) >= 3 else []
        formula = any(v.source == "formula" for v in own)
        for set_, some, count in (
            ("train", own[len(held) :], formula_clips if formula else clips),
            ("valid", held or own * formula, valid_clips),
        ):
            count *= starter_table()["many"].get(name, 1) * bool(some)
            yield from (Sound(set_, *some[n % len(some)], n) for n in range(count))


def write_part(sounds: Sequence, tmp: Path, *, root: str, places: dict[str, str], seconds: float, seed: int) -> None:
    """Write those of `sounds` under `root` that are not there."""
    for sound in (Sound(*s) for s in sounds):
        path = Path(root) / sound_path(sound)
        if not path.is_file():
            data = encode_flac(to_int16(make_clip(sound, places, seconds, seed)), FS)
            with atomic_path(path) as new:
                new.write_bytes(data)
    tmp.write_text("", encoding="utf-8")


def sound_path(sound: Sound) -> str:
    """Its file, below the folder of the sounds."""
    return f"audio/{sound.name}/{sound.id}.flac"


def make_clip(sound: Sound, places: dict[str, str], seconds: float, seed: int) -> np.ndarray:
    """One sound: float32 [seconds * 32000], at its random level."""
    rng = rng_of(*sound, seed, VERSION)
    if sound.source == "formula":
        x = make_sound(sound.key, seconds, rng)
    elif sound.source in starter_table()["files"]:
        patterns = starter_table()["files"][sound.source][sound.name]
        folder = Path(places[sound.source])
        path = folder / sound.key
        if sound.key in patterns:
            x = _repeat([folder / n for n in _matching(folder, [sound.key])], seconds, rng)
        elif is_unheard(sound.source):
            x = _repeat([path], seconds, rng)
        else:
            x = _cut(path, seconds, rng) if any(p[0] == "*" for p in patterns) else _rhythm(path, seconds, rng)
    else:
        row = {k: tuple(v) if isinstance(v, list) else v for k, v in starter_table()["voices"][sound.name].items()}
        voice = dataclasses.replace(Voice(sound.name, sound.name, **row), programs=(int(sound.key),))
        score = compose(voice, "train" if sound.set == "train" else "eval", seconds, rng)
        x = play_mono(score, seconds, FS, Path(places[sound.source]) if sound.source in places else None)
    return at_random_level(x, FS, rng)


@functools.lru_cache(maxsize=16)  # a piece of music takes 30 MB
def _read(path: Path) -> np.ndarray:
    x = read_mono(path, FS)
    if not x.any():
        raise DataError(f"{path}: silent")
    return x


def _faster(x: np.ndarray, speed: float) -> np.ndarray:
    return _at(x, np.arange(0, len(x) - 1, speed))


def _cut(path: Path, seconds: float, rng) -> np.ndarray:
    """A loop or a long sound, up to two semitones off, from anywhere in it, repeated where it is short."""
    x, speed, n = _read(path), 2 ** (rng.uniform(-2, 2) / 12), round(seconds * FS)
    length = len(np.arange(0, len(x) - 1, speed))  # at that speed; it may be minutes, of which seconds are made
    start = int(rng.integers(length * (2 + n // length) - n))
    part = _at(x, (start + np.arange(n)) % length * speed)
    return (part if part.any() else _at(x, np.arange(n) % length * speed)).astype(np.float32)


def _at(x: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.interp(places, np.arange(len(x)), x)


def _repeat(files: Sequence[Path], seconds: float, rng) -> np.ndarray:
    """Recordings in random order, again and again with pauses of 0.1 to 0.8 s."""
    n, at = round(seconds * FS), int(rng.uniform(0, 0.3) * FS)
    x = np.zeros(n, np.float32)
    while at < n:
        part = _read(files[int(rng.integers(len(files)))])
        loud = np.flatnonzero(np.abs(part) > 0.03 * np.abs(part).max())  # no silence before and behind it
        part = part[loud[0] : loud[-1] + 1]
        x[at : at + len(part)] += part[: n - at]
        at += len(part) + int(FS * rng.uniform(0.1, 0.8))
    return x


def _rhythm(path: Path, seconds: float, rng) -> np.ndarray:
    """A one-shot struck in a random rhythm, at two or three pitches or one, in a room or none."""
    n, spread = round(seconds * FS), one_of((0.2, 1.0, 4.0), rng)
    shots = [_faster(_read(path), 2 ** (rng.uniform(-spread, spread) / 12)) for _ in range(rng.integers(1, 4))]
    beat = steady(n, rng, draw(rng, 1.5, 9), 0.02)
    pattern = rng.random(one_of((3, 4, 6, 8, 16), rng)) < rng.uniform(0.3, 0.9)
    pattern[rng.integers(len(pattern))] = True
    x = strikes(n, beat[np.resize(pattern, len(beat))], shots, rng, rng.uniform(1, 8))
    if not x.any():
        x = strikes(n, [0.05], shots, rng, 0)
    if rng.random() < 0.5:
        x = x / x.std() + rng.uniform(0.1, 0.5) * room(x / x.std(), rng)
    return x.astype(np.float32)


def _write_list(root: Path, sounds: Sequence[Sound], parts: list[Path]) -> None:
    rows = ((s.id, s.set, s.name, s.source, str(root / sound_path(s))) for s in sounds)
    write_tsv(root / "sounds.tsv", SOUNDS, rows)


def read_sounds(root: Path) -> list[dict[str, str]]:
    """Rows of `sounds.tsv`."""
    return [dict(zip(SOUNDS, row)) for _, row in read_tsv(root / "sounds.tsv", SOUNDS)]
