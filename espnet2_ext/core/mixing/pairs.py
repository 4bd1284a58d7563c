"""One mixture of clips as a row, and its audio as a pure function of that row.

Where in a clip the segment begins that is mixed or asked with (its anchor) is chosen by energies from
the banks' envelope (mean-square energy of each 100 ms), so that no audio is read for it.
"""

import dataclasses
import zlib
from typing import NamedTuple

import numpy as np

from espnet2_ext.core.mixing.augment import Augment
from espnet2_ext.errors import DataError

ENVELOPE_RATE = 10  # frames a second
ANCHORS = ("peak", "sampled", "random", "whole")
GAIN_RANGE = (0.02, 50.0)


# ---- rows ----------------------------------------------------------------------------------------


class Source(NamedTuple):
    """A further sound of a mixture, which nothing asks for.

    Its level is `snr_db` below that of the first anchor; `gain` is the factor on it, None: measured when rendered.
    """

    clip: int | str
    start: int
    snr_db: float
    gain: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """Two anchors to be mixed, and what asks for each of them.

    `clip*`, `query*`, `absent*` are rows of the bank in training and clip ids in lists on disk; `start*`, `qstart*`,
    `num`, `qnum` are in samples. `class1` is the class that query 1 asks for: where clip 1 does not carry it, the query
    is absent from the mixture and its target is silence. `gain2` is the factor on the second anchor; None: measured
    when rendered. A query from the target's own clip is the target as it is mixed (protocol `self`). `absent1` is a
    clip without any class related to `class1` (for silence-SDR). `snr_db` is the level of the first anchor over the
    second. Where both anchors are the same one, the target is alone: the mixture is the target, and both queries ask
    for it. `others` are further sounds in the mixture.
    """

    id: str
    clip1: int | str
    start1: int
    clip2: int | str
    start2: int
    num: int
    class1: int
    class2: int
    gain2: float | None
    query1: int | str
    qstart1: int
    query2: int | str
    qstart2: int
    qnum: int
    absent1: int | str
    absent2: int | str
    snr_db: float = 0.0
    others: tuple[Source, ...] = ()

    @property
    def clips(self) -> tuple[int | str, ...]:
        """What is mixed."""
        return (self.clip1, self.clip2, *(source.clip for source in self.others))

    @property
    def alone(self) -> bool:
        """Whether the mixture is the first target and nothing else."""
        return (self.clip1, self.start1) == (self.clip2, self.start2)


def energy_gain(first: np.ndarray, second: np.ndarray, gain_range=GAIN_RANGE) -> float:
    """Factor that brings `second` to the mean-square energy of `first`, clipped.

    The mean goes over all samples of the anchors, zeros behind a short clip included, so that
    both anchors bring the same energy to the mixture. A silent first anchor gives the lowest
    factor, a silent second one the highest, two silent ones 1.

    Args:
        first, second: [T] anchors of one length.
        gain_range: lowest and highest factor.
    """
    e1 = float(np.mean(np.square(first, dtype=np.float64)))
    e2 = float(np.mean(np.square(second, dtype=np.float64)))
    if e1 == 0.0 and e2 == 0.0:
        return 1.0
    low, high = gain_range
    return high if e2 == 0.0 else float(np.clip(np.sqrt(e1 / e2), low, high))


def holds(bank, clip: int, k: int) -> bool:
    """Whether a clip carries class `k`."""
    return bool((bank.labels(clip) == k).any())


def render(pair: Pair, bank, gain_range=GAIN_RANGE, augment: Augment | None = None) -> dict[str, np.ndarray]:
    """Audio of a row, float32: `mix`, `ref1`, `ref2` [num] and `query1`, `query2` [qnum].

    `mix` is the float32 sum of the anchors and the other sounds, and `mix == ref1 + ref2` exactly where there are no
    others, unless a query is absent from the mixture: its reference is then zero. Clips shorter than asked for are
    followed by zeros. `gain_range` counts where the row has no `gain2`, before `snr_db` is put on it.

    Args:
        augment: changes every sound on its own, as a function of the row; a query that is its target is the target as
            it is mixed.
    """
    seed = zlib.crc32(repr(pair).encode()) if augment else 0

    def read(place, slot):
        clip, start, num = place
        return augment.read(bank, clip, start, num, [seed, slot]) if augment else bank.read(clip, start, num)

    one, two = _row(bank, pair.clip1), _row(bank, pair.clip2)
    at1, at2 = (one, pair.start1, pair.num), (two, pair.start2, pair.num)
    a1, gain = read(at1, 0), np.float32(1.0)
    if pair.alone:
        mix = a2 = a1
    else:
        a2 = read(at2, 1)
        gain = np.float32(_gain(pair.gain2, a1, a2, pair.snr_db, gain_range))
        a2 = gain * a2
        mix = a1 + a2
    for i, other in enumerate(pair.others):
        x = read((_row(bank, other.clip), other.start, pair.num), 4 + i)
        mix = mix + np.float32(_gain(other.gain, a1, x, other.snr_db, gain_range)) * x
    query1 = _row(bank, pair.query1), pair.qstart1, pair.qnum
    query2 = _row(bank, pair.query2), pair.qstart2, pair.qnum
    return {
        "mix": mix,
        "ref1": a1 if holds(bank, one, pair.class1) else np.zeros_like(a1),
        "ref2": a2 if holds(bank, two, pair.class2) else np.zeros_like(a2),
        "query1": a1 if query1 == at1 else read(query1, 2),
        "query2": a2 if query2 == at2 else read(query2, 3) * _gain_of(query2, at2, gain),
    }


def measure(pair: Pair, bank, gain_range=GAIN_RANGE) -> Pair:
    """The same row with its gains measured."""
    if pair.alone:
        return dataclasses.replace(pair, gain2=1.0)
    first = bank.read(_row(bank, pair.clip1), pair.start1, pair.num)

    def gain(clip, start, snr_db):
        return _gain(None, first, bank.read(_row(bank, clip), start, pair.num), snr_db, gain_range)

    others = tuple(o._replace(gain=gain(o.clip, o.start, o.snr_db)) for o in pair.others)
    return dataclasses.replace(pair, gain2=gain(pair.clip2, pair.start2, pair.snr_db), others=others)


def _gain(known: float | None, first: np.ndarray, second: np.ndarray, snr_db: float, gain_range) -> float:
    if known is not None:
        return known
    gain = energy_gain(first, second, gain_range)
    return gain * 10 ** (-snr_db / 20) if snr_db else gain


def _gain_of(query, anchor, gain) -> np.float32:
    """Another stretch of the target's own clip comes at the target's level."""
    return np.float32(gain if query[0] == anchor[0] else 1.0)


def self_query(pair: Pair) -> Pair:
    """The same row with each target as its own query."""
    return dataclasses.replace(
        pair, query1=pair.clip1, qstart1=pair.start1, query2=pair.clip2, qstart2=pair.start2, qnum=pair.num
    )


def class_name(bank, k: int) -> str:
    """Class in words, for messages."""
    return f"class {bank.classes[k].name} ({bank.classes[k].mid})"


def _row(bank, clip) -> int:
    return bank.index_of(clip) if isinstance(clip, str) else clip


# ---- anchors -------------------------------------------------------------------------------------


def segment_energies(envelope, samples: int, num: int, hop: float):
    """Energy of the segments of `num` samples that start on the envelope's frames, or end last.

    Args:
        envelope: [L] mean-square energy of each `hop` samples; the last frame may be shorter.
        samples: length of the clip.

    Returns:
        starts int64 [N] in samples, ascending; energies float64 [N] (sums of squares).
    """
    last = max(samples - num, 0)
    starts = (np.arange(int(last / hop) + 1) * hop).astype(np.int64)
    if starts[-1] != last:
        starts = np.append(starts, last)
    edges = np.minimum(np.arange(len(envelope) + 1) * hop, samples)
    total = np.concatenate(([0.0], np.cumsum(np.diff(edges) * envelope)))
    return starts, np.interp(starts + num, edges, total) - np.interp(starts, edges, total)


def peak_start(bank, clip: int, num: int) -> int:
    """Start of the most energetic `num` samples of a clip; the first of equals."""
    starts, energy = _energies(bank, clip, num)
    # sums of equal frames differ in the last bits, which must not decide
    return int(starts[np.argmax(energy >= energy.max() * (1 - 1e-9))])


def sampled_start(rng: np.random.Generator, bank, clip: int, num: int) -> int:
    """A start on the envelope's frames, with probability proportional to its segment's energy."""
    starts, energy = _energies(bank, clip, num)
    total = np.cumsum(energy if energy.any() else np.ones_like(energy))
    i = np.searchsorted(total, rng.random() * total[-1], side="right")
    return int(starts[min(i, len(starts) - 1)])


def choose_start(anchor: str, rng: np.random.Generator, bank, clip: int, num: int) -> int:
    """Start of a segment of `num` samples by one of `ANCHORS`; 0 where the clip is no longer."""
    samples = bank.num_samples(clip)
    if anchor == "whole" or samples <= num:
        return 0
    if anchor == "peak":
        return peak_start(bank, clip, num)
    if anchor == "sampled":
        return sampled_start(rng, bank, clip, num)
    return int(rng.integers(samples - num + 1))


def _energies(bank, clip, num):
    hop = bank.fs / ENVELOPE_RATE
    return segment_energies(bank.envelope(clip), bank.num_samples(clip), num, hop)


# ---- options -------------------------------------------------------------------------------------


def interval(option, value) -> tuple:
    """(lowest, highest) of a number or of two; anything else is a DataError that names the option."""
    try:
        low, high = value if isinstance(value, (list, tuple)) else (value, value)
        if np.isfinite(low) and np.isfinite(high) and low <= high:
            return low, high
    except (TypeError, ValueError):
        pass
    raise DataError(f"{option} must be a number or [lowest, highest]; got {value}")


def uniform(rng, interval) -> float:
    """A number drawn from an `interval`."""
    return float(interval[0] if interval[0] == interval[1] else rng.uniform(*interval))
