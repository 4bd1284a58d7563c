"""Mixture tables from songs: chunks for training, whole songs for tests.

A bank's clips `SONG.STEM` are summed to the song's mixture. A stem is active where it has energy:
its mean square over a window of 4 s (a chunk; in a whole song, any window of it) lies above a
threshold in dB of full scale, measured on the bank's mono audio. This is the clip label of
Pishdadian et al., "Finding Strength in Weakness", section III-F, which leaves the threshold open.
"""

import functools
import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from espnet2_ext.core.mixing.events import Event, Mixture, clip_activity
from espnet2_ext.data.bank.bank import ClipBank, bank_digest
from espnet2_ext.data.mixtures.event_table import same_table, write_table
from espnet2_ext.data.tables import read_clips, read_manifest
from espnet2_ext.errors import DataError
from espnet2_ext.util.documents import read_json, write_json
from espnet2_ext.util.files import verified
from espnet2_ext.util.locks import holding
from espnet2_ext.util.parallel import map_parts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SongSettings:
    """How songs become mixtures.

    Attributes:
        seconds: length of a chunk; the remainder of a song is left out. whole: a mixture is a
            whole song instead, and `seconds` the window on which activity is measured.
        threshold_db: a stem is active above this, dB of full scale (mean square).
    """

    seconds: float = 4.0
    whole: bool = False
    threshold_db: float = -60.0

    def __post_init__(self):
        if not self.seconds > 0 or not -120 <= self.threshold_db < 0:
            raise DataError(f"seconds must be positive, threshold_db from -120 to below 0: {self}")


@holding("out")
def make_song_table(
    data_dir: str | os.PathLike,
    bank: str | os.PathLike,
    out: str | os.PathLike,
    *,
    settings: SongSettings | None = None,
    n_fft: int = 512,
    hop: int = 128,
    **work,
) -> dict:
    """Write the mixture table `out` of the songs in `data_dir`, archived as `bank`.

    A stem that is not active in a chunk has no event in it: its sound, below the threshold, is not in the mixture
    either. Chunks without any event are left out. A whole song has one event of its whole length for each stem that is
    active anywhere. So the labels of a frame are those of its chunk or song; the paper uses clip labels only here, as
    stems hold bleed. Clips without a label are sound of no labelled class. A song with a stem that the scan found
    missing, short or corrupt is left out; a silent stem counts as inactive. For the same bank and settings it is up to
    date.

    Returns:
        `table.json`.

    Raises:
        DataError: no manifest or bank, clips that are no stems, no mixture that could be used.
    """
    settings = settings or SongSettings()
    data_dir, out, bank = Path(data_dir), Path(out), ClipBank(bank)
    classes = [label.mid for label in bank.classes]
    key = {
        "settings": asdict(settings),
        "bank_hash": bank_digest(bank),
        "fs": bank.fs,
        "classes": classes,
        "n_fft": n_fft,
        "hop": hop,
    }
    if (table := same_table(out, key)) is not None:
        log.info("%s: up to date, skipped", out)
        return table.info
    songs = _songs(data_dir, bank)
    num = round(settings.seconds * bank.fs)
    levels = _levels(bank, songs, num, out, **work)
    make = _whole if settings.whole else _chunks
    threshold = 10 ** (settings.threshold_db / 10)
    mixtures = [m for s, rows in songs.items() for m in make(s, _stems(bank, rows, levels, threshold), num)]
    if not mixtures:
        raise DataError(f"{data_dir}: no stem of {len(songs)} songs is active in any chunk")
    _report(out, mixtures, classes)
    return write_table(out, mixtures, **key)


def _songs(data_dir: Path, bank: ClipBank) -> dict[str, list[int]]:
    """Song -> rows of its stems in the bank; songs with a bad stem are left out and reported."""
    status = {e.id: e.status for e in read_manifest(verified(data_dir / "manifest.tsv", data_dir / "manifest.json"))}
    songs: dict[str, list[int]] = defaultdict(list)
    bad: dict[str, str] = {}
    for clip in read_clips(data_dir / "clips.tsv"):
        song, _, stem = clip.id.rpartition(".")
        if not song or len(clip.labels) > 1:
            raise DataError(f"{data_dir / 'clips.tsv'}: clip {clip.id} is no stem of a song")
        found = status.get(clip.id, "missing")
        if found == "ok":
            songs[song].append(bank.index_of(clip.id))
        elif found != "silent":
            bad.setdefault(song, f"{stem} is {found}")
    for song, why in bad.items():
        log.warning("%s: song %s is left out: %s", data_dir, song, why)
    good = {song: rows for song, rows in sorted(songs.items()) if song not in bad}
    if not good:
        raise DataError(f"{data_dir}: no song with all of its stems")
    return good


def _levels(bank: ClipBank, songs: Mapping, num: int, out: Path, **work) -> dict[int, list[float]]:
    """Bank row -> mean square of each window of `num` samples."""
    parts_dir = out / ".levels"
    parts = map_parts(
        functools.partial(measure_part, bank=str(bank.path), num=num, digest=bank_digest(bank)),
        [row for rows in songs.values() for row in rows],
        parts_dir,
        part_size=8,
        desc=f"levels {bank.path.name}",
        **work,
    )
    levels = {}
    for part in parts:
        levels |= {int(row): v for row, v in read_json(part).items()}
    shutil.rmtree(parts_dir, ignore_errors=True)
    return levels


def measure_part(rows: Sequence[int], path: Path, *, bank: str, num: int, digest: str) -> None:
    """Write {row: mean squares} of some of a bank's clips as JSON. `digest`: that of the bank, so
    that parts of another one are not taken for its."""
    opened = ClipBank(bank)
    levels = {row: window_levels(opened.read(row), num).tolist() for row in rows}
    write_json(path, levels, indent=None)


def window_levels(x: np.ndarray, num: int) -> np.ndarray:
    """Mean square of each run of `num` samples of [T], the last one may be shorter: float64."""
    edges = np.append(np.arange(0, len(x), num), len(x))
    power = [float(np.dot(x[a:b], x[a:b])) for a, b in zip(edges[:-1], edges[1:])]
    return np.array(power) / np.diff(edges)


@dataclass(frozen=True)
class _Stem:
    """A stem as mixtures need it: class, clip, length, and the windows in which it is active."""

    cls: int
    clip: str
    samples: int
    active: tuple[bool, ...]


def _stems(bank: ClipBank, rows: Sequence[int], levels: Mapping, threshold: float) -> list[_Stem]:
    stems = []
    for row in rows:
        active = tuple(v > threshold for v in levels[row])
        cls = next(iter(bank.labels(row).tolist()), -1)
        stems.append(_Stem(cls, bank.id(row), bank.num_samples(row), active))
    return sorted(stems, key=lambda s: (s.cls < 0, s.cls))


def _chunks(song: str, stems: Sequence[_Stem], num: int) -> list[Mixture]:
    mixtures = []
    for n in range(max(s.samples for s in stems) // num):
        events = [
            Event(s.cls, s.clip, n * num, 0, min(num, s.samples - n * num), 1.0)
            for s in stems
            if n < len(s.active) and s.active[n]
        ]
        if events:
            mixtures.append(Mixture(f"{song}.{n:04d}", num, "strong", tuple(events)))
    return mixtures


def _whole(song: str, stems: Sequence[_Stem], num: int) -> list[Mixture]:
    events = tuple(Event(s.cls, s.clip, 0, 0, s.samples, 1.0) for s in stems if any(s.active))
    length = max(s.samples for s in stems)
    return [Mixture(song, length, "strong", events)] if events else []


def _report(out: Path, mixtures: Sequence[Mixture], classes: Sequence[str]) -> None:
    """Log how often each class is active, and each two of them together."""
    active = np.array([clip_activity(m, len(classes)) for m in mixtures]) > 0
    shares = [f"{name} {active[:, k].mean():.2f}" for k, name in enumerate(classes)]
    for i in range(len(classes)):
        shares += [
            f"{classes[i]} with {classes[j]} {(active[:, i] & active[:, j]).mean():.2f}"
            for j in range(i + 1, len(classes))
        ]
    log.info("%s: %d mixtures; share in which a class is active: %s", out, len(mixtures), ", ".join(shares))
