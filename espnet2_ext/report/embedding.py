"""How two classes lie in a model's query embeddings and in the features of its separation pass.

Wang et al., "Consistent and Relevant: Rethink the Query Embedding in General Sound Separation",
section 4.2 and figure 3. The paper gives the KL divergence of two classes without saying of which
distributions; `symmetric_kl` is our reading.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from espnet2_ext.errors import DataError

PERPLEXITY = 30.0
FORMULA = (
    r"$D = \frac{1}{4}\,\sum_d\left[\frac{\sigma_{1d}^2}{\sigma_{2d}^2}"
    r" + \frac{\sigma_{2d}^2}{\sigma_{1d}^2} - 2 + (\mu_{1d} - \mu_{2d})^2"
    r"\left(\frac{1}{\sigma_{1d}^2} + \frac{1}{\sigma_{2d}^2}\right)\right]$"
)
KL_WORDS = (
    "mean of KL(1||2) and KL(2||1) of two Gaussians with diagonal covariance, fitted to the two "
    "classes in the plane that is drawn: 1/4 sum over the axes of v1/v2 + v2/v1 - 2 "
    "+ (m1 - m2)^2 (1/v1 + 1/v2), with means m and variances v (over N)"
)


class Panel(NamedTuple):
    """One space as it is drawn: `points` `[N, 2]`, the classes' divergence `kl` in that plane."""

    what: str
    points: np.ndarray
    kl: float


class System(NamedTuple):
    """A model: its `name`, the separation feature and the query embedding, and what they are."""

    name: str
    panels: tuple[Panel, Panel]
    about: dict


def gaussian(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (over N) of each axis of `points` `[N, D]`: the fit that `symmetric_kl`
    compares."""
    return points.mean(0), points.var(0)


def symmetric_kl(first: np.ndarray, second: np.ndarray) -> float:
    """Mean of KL(P || Q) and KL(Q || P) of Gaussians with diagonal covariance, in nats.

    1/4 sum_d [v1/v2 + v2/v1 - 2 + (m1 - m2)^2 (1/v1 + 1/v2)] with means m and variances v of each
    axis (Kullback and Leibler, "On information and sufficiency", 1951, their J, halved: so it is
    on the scale of one divergence). The logarithms of the two directions cancel.

    Args:
        first, second: points `[N, D]` of the two classes.

    Raises:
        ValueError: shapes that do not fit, or an axis along which a class does not vary.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"expected [N, D] twice, got {first.shape} and {second.shape}")
    (m1, v1), (m2, v2) = gaussian(first), gaussian(second)
    if not (v1.all() and v2.all()):
        raise ValueError("a class does not vary along one of the axes: it has no Gaussian")
    terms = v1 / v2 + v2 / v1 - 2 + (m1 - m2) ** 2 * (1 / v1 + 1 / v2)
    return float(terms.sum() / 4)


def project(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """t-SNE of `vectors` `[N, D]` in the plane: float64 `[N, 2]`, the same for the same seed.

    The start is the first two principal components; the perplexity is `PERPLEXITY`, or a third of
    the points where they are few (van der Maaten and Hinton, "Visualizing Data using t-SNE", 2008).

    Raises:
        DataError: vectors that are all the same.
    """
    from sklearn.manifold import TSNE

    vectors = np.asarray(vectors, dtype=np.float64)
    if not vectors.std(0).any():
        raise DataError("all clips have one and the same vector: there is nothing to draw")
    tsne = TSNE(2, perplexity=min(PERPLEXITY, (len(vectors) - 1) / 3), init="pca", random_state=seed)
    return tsne.fit_transform(vectors).astype(np.float64)


def make_panel(what: str, vectors: np.ndarray, classes: np.ndarray, seed: int = 0) -> Panel:
    """`vectors` `[N, D]` of two `classes` `[N]` (0 or 1) in the plane, and their divergence."""
    points = project(vectors, seed)
    return Panel(what, points, symmetric_kl(points[classes == 0], points[classes == 1]))


def record(systems: Sequence[System], clips, seed: int) -> dict:
    """All that the picture shows, for the JSON beside it.

    Args:
        clips: what `embedding_clips.draw_clips` gave.
    """
    shown = [
        {
            "name": s.name,
            **s.about,
            "kl": {p.what: p.kl for p in s.panels},
            "points": {p.what: p.points.round(4).tolist() for p in s.panels},
        }
        for s in systems
    ]
    return {
        "figure": "CaRE-SEP paper, figure 3: t-SNE of separation features and query embeddings",
        "classes": list(clips.names),
        "clips": clips.ids,
        "class_of_clip": clips.classes.tolist(),
        **clips.source,
        "seed": seed,
        "kl_formula": KL_WORDS,
        "systems": shown,
    }
