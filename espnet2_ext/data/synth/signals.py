"""Parts of sounds made by formula: noise and pulses through filters, modes that ring, tones, curves that wander."""

from collections.abc import Sequence

import numpy as np

FS = 32000


def hz(n: int) -> np.ndarray:
    """Frequencies [n // 2 + 1] of the spectrum of n samples, at least 1."""
    return np.maximum(np.fft.rfftfreq(n, 1 / FS), 1.0)


def apply(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Filter [n] with gains [n // 2 + 1]."""
    return np.fft.irfft(np.fft.rfft(x) * gain, len(x))


def draw(rng, low: float, high: float, size=None):
    """Uniform in the logarithm."""
    return np.exp(rng.uniform(np.log(low), np.log(high), size))


def noise(n: int, rng, slope: float = 0.0) -> np.ndarray:
    """Noise [n] of power 1 that falls by `slope` dB an octave above 40 Hz."""
    x = apply(rng.standard_normal(n), (np.maximum(hz(n), 40.0) / 1000) ** (-slope / 6.02))
    return x / np.sqrt(np.mean(x**2))


def band(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """The band between two frequencies in Hz; 24 dB an octave beyond."""
    f = hz(len(x))
    return apply(x, 1 / np.sqrt((1 + (low / f) ** 8) * (1 + (f / high) ** 8)))


def resonate(x: np.ndarray, centres: Sequence[float], widths: Sequence[float], floor: float = 0.02) -> np.ndarray:
    """Resonances (formants) at `centres`, `widths` wide, in Hz."""
    f = hz(len(x))
    return apply(x, floor + sum(1 / (1 + ((f - c) / w) ** 2) for c, w in zip(centres, widths)))


def curve(n: int, rng, rate: float, low: float, high: float) -> np.ndarray:
    """A curve [n] that wanders between two positive values, with `rate` turns a second."""
    points = draw(rng, low, high, 2 + int(n / FS * rate))
    return np.exp(np.interp(np.linspace(0, len(points) - 1, n), np.arange(len(points)), np.log(points)))


def tone(freq: np.ndarray, amps: Sequence[float], rng) -> np.ndarray:
    """Harmonics of strength `amps` above a pitch [n] in Hz; those near and above 16 kHz are left out."""
    phase = 2 * np.pi * np.cumsum(freq) / FS
    used = [(k, a) for k, a in enumerate(amps, 1) if k * freq.max() < 0.48 * FS]
    return sum((a * np.sin(k * phase + rng.uniform(0, 6.28)) for k, a in used), np.zeros(len(freq)))


def hiss_tone(freq: np.ndarray, width: float, rng) -> np.ndarray:
    """Noise `width` Hz wide around a pitch [n]."""
    x = band(rng.standard_normal((2, len(freq)))[0], 0.0, width), band(rng.standard_normal(len(freq)), 0.0, width)
    phase = 2 * np.pi * np.cumsum(freq) / FS
    y = x[0] * np.cos(phase) - x[1] * np.sin(phase)
    return y / np.sqrt(np.mean(y**2))


def ring(freqs, seconds, amps, rng) -> np.ndarray:
    """Modes struck at once: frequencies in Hz, times of decay, strengths; one grain."""
    t = np.arange(int(FS * min(4.0, 5 * np.max(seconds)))) / FS
    rows = zip(np.atleast_1d(freqs), np.broadcast_to(seconds, np.shape(freqs)), np.broadcast_to(amps, np.shape(freqs)))
    return sum(
        (a * np.sin(2 * np.pi * f * t + rng.uniform(0, 6.28)) * np.exp(-t / s) for f, s, a in rows if f < 15e3), 0 * t
    )


def modes(rng, count: int, freqs: tuple[float, float], seconds: tuple[float, float]) -> np.ndarray:
    """A grain of `count` modes whose frequencies and times of decay are drawn from ranges."""
    return ring(draw(rng, *freqs, count), draw(rng, *seconds, count), rng.random(count), rng)


def burst(rng, seconds: float, low: float, high: float) -> np.ndarray:
    """A grain of noise that decays in `seconds`."""
    n = 2 * int(FS * max(0.01, 2.5 * seconds))
    return band(rng.standard_normal(n) * np.exp(-np.arange(n) / FS / seconds), low, high)


def strikes(n: int, times, grains: Sequence[np.ndarray], rng, spread: float = 6.0) -> np.ndarray:
    """Grains at `times` in seconds, by turns or at random, of levels that differ by `spread` dB."""
    out = np.zeros(n)
    for grain in grains:
        grain /= np.sqrt(np.sum(grain**2)) + 1e-9
    which = np.arange(len(times)) if rng.random() < 0.5 else rng.integers(len(grains), size=len(times))
    for time, k, db in zip(times, which, rng.normal(0, spread / 2, len(times))):
        start, grain = int(time * FS), grains[k % len(grains)]
        if 0 <= start < n:
            part = grain[: n - start]
            out[start : start + len(part)] += part * 10 ** (db / 20)
    return out


def steady(n: int, rng, rate: float, jitter: float = 0.05) -> np.ndarray:
    """Times of a beat, `rate` a second."""
    count = int(n / FS * rate) + 1
    return np.maximum(0, (np.arange(count) + rng.random() + rng.normal(0, jitter, count)) / rate)


def scattered(n: int, rng, rate: float) -> np.ndarray:
    """Times without a beat, `rate` a second."""
    return np.sort(rng.uniform(0, n / FS, max(1, rng.poisson(rate * n / FS))))


def gates(n: int, rng, period: tuple[float, float], share: tuple[float, float], edge: float = 0.02) -> np.ndarray:
    """An envelope [n] that opens and closes: lengths of a turn in seconds, share that is open, edges in seconds."""
    out, at = np.zeros(n), int(rng.uniform(0, 0.5) * FS)
    length, part = draw(rng, *period), rng.uniform(*share)
    edge = int(max(1, FS * min(edge, 0.4 * part * length)))
    while at < n:
        last = min(n, at + int(length * part * rng.uniform(0.9, 1.1) * FS))
        size = last - at
        shape = np.minimum(1, np.minimum(np.arange(size), np.arange(size)[::-1]) / edge)
        out[at:last] = np.maximum(out[at:last], shape * rng.uniform(0.6, 1))
        at += int(length * rng.uniform(0.9, 1.1) * FS)
    return out if out.any() else np.ones(n)


def falling(count: int, rng, power: tuple[float, float]) -> np.ndarray:
    return np.arange(1, count + 1) ** -rng.uniform(*power) * rng.uniform(0.3, 1, count)


def bubble(rng, low: float, high: float) -> np.ndarray:
    t = np.arange(int(0.12 * FS)) / FS
    rise, decay = rng.uniform(-0.5, 6), draw(rng, 0.004, 0.03)
    return np.sin(2 * np.pi * draw(rng, low, high) * (t + rise * t**2)) * np.exp(-t / decay)


def room(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Reverberation of decaying noise: 0.1 to 1.2 s down to -60 dB, darker than the sound."""
    length = len(x)
    t = np.arange(length) / FS
    tail = rng.standard_normal(length) * 10 ** (-3 * t / draw(rng, 0.1, 1.2)) * (t > rng.uniform(0.001, 0.02))
    tail = band(tail, 60, draw(rng, 1500, 12000))
    size = 2 * length
    y = np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(tail / np.sqrt(np.sum(tail**2)), size), size)
    return y[:length]


def calls(n, rng, gap, make):
    """Calls of one animal or person: a few kinds, one after the other with gaps."""
    kinds, out, at = [make() for _ in range(rng.integers(1, 4))], np.zeros(n), int(rng.uniform(0, 0.4) * FS)
    while at < n:
        call = kinds[rng.integers(len(kinds))] * rng.uniform(0.4, 1)
        part = call[: n - at]
        out[at : at + len(part)] += part
        at += len(call) + int(FS * draw(rng, *gap))
    return out


def voiced(size, rng, base, rough):
    """A voice [size]: a pitch that bends, formants that move from one vowel to the next."""
    pitch = base * curve(size, rng, 4, 0.75, 1.35)
    x = tone(pitch, falling(30, rng, (0.6, 1.3)), rng) + rough * noise(size, rng, 3)
    x *= 1 - min(1, rough) * np.maximum(0, np.sin(2 * np.pi * rng.uniform(20, 90) * np.arange(size) / FS))
    vowels = [
        resonate(x, draw(rng, *np.array([[250, 700, 1800, 3000], [900, 2400, 3200, 4500]])), (80, 110, 170, 300))
        for _ in (0, 1)
    ]
    fade = np.linspace(0, 1, size)
    return (vowels[0] * (1 - fade) + vowels[1] * fade) * np.hanning(size) ** 0.4
