"""Figure 3 of the CaRE-SEP paper: two classes in a model's query embeddings and in its separation features.

Wang et al., "Consistent and Relevant: Rethink the Query Embedding in General Sound Separation", section 4.2. The paper
gives the KL divergence of two classes without saying of which distributions; `symmetric_kl` is our reading.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import NamedTuple

import numpy as np

from espnet2_ext.audio.read import read_mono, resample
from espnet2_ext.core.metrics import is_silent
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.corpora.own_clips import read_folder
from espnet2_ext.errors import DataError
from espnet2_ext.report.figures import COLOURS, new_figure, save

LEAST = 3  # clips of a class: fewer have no spread worth drawing
MARKERS = ("o", "^")  # of the classes; their colours differ as well
MARGIN = 0.08  # of a panel's width, around points and ellipses
PERPLEXITY = 30.0
FORMULA = (  # for Matplotlib
    r"$D = \frac{1}{4}\,\sum_d\left[\frac{\sigma_{1d}^2}{\sigma_{2d}^2}"
    r" + \frac{\sigma_{2d}^2}{\sigma_{1d}^2} - 2 + (\mu_{1d} - \mu_{2d})^2"
    r"\left(\frac{1}{\sigma_{1d}^2} + \frac{1}{\sigma_{2d}^2}\right)\right]$"
)
KL_WORDS = (
    "mean of KL(1||2) and KL(2||1) of two Gaussians with diagonal covariance, fitted to the two "
    "classes in the plane that is drawn: 1/4 sum over the axes of v1/v2 + v2/v1 - 2 "
    "+ (m1 - m2)^2 (1/v1 + 1/v2), with means m and variances v (over N)"
)


class Clips(NamedTuple):
    """Clips of two classes: `waves` `[T]` each, `classes` 0 or 1 each, and what names them all."""

    names: tuple[str, str]
    ids: list[str]
    classes: np.ndarray
    waves: list[np.ndarray]
    source: dict[str, str]


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


def draw_clips(
    data: str | Path, classes: Sequence[str], number: int, fs: int, *, seconds: float = 10.0, seed: int = 0
) -> Clips:
    """Draw `number` clips of each of two classes; a clip that carries both is left out.

    Args:
        data: a clip bank (`dump/<set>`), or a folder with a subfolder of sounds per class.
        classes: two of its classes, by identifier or name, in any case.
        fs: rate of the clips that are returned, in Hz.
        seconds: longer clips are cut to their first so many.

    Raises:
        DataError: an unknown class (lists the known ones); too few clips, with their number;
            a drawn clip that is silent.
    """
    if len(classes) != 2:
        raise DataError(f"two classes are compared, not {len(classes)}: {', '.join(classes)}")
    if number < LEAST:
        raise DataError(f"{number} clips of a class are too few, {LEAST} are the least")
    source = _Bank(Path(data)) if (Path(data) / "bank.json").exists() else _Folder(Path(data))
    picked = [_find(name, source.classes, data) for name in classes]
    if picked[0] == picked[1]:
        raise DataError(f"{data}: {classes[0]!r} and {classes[1]!r} are one class")
    members = [set(source.clips_of(k)) for k in picked]
    rng = np.random.default_rng(seed)
    ids, waves = [], []
    for side, k in enumerate(picked):
        own = sorted(members[side] - members[1 - side])
        if len(own) < number:
            raise DataError(
                f"{data}: {len(own)} clips of {source.classes[k][1]!r} without "
                f"{source.classes[picked[1 - side]][1]!r}, {number} are asked for (--clips)"
            )
        for i in sorted(rng.choice(len(own), number, replace=False)):
            ids.append(source.id(own[i]))
            waves.append(_cut(source.read(own[i], fs), round(seconds * fs), f"{data}: {ids[-1]}"))
    names = source.classes[picked[0]][1], source.classes[picked[1]][1]
    return Clips(names, ids, np.repeat([0, 1], number), waves, source.about)


def _find(name: str, classes: Sequence[tuple[str, ...]], data: str | Path) -> int:
    """Row of the class whose identifier or name is `name`."""
    for k, known in enumerate(classes):
        if name.casefold() in (v.casefold() for v in known):
            return k
    there = ", ".join(known[-1] for known in classes)
    raise DataError(f"{data}: no class {name!r}; there is: {there}")


def _cut(x: np.ndarray, num: int, where: str) -> np.ndarray:
    x = x[:num]
    if not len(x) or is_silent(x[None])[0]:
        raise DataError(f"{where}: is silent, so it has no embedding worth drawing")
    return x


class _Bank:
    """A clip bank; clips are its rows. classes: (identifier, name) of each."""

    def __init__(self, path: Path):
        self.bank = ClipBank(path)
        self.classes = [(label.mid, label.name) for label in self.bank.classes]
        self.about = {"data": str(path), "manifest_hash": self.bank.info["manifest_hash"]}
        self.id = self.bank.id

    def clips_of(self, k: int) -> list[int]:
        return self.bank.clips_of(k).tolist()

    def read(self, row: int, fs: int) -> np.ndarray:
        return resample(self.bank.read(row), self.bank.fs, fs)


class _Folder:
    """A folder of class folders; clips are their files."""

    def __init__(self, path: Path):
        self.path, self.sounds = path, read_folder(path)
        self.classes = [(name, name) for name in sorted({s.labels[0] for s in self.sounds})]
        self.about = {"data": str(path)}
        self.read = read_mono

    def clips_of(self, k: int) -> list[Path]:
        return [s.path for s in self.sounds if s.labels[0] == self.classes[k][0]]

    def id(self, path: Path) -> str:
        return str(path.relative_to(self.path))


def gaussian(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (over N) of each axis of `points` `[N, D]`: the fit that `symmetric_kl` compares."""
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


def record(systems: Sequence[System], clips: Clips, seed: int) -> dict:
    """All that the picture shows, for the JSON beside it.

    Args:
        clips: of `draw_clips`.
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


def draw_embeddings(systems: Sequence[System], names: tuple[str, str], classes: np.ndarray):
    """The figure. Its caption says what each part is and gives the divergence's formula.

    Args:
        names: of the two classes.
        classes: `[N]`, 0 or 1, class of each point.
    """
    figure, axes = new_figure(9.2, 2.2 + 4.0 * len(systems), len(systems), 2)
    figure.get_layout_engine().set(wspace=0.05, hspace=0.04)
    panels = [panel for system in systems for panel in system.panels]
    for letter, axis, panel in zip(ascii_lowercase, axes.flat, panels):
        _draw_panel(axis, panel, names, classes)
        axis.set_title(f"({letter}) {panel.what}", fontsize=11, loc="left")
        axis.set_title(f"$D$ = {panel.kl:.2f}", fontsize=11, loc="right", fontweight="bold")
    for line, system in zip(axes, systems):
        line[0].set_ylabel(system.name, fontsize=10, color="0.25", labelpad=8)
    counts = [int((classes == side).sum()) for side in (0, 1)]
    handles, _ = axes[0, 0].get_legend_handles_labels()
    labels = [f"{name} ({count} clips)" for name, count in zip(names, counts)]
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False, fontsize=11)
    figure.supxlabel(caption(systems), fontsize=8.5, color="0.25", linespacing=1.5)
    return figure


def _draw_panel(axis, panel: Panel, names: tuple[str, str], classes: np.ndarray) -> None:
    from matplotlib.patches import Ellipse

    corners = []
    shaded = [(2, {"alpha": 0.07}), (1, {"alpha": 0.13})]
    outline = {"fill": False, "linewidth": 0.9, "linestyle": (0, (4, 3)), "alpha": 0.8}
    for side, name in enumerate(names):
        points, colour = panel.points[classes == side], list(COLOURS.values())[side]
        mean, variance = gaussian(points)
        spread = np.sqrt(variance)
        for sigmas, style in shaded:
            axis.add_patch(Ellipse(mean, *(2 * sigmas * spread), facecolor=colour, edgecolor="none", zorder=1, **style))
        axis.add_patch(Ellipse(mean, *(4 * spread), edgecolor=colour, zorder=1, **outline))
        dots = {"s": 30, "alpha": 0.8, "edgecolors": "white", "linewidths": 0.5, "zorder": 2}
        axis.scatter(*points.T, marker=MARKERS[side], color=colour, label=name, **dots)
        axis.plot(*mean, marker="+", color=colour, markersize=11, markeredgewidth=2, zorder=3)
        corners += [points.min(0), points.max(0), mean - 2 * spread, mean + 2 * spread]
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    margin = MARGIN * (high - low)
    limits = np.stack([low - margin, high + margin])
    axis.set(xlim=limits[:, 0], ylim=limits[:, 1], xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(color="0.8", linewidth=0.8)


def caption(systems: Sequence[System]) -> str:
    """What is drawn, in words and with the formula of the divergence."""
    what = "; ".join(dict.fromkeys(s.about["separation_feature"] for s in systems))
    return (
        "t-SNE of each panel's own vectors; the units of a plane have no meaning.\n"
        f"Separation feature: {what},\n"
        "mean over its map, in the separation pass of a clip with its own embedding as the query.\n"
        r"$D$: symmetric KL divergence of two Gaussians with diagonal covariance, fitted to the "
        "two classes in the plane that is drawn\n(cross: mean; shaded: one and two standard "
        "deviations along each axis).\n\n" + FORMULA + "\n"
    )


def save_embeddings(figure, path: str | os.PathLike) -> Path:
    """Write the picture: PNG, PDF or SVG by its suffix."""
    return save(figure, path, dpi=150)
