"""Where in a recording a sound occurs; memory does not depend on its length.

Each `STEP` of the recording has a score from 0 to 1, the product of two numbers: the level of what is separated with
the query, relative to the mixture's (amplitudes, at most 1); and the cosine, at least 0, of the query and the embedding
of the `SEEN` of the separated sound that the step lies in. Where the bundle holds class queries, cosines are taken
without what all classes share; otherwise they are near 1, and the level decides.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from espnet2_ext.audio.streams import Resampler, Source, measure
from espnet2_ext.infer.chunks import Chunker, Plan
from espnet2_ext.infer.query_separator import Separator

STEP, SEEN = 0.5, 2.0  # seconds
SILENT = 1e-4  # RMS, relative to the recording's, of a step that has no score


class Found(NamedTuple):
    """start, end: seconds. score: 0 to 1, the highest of its steps."""

    start: float
    end: float
    score: float


def find(
    separator: Separator, source: Source, query: np.ndarray, threshold: float, plan: Plan | None = None
) -> Iterator[Found]:
    """Stretches of `source` whose steps all have a score of `threshold` or more for a query `[E]`, in their order.

    Raises:
        DataError: NaN or infinity in it, damage.
    """
    found: Found | None = None
    length = source.frames / source.fs
    for i, score in enumerate(scores(separator, source, query, plan)):
        start, end = i * STEP, min((i + 1) * STEP, length)
        if score < threshold:
            if found:
                yield found
            found = None
        else:
            found = Found(found.start, end, max(found.score, score)) if found else Found(start, end, score)
    if found:
        yield found


def scores(separator: Separator, source: Source, query: np.ndarray, plan: Plan | None = None) -> Iterator[float]:
    """The score of each step of `source`, see the module; 0 where it is silent."""
    rms = measure(source).rms
    step, seen = round(STEP * separator.fs), round(SEEN * separator.fs)
    network = separator.network(query[None])
    chunker = Chunker(
        lambda x: network(x, rms) if rms else np.zeros((1, *x.shape), np.float32), plan or separator.plan()
    )
    estimates = (est[0] for est in chunker.run(_mono(source, separator.fs)))
    for mix, est in zip(_cut(_mono(source, separator.fs), seen), _cut(estimates, seen)):
        whole_steps = np.pad(est, (0, max(0, step - len(est))))  # the last may be a few samples
        like = _cosine(separator, whole_steps, query) if est.any() else 0.0
        for i in range(0, len(mix), step):
            whole, part = (float(np.sqrt(np.square(x[i : i + step], dtype=np.float64).mean())) for x in (mix, est))
            yield like * min(1.0, part / whole) if whole > SILENT * rms else 0.0


def _mono(source: Source, fs: int) -> Iterator[np.ndarray]:
    return Resampler(source.fs, fs, 1).run(x.mean(1, keepdims=True) for x in source.blocks())


def _cut(blocks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Blocks `[T', 1]` of any size as mono ones `[size]`, the last of what is left."""
    held = np.zeros((0, 1), np.float32)
    for x in blocks:
        held = np.concatenate([held, x])
        while len(held) >= size:
            yield held[:size, 0]
            held = held[size:]
    if len(held):
        yield held[:, 0]


def _cosine(separator: Separator, wave: np.ndarray, query: np.ndarray) -> float:
    """Of the embedding of `wave` `[T]` to the query, at least 0."""
    own, asked = separator.apart(np.stack([separator.embed_wave(wave), query]))
    return max(0.0, float(own @ asked / max(np.linalg.norm(own) * np.linalg.norm(asked), 1e-12)))
