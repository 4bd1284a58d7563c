"""Mixtures of sound events: a mixture as a row, its audio and its labels as functions of that row.

All events of a class are one source (Pishdadian et al., "Finding Strength in Weakness", eq. (1)
and section III-A). A bank is anything with the methods of `espnet2_ext.data.bank.bank.ClipBank`.
"""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from espnet2_ext.core.mixing.augment import Augment
from espnet2_ext.core.mixing.pairs import ENVELOPE_RATE
from espnet2_ext.errors import DataError

LENGTHS = ("uniform", "whole")
KNOWN = ("strong", "frame", "clip")  # from the most that is known of a mixture to the least


class Event(NamedTuple):
    """One sound in a mixture; places and lengths in samples.

    Attributes:
        cls: class, 0 to K - 1; -1: sound of no labelled class.
        clip: row or id in the bank; None: a label without isolated sound.
        start: first sample in the clip. onset: first sample in the mixture. samples: length.
        gain: linear factor.
    """

    cls: int
    clip: int | str | None
    start: int
    onset: int
    samples: int
    gain: float


class Mixture(NamedTuple):
    """A mixture: its name, length in samples, what may be used of it (`KNOWN`), its events."""

    id: str
    samples: int
    known: str
    events: tuple[Event, ...]


def render(
    mixture: Mixture, bank, num_classes: int, augment: Augment | None = None, seed: int = 0
) -> dict[str, np.ndarray]:
    """Audio of a mixture of T samples.

    Args:
        augment: changes every sound on its own, as the row and `seed` say; no speed where labels alone lie in one.

    Returns:
        "sources" float32 [K, T]: the events of each class; "rest" float32 [T]: the sound of no
        labelled class; "mix" float32 [T], which is `sources.sum(0) + rest` exactly.

    Raises:
        DataError: an event that does not fit into the mixture, a class outside 0 to K - 1, or a
            clip that the bank has not or cannot decode.
    """
    tracks = np.zeros((num_classes + 1, mixture.samples), np.float32)
    seeds = [seed, zlib.crc32(repr(mixture).encode())] if augment else []
    in_time = any(e.clip is None for e in mixture.events)  # labels of a recording, whose sound is another event
    for i, e in enumerate(mixture.events):
        end = e.onset + e.samples
        if e.onset < 0 or e.samples < 0 or end > mixture.samples:
            raise DataError(
                f"mixture {mixture.id}: an event from sample {e.onset} to {end} does not fit into"
                f" {mixture.samples} samples"
            )
        if not -1 <= e.cls < num_classes:
            raise DataError(f"mixture {mixture.id}: class {e.cls} of {num_classes}")
        if e.clip is None or not e.samples:
            continue
        place = bank.index_of(e.clip) if isinstance(e.clip, str) else e.clip, e.start, e.samples
        x = augment.read(bank, *place, [*seeds, i], not in_time) if augment else bank.read(*place)
        tracks[e.cls, e.onset : end] += np.float32(e.gain) * x  # -1: the last track
    sources, rest = tracks[:-1], tracks[-1]
    return {"mix": sources.sum(0) + rest, "sources": sources, "rest": rest}


def frame_activity(mixture: Mixture, num_classes: int, n_fft: int, hop: int) -> np.ndarray:
    """Frame labels l_{i,tau} (the paper's section II-C): float32 [L, K], L = samples // hop + 1.

    Frames are centred on the multiples of `hop`; a class is active in a frame (1.0) when the
    frame's window of `n_fft` samples touches one of its events.
    """
    active = np.zeros((mixture.samples // hop + 1, num_classes), np.float32)
    before = n_fft // 2  # samples of the window before its centre
    for e in mixture.events:
        if e.cls >= 0 and e.samples > 0:
            first = max((e.onset - (n_fft - before)) // hop + 1, 0)
            stop = -((-(e.onset + e.samples) - before) // hop)
            active[first:stop, e.cls] = 1.0
    return active


def clip_activity(mixture: Mixture, num_classes: int) -> np.ndarray:
    """Clip labels l_i: float32 [K], 1.0 where the mixture holds an event of the class."""
    active = np.zeros(num_classes, np.float32)
    active[[e.cls for e in mixture.events if e.cls >= 0 and e.samples > 0]] = 1.0
    return active


def crop(mixture: Mixture, onset: int, samples: int) -> Mixture:
    """Samples `onset` to `onset + samples` of a mixture; silence past its end.

    Its audio is that part of the whole mixture's, sample for sample. Events outside are left out.

    Raises:
        ValueError: a negative onset or length.
    """
    if onset < 0 or samples < 0:
        raise ValueError(f"onset {onset} and samples {samples} must not be negative")
    events = []
    for e in mixture.events:
        first, end = max(e.onset, onset), min(e.onset + e.samples, onset + samples)
        if first < end:
            start = e.start + first - e.onset
            events.append(e._replace(start=start, onset=first - onset, samples=end - first))
    return mixture._replace(samples=samples, events=tuple(events))


def with_ids(mixture: Mixture, bank) -> Mixture:
    """The same mixture with clip ids in place of the bank's rows, as tables hold it."""
    events = tuple(
        e if e.clip is None or isinstance(e.clip, str) else e._replace(clip=bank.id(e.clip)) for e in mixture.events
    )
    return mixture._replace(events=events)


def truncated_poisson(rng: np.random.Generator, mean: float) -> int:
    """A number of at least 1 from the Poisson distribution of that mean, given that it is not 0.

    `mean` is the one before truncation; numbers drawn here have mean / (1 - exp(-mean)).
    The first arrival on [0, mean) is drawn given that there is one, then those behind it.
    """
    first = -np.log1p(rng.random() * np.expm1(-mean))
    return 1 + int(rng.poisson(max(mean - first, 0.0)))


class EventDrawer:
    """Draws mixtures by the rules of the paper's section III-A.

    The number of events comes from a zero-truncated Poisson distribution; `mean_events` (the paper's lambda) is the
    mean of the distribution before truncation. Each event: class uniform; clip uniform among those of the class that
    are long enough; a part of it; onset uniform so that it fits; level uniform. The paper does not say how long a part
    is. With lengths uniform from the shortest event to the clip's, UrbanSound8K comes near its Tables II and III
    (frames without a source: 16 % here, 17 % there); with whole clips it does not (2 %). Where a part begins is drawn
    in proportion to its energy, so that none is a pause. A background, where there is one, is a clip of the classes
    named so, as whole as it fits.

    Args:
        bank: a `ClipBank`; only its tables are read.
        loudness: [len(bank)] LUFS of each clip as a whole; a clip that is not finite is left out.
        classes: identifiers in the bank's classes, in the order of the labels 0 to K - 1.
        mean_events: the paper's lambda. seconds: length of a mixture.
        event_seconds: shorter clips are left out, longer ones cut.
        lengths: `uniform` or `whole`, up to the longest event.
        lufs: lowest and highest level of an event.
        background: identifiers of classes whose clips are sound of no labelled class; empty: none.
        background_lufs: lowest and highest level of a background.
        background_share: share of the mixtures that have one.

    Attributes:
        left_out: class identifier -> clips left out as "short", "silent" (no loudness) or "mixed"
            (of more than one class).

    Raises:
        DataError: naming a class that the bank has not, one without a clip that can be used, or an impossible number.
    """

    def __init__(
        self,
        bank,
        loudness: np.ndarray,
        classes: Sequence[str],
        *,
        mean_events: float = 5.0,
        seconds: float = 4.0,
        event_seconds: tuple[float, float] = (0.5, 4.0),
        lengths: str = "uniform",
        lufs: tuple[float, float] = (-30.0, -25.0),
        background: Sequence[str] = (),
        background_lufs: tuple[float, float] = (-40.0, -35.0),
        background_share: float = 1.0,
    ):
        _check(mean_events, seconds, event_seconds, lufs, background_lufs, background_share)
        if len(loudness) != len(bank):
            raise DataError(f"{_where(bank)}: {len(bank)} clips, but {len(loudness)} levels")
        self.bank, self.mean_events = bank, mean_events
        if lengths not in LENGTHS:
            raise DataError(f"lengths must be one of {', '.join(LENGTHS)}; got {lengths!r}")
        self.whole = lengths == "whole"
        self.samples = round(seconds * bank.fs)
        self.shortest = round(event_seconds[0] * bank.fs)
        self.longest = min(round(event_seconds[1] * bank.fs), self.samples)
        self.lufs, self.background_lufs = lufs, background_lufs
        self.background_share = background_share if background else 0.0
        self.loudness = np.asarray(loudness, np.float64)
        self._energy: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.left_out: dict[str, dict[str, int]] = {}
        _check_names(bank, classes, background)
        rows = {label.mid: label.index for label in bank.classes}
        self.clips = [self._usable(name, rows[name]) for name in classes]
        self.behind = [clip for name in background for clip in self._usable(name, rows[name])]

    def draw(self, rng: np.random.Generator, id: str = "", known: str = "strong") -> Mixture:
        """Draw a mixture; clips are rows of the bank."""
        count = truncated_poisson(rng, self.mean_events)
        classes = rng.integers(len(self.clips), size=count)
        events = [self._event(rng, int(k), self.clips[k], self.lufs) for k in classes]
        if self.background_share and rng.random() < self.background_share:
            events.append(self._event(rng, -1, self.behind, self.background_lufs))
        return Mixture(id, self.samples, known, tuple(events))

    def _event(self, rng, k: int, clips: list[int], lufs) -> Event:
        clip = clips[rng.integers(len(clips))]
        samples = min(self.bank.num_samples(clip), self.longest)
        if not self.whole and k >= 0:
            samples = int(rng.integers(self.shortest, samples + 1))
        start = self._start(rng, clip, samples)
        onset = int(rng.integers(self.samples - samples + 1))
        gain = 10 ** ((rng.uniform(*lufs) - self.loudness[clip]) / 20)
        return Event(k, clip, start, onset, samples, float(gain))

    def _start(self, rng, clip: int, samples: int) -> int:
        """A start with probability in proportion to the energy of the part that begins there.

        A place drawn in proportion to the energy lies in the part, uniformly, as far as it fits.
        """
        have = self.bank.num_samples(clip)
        if have <= samples:
            return 0
        if clip not in self._energy:
            self._energy[clip] = _energy(self.bank, clip, have)
        edges, total = self._energy[clip]
        place = np.interp(rng.random() * total[-1], total, edges)
        return min(max(int(place - rng.random() * samples), 0), have - samples)

    def _usable(self, name: str, k: int) -> list[int]:
        """Rows of a class's clips that can be drawn; the others are counted."""
        counts = {"short": 0, "silent": 0, "mixed": 0}
        good = []
        for clip in self.bank.clips_of(k).tolist():
            if len(self.bank.labels(clip)) > 1:
                counts["mixed"] += 1
            elif self.bank.num_samples(clip) < self.shortest:
                counts["short"] += 1
            elif not np.isfinite(self.loudness[clip]):
                counts["silent"] += 1
            else:
                good.append(clip)
        self.left_out[name] = counts
        if not good:
            left = ", ".join(f"{n} {why}" for why, n in counts.items())
            raise DataError(f"{_where(self.bank)}: class {name} has no clip to draw ({left})")
        return good


def _energy(bank, clip: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges of the bank's envelope frames in samples, and the energy before each."""
    frames = bank.envelope(clip)
    edges = np.minimum(np.arange(len(frames) + 1) * (bank.fs / ENVELOPE_RATE), samples)
    total = np.concatenate(([0.0], np.cumsum(np.diff(edges) * frames)))
    return edges, total if total[-1] > 0 else edges


def _where(bank) -> str:
    return str(getattr(bank, "path", "bank"))


def _check_names(bank, classes: Sequence[str], background: Sequence[str]) -> None:
    known = [label.mid for label in bank.classes]
    names = [*classes, *background]
    for name in names:
        if name not in known:
            raise DataError(f"{_where(bank)}: no class {name!r}; it has {', '.join(known)}")
        if names.count(name) > 1:
            raise DataError(f"class {name} is named twice")
    if not classes:
        raise DataError("no classes to draw from")


def _check(mean_events, seconds, event_seconds, lufs, background_lufs, background_share) -> None:
    if not 0 < mean_events < 1e6:
        raise DataError(f"mean_events must be positive; got {mean_events}")
    if not 0 < event_seconds[0] <= event_seconds[1] or not event_seconds[0] <= seconds:
        raise DataError(
            f"event_seconds {event_seconds} must be rising, and the shortest event must fit into"
            f" the {seconds} s of a mixture"
        )
    for name, (low, high) in (("lufs", lufs), ("background_lufs", background_lufs)):
        if not -120 < low <= high < 60:
            raise DataError(f"{name} must be two rising levels; got {low} and {high}")
    if not 0 <= background_share <= 1:
        raise DataError(f"background_share must be between 0 and 1; got {background_share}")
