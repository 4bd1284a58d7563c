"""What trainings on clips draw as rows and read from the bank: pairs for separation by query, excerpts for taggers."""

import dataclasses
import os
import zlib
from collections.abc import Sequence

import numpy as np
from espnet2.train.preprocessor import AbsPreprocessor

from espnet2_ext.build import construct
from espnet2_ext.core.mixing.augment import Augment
from espnet2_ext.core.mixing.pair_drawer import GAIN_RANGE, Pair, holds, render
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.errors import DataError
from espnet2_ext.train.row_iter_factory import ClassCounts, RowIterFactory, multi_hot


class QSepPreprocessor(AbsPreprocessor):
    """Render a `Pair` of data with `pair`; pass data with `speech_mix` through unchanged.

    ESPnet builds the same preprocessor for inference, where no bank is at hand: the bank is opened
    when the first pair comes.

    Args:
        train: whether the random gain is applied.
        bank: a `ClipBank`, its path, or None.
        gain_db: [lowest, highest] of a gain in dB, drawn uniformly for each pair and put on the
            mixture and both targets alike, not on the queries. It is a function of the row.
        gain_range: lowest and highest factor that brings the second anchor to the energy of the
            first, where the row has none.
        augment: keyword arguments of `core.mixing.augment.Augment`, which then changes every sound in
            training; a function of the row. None: nothing is changed.
    """

    def __init__(
        self,
        train: bool,
        bank: ClipBank | str | os.PathLike | None = None,
        gain_db: list[float] | None = None,
        gain_range: list[float] = GAIN_RANGE,
        augment: dict | None = None,
    ):
        super().__init__(train)
        for name, values in (("gain_db", gain_db or (0, 0)), ("gain_range", gain_range)):
            if len(values) != 2 or values[0] > values[1]:
                raise DataError(f"{name} must be [lowest, highest]; got {values}")
        self._bank, self.gain_db, self.gain_range = bank, gain_db, tuple(gain_range)
        self.augment = None if augment is None or not train else construct(Augment, augment, "augment")

    @property
    def bank(self):
        """The clip bank, opened at first use."""
        if isinstance(self._bank, str | os.PathLike):
            self._bank = ClipBank(self._bank)
        return self._bank

    def __call__(self, uid: str, data: dict) -> dict[str, np.ndarray]:
        """Give the arrays of one item.

        Returns:
            `speech_mix`, `speech_ref1`, `speech_ref2`, `enroll_ref1`, `enroll_ref2` float32 [T];
            `label1`, `label2` float32 [K], 1 at the classes of the query's clip; `label_mix` float32 [K], 1 at those of
            the clips that are mixed.

        Raises:
            DataError: data with neither `pair` nor `speech_mix`, or a pair without a bank.
        """
        if "pair" not in data:
            if "speech_mix" in data:
                return data
            raise DataError(f"{uid}: expected `pair` or `speech_mix`, got {', '.join(data)}")
        if self.bank is None:
            raise DataError(f"{uid}: a pair needs a clip bank, and the preprocessor has none")
        pair = data["pair"]
        out = render(pair, self.bank, self.gain_range, self.augment)
        gain = self._gain(pair)
        return {
            "speech_mix": gain * out["mix"],
            "speech_ref1": gain * out["ref1"],
            "speech_ref2": gain * out["ref2"],
            "enroll_ref1": out["query1"],
            "enroll_ref2": out["query2"],
            "label1": self._label(pair.query1),
            "label2": self._label(pair.query2),
            "label_mix": np.maximum.reduce([self._label(clip) for clip in pair.clips]),
        }

    def _gain(self, pair: Pair) -> np.float32:
        if self.gain_db is None or not self.train:
            return np.float32(1.0)
        rng = np.random.default_rng(zlib.crc32(repr(pair).encode()))
        return np.float32(10 ** (rng.uniform(*self.gain_db) / 20))

    def _label(self, clip: int | str) -> np.ndarray:
        return multi_hot(self.bank, self.bank.index_of(clip) if isinstance(clip, str) else clip)


class QueryCounts(ClassCounts):
    """How often each class was queried, and how often the target was absent."""

    what = "queries"

    def __init__(self, bank):
        super().__init__(bank)
        self.absent = 0

    def add(self, rows: Sequence[Pair]) -> None:
        """Count pairs that hold rows of the bank."""
        for pair in rows:
            for clip, k in ((pair.clip1, pair.class1), (pair.clip2, pair.class2)):
                self.drawn[k] += 1
                self.absent += not holds(self.bank, clip, k)

    def __str__(self) -> str:
        return f"{super().__str__()}; {self.absent} queries with an absent target"


class PairIterFactory(RowIterFactory):
    """Draws pairs with a `PairDrawer`; `preprocess` is a `QSepPreprocessor`.

    Rows for validation hold clip ids or rows of the bank.
    """

    name, clips, not_sequence, counts = "pair", 2, ("label1", "label2", "label_mix"), QueryCounts


BALANCES = ("class", "clip")


@dataclasses.dataclass(frozen=True, slots=True)
class Excerpt:
    """`num` samples from `start` of row `clip` of a bank, times `gain`.

    `mixup` is the weight of this item where it is mixed with another of its batch; None: not mixed.
    """

    id: str
    clip: int
    start: int
    num: int
    gain: float = 1.0
    mixup: float | None = None


class TagDrawer:
    """Draws excerpts of clips; all randomness of an item is in its row.

    Class-balanced sampling and mixup as HTS-AT trains (Chen et al., "HTS-AT", section 3.1), except that classes are
    drawn independently, not in turns, so that an item depends on nothing but its own generator.

    Args:
        bank: a `ClipBank`; only its tables are read, no audio.
        segment: seconds, at a place drawn uniformly; a shorter clip whole. None: whole clips.
        balance: `class` (class uniform over those with clips, then a clip of it) or `clip`.
        mixup_alpha: weights of mixup are from Beta(alpha, alpha); 0: none.
        gain_db: [lowest, highest] of a gain in dB, drawn uniformly; None: none.

    Raises:
        DataError: a bank in which no clip has a class, or an option out of its range.
    """

    def __init__(
        self,
        bank: ClipBank,
        *,
        segment: float | None = None,
        balance: str = "class",
        mixup_alpha: float = 0.0,
        gain_db: list[float] | None = None,
    ):
        if balance not in BALANCES:
            raise DataError(f"balance must be one of {', '.join(BALANCES)}; got {balance!r}")
        if segment is not None and round(segment * bank.fs) < 1:
            raise DataError(f"segment must be longer than one sample; got {segment} s")
        if mixup_alpha < 0:
            raise DataError(f"mixup_alpha must not be negative; got {mixup_alpha}")
        if gain_db is not None and (len(gain_db) != 2 or gain_db[0] > gain_db[1]):
            raise DataError(f"gain_db must be [lowest, highest]; got {gain_db}")
        self.bank, self.balance = bank, balance
        self.num = None if segment is None else round(segment * bank.fs)
        self.mixup_alpha, self.gain_db = mixup_alpha, gain_db
        self.classes = np.array([k for k in range(bank.num_classes) if len(bank.clips_of(k))])
        if len(self.classes) == 0:
            raise DataError(f"{bank.path}: no clip has a label, so there is nothing to tag")

    def draw(self, rng: np.random.Generator, id: str = "") -> Excerpt:
        """Draw a row."""
        clip = self._clip(rng)
        samples = self.bank.num_samples(clip)
        num = samples if self.num is None else min(self.num, samples)
        start = int(rng.integers(samples - num + 1))
        gain = 1.0 if self.gain_db is None else 10 ** (rng.uniform(*self.gain_db) / 20)
        mixup = rng.beta(self.mixup_alpha, self.mixup_alpha) if self.mixup_alpha else None
        return Excerpt(id, clip, start, num, gain, mixup)

    def _clip(self, rng: np.random.Generator) -> int:
        if self.balance == "clip":
            return int(rng.integers(len(self.bank)))
        clips = self.bank.clips_of(self.classes[rng.integers(len(self.classes))])
        return int(clips[rng.integers(len(clips))])


def whole_clips(bank: ClipBank) -> list[Excerpt]:
    """Every clip of a bank once and whole, for validation."""
    return [Excerpt(bank.id(i), i, 0, bank.num_samples(i)) for i in range(len(bank))]


class ExcerptReader:
    """Rows into the arrays that `ESPnetTaggingModel` takes. The bank is opened here and not later,
    for the loader's workers to inherit."""

    def __init__(self, bank: ClipBank):
        self.bank = bank

    def __call__(self, uid: str, data: dict[str, Excerpt]) -> dict[str, np.ndarray]:
        """`speech` float32 [T]; `label` float32 [K], 1 at the clip's classes; `mixup` float32 [1],
        where the row has a weight."""
        row = data["excerpt"]
        speech = np.float32(row.gain) * self.bank.read(row.clip, row.start, row.num)
        item = {"speech": speech, "label": multi_hot(self.bank, row.clip)}
        if row.mixup is not None:
            item["mixup"] = np.array([row.mixup], np.float32)
        return item


class TagIterFactory(RowIterFactory):
    """Draws excerpts with a `TagDrawer`; `preprocess` is an `ExcerptReader`.

    An item is mixed with the one at the mirrored place of its process's part of the batch, so what
    is mixed with what, but not what is drawn, depends on the number of processes.
    """

    name, clips, not_sequence, counts = "excerpt", 1, ("label", "mixup"), ClassCounts
