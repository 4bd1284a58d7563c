"""Pictures of scores and training (PNG): what the tables cannot show."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from espnet2_ext.report.experiment import Scored
from espnet2_ext.scores.summary import scored_names
from espnet2_ext.train.experiment import training_curves
from espnet2_ext.util.files import atomic_path

COLOURS = {"self": "#0072B2", "other": "#D55E00"}  # safe for colour-blind readers
_CLASSES = 40
_TAIL = 0.5  # per cent of the points at each end of an axis that may lie outside the panels of `draw_density`
_GRID = 80  # cells of the grid on which density is counted, per side
_SMOOTH = 2.0  # cells


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, layout="constrained", **options):
    """A figure without a window and its axes [rows, columns]; sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, axes


def save(figure, path: str | os.PathLike, dpi: int = 130) -> Path:
    """Write `figure` to `path` whole; dpi: pixels an inch."""
    with atomic_path(path) as tmp:
        figure.savefig(tmp, dpi=dpi, facecolor="white")
    return Path(path)


def query_pictures(scored: Sequence[Scored], folder: Path) -> dict[str, Path]:
    """Score distributions of a model on a test set: title -> PNG in `folder`."""
    drawn = {
        "Gain over the unprocessed mixture": (draw_histogram, "gain_histogram.png"),
        "Gain against the input, and what the query costs": (draw_scatter, "gain_scatter.png"),
        "Gain by class": (draw_classes, "gain_by_class.png"),
    }
    (s,) = scored
    return {title: save(draw(s.rows, s.summary), folder / name) for title, (draw, name) in drawn.items()}


def class_pictures(scored: Sequence[Scored], folder: Path) -> dict[str, Path]:
    """The improvement of the models on a test set: title -> PNG in `folder`; empty where nothing was scored."""
    if not scored[0].summary["overall"]["gain"]["count"]:
        return {}
    return {"Improvement against the input": save(draw_density(scored), folder / "density.png")}


def draw_histogram(rows: list[dict], summary: dict):
    """Histograms of the SDR gain and of silence-SDR, the protocols over each other."""
    scores = {"sdr_gain": "SDR gain over the mixture (dB)", "silence_sdr": "silence-SDR (dB)"}
    figure, axes = new_figure(11, 3.8, 1, 2)
    for axis, (score, label) in zip(axes[0], scores.items(), strict=True):
        values = {p: _values(rows, p, score) for p in summary["protocols"]}
        merged = np.concatenate([*values.values(), [0.0]])
        bins = np.histogram_bin_edges(merged, bins=min(50, max(10, len(merged) // 8)))
        for protocol, found in values.items():
            if not len(found):
                continue
            colour = COLOURS[protocol]
            name = f"{protocol}: mean {found.mean():.1f}, {len(found)} targets"
            axis.hist(found, bins, color=colour, alpha=0.45, label=name)
            axis.hist(found, bins, color=colour, histtype="step", linewidth=1.2)
            axis.axvline(found.mean(), color=colour, linestyle="--", linewidth=1.5)
        axis.axvline(0, color="0.3", linewidth=1)
        axis.set(xlabel=label, ylabel="targets")
        _tidy(axis, legend=True)
    figure.suptitle("How the scores are distributed (dashed: mean)", fontsize=13)
    return figure


def draw_scatter(rows: list[dict], summary: dict):
    """SDR gain against the mixture's own SDR, and of the two protocols against each other."""
    protocols = list(summary["protocols"])
    figure, axes = new_figure(11, 4.6, 1, 2)
    left, right = axes[0]
    style = {"s": 14, "alpha": 0.5, "linewidths": 0}
    inputs = []
    for protocol in protocols:
        shown = [r for r in rows if protocol in r and r[protocol]["sdr_gain"] is not None]
        x = [row["mixture"]["sdr"] for row in shown]
        inputs += x
        y = [row[protocol]["sdr_gain"] for row in shown]
        left.scatter(x, y, color=COLOURS[protocol], label=protocol, **style)
    left.axhline(0, color="0.3", linewidth=1)
    left.set(xlabel="SDR of the unprocessed mixture (dB)", ylabel="SDR gain (dB)")
    left.set_xlim(*_span(inputs, 6.0))
    left.set_title("Gain against the input", fontsize=11)
    _tidy(left, legend=True)
    if len(protocols) == 2:
        gains = [[row.get(p, {}).get("sdr_gain") for p in protocols] for row in rows]
        gains = np.array([pair for pair in gains if None not in pair]).reshape(-1, 2)
        x, y = gains[:, 0], gains[:, 1]
        right.scatter(x, y, color="0.25", **style)
        span = _span([*x, *y], 6.0)
        right.plot(span, span, color="0.3", linewidth=1)
        right.set(xlim=span, ylim=span, aspect="equal")
        right.set(xlabel=f"SDR gain, query {protocols[0]} (dB)")
        right.set(ylabel=f"SDR gain, query {protocols[1]} (dB)")
        right.set_title("One target, two queries (below the line: self is better)", fontsize=11)
        _tidy(right)
    else:
        right.axis("off")
    return figure


def draw_classes(rows: list[dict], summary: dict):
    """Box plots of the SDR gain of each class, the worst on top; many classes: worst and best."""
    protocols = list(summary["protocols"])
    order = [c for c in summary["protocols"][protocols[0]]["classes"] if c["sdr_gain"]["count"]]
    total = len(order)
    if total > _CLASSES:
        order = order[: 3 * _CLASSES // 4] + order[-_CLASSES // 4 :]
    figure, axes = new_figure(11, 1.6 + 0.34 * len(order))
    axis, height = axes[0, 0], 0.8 / len(protocols)
    for n, protocol in enumerate(protocols):
        values = [_values([r for r in rows if r["class"] == c["mid"]], protocol, "sdr_gain") for c in order]
        at = np.arange(len(order)) + (n - (len(protocols) - 1) / 2) * height
        boxes = axis.boxplot(
            values,
            positions=at,
            widths=0.8 * height,
            orientation="horizontal",
            patch_artist=True,
            manage_ticks=False,
            flierprops={"markersize": 3},
            medianprops={"color": "black"},
        )
        for box in boxes["boxes"]:
            box.set(facecolor=COLOURS[protocol], alpha=0.6)
        axis.plot([], [], color=COLOURS[protocol], linewidth=8, alpha=0.6, label=protocol)
    axis.set_yticks(range(len(order)), [f"{c['name']} ({c['keys']})" for c in order])
    axis.set_ylim(len(order) - 0.5, -0.5)
    axis.axvline(0, color="0.3", linewidth=1)
    axis.set_xlabel("SDR gain over the mixture (dB): quartiles, median, 1.5 interquartile ranges")
    shown = "" if len(order) == total else f"; {len(order)} of {total} classes: worst and best"
    axis.set_title(f"Gain by class, worst mean first (number of targets){shown}", fontsize=12)
    _tidy(axis, legend=True, grid="x")
    return figure


def draw_density(scored: Sequence[Scored]):
    """Figures 3 and 4 of Pishdadian et al., "Finding Strength in Weakness": improvement against input SI-SDR.

    A panel per class and label type with shared axes; the colour is warmer where more sources lie.
    """
    classes = scored_names(scored[0].summary)
    points = {(s.label, c): _points(s.rows, c) for s in scored for c in classes}
    everything = np.concatenate([p for p in points.values() if len(p)] or [np.zeros((1, 2))])
    (left, low), (right, high) = np.percentile(everything, [_TAIL, 100 - _TAIL], axis=0)
    x_span, y_span = _span([left, right], 6.0), _span([min(low, 0.0), high], 6.0)
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
    text = "Improvement against the input, one point per source; warmer: more of them; dashed: mean"
    if outside:
        text += f" ({outside} of {sum(map(len, points.values()))} lie outside the panels)"
    figure.suptitle(text, fontsize=12)
    return figure


def _panel(axis, points: np.ndarray, spans: tuple) -> None:
    axis.axhline(0, color="0.35", linewidth=1)
    _tidy(axis)
    if not len(points):
        return
    shade = density(points, spans)
    order = np.argsort(shade)  # the densest on top
    size = float(np.clip(4000 / len(points), 5, 24))
    axis.scatter(*points[order].T, c=shade[order], s=size, cmap="turbo", vmin=0, vmax=1, linewidths=0, rasterized=True)
    mean = points[:, 1].mean()
    axis.axhline(mean, color="black", linewidth=1, linestyle="--")
    text = f"mean {mean:z.1f}, n {len(points)}"
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


def draw_training(exp_dir: str | os.PathLike, folder: Path) -> Path | None:
    """Curves of the losses and figures that both stages report in train.log; None without any."""
    curves = training_curves(exp_dir)
    dull = {"time", "total_count"}
    names = [n for n, stages in curves.items() if "valid" in stages and n not in dull]
    if not names:
        return None
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure, axes = new_figure(4.2 * columns, 3.2 * lines, lines, columns)
    for axis, name in zip(axes.flat, names, strict=False):
        for stage, style in (("train", "-"), ("valid", "--")):
            values = curves[name].get(stage, {})
            axis.plot(
                list(values),
                list(values.values()),
                style,
                label=stage,
                linewidth=1.8,
                marker="." if len(values) < 40 else "",
                color="#444444" if stage == "train" else "#009E73",
            )
        axis.set(title=name, xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        _tidy(axis, legend=True)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    return save(figure, folder / "training.png")


def _values(rows: list[dict], protocol: str, score: str) -> np.ndarray:
    found = (row[protocol].get(score) for row in rows if protocol in row)
    return np.array([v for v in found if v is not None])


def _span(values: list[float], least: float) -> tuple[float, float]:
    """Limits around `values` that are at least `least` apart."""
    low, high = (float(min(values)), float(max(values))) if values else (0.0, 0.0)
    margin = max(0.05 * (high - low), (least - (high - low)) / 2)
    return low - margin, high + margin


def _tidy(axis, legend: bool = False, grid: str = "both") -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(True, axis=grid, color="0.9", linewidth=0.8)
    axis.set_axisbelow(True)
    if legend and axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=9)
