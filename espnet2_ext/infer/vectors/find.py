"""Where in a recording a sound occurs; memory does not depend on its length.

Each `STEP` of the recording has a score from 0 to 1: of a query model that of its window where something is separated
in it, see `presence.sounding`, and 0 around that; of a weak-label model the highest activity of the class.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from espnet2_ext.audio.streams import Resampler, Source, measure
from espnet2_ext.infer.chunks import Chunker, Plan
from espnet2_ext.infer.class_separator import WeakSeparator
from espnet2_ext.infer.queries import Ask
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.infer.vectors.presence import STEP, levels, query_watch, sounding


class Found(NamedTuple):
    """start, end: seconds. score: 0 to 1, the highest of its steps."""

    start: float
    end: float
    score: float


def stretches(scores: Iterable[float], length: float, threshold: float) -> Iterator[Found]:
    """Stretches of a recording of `length` seconds whose steps all have a score of `threshold` or more, in order."""
    found: Found | None = None
    for i, score in enumerate(scores):
        start, end = i * STEP, min((i + 1) * STEP, length)
        if score < threshold:
            if found:
                yield found
            found = None
        else:
            found = Found(found.start, end, max(found.score, score)) if found else Found(start, end, score)
    if found:
        yield found


def query_scores(separator: Separator, source: Source, ask: Ask, plan: Plan | None = None) -> Iterator[np.ndarray]:
    """The scores `[Q]` of each step of `source` for the outputs of `ask`, see the module; 0 where it is silent.

    Raises:
        DataError: NaN or infinity in it, damage.
    """
    rms, step, num = measure(source).rms, round(STEP * separator.fs), len(ask)
    network, watch = separator.network(ask), query_watch(separator, ask)
    chunker = Chunker(
        lambda x: network(x, rms) if rms else np.zeros((num, *x.shape), np.float32), plan or separator.plan()
    )
    for mix, est, score in watch.windows(chunker.run(watch.mixture(_mono(source, separator.fs), rms))):
        within = np.zeros((len(levels(mix, step)), num))
        for q, x in enumerate(est[..., 0]):
            part = sounding(x, step)
            within[part.start // step : -(-part.stop // step), q] = 1
        yield from within * score


def class_scores(separator: WeakSeparator, source: Source, name: str, plan: Plan | None = None) -> Iterator[float]:
    """The highest activity of a class in each step of `source`.

    Raises:
        DataError: NaN or infinity in it, damage; no such class.
    """
    column, seconds = separator.class_row(name), separator.hop * separator.time_pool / separator.fs
    steps, best, at = 1, 0.0, 0
    for tags in separator.activity(source, plan):
        for value in tags.frame[:, column].tolist():
            if at * seconds >= steps * STEP and steps * STEP * source.fs < source.frames:
                yield best
                best, steps = 0.0, steps + 1
            best, at = max(best, value), at + 1
    yield best


def _mono(source: Source, fs: int) -> Iterator[np.ndarray]:
    return Resampler(source.fs, fs, 1).run(x.mean(1, keepdims=True) for x in source.blocks())
