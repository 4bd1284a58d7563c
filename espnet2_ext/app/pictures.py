"""Waveform and spectrogram of a part of a recording, in one pass over its blocks."""

import numpy as np

from espnet2_ext.audio.read import to_mono
from espnet2_ext.audio.sound import Sound
from espnet2_ext.errors import DataError

COLUMNS = 1200  # of a picture
BANDS = 96  # of its spectrogram, equally wide in mel, from 0 Hz to TOP or half the rate
TOP = 24000
FRAME = 0.046  # seconds, about
FRAMES = 3  # at most, of those in a column, of which the spectrogram shows the highest level
LOWEST, STEP = -120.0, 0.5  # dB of a full-scale sine: of the value 0, and from a value to the next


def draw(source: Sound, start: int, end: int, columns: int = COLUMNS) -> bytes:
    """What lies between two samples.

    Returns:
        Lowest and highest sample of all channels in each column, float32 `[L, 2]`, then levels of the mean of the
        channels, uint8 `[L, BANDS]`; L is `columns`, or less where there are fewer samples.

    Raises:
        DataError: damage; samples that are not finite.
    """
    start, end = max(0, start), min(end, source.frames)
    columns = min(columns, end - start)
    if columns <= 0:
        return b""
    edges = start + np.arange(columns + 1) * (end - start) // columns
    low, high = np.full(columns, np.inf, np.float32), np.full(columns, -np.inf, np.float32)
    spectra = _Spectra(source, start, end, columns)
    at = spectra.first
    for x in source.blocks(start=at):
        a, b = max(at, start), min(at + len(x), end)
        if a < b:
            c = slice(np.searchsorted(edges, a, "right") - 1, np.searchsorted(edges, b))
            inside, begins = x[a - at : b - at], np.maximum(edges[c], a) - a
            for channel in inside.T:
                low[c] = np.minimum(low[c], np.minimum.reduceat(channel, begins))
                high[c] = np.maximum(high[c], np.maximum.reduceat(channel, begins))
        at += len(x)
        spectra.feed(x)
        if at >= spectra.last:
            break
    peaks = np.stack([low, high], 1)
    if not np.isfinite(peaks).all():
        raise DataError(f"{source.name}: holds samples that are not numbers or infinite")
    values = np.clip((spectra.finish() - LOWEST) / STEP, 0, 255).astype(np.uint8)
    return peaks.tobytes() + values.tobytes()


class _Spectra:
    """Levels `[L, BANDS]` in dB of frames that are evenly placed; samples come in blocks from sample `first` on."""

    def __init__(self, source: Sound, start: int, end: int, columns: int):
        self.size = 2 ** round(np.log2(source.fs * FRAME))
        self.each = int(np.clip(-(-(end - start) // (columns * self.size)), 1, FRAMES))
        count = columns * self.each
        begins = start + ((np.arange(count) + 0.5) * (end - start) / count).astype(np.int64) - self.size // 2
        self.begins = np.clip(begins, 0, max(0, source.frames - self.size))
        self.first, self.last = min(start, int(self.begins[0])), max(end, int(self.begins[-1]) + self.size)
        self.held, self.at = np.zeros(0, np.float32), self.first  # samples that wait, from sample `at`
        window = np.hanning(self.size + 1)[:-1].astype(np.float32)
        self.window = window * (2 / window.sum())
        top = 2595 * np.log10(1 + min(TOP, source.fs / 2) / 700)
        hertz = 700 * (10 ** (np.linspace(0, top, BANDS + 1) / 2595) - 1)
        self.bins = (hertz * self.size / source.fs).astype(int)
        self.found: list[np.ndarray] = []

    def feed(self, x: np.ndarray) -> None:
        """Take the next samples `[T, C]`."""
        if not len(self.begins) or self.begins[0] >= self.at + len(self.held) + len(x):
            self.held, self.at = self.held[:0], self.at + len(self.held) + len(x)
            return
        self.held = np.concatenate([self.held, to_mono(x)])
        ready = int(np.searchsorted(self.begins, self.at + len(self.held) - self.size, "right"))
        self._transform(ready)
        keep = int(self.begins[0]) if len(self.begins) else self.at + len(self.held)
        drop = min(max(0, keep - self.at), len(self.held))
        self.held, self.at = self.held[drop:], self.at + drop

    def _transform(self, count: int) -> None:
        if not count:
            return
        frames = np.lib.stride_tricks.sliding_window_view(self.held, self.size)[self.begins[:count] - self.at]
        power = np.square(np.abs(np.fft.rfft(frames * self.window)))
        bands = np.maximum.reduceat(power[:, : self.bins[-1] + 1], self.bins[:-1], axis=1)
        self.found.append(10 * np.log10(bands + 1e-30))
        self.begins = self.begins[count:]

    def finish(self) -> np.ndarray:
        """The levels: the highest of the frames of each column; a sound shorter than a frame is padded."""
        if len(self.begins):
            self.held = np.pad(self.held, (0, int(self.begins[-1]) + self.size - self.at - len(self.held)))
            self._transform(len(self.begins))
        return np.concatenate(self.found).reshape(-1, self.each, BANDS).max(1)
