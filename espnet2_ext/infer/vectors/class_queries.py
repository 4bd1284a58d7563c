"""What a query model heard in training: the mean query of each class, and how far from it sounds of a class lie.

A bundle holds it as `class_queries.npz`: `names` [K]; `count` int64 [K], sounds of each class; `mean` float32 [K, E]
of their queries; `axes` float32 [R, E], directions in which sounds of one class vary much; `spread` float32 [K], the
root mean square of the distances of a class's sounds to its `mean`; `far`, a distance in spreads that few sounds of
these classes exceed; `agreement`, a cosine that few pairs of one class fall below.

Distances are Euclidean between queries q - (q axes') axes: what varies much within the classes counts less. Cosines do
not tell known from unknown sounds, as queries share so much that those of any two may lie above 0.99. For `agreement`
the mean of all means is taken away first.

In half precision a table is held in 8 bits: int8 `NAME`, multiples of float32 `NAME_step` [rows, 1].
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from espnet2_ext.errors import DataError
from espnet2_ext.infer.vectors.presence import Scale
from espnet2_ext.util.names import nearest

PREFIX = "class:"  # of a query that is a class's mean
SHARE = 0.99  # of held-out sounds that are not far
FLOOR, MOST_AXES = 0.2, 64  # of the mean variance: what varies less within the classes is no axis
ARRAYS = ("names", "count", "mean", "axes", "spread", "far", "agreement")
STEP = "_step"


def class_of(query: object) -> str | None:
    """The class that a query `class:NAME` names; None for any other query."""
    return query.removeprefix(PREFIX) if isinstance(query, str) and query.startswith(PREFIX) else None


@dataclass(frozen=True, eq=False)
class ClassQueries:
    """See the module. where: what messages call it. presence: how the model's presence score was calibrated, if it was;
    a bundle holds it in the same file."""

    names: Sequence[str]
    count: np.ndarray
    mean: np.ndarray
    axes: np.ndarray
    spread: np.ndarray
    far: float
    agreement: float
    where: str = "the model"
    presence: Scale | None = None

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray], where: str) -> "ClassQueries":
        """Of the arrays of a bundle. Raises a DataError where they do not fit together."""
        arrays = {name: _of_steps(name, arrays) for name in arrays if not name.endswith(STEP)}
        names, count, mean, axes, spread, far, agreement = (arrays[name] for name in ARRAYS)
        k = len(names) if names.ndim == 1 else 0
        fits = names.dtype.kind == "U" and count.dtype.kind in "iu" and count.shape == spread.shape == (k,)
        fits = fits and mean.ndim == 2 and axes.ndim == 2 and len(mean) == k > 0 and far.shape == agreement.shape == ()
        fits = fits and mean.shape[1:] == axes.shape[1:]
        positive = spread.dtype.kind == "f" and (spread > 0).all()
        numbers = [a.dtype.kind == "f" and np.isfinite(a).all() for a in (mean, axes, spread, far, agreement)]
        if not fits or not positive or not all(numbers):
            raise DataError(f"{where}: its arrays are not those of {k} classes")
        scale = Scale.of_arrays(arrays, mean.shape[1], where)
        mean, axes = mean.astype(np.float32), axes.astype(np.float32)
        return cls(names.tolist(), count, mean, axes, spread, float(far), float(agreement), where, scale)

    def arrays(self, half: bool = False) -> dict[str, np.ndarray]:
        """As a bundle holds them; half: tables in 8 bits."""
        values = (
            np.array(self.names),
            self.count,
            self.mean,
            self.axes,
            self.spread,
            np.array(self.far),
            np.array(self.agreement),
        )
        found = dict(zip(ARRAYS, values)) | ({} if self.presence is None else self.presence.arrays())
        for name in [k for k, v in found.items() if half and v.ndim == 2]:
            step = np.abs(found[name]).max(1, keepdims=True, initial=0) / 127
            found |= {name: np.rint(found[name] / np.where(step, step, 1)).astype(np.int8), name + STEP: step}
        return found

    def query(self, name: str) -> np.ndarray:
        """Mean query `[E]` of a class, by its name without regard to case.

        Raises:
            DataError: no class of that name, or several; the nearest is named.
        """
        found = [i for i, known in enumerate(self.names) if known == name]
        found = found or [i for i, known in enumerate(self.names) if known.casefold() == name.casefold()]
        if len(found) == 1:
            return self.mean[found[0]]
        folded = {known.casefold(): known for known in self.names}
        near = None if found else nearest(name.casefold(), folded)
        hint = f"did you mean {PREFIX}{folded[near]}?" if near else "`espnet2-ext classes` lists them"
        raise DataError(f"{self.where}: {'several classes are' if found else 'no class is'} called {name!r}; {hint}")

    def nearest(self, query: np.ndarray) -> tuple[float, str]:
        """Distance of a query `[E]` to the nearest class, and its name."""
        distances = distances_of(query[None], self.mean, self.axes, self.spread)[0]
        best = int(np.argmin(distances))
        return float(distances[best]), self.names[best]

    def far_words(self, query: np.ndarray) -> str:
        """What to say of a query `[E]` that is far from all classes; empty for one that is not."""
        distance, name = self.nearest(query)
        if distance <= self.far:
            return ""
        return (
            f"unlike all that the model was trained on, the result may be poor (distance {distance:.1f} to {name}, the "
            f"nearest; {SHARE:.0%} of the sounds of its classes lie within {self.far:.1f})"
        )


def _of_steps(name: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """An array as it is, or of the multiples of its steps; of steps that do not fit as well, which then is refused."""
    table, step = arrays[name], arrays.get(name + STEP)
    fits = step is not None and table.dtype == np.int8 and step.dtype.kind == "f"
    return table * step if fits and step.shape == (*table.shape[:1], 1) else table


def centred(queries: np.ndarray, means: np.ndarray) -> np.ndarray:
    """`queries` `[N, E]` without what the classes' `means` `[K, E]` have in common; of one class they stay."""
    return queries.astype(np.float64) - (means.mean(0, dtype=np.float64) if len(means) > 1 else 0)


def distances_of(queries: np.ndarray, means: np.ndarray, axes: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Distances of `queries` `[N, E]` to classes with `means` `[K, E]` and `spread` `[K]`, in spreads: `[N, K]`."""
    parts = [np.linalg.norm(_squeezed(queries.astype(np.float64) - mean, axes), axis=1) for mean in means]
    return np.stack(parts, 1) / spread


def _squeezed(x: np.ndarray, axes: np.ndarray) -> np.ndarray:
    return x - (x @ axes.T) @ axes


def measured(queries: Iterable[tuple[str, np.ndarray]], held_out: Iterable[np.ndarray] = ()) -> ClassQueries:
    """Means and spread of classes.

    Args:
        queries: (class, query `[E]`) of each sound and each of its classes.
        held_out: queries of sounds of these classes that the model was not trained on, for `far`. Without any, the
            sounds of each class are halved, and each half is compared with the other.

    Raises:
        DataError: no class with two sounds.
    """
    of: dict[str, list[np.ndarray]] = defaultdict(list)
    for name, query in queries:
        of[name].append(query.astype(np.float64))
    names, held = sorted(of), list(held_out)
    sounds = [np.stack(of[name]) for name in names]
    mean, axes, spread = _means(sounds)
    if held:
        nearest_one = distances_of(np.stack(held), mean, axes, spread).min(1)
    else:
        pairs = [(x[::2], x[1::2]) for x in sounds if len(x) > 3] or [(x, x) for x in sounds]
        parts = [
            distances_of(np.concatenate([p[i] for p in pairs]), *_means([p[1 - i] for p in pairs])) for i in (0, 1)
        ]
        nearest_one = np.concatenate([part.min(1) for part in parts])
    far, count = float(np.quantile(nearest_one, SHARE)), np.array([len(x) for x in sounds])
    agreement = usual_agreement(centred(np.concatenate(sounds), mean), np.repeat(names, count))
    assert agreement is not None  # a class has two sounds
    arrays = (x.astype(np.float32) for x in (mean, axes, spread))
    return ClassQueries(names, count, *arrays, far, agreement)


def _means(sounds: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means `[K, E]`, axes `[R, E]` and spread `[K]` of the sounds `[N, E]` of K classes.

    The spread of a class of one sound, or of equal ones, is that of all classes together.
    """
    if not any(len(x) > 1 for x in sounds):
        raise DataError("no class has two sounds: how far its sounds usually lie is unknown")
    mean = np.stack([x.mean(0) for x in sounds])
    inside = np.concatenate([x - m for x, m in zip(sounds, mean)])
    variance, directions = np.linalg.eigh(inside.T @ inside / len(inside))
    variance, directions = variance[: -MOST_AXES - 1 : -1], directions.T[: -MOST_AXES - 1 : -1]
    floor = FLOOR * (inside**2).mean()
    wide = variance > max(floor, 1e-30)
    axes = directions[wide] * np.sqrt(1 - np.sqrt(floor / variance[wide]))[:, None]
    squares = np.array([(_squeezed(x - m, axes) ** 2).sum() for x, m in zip(sounds, mean)])
    more = np.array([len(x) - 1 for x in sounds])
    pooled = np.sqrt(squares.sum() / more.sum()) or 1.0
    spread = np.sqrt(squares / np.maximum(more, 1))
    return mean, axes, np.where(spread > pooled / 100, spread, pooled)


def usual_agreement(vectors: np.ndarray, classes: Sequence[str], share: float = 0.05, most: int = 64) -> float | None:
    """Cosine below which only `share` of the pairs of one class lie: a model's own threshold.

    What is a low cosine differs from model to model, as embeddings are not centred.

    Args:
        vectors: `[N, E]` queries of `classes` `[N]`, for example of a test set.
        most: queries of a class that are looked at, the first ones.

    Returns:
        None when no class has two queries.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    names, cosines = np.asarray(classes), []
    for name in np.unique(names):
        own = unit[np.flatnonzero(names == name)[:most]]
        cosines.append((own @ own.T)[np.triu_indices(len(own), 1)])
    values = np.concatenate(cosines) if cosines else np.zeros(0)
    return float(np.quantile(values, share)) if len(values) else None
