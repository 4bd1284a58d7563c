"""Spectrograms of the signals of an example."""

import numpy as np

from espnet2_ext.report.figures import new_figure

_RANGE_DB = 80.0
_LOW_HZ = 40.0
_BANDS = 200
_GAP = 0.35  # inches between rows of panels
_TICKS = (50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000)


def draw_grid(rows: dict[str, dict[str, np.ndarray]], fs: int, title: str):
    """Rows of panels on one colour scale, a signal each; a row without a name is titled by its panels alone.

    0 dB is the loudest point of all panels; what lies 80 dB below it is black. The frequency axis
    is logarithmic, from 40 Hz to half the rate.

    Args:
        rows: name of a row -> name of a panel -> [T].  fs: rate in Hz.  title: of the figure.
    """
    images = {r: {n: _spectrogram(x, fs) for n, x in row.items()} for r, row in rows.items()}
    top = max(max(i.max() for row in images.values() for i in row.values()), -200.0)
    columns, high = max(map(len, rows.values())), 1.155 + 2.345 * len(rows) + _GAP * (len(rows) - 1)
    figure, axes = new_figure(3.3 * columns, high, len(rows), columns, layout=None, sharey=True, sharex=True)
    bottom, up = 0.525 / high, 1 - 0.63 / high
    figure.subplots_adjust(left=0.05, right=0.935, bottom=bottom, top=up, wspace=0.14, hspace=_GAP / 2.345)
    for line, (row, panels) in zip(axes, images.items(), strict=True):
        for axis, (name, image) in zip(line, panels.items()):
            seconds = len(rows[row][name]) / fs
            shown = axis.imshow(
                image - top,
                origin="lower",
                aspect="auto",
                cmap="magma",
                vmin=-_RANGE_DB,
                vmax=0,
                extent=(0, seconds, 0, _BANDS),
                interpolation="nearest",
            )
            axis.set_title(f"{row}: {name}" if row else name, fontsize=12 if len(rows) == 1 else 10)
    for axis in axes[-1]:
        axis.set_xlabel("time (s)", fontsize=10)
    ticks = [f for f in _TICKS if _LOW_HZ <= f <= fs / 2]
    for axis in axes[:, 0]:
        axis.set_yticks([_band(f, fs) for f in ticks], [_hertz(f) for f in ticks])
        axis.set_ylabel("frequency (Hz)", fontsize=10)
    scale = figure.add_axes((0.945, bottom, 0.01, up - bottom))
    figure.colorbar(shown, cax=scale, label="dB re loudest point")
    figure.suptitle(title, fontsize=12, y=1 - 0.105 / high)
    return figure


def _spectrogram(x: np.ndarray, fs: int) -> np.ndarray:
    """Power in dB [_BANDS, L] at logarithmically spaced frequencies."""
    size = 2 ** round(np.log2(fs * 0.046))
    hop = max(size // 4, len(x) // 1000)
    x = np.pad(np.asarray(x, dtype=np.float64), size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(x, size)[::hop] * np.hanning(size)
    power = np.square(np.abs(np.fft.rfft(frames)))  # [L, F]
    edges = np.geomspace(_LOW_HZ, fs / 2, _BANDS + 1) * size / fs
    bands = np.stack([_between(power, a, b) for a, b in zip(edges, edges[1:], strict=False)])
    return 10 * np.log10(bands + 1e-20)


def _between(power: np.ndarray, low: float, high: float) -> np.ndarray:
    """Largest power of the bins from `low` to `high`; between two bins: drawn straight. -> [L]"""
    first, last = int(np.ceil(low)), int(np.floor(high))
    if first <= last:
        return power[:, first : min(last, power.shape[1] - 1) + 1].max(axis=1)
    below, share = int(low), (low + high) / 2 - int(low)
    return (1 - share) * power[:, below] + share * power[:, min(below + 1, power.shape[1] - 1)]


def _band(hertz: float, fs: int) -> float:
    """Place of a frequency on the axis of the picture."""
    return _BANDS * np.log(hertz / _LOW_HZ) / np.log(fs / 2 / _LOW_HZ)


def _hertz(f: int) -> str:
    return str(f) if f < 1000 else f"{f // 1000}k"
