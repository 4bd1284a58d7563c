"""What a query model heard in training: the mean query of each class, and how far from it sounds of a class lie.

A bundle holds it as `class_queries.npz`: `names` [K]; `count` int64 [K], sounds of each class; `mean` float32 [K, E]
of their queries; `spread` float32 [K], the mean distance of those to `mean`; `far`, a distance that few sounds of these
classes exceed. Distances are 1 minus the cosine.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from espnet2_ext.errors import DataError
from espnet2_ext.util.options import nearest

PREFIX = "class:"  # of a query that is a class's mean
SHARE = 0.99  # of held-out sounds that are not far
ARRAYS = ("names", "count", "mean", "spread", "far")


def class_of(query: object) -> str | None:
    """The class that a query `class:NAME` names; None for any other query."""
    return query.removeprefix(PREFIX) if isinstance(query, str) and query.startswith(PREFIX) else None


@dataclass(frozen=True, eq=False)
class ClassQueries:
    """See the module. where: what messages call it."""

    names: Sequence[str]
    count: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    far: float
    where: str = "the model"

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray], where: str) -> "ClassQueries":
        """Of the arrays of a bundle. Raises a DataError where they do not fit together."""
        names, count, mean, spread, far = (arrays[name] for name in ARRAYS)
        k = len(names) if names.ndim == 1 else 0
        fits = names.dtype.kind == "U" and count.dtype.kind in "iu" and count.shape == spread.shape == (k,)
        fits = fits and mean.ndim == 2 and len(mean) == k > 0 and far.shape == ()
        numbers = [a.dtype.kind == "f" and np.isfinite(a).all() for a in (mean, spread, far)]
        if not fits or not all(numbers):
            raise DataError(f"{where}: its arrays are not those of {k} classes")
        return cls(names.tolist(), count, mean.astype(np.float32), spread, float(far), where)

    def arrays(self) -> dict[str, np.ndarray]:
        """As a bundle holds them."""
        values = np.array(self.names), self.count, self.mean, self.spread, np.array(self.far)
        return dict(zip(ARRAYS, values))

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
        distances = distances_of(query[None], self.mean)[0]
        best = int(np.argmin(distances))
        return float(distances[best]), self.names[best]

    def far_words(self, query: np.ndarray) -> str:
        """What to say of a query `[E]` that is far from all classes; empty for one that is not."""
        distance, name = self.nearest(query)
        if distance <= self.far:
            return ""
        return (
            f"unlike all that the model was trained on, the result may be poor (distance {distance:.3f} to {name}, the "
            f"nearest; {SHARE:.0%} of the sounds of its classes lie within {self.far:.3f})"
        )


def distances_of(queries: np.ndarray, means: np.ndarray) -> np.ndarray:
    """1 minus the cosines of `queries` `[N, E]` and `means` `[K, E]`: `[N, K]`, 0 to 2."""
    units = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (queries, means)]
    return 1 - units[0] @ units[1].T


def measured(queries: Iterable[tuple[str, np.ndarray]], held_out: Iterable[np.ndarray] = ()) -> ClassQueries:
    """Means and spread of classes.

    Args:
        queries: (class, query `[E]`) of each sound and each of its classes.
        held_out: queries of sounds of these classes that the model was not trained on, for `far`. Without any, the
            sounds of each class are halved, and each half is compared with the means of the other.

    Raises:
        DataError: no sound; none held out, and no class with two sounds.
    """
    of: dict[str, list[np.ndarray]] = defaultdict(list)
    for name, query in queries:
        of[name].append(query)
    if not of:
        raise DataError("no sound to measure the classes with")
    names = sorted(of)
    mean = np.stack([np.mean(of[name], 0) for name in names])
    spread = [distances_of(np.stack(of[name]), mean[[k]]).mean() for k, name in enumerate(names)]
    nearest_one = [distances_of(np.stack(held), mean).min(1) for held in [list(held_out)] if held]
    if not nearest_one:
        pairs = [np.stack(of[name]) for name in names if len(of[name]) > 1]
        for i in (0, 1) if pairs else ():
            other = np.stack([p[1 - i :: 2].mean(0) for p in pairs])
            nearest_one.append(distances_of(np.concatenate([p[i::2] for p in pairs]), other).min(1))
    if not nearest_one:
        raise DataError("no class has two sounds, and none are held out: how far sounds usually lie is unknown")
    far = float(np.quantile(np.concatenate(nearest_one), SHARE))
    count = np.array([len(of[name]) for name in names])
    return ClassQueries(names, count, mean.astype(np.float32), np.array(spread, np.float32), far)
