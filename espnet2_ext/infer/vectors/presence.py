"""How likely the asked sound is in a recording: a probability for each `SEEN` seconds of it, a window.

Of a query model it is a logistic regression on the numbers of `Features`, which `calibrate` fits to mixtures with and
without the sound; of a weak-label model the activity of the class. A whole recording has the highest of its windows.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from espnet2_ext.errors import DataError

SEEN, HEARD, STEP, FADE = 5.0, 2.5, 0.5, 0.05  # seconds
SILENT = 1e-4  # RMS, relative to the recording's, of a window where nothing is
LOWEST = 1e-3
FAINT, LOUD = -20.0, -10.0  # dB below the recording: windows below and above are equally faint, or loud
QUIET = 10 ** (
    -20 / 20
)  # of the loudest step of a separated sound: before the first and after the last above is nothing
NAMES = ("level", "likeness", "mixture", "profile", "mixture's profile", "activity", "mixture's activity", "loudness")
RARE = 0.02  # of absent sounds are found where sounds are looked for in a long recording
FIGURES = ("threshold", "rare", "auc", "miss", "false_alarm", "mixtures")
ARRAYS = ("presence_features", "presence_weights", "presence_readout", "presence_figures")

# mixture [T] and estimates [Q, T] of a window, and the recording's RMS, to [Q]
Scorer = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


@dataclass(frozen=True, eq=False)
class Scale:
    """From `Features` to a probability; a bundle holds it beside its class queries.

    weights: of `NAMES`, and the constant. readout: `[E + 1, K]`, the logits of the model's tags from an embedding and
    1; K is 0 where it does not tag. threshold: probability at which as many present sounds are missed as absent ones
    are found. rare: one that only `RARE` of absent sounds reach. All, and auc, miss and false_alarm, are of windows in
    which there is some sound, of mixtures that the weights were not fitted to.
    """

    weights: np.ndarray
    readout: np.ndarray
    threshold: float
    rare: float
    auc: float
    miss: float
    false_alarm: float
    mixtures: int

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray], width: int, where: str) -> "Scale | None":
        """Of the arrays of a bundle whose queries are `[width]`; None where it holds none, or one of other features.

        Raises:
            DataError: arrays that do not fit together.
        """
        if ARRAYS[0] not in arrays or arrays[ARRAYS[0]].tolist() != list(NAMES):
            return None
        weights, readout, figures = (arrays.get(name, np.zeros(0)) for name in ARRAYS[1:])
        fits = weights.shape == (len(NAMES) + 1,) and figures.shape == (len(FIGURES),)
        fits = fits and readout.ndim == 2 and len(readout) == width + 1
        if not fits or not all(a.dtype.kind == "f" and np.isfinite(a).all() for a in (weights, readout, figures)):
            raise DataError(f"{where}: its presence arrays do not fit together")
        *rates, mixtures = figures.tolist()
        return cls(weights, readout.astype(np.float32), *rates, int(mixtures))

    def arrays(self) -> dict[str, np.ndarray]:
        """As a bundle holds them."""
        figures = np.array([getattr(self, name) for name in FIGURES], np.float64)
        return dict(zip(ARRAYS, (np.array(NAMES), self.weights, self.readout.astype(np.float32), figures)))

    def words(self) -> str:
        """What the calibration measured."""
        return (
            f"AUC {self.auc:.3f}; from {self.threshold:.2f} on, {self.miss:.1%} of present sounds are missed and "
            f"{self.false_alarm:.1%} of absent ones found; from {self.rare:.2f} on, {RARE:.0%} of these "
            f"({self.mixtures} mixtures)"
        )

    def probability(self, features: np.ndarray) -> np.ndarray:
        """Of rows `[N, D]` of features: `[N]`."""
        return sigmoid(features @ self.weights[:-1] + self.weights[-1])


class Features:
    """Numbers that tell whether sounds of `queries` `[Q, E]` are there, of a model that knows class queries.

    Of a window, the `HEARD` seconds count in which the separated sound is loudest. level: of it relative to the
    mixture's there, in dB, -60 or more. likeness: cosine of the query and the embedding of the separated sound, and of
    the mixture there; without what all classes share. profile: cosine of their cosines to the classes. activity: log of
    the mean activity in them of the query's classes, as the model tags them, weighted by the softmax of the query's own
    logits (`Scale.readout`); 0 where it does not tag. loudness: of the window's mixture relative to the recording's, in
    dB, from `FAINT` to `LOUD`.
    """

    def __init__(self, embedder: Any, queries: np.ndarray, readout: np.ndarray):
        self.embedder, known = embedder, embedder.known
        self.means = np.zeros((0, queries.shape[1])) if known is None else _unit(embedder.apart(known.mean))
        self.asked = self._seen(queries)
        logits = queries.astype(np.float64) @ readout[:-1] + readout[-1]
        share = np.exp(logits - logits.max(1, keepdims=True, initial=0))
        self.share = share / share.sum(1, keepdims=True)

    def __call__(self, mix: np.ndarray, est: np.ndarray, rms: float) -> np.ndarray:
        """Of a window, the mixture `[T]` and an estimate of each query `[Q, T]` (or a single one), and the RMS of the
        recording: `[Q, D]`."""
        size, step = (round(seconds * self.embedder.fs) for seconds in (HEARD, STEP))
        pairs = [np.stack([x[part], mix[part]]) for x in est for part in [loudest(x, size, step)]]
        level = np.array([_db(*_rms(pair)) for pair in pairs])
        vectors, tags = zip(*map(self.embedder.embed_batch, pairs))  # [2, E] and [2, K]: of the sound, of the mixture
        seen = [self._seen(own) for own in np.stack(vectors, 1)]
        cosines = [(own[i] * self.asked[i]).sum(1) for i in (0, 1) for own in seen]
        active = np.zeros((2, 1))
        if self.share.size:
            active = np.log(np.maximum((self.share * sigmoid(np.stack(tags, 1))).sum(2), 1e-9))
        found = (level, *cosines, *active, np.clip(_db(_rms(mix), rms), FAINT, LOUD))
        return np.stack([np.broadcast_to(x, len(self.share)) for x in found], 1)

    def _seen(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Directions of embeddings, and of their profiles."""
        own = _unit(self.embedder.apart(vectors))
        return own, _unit(own @ self.means.T)


class Watch:
    """Scores the windows of estimates as they pass, and mutes those that lie below a threshold.

    Args:
        score: of a window. num: Q, outputs. fs: rate of the model.
        gate: outputs are muted in windows whose score is below it, with fades of 50 ms; None: nothing is.

    `presence` `[Q]`: the highest score so far. Memory is that of a chunk and a window.
    """

    def __init__(self, score: Scorer, num: int, fs: int, gate: float | None = None):
        self.score, self.fs, self.gate = score, fs, gate
        self.presence, self.rms, self._open = np.zeros(num), 0.0, None
        self._mix: list[np.ndarray] = []

    def mixture(self, pieces: Iterable[np.ndarray], rms: float) -> Iterator[np.ndarray]:
        """`pieces` `[T', C]` of a mixture, whose RMS is `rms`, on their way to the network."""
        self.rms = rms
        for x in pieces:
            self._mix.append(x.mean(1))
            yield x

    def estimates(self, found: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """`found` `[Q, T', C]`, in windows."""
        for _, est, score in self.windows(found):
            if self.gate is not None:
                est = est * self._gains(score >= self.gate, est.shape[1])[..., None]
            yield est

    def windows(self, found: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Mixture `[T]`, estimates `[Q, T, C]` and scores `[Q]` of each window; the last is half to one and a half as
        long."""
        size, held = round(SEEN * self.fs), None
        for est in found:
            held = est if held is None else np.concatenate([held, est], 1)
            while held.shape[1] > size + size // 2:
                mix, est, held = self._take(size), held[:, :size], held[:, size:]
                yield mix, est, self._scored(mix, est)
        if held is not None and held.shape[1]:
            mix = self._take(held.shape[1])
            yield mix, held, self._scored(mix, held)

    def _take(self, num: int) -> np.ndarray:
        mix = np.concatenate(self._mix)
        self._mix = [mix[num:]]
        return mix[:num]

    def _scored(self, mix: np.ndarray, est: np.ndarray) -> np.ndarray:
        mono, found = est.mean(2), np.zeros(len(self.presence))
        if _rms(mix) > SILENT * self.rms and mono.any():
            short = max(0, round(STEP * self.fs) - len(mix))  # a few samples are not embedded
            found = self.score(np.pad(mix, (0, short)), np.pad(mono, ((0, 0), (0, short))), self.rms)
            found = np.where(mono.any(1), found, 0.0)
        self.presence = np.maximum(self.presence, found)
        return found

    def _gains(self, now: np.ndarray, num: int) -> np.ndarray:
        """float32 `[Q, num]`, from the gate as it was to `now` `[Q]`."""
        was, self._open = now if self._open is None else self._open, now
        rise = np.minimum(1, np.arange(1, num + 1, dtype=np.float32) / round(FADE * self.fs))
        return was[:, None] + (now.astype(np.float32) - was)[:, None] * rise


def scorer(embedder: Any, ask: Any) -> Scorer:
    """What scores the windows of a query model that was asked `ask`; several references for one output count as the
    likeliest. Without a calibration the score is no probability: amplitude of the separated sound relative to the
    mixture's, at most 1, times its likeness, at least 0.
    """
    scale = scale_of(embedder)
    features = Features(
        embedder, ask.queries, np.zeros((ask.queries.shape[1] + 1, 0)) if scale is None else scale.readout
    )

    def score(mix: np.ndarray, est: np.ndarray, rms: float) -> np.ndarray:
        x = features(mix, est, rms)
        found = np.minimum(1, 10 ** (x[:, 0] / 20)) * np.maximum(0, x[:, 1]) if scale is None else scale.probability(x)
        return found.max(keepdims=True) if ask.nearest else found

    return score


def scale_of(embedder: Any) -> Scale | None:
    """The calibration of a query model."""
    return None if embedder.known is None else embedder.known.presence


def query_watch(separator: Any, ask: Any, gate: float | None = None) -> Watch:
    """Of the outputs that a query model gives when it is asked `ask`."""
    return Watch(scorer(separator, ask), len(ask), separator.fs, gate)


def class_watch(separator: Any, gate: float | None = None) -> Watch:
    """Of the outputs of a weak-label model with a classifier; an output for what is left counts as present."""
    rest = np.ones(len(separator.outputs) - len(separator.classes))

    def score(mix: np.ndarray, est: np.ndarray, rms: float) -> np.ndarray:
        return np.append(separator.classify_batch(mix[None])[0].clip, rest)

    return Watch(score, len(separator.outputs), separator.fs, gate)


def gate_of(own: float | None, given: float | None, lacks: str) -> float:
    """The threshold of a gate: the one that was given, else the model's own.

    Raises:
        DataError: `lacks`, where the model has none; no probability.
    """
    if own is None:
        raise DataError(f"--gate: {lacks}")
    if given is not None and not 0 <= given <= 1:
        raise DataError(f"--threshold {given:g}: a probability, from 0 to 1")
    return own if given is None else given


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x), in float64."""
    return 1 / (1 + np.exp(-np.clip(x.astype(np.float64), -30, 30)))


def sounding(x: np.ndarray, step: int) -> slice:
    """Of a separated sound `[T]`: from the first to the last step that lies less than `QUIET` below the loudest, and at
    least as long as a step where it can be."""
    found = np.flatnonzero((heard := levels(x, step)) > QUIET * heard.max())
    first, last = (found[0], found[-1] + 1) if len(found) else (0, len(heard))
    return slice(max(0, min(first * step, len(x) - step)), min(last * step, len(x)))


def loudest(x: np.ndarray, size: int, step: int) -> slice:
    """Of a separated sound `[T]`: the `size` samples, from a step on, that have the most energy; at most all of it."""
    energy = np.append(0, np.cumsum(np.square(x, dtype=np.float64)))
    starts = np.arange(0, max(len(x) - size, 0) + 1, step)
    start = starts[np.argmax(energy[np.minimum(starts + size, len(x))] - energy[starts])]
    return slice(start, start + size)


def levels(x: np.ndarray, step: int) -> np.ndarray:
    """RMS of each step of `x` `[T]`, the last of what is left."""
    return np.array([_rms(x[i : i + step]) for i in range(0, len(x), step)])


def _unit(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def _db(x: float, of: float) -> float:
    return 20 * np.log10(max(x / max(of, 1e-12), LOWEST))


def _rms(x: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(x, dtype=np.float64).mean(-1))
