"""Tables of mixtures on disk: drawn or written once, read with checks, rendered when needed.

A folder `data/<set>/mixtures/` holds
    mixtures.tsv   id, samples, known: `strong`, `frame` or `clip`, the most that may be used of it
    events.tsv     mixture, class, clip, start, onset, samples, gain; in the order of mixtures.tsv.
                   No class: sound of no labelled class. No clip: a label without isolated sound.
    ids            lines `ID ID`, which ESPnet reads as text and as shape file
    table.json     rate, classes, counts, settings, priors and digests; written last
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from espnet2_ext.core.mixing.events import KNOWN, Event, Mixture, clip_activity, frame_activity
from espnet2_ext.errors import DataError
from espnet2_ext.util.documents import read_fields
from espnet2_ext.util.files import made, verified, write_record, write_text
from espnet2_ext.util.tables import at, check_id, number, read_tsv, write_tsv

VERSION = 1
MIXTURES = ("id", "samples", "known")
FILES = ("mixtures.tsv", "events.tsv", "ids")
EVENTS = ("mixture", "class", "clip", "start", "onset", "samples", "gain")
_INFO = {"version": int, "fs": int, "classes": [str], "mixtures": int, "events": int, "n_fft": int, "hop": int}
_INFO |= {"frame_prior": [float], "clip_prior": [float], "table_hash": str, "settings?": (dict, None)}

log = logging.getLogger(__name__)


class MixtureTable:
    """A table of N mixtures with E events, as flat arrays; an object is pickled as its path.

    Args:
        folder: where `table.json` lies.

    Attributes:
        fs: rate in Hz. classes: names of the K classes. info: `table.json`.

    Raises:
        DataError: with file and line: a duplicated id, a class that is not one of the table's, an event that begins or
            ends past the end of its mixture, any other broken line. Or, with the file: no `table.json` (the table is
            not whole), contents that changed since.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self.info = read_table_info(self.folder)
        verified(self.folder / "ids", self.folder / "table.json")
        self.fs, self.classes = self.info["fs"], self.info["classes"]
        self._arrays = _read(self.folder, self.classes)
        if table_hash(self.folder) != self.info["table_hash"]:
            raise DataError(f"{self.folder}: changed since table.json was written; make it again")

    def __reduce__(self):
        return type(self), (self.folder,)

    def __len__(self) -> int:
        return len(self._arrays["id"])

    def id(self, i: int) -> str:
        """Identifier of mixture `i`."""
        return self._arrays["id"][i].decode()

    def index_of(self, id: str) -> int:
        """Number of the mixture `id`. Raises DataError for an unknown one."""
        ids, order, key = self._arrays["id"], self._arrays["order"], id.encode()
        if 0 < len(key) <= ids.dtype.itemsize:
            at = int(np.searchsorted(ids, np.array(key, ids.dtype), sorter=order))
            if at < len(ids) and ids[order[at]] == key:
                return int(order[at])
        raise DataError(f"{self.folder}: no mixture {id!r}")

    def row(self, i: int) -> Mixture:
        """Mixture `i`, 0 to N - 1; clips are ids."""
        return _row(self._arrays, i)

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Which mixture has which class: their numbers, and those of the classes, int64 [L] each, in order."""
        a, k = self._arrays, len(self.classes)
        row = np.repeat(np.arange(len(self)), np.diff(a["indptr"]))
        return np.divmod(np.unique(row[a["cls"] >= 0] * k + a["cls"][a["cls"] >= 0]), k)

    def check(self, bank) -> None:
        """Make sure that a bank has the table's rate, and every clip at the length in use.

        Raises:
            DataError: naming the bank, or the line.
        """
        if bank.fs != self.fs:
            raise DataError(f"{self.folder}: at {self.fs} Hz, but {bank.path} at {bank.fs} Hz")
        a, path = self._arrays, self.folder / "events.tsv"
        clips, first, which = np.unique(a["clip"], return_index=True, return_inverse=True)
        have = np.zeros(len(clips), np.int64)
        for n, clip in enumerate(clips):
            try:
                have[n] = bank.num_samples(bank.index_of(clip.decode())) if clip else 2**62
            except DataError as e:
                raise DataError(f"{path}:{first[n] + 2}: {e}") from None
        past = np.flatnonzero(a["start"] + a["num"] > have[which])
        if len(past):
            name = clips[which[past[0]]].decode()
            raise DataError(f"{path}:{past[0] + 2}: past the end of clip {name} in {bank.path}")


def write_table(
    folder: str | os.PathLike,
    mixtures: Iterable[Mixture],
    *,
    fs: int,
    classes: Sequence[str],
    n_fft: int,
    hop: int,
    seed: int | None = None,
    settings: dict | None = None,
    bank_hash: str = "",
) -> dict:
    """Write a table, each file whole and `table.json` last; returns what that holds.

    The frame prior of a class, gamma_i of eq. (16), is the share of frames in which it is active, over the mixtures
    whose frame labels may be used (strong, frame); the clip prior is the share of mixtures that hold it. Without any
    such mixture the clip priors stand for both. A class that never occurs has the prior 0, one that is always active 1;
    each is reported, and the weight of the side that never occurs is 1.

    Args:
        mixtures: clips are ids (`core.mixing.events.with_ids`).
        fs: rate in Hz. classes: names in the order of the labels. n_fft, hop: frames in samples.
        seed, settings, bank_hash: for the record.

    Raises:
        DataError: as `MixtureTable`; no mixture at all.
    """
    folder = Path(folder)
    (folder / "table.json").unlink(missing_ok=True)
    mixtures = list(mixtures)
    write_tsv(folder / "mixtures.tsv", MIXTURES, (m[:3] for m in mixtures))
    lines = (_line(m.id, e, classes) for m in mixtures for e in m.events)
    write_tsv(folder / "events.tsv", EVENTS, lines)
    arrays = _read(folder, classes)
    write_text(folder / "ids", "".join(f"{m.id} {m.id}\n" for m in mixtures))
    frame, clip = _priors(mixtures, len(classes), n_fft, hop)
    _report(folder, classes, frame)
    info = {
        "fs": fs,
        "classes": list(classes),
        "mixtures": len(mixtures),
        "events": len(arrays["cls"]),
        "seed": seed,
        "settings": settings or {},
        "n_fft": n_fft,
        "hop": hop,
        "frame_prior": frame.tolist(),
        "clip_prior": clip.tolist(),
        "bank_hash": bank_hash,
        "table_hash": table_hash(folder),
        "version": VERSION,
    }
    return write_record(folder / "table.json", info, files=[folder / name for name in FILES])


def same_table(folder: str | os.PathLike, key: dict, files: Sequence[str] = ()) -> MixtureTable | None:
    """The table in `folder`, if its record holds `key`, and it and the `files` beside it are whole."""
    if made(Path(folder) / "table.json", key, [Path(folder) / name for name in files]) is None:
        return None
    with contextlib.suppress(DataError):
        return MixtureTable(folder)
    return None


def table_hash(folder: str | os.PathLike) -> str:
    """blake2b-128 of `mixtures.tsv` and `events.tsv`, as hex digits."""
    h = hashlib.blake2b(digest_size=16)
    for name in ("mixtures.tsv", "events.tsv"):
        h.update((Path(folder) / name).read_bytes())
    return h.hexdigest()


def _line(mixture: str, e: Event, classes: Sequence[str]) -> tuple:
    if not -1 <= e.cls < len(classes):
        raise DataError(f"mixture {mixture}: class {e.cls} of {len(classes)}")
    if not (e.clip is None or isinstance(e.clip, str)):
        raise TypeError(f"mixture {mixture}: clip {e.clip!r} is a row; tables hold ids")
    name = "" if e.cls < 0 else classes[e.cls]
    return mixture, name, e.clip or "", e.start, e.onset, e.samples, float(e.gain)


def _priors(mixtures: Sequence[Mixture], num_classes: int, n_fft: int, hop: int):
    """Frame and clip priors, float64 [K] each."""
    clip = np.mean([clip_activity(m, num_classes) for m in mixtures], axis=0, dtype=np.float64)
    active, frames = np.zeros(num_classes), 0
    for m in mixtures:
        if m.known != "clip":
            labels = frame_activity(m, num_classes, n_fft, hop)
            active += labels.sum(axis=0, dtype=np.float64)
            frames += len(labels)
    return (active / frames if frames else clip), clip


def _report(folder: Path, classes: Sequence[str], prior: np.ndarray) -> None:
    for name, p in zip(classes, prior, strict=True):
        if p in (0.0, 1.0):
            what = "never occurs" if p == 0 else "is active in every frame"
            log.warning("%s: class %s %s (prior %d); it cannot be learned", folder, name, what, p)


def read_table_info(folder: Path) -> dict:
    """`table.json` of a table, checked."""
    path = folder / "table.json"
    info = read_fields(path, _INFO, hint="make the table again")
    priors = [*info["frame_prior"], *info["clip_prior"]]
    if info["version"] != VERSION or min(info["fs"], info["n_fft"], info["hop"]) < 1 or not info["classes"]:
        raise DataError(f"{path}: not a table of version {VERSION}: make it again")
    if len(priors) != 2 * len(info["classes"]) or not all(0 <= p <= 1 for p in priors):
        raise DataError(f"{path}: expected a frame_prior and a clip_prior from 0 to 1 for each class")
    return info


def _read(folder: Path, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Both tables as arrays; `indptr` [N + 1] tells which events are whose."""
    ids, samples, known = _read_mixtures(folder / "mixtures.tsv")
    rows = {name: k for k, name in enumerate(classes)} | {"": -1}
    places = {name: i for i, name in enumerate(ids)}
    counts = np.zeros(len(ids), np.int64)
    columns: tuple[list, ...] = ([], [], [], [], [], [])
    path, last = folder / "events.tsv", 0
    for line, fields in read_tsv(path, EVENTS):
        with at(path, line):
            i = places.get(fields[0], -1)
            if i < last:
                raise DataError(f"mixture {fields[0]!r} is not in mixtures.tsv, or out of order")
            event = _parse(fields, rows, samples[i], known[i])
        counts[i] += 1
        last = i
        for column, value in zip(columns, event, strict=True):
            column.append(value)
    cls, clip, *numbers, gain = columns
    start, onset, num = np.array(numbers, np.int64).reshape(3, -1)
    names = np.array([v.encode() for v in ids])
    return {
        "id": names,
        "order": np.argsort(names),
        "samples": np.array(samples, np.int64),
        "known": np.array([KNOWN.index(v) for v in known], np.int8),
        "indptr": np.concatenate([[0], np.cumsum(counts)]),
        "cls": np.array(cls, np.int32),
        "clip": np.array([v.encode() for v in clip], bytes),
        "start": start,
        "onset": onset,
        "num": num,
        "gain": np.array(gain, np.float64),
    }


def _read_mixtures(path: Path) -> tuple[list[str], list[int], list[str]]:
    """Columns of `mixtures.tsv`."""
    rows: dict[str, tuple[int, str]] = {}
    for line, (id_, samples, known) in read_tsv(path, MIXTURES):
        with at(path, line):
            check_id(id_, rows)
            length = number("samples", samples, 1, whole=True)
            if known not in KNOWN:
                raise DataError(f"known must be one of {', '.join(KNOWN)}")
        rows[id_] = length, known
    if not rows:
        raise DataError(f"{path}: the table holds no mixture")
    return list(rows), [v[0] for v in rows.values()], [v[1] for v in rows.values()]


def _parse(fields: list[str], rows: dict[str, int], total: int, known: str) -> tuple:
    """An event from its fields, with the clip's id or ''."""
    _, name, clip, start, onset, samples, gain = fields
    if (k := rows.get(name)) is None:
        raise DataError(f"class {name!r} is none of {', '.join(v for v in rows if v)}")
    start, onset = number("start", start, 0, whole=True), number("onset", onset, 0, whole=True)
    samples, gain = number("samples", samples, 1, whole=True), number("gain", gain)
    if onset + samples > total:
        what = "begins" if onset >= total else "ends"
        raise DataError(f"the event {what} past the end of its mixture, sample {total}")
    if not clip and (k < 0 or known == "strong"):
        what = "a row with neither class nor clip" if k < 0 else "a strong label without a clip"
        raise DataError(f"{what} says nothing")
    return k, clip, start, onset, samples, gain


def _row(a: dict[str, np.ndarray], i: int) -> Mixture:
    if not 0 <= i < len(a["id"]):
        raise IndexError(f"mixture {i} of {len(a['id'])}")
    part = slice(a["indptr"][i], a["indptr"][i + 1])
    columns = (a[name][part].tolist() for name in ("cls", "clip", "start", "onset", "num", "gain"))
    events = tuple(Event(k, c.decode() or None, *rest) for k, c, *rest in zip(*columns))
    return Mixture(a["id"][i].decode(), int(a["samples"][i]), KNOWN[a["known"][i]], events)
