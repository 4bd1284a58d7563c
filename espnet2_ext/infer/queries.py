"""From what a user calls a query to waveforms, read in one place for the command line and Python.

A query is a sound file, a span of one (`mix.wav@12.3-14.1`, in seconds; a file of exactly this name comes first), a
folder of sounds, a saved vector (`.npy`), a class (`class:NAME`), or an array.
"""

import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from espnet2_ext import __version__
from espnet2_ext.audio import files
from espnet2_ext.audio.streams import ArraySource, Resampler, Source, open_source
from espnet2_ext.errors import DataError
from espnet2_ext.infer.vectors.class_queries import class_of
from espnet2_ext.util.binary import read_arrays, write_npy
from espnet2_ext.util.documents import mapping, parse_json
from espnet2_ext.util.files import CHANGED, digest, file_digest
from espnet2_ext.util.names import file_name

WINDOW = 10.0  # seconds of a query that the network sees at once
FLOOR = 10 ** (-90 / 20)  # RMS of a 20 ms frame below which it counts as silence
BELOW_PEAK = 10 ** (-50 / 20)  # and so does one this far below the loudest
MARGIN = 0.05  # seconds kept around what sounds
SHORT = 0.3  # seconds below which a query is called short
SHORTEST = 0.2  # seconds of a span
SPAN = re.compile(r"(\d+\.?\d*|\.\d+)-(\d+\.?\d*|\.\d+)")


@dataclass(frozen=True)
class Span:
    """`start` to `end`, in seconds, of the recording `path`. Raises a DataError where that is no span."""

    path: Path
    start: float
    end: float

    def __post_init__(self):
        if not 0 <= self.start < self.end < np.inf:
            raise DataError(f"{self}: a span ends after it starts")
        if round(self.end - self.start, 6) < SHORTEST:
            raise DataError(f"{self}: is {self.end - self.start:.3g} s long; a span has {SHORTEST} s or more")

    def __str__(self):
        return f"{self.path}@{self.times}"

    @property
    def times(self) -> str:
        return f"{self.start:.12g}-{self.end:.12g}"

    def blocks(self, source: Source) -> Iterator[np.ndarray]:
        """Its samples `[T', C]`. Raises a DataError where `source` ends before it does."""
        first, last = round(self.start * source.fs), round(self.end * source.fs)
        if last > source.frames:
            raise DataError(f"{self}: the recording ends at {source.frames * 1000 // source.fs / 1000} s")
        for x in source.blocks(start=first):
            yield x[: last - first]
            first += len(x)
            if first >= last:
                return


Query = str | Path | Span | np.ndarray


def sound_files(path: str | Path, more: Sequence[str] = ()) -> list[Path]:
    """`path` itself, or the sound files of the folder `path`, sorted by name.

    Args:
        more: further suffixes to take from a folder.

    Raises:
        DataError: no such path, a folder without sound files.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        return [path]
    found = files.sound_files(path, more)
    if not found:
        raise DataError(f"{path}: no sound file in this folder, by their suffixes ({files.KNOWN})")
    return found


def parse_query(query: Query) -> Query:
    """`query`, or the span that its text is.

    Raises:
        DataError: `FILE@...` of a file where no span follows.
    """
    if isinstance(query, np.ndarray | Span) or class_of(query) is not None or os.path.exists(query):
        return query
    path, _, times = os.fspath(query).rpartition("@")
    found = SPAN.fullmatch(times)
    if not path or not (found or os.path.exists(path)):
        return query
    if not found or os.path.isdir(path):
        raise DataError(f"{query}: a span is FILE@START-END in seconds, such as mix.wav@12.3-14.1")
    return Span(Path(path), float(found[1]), float(found[2]))


def query_parts(query: Query, sounds: bool = False) -> list[Query]:
    """The queries that one stands for: an array, a span or a class itself, sound files and saved vectors.

    Args:
        sounds: leave out the saved vectors of a folder, and refuse what is no sound.

    Raises:
        DataError: see `sound_files` and `parse_query`.
    """
    query = parse_query(query)
    if sounds and (class_of(query) is not None or is_saved(query)):
        raise DataError(f"{query}: is no sound")
    if isinstance(query, np.ndarray) or class_of(query) is not None:
        return [query]
    if isinstance(query, Span):
        sound_files(query.path)  # it is there
        return [query]
    return [*sound_files(query, more=() if sounds else (".npy",))]


def query_files(query: Query) -> list[Path]:
    """The files behind a query. Raises a DataError where there are none; a class and an array have none."""
    found = [part.path if isinstance(part, Span) else part for part in query_parts(query)]
    return [part for part in found if isinstance(part, Path)]


def query_name(query: str | Path) -> str:
    """What an output is called after a query."""
    query = parse_query(query)
    if (name := class_of(query)) is not None:
        return file_name(name)
    if isinstance(query, Span):
        return f"{query.path.stem}@{query.times}"
    return Path(query).stem or Path(query).absolute().name


def query_digests(queries: Sequence[str | Path]) -> list[str]:
    """What stands for the contents of queries, in an order that does not depend on theirs."""
    parts = [part for query in queries for part in query_parts(query)]
    spans = [f"{file_digest(part.path)}@{part.times}" for part in parts if isinstance(part, Span)]
    files = [file_digest(part) for part in parts if isinstance(part, Path)]
    return [*sorted(files + spans), *sorted(part for part in parts if isinstance(part, str))]


def is_saved(query: Query) -> bool:
    """Whether a query is a saved vector."""
    return isinstance(query, str | Path) and Path(query).suffix.lower() == ".npy"


def read_query(query: Query, fs_model: int, fs: int | None = None, most: float = np.inf) -> np.ndarray:
    """Mono waveform `[T]` at the model's rate, silence at both ends cut away.

    Args:
        query: a file, a span of one, or an array `[T]` or `[T, C]` at `fs`.
        most: seconds from its beginning that are read.

    Raises:
        DataError: unreadable, NaN, or silent; a span past the end.
    """
    query = parse_query(query)
    if isinstance(query, np.ndarray):
        if fs is None or query.ndim not in (1, 2) or not query.size:
            raise DataError(
                "a query array must be [T] or [T, C], not empty, with its rate fs; got "
                f"shape {list(query.shape)}, fs {fs}"
            )
        source = ArraySource(query.reshape(len(query), -1), fs, "the query array")
    else:
        source = open_source(query.path if isinstance(query, Span) else query)
    blocks = query.blocks(source) if isinstance(query, Span) else source.blocks()
    mono = (x.mean(1, keepdims=True) for x in blocks)
    parts, left = [], most * fs_model
    for part in Resampler(source.fs, fs_model, 1).run(mono):
        parts.append(part[: int(min(left, len(part)))])
        left -= len(part)
        if left <= 0:
            break
    x, name = np.concatenate(parts)[:, 0], str(query) if isinstance(query, Span) else source.name
    if not np.isfinite(x).all():
        raise DataError(f"{name}: holds samples that are not numbers or infinite")
    cut = trim_silence(x, fs_model)
    if not len(cut):
        raise DataError(f"{name}: is silent, so it cannot serve as a query")
    if len(cut) < SHORT * fs_model:
        logging.warning("query %s: only %.2f s of sound", name, len(cut) / fs_model)
    return cut


def save_query(path: str | Path, vector: np.ndarray, model_hash: str) -> None:
    """Write a query `[E]` as a `.npy` file, in which the hash of its model follows as an array of its own."""
    note = {"espnet2_ext": __version__, "model": model_hash}
    note = json.dumps(note | {"digest": digest(vector, note)})
    write_npy(path, vector, np.frombuffer(note.encode(), np.uint8))


def read_saved(path: Path) -> tuple[np.ndarray, str | None]:
    """A saved query, of whatever shape, and the hash of the model that made it, where the file says so.

    Raises:
        DataError: not a `.npy` file of finite numbers, or one that changed since it was saved.
    """
    vector, *more = read_arrays(path)
    if vector.dtype.kind != "f" or not np.isfinite(vector).all():
        raise DataError(f"{path}: holds {vector.dtype} values, or some that are not finite; a query has finite floats")
    if not more:
        return vector.astype(np.float32), None
    note = dict(mapping(parse_json(more[0].tobytes(), path), path))
    if note.pop("digest", None) not in (digest(vector, note), digest(vector)):  # the latter in files of before
        raise DataError(f"{path}: {CHANGED}")
    return vector.astype(np.float32), str(note.get("model"))


def trim_silence(x: np.ndarray, fs: int) -> np.ndarray:
    """`x` `[T]` from its first to its last sounding 20 ms frame, 50 ms kept around; or empty.

    A frame sounds when its RMS is above -90 dB of full scale and above -50 dB of the loudest frame's.
    """
    size = max(1, fs // 50)
    frames = np.pad(x, (0, -len(x) % size)).reshape(-1, size).astype(np.float64)
    rms = np.sqrt((frames**2).mean(1))
    loudest = rms.max(initial=0.0)
    if loudest < FLOOR:
        return x[:0]
    sounding = np.flatnonzero(rms >= max(FLOOR, BELOW_PEAK * loudest))
    margin = round(MARGIN * fs)
    return x[max(0, sounding[0] * size - margin) : (sounding[-1] + 1) * size + margin]


def windows(x: np.ndarray, size: int) -> np.ndarray:
    """`x` `[T]` as `[N, min(T, size)]`: evenly placed windows that cover it, overlapping."""
    count = -(-len(x) // size)
    if count <= 1:
        return x[None]
    starts = np.linspace(0, len(x) - size, count).round().astype(int)
    return np.stack([x[s : s + size] for s in starts])


def agreement_of(vectors: np.ndarray) -> tuple[float, tuple[int, int]]:
    """Lowest pairwise cosine of `vectors` `[N, E]` and the pair that has it; 1.0 for one vector."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosine = unit @ unit.T
    if len(vectors) < 2:
        return 1.0, (0, 0)
    first, second = np.triu_indices(len(vectors), 1)
    worst = int(np.argmin(cosine[first, second]))
    return float(cosine[first[worst], second[worst]]), (int(first[worst]), int(second[worst]))


# ---- what is asked -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ask:
    """What a mixture is asked for.

    queries: `[Q, E]`, an output each. against: `[N, E]`, what sounds like these is kept out. nearest: the queries are
    references for a single output; each chunk is answered with the one that is nearest to it.
    """

    queries: np.ndarray
    against: np.ndarray | None = None
    nearest: bool = False

    @classmethod
    def of(cls, queries: "np.ndarray | Ask") -> "Ask":
        """Itself, or plain queries."""
        return queries if isinstance(queries, Ask) else cls(np.asarray(queries))

    def checked(self, width: int) -> "Ask":
        """In float32. Raises a DataError for queries that are not `[Q, width]`."""
        given = [self.queries] if self.against is None else [self.queries, self.against]
        for x in given:
            if x.ndim != 2 or x.shape[1] != width or not len(x):
                raise DataError(f"expected queries of shape [Q, {width}], got {list(x.shape)}")
        return replace(self, **dict(zip(("queries", "against"), (x.astype(np.float32) for x in given))))

    def __len__(self) -> int:
        return 1 if self.nearest else len(self.queries)

    def __getitem__(self, some: slice) -> "Ask":
        return self if self.nearest else replace(self, queries=self.queries[some])


def shown(query: Query) -> str:
    """What messages call a query."""
    return "an array" if isinstance(query, np.ndarray) else str(query)


def as_list(queries: Query | Sequence[Query]) -> list[Query]:
    """One query or several as a list."""
    return [queries] if isinstance(queries, Query) else list(queries)
