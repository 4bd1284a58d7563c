"""The picture of two classes' embeddings: a row a model, separation feature beside query."""

import os
from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase

import numpy as np

from espnet2_ext.report.embedding import FORMULA, Panel, System, gaussian
from espnet2_ext.report.figures import new_figure, save

COLOURS = ("#0072B2", "#D55E00")  # safe for colour-blind readers; the shapes differ as well
MARKERS = ("o", "^")
MARGIN = 0.08  # of a panel's width, around points and ellipses


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
    for side, name in enumerate(names):
        points, colour = panel.points[classes == side], COLOURS[side]
        mean, variance = gaussian(points)
        spread = np.sqrt(variance)
        for sigmas, alpha in ((2, 0.07), (1, 0.13)):
            axis.add_patch(
                Ellipse(mean, *(2 * sigmas * spread), facecolor=colour, alpha=alpha, edgecolor="none", zorder=1)
            )
        axis.add_patch(
            Ellipse(
                mean,
                *(4 * spread),
                fill=False,
                edgecolor=colour,
                linewidth=0.9,
                linestyle=(0, (4, 3)),
                alpha=0.8,
                zorder=1,
            )
        )
        axis.scatter(
            *points.T,
            s=30,
            marker=MARKERS[side],
            color=colour,
            alpha=0.8,
            edgecolors="white",
            linewidths=0.5,
            label=name,
            zorder=2,
        )
        axis.plot(*mean, marker="+", color=colour, markersize=11, markeredgewidth=2, zorder=3)
        corners += [points.min(0), points.max(0), mean - 2 * spread, mean + 2 * spread]
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    margin = MARGIN * (high - low)
    axis.set(
        xlim=(low[0] - margin[0], high[0] + margin[0]),
        ylim=(low[1] - margin[1], high[1] + margin[1]),
        xticks=[],
        yticks=[],
    )
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
    """Write the picture (PNG, or PDF or SVG by its suffix)."""
    return save(figure, path, dpi=150)
