"""What a model heard, measured on the clips of its training and put into its bundle; and how likely what it finds is
there, measured on mixtures."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from espnet2_ext.audio.streams import Resampler
from espnet2_ext.core.mixing.pair_drawer import Pair, PairDrawer, render
from espnet2_ext.data.bank.bank import ClipBank, bank_digest
from espnet2_ext.errors import DataError
from espnet2_ext.infer.bundle import CLASS_QUERIES, hash_of_files, open_bundle
from espnet2_ext.infer.folder import ModelFiles, up_to_date
from espnet2_ext.infer.pack import HALF, rewrite
from espnet2_ext.infer.queries import read_query
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.infer.vectors.class_queries import ClassQueries, measured
from espnet2_ext.infer.vectors.presence import RARE, SEEN, Features, Scale, sigmoid
from espnet2_ext.util.binary import npz_bytes
from espnet2_ext.util.files import atomic_path, digest, write_record

Heard = tuple[str, np.ndarray, np.ndarray | None]
SCENE = 2 * SEEN  # seconds of a mixture
SNR_DB, ALONE = [-5.0, 5.0], 0.25  # of the first sound over the other; chance of a mixture of one sound
APART = 0.5  # chance that the second sound begins at a time of its own
NOISE_DB, LOUDER_DB = [-60.0, -25.0], [0.0, 15.0]  # of the noise below the sounds; of the recording elsewhere over this
MUCH = 0.25  # of a sound's energy: from there on it is there, in a window that holds none of it it is not
FEWEST = 8  # mixtures
RIDGE, WEIGHT_DECAY, ROUNDS = 0.01, 0.01, 30


def calibrate(
    bundle: str | Path,
    bank: str | Path,
    held_out: str | Path | None = None,
    out: str | Path | None = None,
    most: int = 100,
    device: str = "auto",
    mixtures: int = 200,
) -> ClassQueries:
    """Put into a bundle what its query model heard, and the calibration of its presence score.

    Args:
        bank: clip bank of the training. held_out: one of further sounds of these classes; see `measured`. The mixtures
            are of these; without any, of the training, on which the model does better than on others.
        out: the bundle to write; None: `bundle` itself.
        most: clips of a class that are embedded, evenly chosen.
        mixtures: how many; 0: the presence score is not calibrated.

    Raises:
        DataError: no bundle of a query model, no clip bank, a bank without clips of any class.
    """
    found = measure(Separator.from_bundle(bundle, device), Clips(bank), held_out and Clips(held_out), most, mixtures)
    with open_bundle(bundle) as opened:
        half = opened.info.get("precision") == HALF
    rewrite(bundle, out or bundle, more={CLASS_QUERIES: npz_bytes(found.arrays(half))})
    return found


class Sounds(Protocol):
    """What a model was trained on, or further sounds of these classes: `Clips`, or `recordings.Recordings`."""

    digest: str

    def heard(self, separator: Separator, most: int) -> list[Heard]:
        """(class, query `[E]`, tags `[K]`) of up to `most` sounds of each class; silent ones are left out."""
        ...

    def scale(self, separator: Separator, readout: np.ndarray, mixtures: int) -> Scale:
        """The presence score, fitted to up to so many mixtures; a DataError where there are too few."""
        ...


def measure(
    separator: Separator, trained_on: Sounds, held_out: Sounds | None, most: int, mixtures: int
) -> ClassQueries:
    """What a query model heard and, unless `mixtures` is 0 or too few can be made, the calibration of its presence
    score; the arguments as of `calibrate`."""
    sounds = trained_on.heard(separator, most)
    others = held_out.heard(separator, most) if held_out else []
    found = measured([(name, query) for name, query, _ in sounds], [query for _, query, _ in others])
    if mixtures:
        separator.known = found
        readout = tag_readout(*zip(*((query, tags) for _, query, tags in sounds)))
        try:
            found = replace(found, presence=(held_out or trained_on).scale(separator, readout, mixtures))
        except DataError as e:
            logging.warning("the presence score is not calibrated: %s", e)
    return found


def write_class_queries(
    model: ModelFiles, trained_on: Sounds, held_out: Sounds | None, most: int, mixtures: int
) -> Path:
    """`measure` an experiment's model once, and write it beside its weights, where inference and `pack` find it.

    The record beside it says, too, how well presence is told (`presence`, words; empty if it is not calibrated).
    """
    assert model.train_config and model.model_file
    out = Path(model.model_file).parent / CLASS_QUERIES
    sounds = [one.digest for one in (trained_on, held_out) if one]
    key = {"model": hash_of_files(model.train_config, model.model_file), "digest": digest(sounds, most, mixtures)}
    record = out.with_suffix(".json")
    if up_to_date(record, key, out):
        return out
    for old in (out, record):
        old.unlink(missing_ok=True)
    found = measure(model.load(), trained_on, held_out, most, mixtures)
    with atomic_path(out) as tmp:
        Path(tmp).write_bytes(npz_bytes(found.arrays()))
    write_record(record, key, {"presence": found.presence.words() if found.presence else ""}, files=[out])
    return out


class Clips:
    """Sounds of a clip bank, of which mixtures are drawn."""

    def __init__(self, bank: str | Path):
        self.bank = ClipBank(bank)
        self.digest = bank_digest(self.bank)

    def heard(self, separator: Separator, most: int) -> list[Heard]:
        """See `Sounds`; the clips are evenly chosen."""
        bank, found = self.bank, []
        chosen: dict[int, list[int]] = {}
        for k in range(bank.num_classes):
            clips = bank.clips_of(k)
            for i in np.unique(np.linspace(0, len(clips) - 1, min(most, len(clips))).round().astype(int)):
                chosen.setdefault(int(clips[i]), []).append(k)
        for clip, classes in tqdm(sorted(chosen.items()), desc=bank.path.name, unit="clip", disable=None):
            sound = bank.read(clip)
            try:
                query, tags = separator.heard(read_query(sound, separator.fs, bank.fs))
            except DataError as e:
                logging.warning("%s: clip %s is left out: %s", bank.path, bank.id(clip), e)
                continue
            found += [(bank.classes[k].name, query, tags) for k in classes]
        return found

    def scale(self, separator: Separator, readout: np.ndarray, mixtures: int) -> Scale:
        """See `presence_scale`."""
        return presence_scale(separator, self.bank, readout, mixtures)


# ---- presence ------------------------------------------------------------------------------------


def presence_scale(separator: Separator, bank: ClipBank, readout: np.ndarray, mixtures: int, seed: int = 0) -> Scale:
    """Fit the presence score to the windows of mixtures of the bank's clips, see `drawn`; both kinds count equally.

    AUC, thresholds and error rates are of windows that hold some sound, as noise alone is told apart easily, and of
    mixtures that the weights were not fitted to: of each half, with the other's.

    Raises:
        DataError: no classes that are unrelated; too few mixtures.
    """
    rows, there, of, some = [], [], [], []
    size, count = round(SEEN * separator.fs), 0
    for mix, refs, queries, rms in drawn(separator, bank, mixtures, seed):
        est, features = separator.network(queries)(mix[:, None], rms)[..., 0], Features(separator, queries, readout)
        whole = np.maximum(np.square(refs, dtype=np.float64).sum(1), 1e-12)
        for start in range(0, len(mix) - size // 2, size):
            window = slice(start, start + size)
            share = np.square(refs[:, window], dtype=np.float64).sum(1) / whole
            clear = (share == 0) | (share >= MUCH)
            rows.append(features(mix[window], est[:, window], rms)[clear])
            there.append(share[clear] > 0)
            of.append(np.full(clear.sum(), count % 2))
            some.append(np.full(clear.sum(), share.any()))
        count += 1
    if count < FEWEST:
        raise DataError(f"{bank.path}: only {count} mixtures with and without a class could be made")
    found = (np.concatenate(x) for x in (rows, there, of, some))
    return fitted(*found, readout, count)


def fitted(
    x: np.ndarray, y: np.ndarray, half: np.ndarray, sounds: np.ndarray, readout: np.ndarray, mixtures: int
) -> Scale:
    """The scale of windows with features `x` `[N, D]`; see `presence_scale`.

    Args:
        y: `[N]`, whether what was asked for is there. half: `[N]` 0 or 1, by mixture. sounds: `[N]`, whether the
            figures count the window. mixtures: their number.
    """
    p = np.zeros(len(x))
    for i in (0, 1):
        p[half == i] = sigmoid(np.c_[x, np.ones(len(x))] @ logistic(x[half != i], y[half != i]))[half == i]
    p, true = p[sounds], y[sounds]
    limits = np.sort(p)
    miss, false = (p[true] < limits[:, None]).mean(1), (p[~true] >= limits[:, None]).mean(1)
    best = int(np.argmin(np.abs(miss - false)))
    rare = float(np.quantile(p[~true], 1 - RARE))
    rates = float(limits[best]), rare, area_under_curve(p[true], p[~true]), float(miss[best]), float(false[best])
    return Scale(logistic(x, y), readout, *rates, mixtures)


def drawn(
    separator: Separator, bank: ClipBank, mixtures: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, float]]:
    """Mixtures `[T]` at the model's rate, the sound `[Q, T]` that each query asks for, or zeros, the queries `[Q, E]`,
    and the RMS of the recording that the mixture is a part of.

    A mixture is what `SCENE` of a long recording may hold: noise, and at a random time, perhaps beyond its ends, two
    sounds of `SEEN`, or one; elsewhere the recording may be louder. It is asked for its sounds, by other clips of their
    classes, and for as many classes that it does not hold, by clips that the mixtures after it are asked with.
    """
    drawer = PairDrawer(bank, segment=SEEN, query_from="other", snr_db=SNR_DB, single_prob=ALONE)
    rng = np.random.default_rng(seed)
    pairs = [drawer.draw(rng) for _ in range(mixtures)]
    for n, pair in enumerate(tqdm(pairs, desc="presence", unit="mixture", disable=None)):
        held = bank.related[np.concatenate([bank.labels(pair.clip1), bank.labels(pair.clip2)])].any(0)
        later = [(other, i) for other in pairs[n + 1 :] + pairs[:n] for i in (1, 2)]
        absent = [(other, i) for other, i in later if not held[bank.labels((other.query1, other.query2)[i - 1])].any()]
        asked = [(pair, i) for i in ((1,) if pair.alone else (1, 2))]
        if not absent:
            continue
        try:
            queries = [_query(separator, bank, *one) for one in [*asked, *absent[: len(asked)]]]
        except DataError as e:  # a silent stretch
            logging.warning("%s: a mixture is left out: %s", bank.path, e)
            continue
        mix, *refs = (_at(separator.fs, bank.fs, x) for x in scene(pair, bank, rng))
        found = np.zeros((len(queries), len(mix)), np.float32)
        found[: len(asked)] = refs[: len(asked)]
        rms = float(np.sqrt(np.mean(np.square(mix, dtype=np.float64)))) * 10 ** (rng.uniform(*LOUDER_DB) / 20)
        yield mix, found, np.stack(queries), rms


def scene(pair: Pair, bank: ClipBank, rng: np.random.Generator) -> list[np.ndarray]:
    """A mixture `[T]` of `SCENE` at the bank's rate, and its two sounds; see `drawn`."""
    audio, num = render(pair, bank), round(SCENE * bank.fs)
    start, own = rng.uniform(-SEEN / 2, SCENE - SEEN / 2, 2)
    starts = start, own if rng.random() < APART else start
    refs = [np.zeros(num, np.float32) for _ in starts]
    for ref, sound, begin in zip(refs, (audio["ref1"], audio["ref2"]), starts):
        at = round(begin * bank.fs)
        part = sound[max(0, -at) : num - at]
        ref[max(0, at) : max(0, at) + len(part)] = part
    level = np.sqrt(np.mean(audio["mix"] ** 2)) * 10 ** (rng.uniform(*NOISE_DB) / 20)
    noise = rng.standard_normal(num).astype(np.float32) * level
    return [(refs[0] if pair.alone else refs[0] + refs[1]) + noise, *refs]


def _at(fs: int, fs_in: int, x: np.ndarray) -> np.ndarray:
    return np.concatenate([*Resampler(fs_in, fs, 1).run([x[:, None]])])[:, 0]


def _query(separator: Separator, bank: ClipBank, pair: Pair, i: int) -> np.ndarray:
    clip, start = ((pair.query1, pair.qstart1), (pair.query2, pair.qstart2))[i - 1]
    return separator.embed_one(bank.read(clip, start, pair.qnum), bank.fs)


def tag_readout(vectors: Sequence[np.ndarray], tags: Sequence[np.ndarray | None]) -> np.ndarray:
    """`[E + 1, K]`: what gives a model's tagging logits from an embedding `[E]` and 1, by ridge regression; K is 0 for
    a model that does not tag."""
    x = np.stack(vectors).astype(np.float64)
    if tags[0] is None:
        return np.zeros((x.shape[1] + 1, 0))
    y, middle = np.stack([t for t in tags if t is not None]).astype(np.float64), x.mean(0)
    gram = (x - middle).T @ (x - middle)
    gram[np.diag_indices_from(gram)] += RIDGE * np.trace(gram) / len(x) + 1e-12
    found = np.linalg.solve(gram, (x - middle).T @ (y - y.mean(0)))
    return np.vstack([found, y.mean(0) - middle @ found])


def logistic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights `[D]` and constant of the logistic regression of `y` `[N]`, bool, on `x` `[N, D]`, by Newton's method.

    Both values of `y` count equally. The weights are decayed where each column has variance 1.
    """
    middle, scale = x.mean(0), np.where(x.std(0) > 1e-9, x.std(0), 1.0)
    z, w = np.c_[(x - middle) / scale, np.ones(len(x))], np.zeros(x.shape[1] + 1)
    decay = np.append(np.full(x.shape[1], WEIGHT_DECAY), 1e-6)
    counts = np.where(y, y.mean(), 1 - y.mean()) * 2 * len(z)
    for _ in range(ROUNDS):
        p = sigmoid(z @ w)
        curve = (z * (p * (1 - p) / counts)[:, None]).T @ z + np.diag(decay)
        w -= np.linalg.solve(curve, z.T @ ((p - y) / counts) + decay * w)
    return np.append(w[:-1] / scale, w[-1] - (w[:-1] * middle / scale).sum())


def area_under_curve(there: np.ndarray, absent: np.ndarray) -> float:
    """Chance that one of the scores `there` `[N]` is above one of `absent` `[M]`; equal ones count half."""
    return float((there[:, None] > absent).mean() + (there[:, None] == absent).mean() / 2)
