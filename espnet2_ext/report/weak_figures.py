"""Figures 3 and 4 of the paper: improvement against input SI-SDR, a panel a class and label type.

(Pishdadian et al., "Finding Strength in Weakness".)
"""

from collections.abc import Sequence

import numpy as np

from espnet2_ext.report.figures import new_figure
from espnet2_ext.report.weak_sets import Scored
from espnet2_ext.scores.summary import scored_names

_TAIL = 0.5  # per cent of the points at each end of an axis that may lie outside the panels
_GRID = 80  # cells of the grid on which density is counted, a side
_SMOOTH = 2.0  # cells


def draw_density(scored: Sequence[Scored]):
    """Scatter plots with shared axes, warmer where more sources lie; rows: label types."""
    classes = scored_names(scored[0].summary)
    points = {(s.label, c): _points(s.rows, c) for s in scored for c in classes}
    everything = np.concatenate([p for p in points.values() if len(p)] or [np.zeros((1, 2))])
    (left, low), (right, high) = np.percentile(everything, [_TAIL, 100 - _TAIL], axis=0)
    x_span, y_span = _widen(left, right), _widen(min(low, 0.0), high)
    figure, axes = new_figure(
        0.9 + 2.35 * len(classes), 0.9 + 2.1 * len(scored), len(scored), len(classes), sharex=True, sharey=True
    )
    for line, s in zip(axes, scored, strict=True):
        for axis, c in zip(line, classes, strict=True):
            _panel(axis, points[s.label, c], (x_span, y_span))
    for axis, c in zip(axes[0], classes):
        axis.set_title(c.replace("_", " "), fontsize=12, loc="left")
    for axis in axes[-1]:
        axis.set_xlabel("input SI-SDR (dB)")
    for axis, s in zip(axes[:, 0], scored):
        axis.set_ylabel(f"{s.label}\nΔSI-SDR (dB)")
    axes[0, 0].set(xlim=x_span, ylim=y_span)
    outside = sum(_outside(p, x_span, y_span) for p in points.values())
    text = "Improvement against the input, one point a source; warmer: more of them; dashed: mean"
    if outside:
        text += f" ({outside} of {sum(map(len, points.values()))} lie outside the panels)"
    figure.suptitle(text, fontsize=12)
    return figure


def _panel(axis, points: np.ndarray, spans: tuple) -> None:
    axis.axhline(0, color="0.35", linewidth=1)
    axis.grid(True, color="0.9", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    if not len(points):
        return
    shade = density(points, spans)
    order = np.argsort(shade)  # the densest on top
    size = float(np.clip(4000 / len(points), 5, 24))
    axis.scatter(*points[order].T, c=shade[order], s=size, cmap="turbo", vmin=0, vmax=1, linewidths=0, rasterized=True)
    mean = points[:, 1].mean()
    axis.axhline(mean, color="black", linewidth=1, linestyle="--")
    text = f"mean {mean:.1f}, n {len(points)}".replace("-0.0,", "0.0,")
    axis.set_title(text, fontsize=8, loc="right")


def density(points: np.ndarray, spans: tuple) -> np.ndarray:
    """How crowded it is around each of `points` [N, 2], 1 at the most crowded: [N]."""
    from scipy.ndimage import gaussian_filter

    counts, x, y = np.histogram2d(*points.T, bins=_GRID, range=spans)
    smooth = gaussian_filter(counts, _SMOOTH, mode="constant")
    column = np.clip(np.searchsorted(x, points[:, 0]) - 1, 0, _GRID - 1)
    line = np.clip(np.searchsorted(y, points[:, 1]) - 1, 0, _GRID - 1)
    found = smooth[column, line]
    return found / max(found.max(), 1e-12)


def _points(rows: list[dict], cls: str) -> np.ndarray:
    """Input SI-SDR and gain of the scored sources of a class: [N, 2]."""
    scores = (row["classes"].get(cls, {}) for row in rows)
    pairs = [(s["input"], s["gain"]) for s in scores if s.get("gain") is not None]
    return np.array(pairs).reshape(-1, 2)


def _outside(points: np.ndarray, x_span: tuple, y_span: tuple) -> int:
    low, high = np.array([x_span, y_span]).T
    return int(((points < low) | (points > high)).any(axis=1).sum())


def _widen(low: float, high: float) -> tuple[float, float]:
    margin = max(0.06 * (high - low), (6.0 - (high - low)) / 2, 0.5)
    return float(low - margin), float(high + margin)
