"""Rows of a mixture table into what the weak-label model takes; nothing more than it may use."""

import argparse
import os
import zlib

import numpy as np
from espnet2.train.preprocessor import AbsPreprocessor

from espnet2_ext.build import construct
from espnet2_ext.core.losses.weak_label import CLIP, FRAME, LABEL_TYPES, STRONG
from espnet2_ext.core.mixing.augment import Augment
from espnet2_ext.core.mixing.events import KNOWN, Mixture, clip_activity, crop, frame_activity, render
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.mixtures.event_table import MixtureTable
from espnet2_ext.errors import DataError

RARER = 0.05  # how likely a recording of one class more is as a partner
SEEN = 4000  # mixtures, at least: sums of 200 in one epoch put the shares off by a tenth


class WeakPreprocessor(AbsPreprocessor):
    """Render a mixture named by `mixture`; cut data with `speech_mix` down to what may be used.

    What the label type does not allow is not given: isolated sources only for `strong` and `mixed`, frame labels for
    all but `clip`. One exception: validation (`train=False`) gives the sources where the table has them, for a score
    that the loss never sees. In `mixed` batches every item has every key; what an item may not use is zeros.

    Args:
        train: whether mixtures are cropped.
        table, bank: a `MixtureTable` and a `ClipBank`, or their paths, opened at first use; None
            when data with `speech_mix` comes.
        num_classes: K.
        label_type: `strong`, `frame`, `clip` or `mixed`.
        part: `classifier` (needs no isolated sources) or `separator`.
        residual: give the sound of no labelled class as one more source.
        n_fft, hop_length: the frames of the frame labels, in samples.
        crop_seconds: in training, a part of so many seconds of each mixture, at random.
        augment: keyword arguments of `core.mixing.augment.Augment`, which then changes every sound of a table's
            mixtures in training, each epoch anew (a recording as a whole, its speed left); None: off.
        remix: give another mixture of the table (`Partners`) with each, as `partner_mix`, `partner_clip_label`, ...: in
            training each epoch anew, in validation always the same.
        shares: for `mixed`: shares of items used as strong, frame and clip, by the mixture's name;
            None: each with all that is known of it. Never more than is known.
    """

    def __init__(
        self,
        train: bool,
        table: MixtureTable | str | os.PathLike | None = None,
        bank: ClipBank | str | os.PathLike | None = None,
        num_classes: int | None = None,
        label_type: str = "frame",
        part: str = "separator",
        residual: bool = False,
        n_fft: int = 512,
        hop_length: int = 128,
        crop_seconds: float | None = None,
        augment: dict | None = None,
        remix: bool = False,
        shares: list[float] | None = None,
    ):
        super().__init__(train)
        if label_type not in LABEL_TYPES:
            raise DataError(f"label_type must be one of {', '.join(LABEL_TYPES)}; got {label_type}")
        if shares is not None and (len(shares) != 3 or min(shares) < 0 or not sum(shares) > 0):
            raise DataError(f"shares must be three of strong, frame and clip; got {shares}")
        self._table, self._bank, self.num_classes = table, bank, num_classes
        self.label_type, self.part, self.residual = label_type, part, residual
        self.n_fft, self.hop, self.crop_seconds = n_fft, hop_length, crop_seconds
        self.augment = None if augment is None or not train else construct(Augment, augment, "augment")
        self.remix, self.shares = remix, shares
        self._scored, self._partners = None, None

    @property
    def table(self) -> MixtureTable:
        """The table, opened at first use."""
        if isinstance(self._table, str | os.PathLike):
            self._table = MixtureTable(self._table)
        return self._table

    @property
    def bank(self) -> ClipBank:
        """The clip bank, opened at first use."""
        if isinstance(self._bank, str | os.PathLike):
            self._bank = ClipBank(self._bank)
        return self._bank

    @property
    def partners(self) -> "Partners":
        """Of the table, made at first use."""
        self._partners = self._partners or Partners(self.table)
        return self._partners

    def open(self) -> None:
        """Read table and bank now, for the loader's workers to inherit."""
        if self._table is not None and self._bank is not None:
            len(self.table), len(self.bank), self._with_refs(), self.remix and self.partners

    def __call__(self, uid: str, data: dict) -> dict[str, np.ndarray]:
        """Give the arrays of one item.

        Returns:
            `speech_mix` float32 [T]; `clip_label` float32 [K]; `label_kind` int64 [1], 0 strong,
            1 frame, 2 clip; and as the label type allows `frame_label` float32 [L, K] and
            `speech_ref1`, ... float32 [T], the classes in order and then the residual. With `remix` the same of a
            partner, where `partner_` stands for `speech_` or before the name.

        Raises:
            DataError: data with neither `mixture` nor `speech_mix`, an unknown mixture, one of which less is known than
                the label type needs, labels of another size, or samples that are no numbers.
        """
        if "mixture" in data:
            item = self._rendered(data["mixture"])
        elif "speech_mix" in data:
            item = self._given(uid, data)
        else:
            raise DataError(f"{uid}: expected `mixture` or `speech_mix`, got {', '.join(data)}")
        if not np.isfinite(item["speech_mix"]).all():
            raise DataError(f"{uid}: holds samples that are not finite (NaN or infinite)")
        return item

    # ---- mixtures of a table ---------------------------------------------------------------------

    def _rendered(self, name: str) -> dict[str, np.ndarray]:
        if self._table is None or self._bank is None:
            raise DataError(f"{name}: a mixture needs a table and a clip bank")
        row, seed = self.table.index_of(name), 0
        if self.train and (self.crop_seconds is not None or self.augment or self.remix):
            seed = np.random.randint(2**31)  # ESPnet's random state, which it sets for each epoch
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        item = self._item(row, seed, rng)
        if self.remix:
            other = self._item(self.partners(row, rng), seed, rng)
            item |= {f"partner_{key.removeprefix('speech_')}": x for key, x in other.items()}
        return item

    def _item(self, row: int, seed: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        mixture = self.table.row(row)
        known = KNOWN.index(mixture.known)
        kind = self._kind(mixture, known)
        if self.train and self.crop_seconds is not None:
            mixture = _part(mixture, self.crop_seconds, self.table.fs, rng)
        k = self.num_classes or len(self.table.classes)
        out = render(mixture, self.bank, k, self.augment, seed)
        item = {
            "speech_mix": out["mix"],
            "clip_label": clip_activity(mixture, k),
            "label_kind": np.array([kind], np.int64),
        }
        if self.label_type != "clip":
            frames = frame_activity(mixture, k, self.n_fft, self.hop)
            item["frame_label"] = frames if kind <= FRAME else np.zeros_like(frames)
        if self._with_refs():
            refs = [*out["sources"], *([out["rest"]] if self.residual else [])]
            may = kind == STRONG if self.train else known == STRONG
            for s, ref in enumerate(refs, 1):
                item[f"speech_ref{s}"] = ref if may else np.zeros_like(ref)
        return item

    def _kind(self, mixture: Mixture, known: int) -> int:
        if self.label_type == "mixed":
            if self.shares is None:
                return known
            at = zlib.crc32(mixture.id.encode()) / 2**32 * sum(self.shares)
            return max(known, min(int((at >= np.cumsum(self.shares)).sum()), CLIP))
        kind = KNOWN.index(self.label_type)
        most = FRAME if self.part == "classifier" and kind == STRONG else kind
        if known > most:
            raise DataError(
                f"{self.table.folder}: of mixture {mixture.id} only {mixture.known} labels are "
                f"known, which label type {self.label_type} cannot use; `mixed` could"
            )
        return kind

    def _with_refs(self) -> bool:
        """Whether items of this table hold isolated sources; all of a table are alike."""
        if self.part == "classifier":
            return False
        if self.label_type in ("strong", "mixed"):
            return True
        if self._scored is None:
            self._scored = not self.train and any(self.table.row(i).known == "strong" for i in range(len(self.table)))
        return self._scored

    # ---- data from ESPnet's own files ------------------------------------------------------------

    def _given(self, uid: str, data: dict) -> dict[str, np.ndarray]:
        if self.augment:
            raise DataError(f"{uid}: `augment` changes the sounds of a mixture table; here `speech_mix` is given")
        item = dict(data)
        if self.label_type == "clip":
            item.pop("frame_label", None)
        if self.train and self.label_type not in ("strong", "mixed"):
            item = {k: v for k, v in item.items() if not k.startswith("speech_ref")}
        for name in ("clip_label", "frame_label"):
            if name in item:
                item[name] = np.asarray(item[name], np.float32)
                if self.num_classes and item[name].shape[-1] != self.num_classes:
                    raise DataError(f"{uid}: {name} holds {item[name].shape[-1]} classes, expected {self.num_classes}")
        if "clip_label" not in item and "frame_label" in item:
            item["clip_label"] = item["frame_label"].max(0)
        return item


class Partners:
    """Draws, for a mixture of a table, the one that is added to it in mixtures of mixtures.

    A class that the mixture lacks, each as likely; then a mixture of this class that shares none with it, where a few
    draws find one. With one class more it is less likely by `RARER`: what holds a single class is an isolated sound.
    """

    def __init__(self, table: MixtureTable):
        row, self._cls = table.labels()
        self._first = np.searchsorted(row, np.arange(len(table) + 1))  # of the classes of each mixture
        number, fewest = np.diff(self._first)[row], np.full(len(table.classes), np.inf)
        np.minimum.at(fewest, self._cls, number)
        weight = RARER ** (number - fewest[self._cls])  # within each class: no sum is lost beside a larger one
        order = np.argsort(self._cls, kind="stable")
        self._row, self._sum = row[order], np.concatenate([[0.0], np.cumsum(weight[order])])
        self._of = np.searchsorted(self._cls[order], np.arange(len(table.classes) + 1))  # the mixtures of each class
        self._heard = np.flatnonzero(np.diff(self._of))

    def __call__(self, row: int, rng: np.random.Generator) -> int:
        """Number of a mixture's partner."""
        own, other = self._classes(row), row
        lacking = np.setdiff1d(self._heard, own)
        for _ in range(20 if len(self._heard) else 0):
            k = rng.choice(lacking if len(lacking) else self._heard)
            first, end = self._of[k : k + 2]
            drawn = rng.uniform(self._sum[first], self._sum[end])
            other = int(self._row[min(np.searchsorted(self._sum, drawn, "right"), end) - 1])
            if not np.isin(self._classes(other), own).any():
                break
        return other

    def _classes(self, row: int) -> np.ndarray:
        return self._cls[self._first[row] : self._first[row + 1]]


def _part(mixture: Mixture, seconds: float | None, fs: int, rng: np.random.Generator) -> Mixture:
    """A part of a mixture, at random; all of one that is no longer, or where `seconds` is None."""
    num = mixture.samples if seconds is None else min(round(seconds * fs), mixture.samples)
    return crop(mixture, int(rng.integers(mixture.samples - num + 1)), num)


def use_priors(args: argparse.Namespace, table: MixtureTable, n_fft: int, hop: int) -> None:
    """Set `frame_prior` and `clip_prior` of a training where they are not given: those of what it sees of its table."""
    remix = args.part == "separator" and getattr(args, "remix", 0) > 0
    crop_seconds = (args.preprocessor_conf or {}).get("crop_seconds")
    seen = seen_priors(table, n_fft, hop, remix=remix, crop_seconds=crop_seconds)
    for name, prior in seen.items():
        if getattr(args, name) is None:
            setattr(args, name, prior)


def seen_priors(
    table: MixtureTable, n_fft: int, hop: int, *, remix: bool = False, crop_seconds: float | None = None
) -> dict[str, list[float]]:
    """`frame_prior` and `clip_prior`, K shares each, of what a training sees of a table.

    They are those of the table itself (`write_table`) where its mixtures are seen as they are;
    else they are counted in as many epochs as give `SEEN` mixtures, drawn once, whatever the training's seed.

    Args:
        n_fft, hop: of the frame labels, in samples.
        remix, crop_seconds: as in `WeakPreprocessor`.
    """
    if not remix and crop_seconds is None:
        return {name: list(map(float, table.info[name])) for name in ("frame_prior", "clip_prior")}
    rng, k = np.random.default_rng(0), len(table.classes)
    clip, active, frames = np.zeros(k), np.zeros(k), 0
    order = np.concatenate([rng.permutation(len(table)) for _ in range(-(-SEEN // len(table)))])
    partners = Partners(table) if remix else None
    for i in map(int, order):
        pair = [i] if partners is None else [i, partners(i, rng)]
        parts = [_part(table.row(n), crop_seconds, table.fs, rng) for n in pair]
        clip += np.max([clip_activity(m, k) for m in parts], axis=0)
        if all(m.known != "clip" for m in parts):
            labels = [frame_activity(m, k, n_fft, hop) for m in parts]
            both = np.zeros((max(map(len, labels)), k))
            for x in labels:
                both[: len(x)] = np.maximum(both[: len(x)], x)
            active, frames = active + both.sum(0), frames + len(both)
    clip /= len(order)
    return {"frame_prior": (active / frames if frames else clip).tolist(), "clip_prior": clip.tolist()}
