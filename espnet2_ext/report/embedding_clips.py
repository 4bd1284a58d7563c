"""Clips of two classes for a picture of embeddings: from a clip bank or a folder of sounds."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from espnet2_ext.audio.read import read_mono, resample
from espnet2_ext.core.metrics import is_silent
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.corpora.own_clips import read_folder
from espnet2_ext.errors import DataError

LEAST = 3  # clips of a class: fewer have no spread worth drawing


class Clips(NamedTuple):
    """Clips of two classes: `waves` `[T]` each, `classes` 0 or 1 each, and what names them all."""

    names: tuple[str, str]
    ids: list[str]
    classes: np.ndarray
    waves: list[np.ndarray]
    source: dict[str, str]


def draw_clips(
    data: str | Path, classes: Sequence[str], number: int, fs: int, *, seconds: float = 10.0, seed: int = 0
) -> Clips:
    """Draw `number` clips of each of two classes; a clip that carries both is left out.

    Args:
        data: a clip bank (`dump/<set>`), or a folder with a subfolder of sounds a class.
        classes: two of its classes, by identifier or name, in any case.
        fs: rate of the clips that are returned, in Hz.
        seconds: what is longer is cut to its first so many.

    Raises:
        DataError: a class that is not there, with those that are; too few clips, with their number;
            a drawn clip that is silent.
    """
    if len(classes) != 2:
        raise DataError(f"two classes are compared, not {len(classes)}: {', '.join(classes)}")
    if number < LEAST:
        raise DataError(f"{number} clips of a class are too few, {LEAST} are the least")
    source = _Bank(Path(data)) if (Path(data) / "bank.json").exists() else _Folder(Path(data))
    picked = [_find(name, source.classes, data) for name in classes]
    if picked[0] == picked[1]:
        raise DataError(f"{data}: {classes[0]!r} and {classes[1]!r} are one class")
    members = [set(source.clips_of(k)) for k in picked]
    rng = np.random.default_rng(seed)
    ids, waves = [], []
    for side, k in enumerate(picked):
        own = sorted(members[side] - members[1 - side])
        if len(own) < number:
            raise DataError(
                f"{data}: {len(own)} clips of {source.classes[k][1]!r} without "
                f"{source.classes[picked[1 - side]][1]!r}, {number} are asked for (--clips)"
            )
        for i in sorted(rng.choice(len(own), number, replace=False)):
            ids.append(source.id(own[i]))
            waves.append(_cut(source.read(own[i], fs), round(seconds * fs), f"{data}: {ids[-1]}"))
    names = source.classes[picked[0]][1], source.classes[picked[1]][1]
    return Clips(names, ids, np.repeat([0, 1], number), waves, source.about)


def _find(name: str, classes: Sequence[tuple[str, ...]], data: str | Path) -> int:
    """Row of the class whose identifier or name is `name`."""
    for k, known in enumerate(classes):
        if name.casefold() in (v.casefold() for v in known):
            return k
    there = ", ".join(known[-1] for known in classes)
    raise DataError(f"{data}: no class {name!r}; there is: {there}")


def _cut(x: np.ndarray, num: int, where: str) -> np.ndarray:
    x = x[:num]
    if not len(x) or is_silent(x[None])[0]:
        raise DataError(f"{where}: is silent, so it has no embedding worth drawing")
    return x


class _Bank:
    """A clip bank; clips are its rows."""

    def __init__(self, path: Path):
        self.bank = ClipBank(path)
        self.classes = [(label.mid, label.name) for label in self.bank.classes]
        self.about = {"data": str(path), "manifest_hash": self.bank.info["manifest_hash"]}

    def clips_of(self, k: int) -> Iterable[int]:
        return self.bank.clips_of(k).tolist()

    def id(self, row: int) -> str:
        return self.bank.id(row)

    def read(self, row: int, fs: int) -> np.ndarray:
        return resample(self.bank.read(row), self.bank.fs, fs)


class _Folder:
    """A folder of class folders; clips are their files."""

    def __init__(self, path: Path):
        self.path, self.sounds = path, read_folder(path)
        self.classes = [(name, name) for name in sorted({s.labels[0] for s in self.sounds})]
        self.about = {"data": str(path)}

    def clips_of(self, k: int) -> Iterable[Path]:
        return [s.path for s in self.sounds if s.labels[0] == self.classes[k][0]]

    def id(self, path: Path) -> str:
        return str(path.relative_to(self.path))

    def read(self, path: Path, fs: int) -> np.ndarray:
        return read_mono(path, fs)
