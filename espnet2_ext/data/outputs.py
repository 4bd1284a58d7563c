"""What inference writes and scoring reads: each format with its writer and its reader.

about.json      digest of what the outputs were made of, and facts; written last, so it stands for the whole folder
spk1.scp ...    estimates by key, in FLAC archives `spk1.00000.ark`, ...; S outputs per mixture
queries.npz     keys [N], embedding [N, E]
tags.npz        keys [N], clipwise [N, K]: probabilities
activity.npz    frame-wise probabilities, see `Activity`
parts/          one npz per part while inference runs, see `write_part`
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from espnet2_ext.audio.read import FlacArkWriter
from espnet2_ext.errors import DataError
from espnet2_ext.util.binary import read_npz, write_npz
from espnet2_ext.util.documents import parse_json, read_fields
from espnet2_ext.util.files import verified
from espnet2_ext.util.tables import read_scp, write_scp

PROTOCOLS = ("self", "other")  # which query: the clean target itself, or another clip of its class
INPUTS = {"mixture": "wav.scp", "clean": "spk1.scp", "silence": "absent.scp"}  # table of each pass's inputs
RESIDUAL = "rest"  # name of the output for sound of no class


def same_keys(table: dict, keys: Sequence[str], path: Path) -> dict:
    """`table` if it has exactly `keys`; otherwise the error names the first that differs."""
    missing = next((k for k in keys if k not in table), None)
    if missing is not None:
        raise DataError(f"{path}: key {missing} is missing ({len(keys)} keys expected)")
    if len(table) > len(keys):
        known = set(keys)
        extra = next(k for k in table if k not in known)
        raise DataError(f"{path}: key {extra} is not a key of the data folder")
    return table


# ---- about.json ----------------------------------------------------------------------------------


def read_about(path: Path, fields: dict) -> dict:
    """Facts of a folder of outputs, `fields` as in `util.documents.check`. Raises a DataError where there are none."""
    return read_fields(path, fields, hint="run inference first")


# ---- parts ---------------------------------------------------------------------------------------


class Part(NamedTuple):
    """What one part of a run made: facts (plain values) and arrays."""

    path: Path
    facts: dict
    arrays: dict[str, np.ndarray]


def write_part(path: Path, facts: dict, arrays: dict[str, np.ndarray]) -> None:
    """Write one part; `facts` are stored as JSON."""
    write_npz(path, {"facts": np.array(json.dumps(facts)), **arrays})


def read_part(path: Path) -> Part:
    """Read what `write_part` wrote."""
    arrays = read_npz(path, ["facts"])
    return Part(path, parse_json(str(arrays.pop("facts")), path), arrays)


def joined(parts: Sequence[Part], name: str) -> np.ndarray:
    """The array `name` of all parts, one after another."""
    return np.concatenate([part.arrays[name] for part in parts])


# ---- tags.npz, queries.npz -----------------------------------------------------------------------


def write_tags(path: Path, keys: Sequence[str], clipwise: np.ndarray) -> None:
    """Write `tags.npz`: probabilities `[N, K]` of N clips."""
    write_npz(path, {"keys": np.array(keys), "clipwise": clipwise})


def read_tags(path: Path, num_classes: int) -> tuple[list[str], np.ndarray]:
    """Keys and probabilities `[N, K]` of a `tags.npz`.

    Raises:
        DataError: no such file, another number of classes, values that are not finite (the key is named).
    """
    keys, clipwise = _table(path, "clipwise")
    if clipwise.shape[1] != num_classes:
        raise DataError(f"{path}: clipwise is {clipwise.shape}, expected ({len(keys)}, {num_classes})")
    return keys, clipwise


def write_queries(path: Path, keys: Sequence[str], embedding: np.ndarray) -> None:
    """Write `queries.npz`: query embeddings `[N, E]`."""
    write_npz(path, {"keys": np.array(keys), "embedding": embedding})


def read_queries(path: Path) -> tuple[list[str], np.ndarray]:
    """Keys and embeddings `[N, E]` of a `queries.npz`. Raises a DataError for a missing or broken one."""
    return _table(path, "embedding")


# ---- activity.npz --------------------------------------------------------------------------------


class Tags(NamedTuple):
    """Probabilities of the classes in one recording: clip `[K]`, frame `[L', K]`.

    edges: `[L' + 1]`, where the frames begin and end, in samples. `frame` and `edges` are None where tags have no
    time, `edges` also where frames are those of an STFT.
    """

    clip: np.ndarray
    frame: np.ndarray | None = None
    edges: np.ndarray | None = None


@dataclass(frozen=True)
class Activity:
    """Frame-wise probabilities of N recordings: `activity.npz`.

    keys: N. frame: `[sum of L', K]`, all recordings one after another; indptr: `[N + 1]`, where each begins.
    fs: Hz. The frames' times are given in one of two ways.

    A class separator's classifier: frame l stands for `time_pool` frames of the STFT from frame l * time_pool on;
    those have `n_fft` samples and lie `hop` samples apart, the first centred on sample 0. It also gives
    clip `[N, K]` and the names of its `classes`.

    A tagger: edges `[sum of (L' + 1)]` in samples, those of recording n from indptr[n] + n on.
    """

    keys: np.ndarray
    frame: np.ndarray
    indptr: np.ndarray
    fs: int
    clip: np.ndarray | None = None
    classes: np.ndarray | None = None
    time_pool: int | None = None
    n_fft: int | None = None
    hop: int | None = None
    edges: np.ndarray | None = None

    @property
    def frames(self) -> list[np.ndarray]:
        """`[L', K]` of each recording."""
        return [self.frame[a:b] for a, b in zip(self.indptr[:-1], self.indptr[1:])]

    def select(self, keys: Sequence[str], path: Path) -> "Activity":
        """The same in the order of `keys`. Raises a DataError where its keys are others."""
        rows = {str(key): n for n, key in enumerate(self.keys)}
        order = [same_keys(rows, keys, path)[key] for key in keys]
        starts = self.indptr
        frames = [np.arange(starts[n], starts[n + 1]) for n in order]
        return replace(
            self,
            keys=self.keys[order],
            frame=self.frame[np.concatenate(frames)],
            indptr=np.concatenate([[0], np.cumsum([len(f) for f in frames])]),
            clip=None if self.clip is None else self.clip[order],
            edges=None
            if self.edges is None
            else np.concatenate([self.edges[starts[n] + n : starts[n + 1] + n + 1] for n in order]),
        )


def tag_arrays(tags: Sequence[Tags]) -> dict[str, np.ndarray]:
    """Arrays of a part: `clip` and, where there are any, `frame`, `edges` and `lengths` (L' of each)."""
    arrays = {"clip": np.stack([t.clip for t in tags])}
    if tags[0].frame is not None:
        arrays |= {"frame": np.concatenate([t.frame for t in tags]), "lengths": np.array([len(t.frame) for t in tags])}
    if tags[0].edges is not None:
        arrays["edges"] = np.concatenate([t.edges for t in tags])
    return arrays


def frames_of(parts: Sequence[Part]) -> dict[str, np.ndarray]:
    """`frame` and `indptr` of an `Activity` from parts that hold `tag_arrays`."""
    return {"frame": joined(parts, "frame"), "indptr": np.concatenate([[0], np.cumsum(joined(parts, "lengths"))])}


def write_activity(path: Path, activity: Activity) -> None:
    """Write `activity.npz`."""
    numbers = {k: np.int64(v) if isinstance(v, int) else v for k, v in vars(activity).items() if v is not None}
    write_npz(path, numbers)


def read_activity(path: Path) -> Activity:
    """Read `activity.npz`.

    Raises:
        DataError: a missing file or array, sizes that disagree, values that are no probabilities.
    """
    arrays = _load(path, "keys", "frame", "indptr", "fs")
    shapes = {"keys": "U1", "classes": "U1", "indptr": "iu1", "frame": "f2", "clip": "f2", "edges": "iuf1"}
    known = {name: arrays[name] for name in Activity.__dataclass_fields__ if name in arrays}
    for name, array in known.items():
        *kinds, dims = shapes.get(name, "iu0")
        if array.dtype.kind not in kinds or array.ndim != int(dims):
            raise DataError(f"{path}: {name} is {array.dtype} {list(array.shape)}, which is not what inference writes")
    activity = Activity(**{k: int(v) if v.ndim == 0 else v for k, v in known.items()})
    n, length, starts = len(activity.keys), len(activity.frame), activity.indptr
    if starts.shape != (n + 1,) or starts[0] or starts[-1] != length or (np.diff(starts) < 0).any():
        raise DataError(f"{path}: indptr does not divide {length} frames among {n} keys")
    if activity.edges is None and any(x is None for x in (activity.clip, activity.classes, activity.time_pool)):
        raise DataError(f"{path}: holds neither edges nor clip, classes and the sizes of the STFT's frames")
    if activity.edges is not None and activity.edges.shape != (length + n,):
        raise DataError(f"{path}: {len(activity.edges)} edges for {length} frames of {n} keys")
    for name in ("clip", "frame"):
        values = getattr(activity, name)
        if values is not None and not ((values >= 0) & (values <= 1)).all():
            raise DataError(f"{path}: {name} holds values that are no probabilities")
    return activity


def _table(path: Path, name: str) -> tuple[list[str], np.ndarray]:
    """Keys, and the finite numbers `[N, X]` of the array `name`."""
    arrays = _load(path, "keys", name)
    keys, values = arrays["keys"], arrays[name]
    if keys.ndim != 1 or values.ndim != 2 or len(values) != len(keys) or values.dtype.kind != "f":
        raise DataError(f"{path}: {name} is {values.dtype} {list(values.shape)}, expected a row for each of the keys")
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise DataError(f"{path}: key {keys[int(bad.argmax())]}: a value of {name} is not finite")
    return list(keys.astype(str)), values


def _load(path: Path, *names: str) -> dict[str, np.ndarray]:
    return read_npz(path, names, hint="run inference first")


# ---- estimates -----------------------------------------------------------------------------------


def archive_sizes(writers: Iterable[FlacArkWriter]) -> dict[str, int]:
    """Name to bytes of finished archives: the fact `archives` of a part."""
    return {w.ark.name: w.ark.stat().st_size for w in writers}


def join_estimates(folder: Path, keys: Sequence[str], parts: Sequence[Part], outputs: int = 1) -> list[Path]:
    """Join the tables of the parts' archives into `spk1.scp` ... `spkS.scp`, in the order of `keys`.

    Returns:
        The tables and archives.

    Args:
        parts: with the fact `archives`: name (`spk1.00000.ark`, ...) to bytes.
        outputs: S.

    Raises:
        DataError: an archive that is not as it was written; its part will be made again.
    """
    for part in parts:
        for name, size in part.facts["archives"].items():
            ark = folder / name
            if not ark.is_file() or ark.stat().st_size != size:
                part.path.unlink()
                raise DataError(f"{ark}: is missing or was changed; run again to make it anew")
    archives = [name for part in parts for name in part.facts["archives"]]
    for s in range(outputs, 0, -1):  # spk1.scp last: it stands for all
        table: dict[str, str] = {}
        for name in (name for name in archives if name.startswith(f"spk{s}.")):
            table |= read_scp(folder / f"{Path(name).stem}.scp")
        write_scp(folder / f"spk{s}.scp", {key: table[key] for key in keys})
    return [folder / name for name in [*archives, *(f"spk{s + 1}.scp" for s in range(outputs))]]


def remove_old(folder: Path, pattern: str, keep: Sequence[Part] = ()) -> None:
    """Remove the files of `folder` whose names match `pattern`, except the archives of the parts `keep`."""
    kept = {name for part in keep for name in part.facts["archives"]}
    for path in folder.iterdir() if folder.is_dir() else ():
        if re.fullmatch(pattern, path.name) and path.name not in kept:
            path.unlink()


ARCHIVES, TABLES = r"spk\d+\.\d{5}\.ark", r"spk\d+\.\d{5}\.scp"  # for `remove_old`: archives; a table of each


def read_estimates(folder: Path, keys: Sequence[str], outputs: int = 1) -> list[dict[str, str]]:
    """Key to place of the estimate, for each of `outputs` outputs. Raises a DataError where keys differ."""
    files = [folder / f"spk{s}.scp" for s in range(1, outputs + 1)]
    return [same_keys(read_scp(verified(f, folder / "about.json")), list(keys), f) for f in files]
