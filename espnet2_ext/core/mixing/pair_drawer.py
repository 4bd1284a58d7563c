"""Mixtures of clips: `PairDrawer.draw(rng)` makes a row of a table, `render` its audio.

All randomness goes into the row under an explicit generator; the audio is a pure function of the row and of the bank. A
bank is anything with the methods of `espnet2_ext.data.bank.bank.ClipBank`.
"""

from collections.abc import Callable

import numpy as np

from espnet2_ext.core.mixing.pairs import (
    ANCHORS,
    GAIN_RANGE,
    Pair,
    Source,
    choose_start,
    class_name,
    energy_gain,
    holds,
    interval,
    render,
    self_query,
    uniform,
)
from espnet2_ext.errors import DataError

__all__ = ["GAIN_RANGE", "Pair", "PairDrawer", "energy_gain", "holds", "render", "self_query"]

QUERIES = {"self": 0.0, "other": 1.0, "mixed": None}
BALANCES = ("class", "clip")
_MAX_TRIES = 100
_TRIES_A_CLASS = 10  # clips of one class tried before the next class, so that classes stay even
_TRIES_A_QUERY = 30


class PairDrawer:
    """Draws pairs of clips whose labels are disjoint, also up and down the ontology.

    Args:
        bank: a `ClipBank`; only its tables are read, no audio.
        segment: length of an anchor in seconds; None: as long as the longer clip (`whole` only).
        query_from: `self` (the target itself), `other` (another clip of the class, one without
            the other target's classes where there is one; the target itself when the class has
            no other clip) or `mixed` (other with the chance `other_prob`).
        absent_prob: chance that a query is of a class related to neither clip; its target is
            silence. Left out where no such class exists.
        anchor: `peak` (most energetic segment, from the 100 ms envelope, first of equals),
            `sampled` (a start on the envelope's frames with probability proportional to its
            segment's energy), `random` (uniform), `whole` (from the clip's first sample).
        balance: `class` (class uniform over those with clips, then a clip of it) or `clip`.
        query_segment: length of a query in seconds; None: that of the anchors.
        anchors: a table of anchors, `anchors(clip, class, num) -> start or None`; None falls back on `anchor`.
        draw_absent: draw clips for `absent1/2`; otherwise the other target's clip stands there.
        snr_db: level of the first anchor over each other sound: a value, or [lowest, highest], drawn uniformly.
        single_prob: chance that the mixture is the first target alone, for which both queries then ask.
        num_sources: sounds in a mixture: a number, or [fewest, most], drawn uniformly; 2 are asked for, all have
            disjoint labels. Fewer where no further clip is found.
        same_class: the second sound is another clip of the first one's class, where the class has one; a query that is
            not the target itself then fits both.
        class_weights: {name: weight} with `balance: class`: how often a class is drawn, 1 where not named.

    Raises:
        DataError: naming a class that no other class is unrelated to, or an unknown option.
    """

    def __init__(
        self,
        bank,
        *,
        segment: float | None = 2.0,
        query_from: str = "self",
        other_prob: float = 0.5,
        absent_prob: float = 0.0,
        anchor: str = "peak",
        balance: str = "class",
        query_segment: float | None = None,
        anchors: Callable | None = None,
        draw_absent: bool = False,
        snr_db: float | list[float] = 0.0,
        single_prob: float = 0.0,
        num_sources: int | list[int] = 2,
        same_class: bool = False,
        class_weights: dict[str, float] | None = None,
    ):
        _check_choices(query_from=query_from, anchor=anchor, balance=balance)
        chances = {"other_prob": other_prob, "absent_prob": absent_prob, "single_prob": single_prob}
        _check_numbers(bank.fs, segment, query_segment, chances)
        self.same_class, self.weights = same_class, _weights(bank, class_weights) if class_weights else None
        self.snr_db, self.single_prob = interval("snr_db", snr_db), single_prob
        self.num_sources = interval("num_sources", num_sources)
        if self.num_sources[0] < 2 or any(n != int(n) for n in self.num_sources):
            raise DataError(f"num_sources must be whole numbers of 2 or more; got {num_sources}")
        if segment is None and anchor != "whole":
            raise DataError(f"anchor `{anchor}` needs a segment length; without one use `whole`")
        self.bank = bank
        self.num = None if segment is None else round(segment * bank.fs)
        self.qnum = None if query_segment is None else round(query_segment * bank.fs)
        self.other_prob = other_prob if query_from == "mixed" else QUERIES[query_from]
        self.absent_prob, self.anchor, self.balance = absent_prob, anchor, balance
        self.anchors, self.draw_absent = anchors, draw_absent
        self.related = np.asarray(bank.related)
        self.classes = np.array([k for k in range(bank.num_classes) if len(bank.clips_of(k))], dtype=np.int64)
        self._check_classes()

    @property
    def sums(self) -> bool:
        """Whether the targets of every mixture, where all are there, sum to it."""
        return self.single_prob == 0 and self.num_sources == (2, 2)

    def _check_classes(self):
        if len(self.classes) == 0:
            raise DataError(f"{_where(self.bank)}: no class has a clip")
        free = ~self.related[np.ix_(self.classes, self.classes)]
        lonely = self.classes[~free.any(axis=1)]
        if len(lonely):
            name = class_name(self.bank, lonely[0])
            raise DataError(f"{_where(self.bank)}: no clips of a class unrelated to {name}, to be mixed with it")

    def draw(self, rng: np.random.Generator, clip1: int | None = None, id: str = "") -> Pair:
        """Draw a row; `clip1` fixes the first target.

        Raises:
            DataError: naming the class for which no partner with disjoint labels was found.
        """
        (class1, one), (class2, two) = self._targets(rng, clip1)
        if self.same_class and len(self.bank.clips_of(class1)) > 1:
            class2, two = class1, self._but(rng, class1, one)
        samples = max(self.bank.num_samples(one), self.bank.num_samples(two))
        num = samples if self.num is None else self.num
        start1, start2 = self._start(rng, one, class1, num), self._start(rng, two, class2, num)
        qnum = num if self.qnum is None else self.qnum
        ask1, query1, qstart1 = self._query(rng, class1, one, start1, num, qnum, two)
        absent1, absent2 = two, one
        if self.single_prob and rng.random() < self.single_prob:
            class2, two, start2 = class1, one, start1
        ask2, query2, qstart2 = self._query(rng, class2, two, start2, num, qnum, absent1 if two == one else one)
        others = self._others(rng, num, one, two) if two != one else ()
        return Pair(
            id=id,
            clip1=one,
            start1=start1,
            clip2=two,
            start2=start2,
            num=num,
            class1=ask1,
            class2=ask2,
            gain2=None,
            query1=query1,
            qstart1=qstart1,
            query2=query2,
            qstart2=qstart2,
            qnum=qnum,
            absent1=self._absent(rng, class1, absent1),
            absent2=self._absent(rng, class2, absent2),
            snr_db=uniform(rng, self.snr_db) if two != one else 0.0,
            others=others,
        )

    def _targets(self, rng, clip1) -> tuple[tuple[int, int], tuple[int, int]]:
        """Two (class, clip) with disjoint label sets."""
        nothing = np.zeros(len(self.related), dtype=bool)
        class1 = one = None
        for _ in range(_MAX_TRIES):
            if clip1 is None:
                class1, one = self._pick(rng, nothing) or (None, -1)
            else:
                class1, one = self._label_of(rng, clip1), int(clip1)
            if class1 is None or one is None:
                break
            second = self._pick(rng, self._blocked(one))
            if second:
                return (class1, one), second
            if clip1 is not None:
                break
        if class1 is None:
            raise DataError(f"{_where(self.bank)}: clips without any class cannot be targets")
        raise DataError(
            f"{_where(self.bank)}: no clip was found whose labels are disjoint from those of "
            f"clip {self.bank.id(one)}, drawn for {class_name(self.bank, class1)}"
        )

    def _others(self, rng, num, *clips) -> tuple[Source, ...]:
        """Further sounds beside `clips`."""
        fewest, most = self.num_sources
        found = []
        for _ in range((fewest if fewest == most else int(rng.integers(fewest, most + 1))) - 2):
            picked = self._pick(rng, self._blocked(*clips, *(s.clip for s in found)))
            if picked:
                k, clip = picked
                found.append(Source(clip, self._start(rng, clip, k, num), uniform(rng, self.snr_db), None))
        return tuple(found)

    def _pick(self, rng, blocked) -> tuple[int, int] | None:
        """A (class, clip), none of the clip's labels blocked [K]; None when the tries run out."""
        classes = self.classes[~blocked[self.classes]]
        if len(classes) == 0:
            return None
        k, clips = None, np.zeros(0, int)
        for i in range(_MAX_TRIES):
            if self.balance == "clip":
                clip = rng.integers(len(self.bank))
                k = self._label_of(rng, clip)
            else:
                if i % _TRIES_A_CLASS == 0:
                    clips = self.bank.clips_of(k := self._class(rng, classes))
                clip = clips[rng.integers(len(clips))]
            if k is not None and not blocked[self.bank.labels(clip)].any():
                return int(k), int(clip)
        return None

    def _class(self, rng, classes):
        if self.weights is None:
            return classes[rng.integers(len(classes))]
        ends = np.cumsum(self.weights[classes])
        return classes[np.searchsorted(ends, rng.random() * ends[-1], side="right")]

    def _label_of(self, rng, clip):
        labels = self.bank.labels(clip)
        return int(labels[rng.integers(len(labels))]) if len(labels) else None

    def _blocked(self, *clips):
        """bool [K]: classes related to a label of any of the clips."""
        labels = np.concatenate([self.bank.labels(c) for c in clips])
        return self.related[labels].any(axis=0)

    def _start(self, rng, clip, k, num):
        start = self.anchors(clip, k, num) if self.anchors is not None else None
        if start is not None:
            return int(start)
        return choose_start(self.anchor, rng, self.bank, clip, num)

    def _query(self, rng, k, clip, start, num, qnum, rival):
        """(class asked for, clip, start) of the query for target `clip`, mixed with `rival`."""
        absent, other = rng.random(2) < (self.absent_prob, self.other_prob)
        if absent:
            found = self._pick(rng, self._blocked(clip, rival))
            if found:
                return *found, self._start(rng, found[1], found[0], qnum)
        query = self._other(rng, k, clip, rival) if other else clip
        if query != clip:
            return k, query, self._start(rng, query, k, qnum)
        if qnum != num:  # around the same middle
            last = self.bank.num_samples(clip) - qnum
            start = max(0, min(start + (num - qnum) // 2, last))
        return k, clip, start

    def _other(self, rng, k, clip, rival):
        """Another clip of class `k`, if possible without `rival`'s classes; or `clip` itself."""
        clips = self.bank.clips_of(k)
        if rival in clips:
            return self._but(rng, k, clip, rival)
        blocked, query = self._blocked(rival), clip
        for _ in range(_TRIES_A_QUERY if len(clips) > 1 else 0):
            query = int(clips[rng.integers(len(clips) - 1)])
            # its own place stands for the last clip: uniform over the others in one draw
            query = int(clips[-1]) if query == clip else query
            if not blocked[self.bank.labels(query)].any():
                break
        return query

    def _but(self, rng, k, *clips):
        """A clip of class `k` that is none of `clips`; the first of them where there is none."""
        free = np.setdiff1d(self.bank.clips_of(k), clips)
        return int(free[rng.integers(len(free))]) if len(free) else clips[0]

    def _absent(self, rng, k, rival):
        """A clip with no class related to `k`; `rival`, which has none, when none is found."""
        found = self._pick(rng, self.related[k]) if self.draw_absent else None
        return found[1] if found else rival


def _where(bank) -> str:
    return str(getattr(bank, "path", "bank"))


def _check_choices(**options):
    allowed = {"query_from": QUERIES, "anchor": ANCHORS, "balance": BALANCES}
    for option, value in options.items():
        if value not in allowed[option]:
            raise DataError(f"{option} must be one of {', '.join(allowed[option])}; got {value!r}")


def _check_numbers(fs, segment, query_segment, chances):
    for option, value in (("segment", segment), ("query_segment", query_segment)):
        if value is not None and round(value * fs) < 1:
            raise DataError(f"{option} must be longer than one sample; got {value} s")
    for option, value in chances.items():
        if not 0 <= value <= 1:
            raise DataError(f"{option} must be between 0 and 1; got {value}")


def _weights(bank, named) -> np.ndarray:
    """float [K]: 1 where a class is not named."""
    names = [c.name for c in bank.classes]
    for name, weight in named.items():
        if name not in names or not 0 < weight < np.inf:
            raise DataError(f"class_weights: {name}: {weight} is not a class of {_where(bank)} with a weight above 0")
    return np.array([float(named.get(name, 1.0)) for name in names])
