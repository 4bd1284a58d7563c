"""Sounds made by formula: engines, bells, wind, calls and so on, no two alike.

A generator draws everything that it uses (pitch, rate, timbre, course in time) from `rng` and returns float64 [n] at
32 kHz; `make_sound` adds a room and a colour.
"""

from collections.abc import Callable

import numpy as np

from espnet2_ext.data.synth.signals import (
    FS,
    apply,
    band,
    bubble,
    burst,
    calls,
    curve,
    draw,
    falling,
    gates,
    hiss_tone,
    hz,
    modes,
    noise,
    resonate,
    ring,
    room,
    scattered,
    steady,
    strikes,
    tone,
    voiced,
)

_BELL = (0.5, 1.0, 1.19, 1.5, 2.0, 2.51, 2.66, 3.01, 4.17, 5.43)  # partials of a church bell


def _engine(n, rng):
    rate = curve(n, rng, draw(rng, 0.2, 2), *sorted(draw(rng, 12, 140, 2)))
    times = np.flatnonzero(np.diff(np.floor(np.cumsum(rate) / FS))) / FS
    grains = [burst(rng, draw(rng, 0.002, 0.015), 30, draw(rng, 300, 5000)) for _ in range(rng.integers(1, 7))]
    x = resonate(strikes(n, times, grains, rng, 2), draw(rng, 60, 2500, 4), draw(rng, 20, 400, 4))
    return x / (x.std() + 1e-9) + rng.uniform(0, 0.4) * noise(n, rng, rng.uniform(2, 8)) * rate / rate.max()


def _siren(n, rng):
    low = draw(rng, 300, 1100)
    phase = np.arange(n) / FS * draw(rng, 0.2, 5) + rng.random()
    wave = np.abs(phase % 1 * 2 - 1)  # a triangle from 0 to 1
    wave = (wave, wave > 0.5, phase % 1, np.sqrt(wave))[rng.integers(4)]
    return tone(low * 2 ** (rng.uniform(0.3, 1.4) * wave), falling(12, rng, (0.5, 2.5)), rng)


def _bell(n, rng):
    partials = np.array(_BELL) * draw(rng, 120, 2500) * rng.normal(1, 0.01 + 0.1 * (rng.random() < 0.4), len(_BELL))
    grain = ring(
        partials, draw(rng, 0.2, 3) * (partials / partials[0]) ** -rng.uniform(0.3, 1), falling(10, rng, (0, 1)), rng
    )
    return strikes(n, steady(n, rng, draw(rng, 0.4, 8), 0.1), [grain], rng)


def _wind(n, rng):
    x = noise(n, rng, rng.uniform(3, 9)) * curve(n, rng, 1, 0.2, 1) * rng.uniform(0.3, 1)
    for _ in range(rng.integers(1, 4)):  # it howls
        x += hiss_tone(curve(n, rng, 1, *np.array([0.6, 1.6]) * draw(rng, 150, 1500)), draw(rng, 10, 200), rng) * curve(
            n, rng, 1.5, 0.03, 0.8
        )
    return x


def _stream(n, rng):
    low = draw(rng, 150, 900)
    x = strikes(n, scattered(n, rng, draw(rng, 60, 500)), [bubble(rng, low, 6 * low) for _ in range(24)], rng, 12)
    return x / (x.std() + 1e-9) + band(noise(n, rng, 3), 300, draw(rng, 2000, 12000)) * rng.uniform(0.05, 1)


def _rainfall(n, rng):
    grains = [burst(rng, draw(rng, 0.001, 0.008), draw(rng, 300, 3000), 14000) for _ in range(16)]
    x = strikes(n, scattered(n, rng, draw(rng, 30, 800)), grains, rng, 14)
    return x / (x.std() + 1e-9) * rng.uniform(0.2, 1) + band(
        noise(n, rng, rng.uniform(-1, 3)), draw(rng, 100, 1500), 14000
    )


def _drops(n, rng):
    grains = [bubble(rng, 300, 3000) for _ in range(rng.integers(1, 6))]
    return strikes(n, (steady, scattered)[rng.integers(2)](n, rng, draw(rng, 0.7, 12)), grains, rng)


def _birds(n, rng):
    base = draw(rng, 1500, 6000)

    def song():
        notes = []
        for _ in range(rng.integers(1, 4)):
            size = int(FS * draw(rng, 0.03, 0.25))
            pitch = np.clip(curve(size, rng, rng.uniform(5, 30), base * 0.7, base * 1.5), 500, 9000)
            note = tone(pitch, [1, rng.uniform(0, 0.4), rng.uniform(0, 0.15)], rng) * np.hanning(size)
            notes += [note, np.zeros(int(FS * rng.uniform(0.005, 0.08)))] * rng.integers(1, 7)
        return np.concatenate(notes)

    return calls(n, rng, (0.05, 1.0), song)


def _ticking(n, rng):
    grains = [modes(rng, 4, (700, 9000), (0.001, 0.03)) for _ in range(rng.integers(1, 4))]
    return strikes(n, steady(n, rng, draw(rng, 0.9, 8), 0.005), grains, rng, 2)


def _footsteps(n, rng):
    rough = rng.random() < 0.5

    def step():
        x = burst(rng, draw(rng, 0.008, 0.06), 40, draw(rng, 200, 6000))
        soil = strikes(6000, rng.uniform(0, 0.15, 40), [burst(rng, 0.003, 500, 12000) for _ in range(4)], rng, 10)
        return np.pad(x, (0, max(0, 6000 - len(x))))[:6000] / np.sqrt(np.sum(x**2)) + rough * soil * rng.uniform(
            0.05, 0.4
        )

    return strikes(n, steady(n, rng, draw(rng, 1, 4), 0.06), [step() for _ in range(4)], rng, 4)


def _whistling(n, rng):
    pitch = curve(n, rng, draw(rng, 0.5, 6), *np.array([1, rng.uniform(1.05, 2)]) * draw(rng, 500, 2800))
    pitch *= 1 + rng.uniform(0, 0.03) * np.sin(2 * np.pi * draw(rng, 4, 30) * np.arange(n) / FS)
    x = tone(pitch, [1, rng.uniform(0, 0.2)], rng) + rng.uniform(0.05, 0.6) * hiss_tone(pitch, draw(rng, 20, 300), rng)
    return x * gates(n, rng, (0.2, 3), (0.5, 1), 0.05)


def _alarm(n, rng):
    step = gates(n, rng, (0.08, 0.4), (0.3, 0.8), 0.005)
    pitch = draw(rng, 400, 4000) * np.where(np.arange(n) // int(FS * draw(rng, 0.1, 0.8)) % 2, draw(rng, 1, 1.6), 1)
    return (
        tone(pitch, falling(9, rng, (0.3, 2.5)), rng)
        * step
        * (gates(n, rng, (0.6, 2), (0.4, 0.9)) if rng.random() < 0.5 else 1)
    )


def _hum(n, rng):
    pitch = draw(rng, 40, 250) * np.ones(n)
    x = tone(pitch, falling(20, rng, (0.2, 2)) * (rng.random(20) < 0.6), rng) * curve(n, rng, draw(rng, 0.5, 8), 0.7, 1)
    return x + rng.uniform(0.02, 0.3) * noise(n, rng, 6)


def _crickets(n, rng):
    t = np.arange(n) / FS
    pulse = np.maximum(0, np.sin(2 * np.pi * draw(rng, 12, 120) * t)) ** rng.uniform(0.5, 3)
    x = hiss_tone(draw(rng, 2000, 8000) * np.ones(n), draw(rng, 10, 900), rng)
    return x * pulse * (gates(n, rng, (0.2, 2), (0.2, 0.9), 0.03) if rng.random() < 0.7 else 1)


def _thunder(n, rng):
    x = np.zeros(n)
    for time in rng.uniform(0, 0.5 * n / FS, rng.integers(1, 6)):
        t = np.maximum(0, np.arange(n) / FS - time)
        x += (
            noise(n, rng, rng.uniform(5, 12))
            * np.exp(-t / draw(rng, 0.2, 2.5))
            * (t > 0)
            * np.minimum(1, t / draw(rng, 0.003, 0.3))
        )
    return x * curve(n, rng, 8, 0.3, 1)


def _hiss(n, rng):
    low = draw(rng, 100, 5000)
    return band(noise(n, rng, rng.uniform(-3, 4)), low, low * draw(rng, 1.5, 20)) * gates(
        n, rng, (0.1, 3), (0.2, 0.9), draw(rng, 0.005, 0.3)
    )


def _knocks(n, rng):
    grain = modes(rng, 5, (70, 1500), (0.008, 0.08))
    times = steady(n, rng, draw(rng, 2, 9), 0.08)
    return strikes(n, times[np.floor(times / draw(rng, 0.6, 1.6)) % 2 == rng.integers(2)], [grain], rng, 3)


def _rattle(n, rng):
    grains = [modes(rng, 5, (1200, 11000), (0.003, 0.08)) for _ in range(8)]
    return strikes(n, scattered(n, rng, draw(rng, 15, 90)), grains, rng, 10) * gates(n, rng, (0.3, 2), (0.4, 1), 0.1)


def _babble(n, rng):
    base = draw(rng, 85, 380)

    def word():
        parts = []
        for _ in range(rng.integers(1, 5)):
            low = draw(rng, 1500, 6000)
            parts += [0.5 * burst(rng, draw(rng, 0.005, 0.05), low, 2 * low)] * (rng.random() < 0.6)
            parts += [10 * voiced(int(FS * draw(rng, 0.07, 0.3)), rng, base, rng.uniform(0, 0.15))]
        return np.concatenate(parts)

    return calls(n, rng, (0.02, 0.5), word)


def _animal(n, rng):
    base, length = draw(rng, 50, 900), draw(rng, 0.1, 1.2)
    return calls(
        n, rng, (0.08, 1.2), lambda: voiced(int(FS * length * rng.uniform(0.7, 1.4)), rng, base, rng.uniform(0, 1))
    )


def _power_tool(n, rng):
    pitch = curve(n, rng, draw(rng, 0.5, 4), *np.array([rng.uniform(0.5, 0.95), 1]) * draw(rng, 60, 900))
    x = resonate(tone(pitch, falling(30, rng, (0, 0.9)), rng), draw(rng, 300, 6000, 4), draw(rng, 100, 900, 4), 0.1)
    return x / x.std() + rng.uniform(0.1, 1) * noise(n, rng, rng.uniform(-2, 4)) * curve(n, rng, 3, 0.4, 1)


def _glass(n, rng):
    grains = [modes(rng, 6, (1500, 13000), (0.01, 0.25)) for _ in range(10)]
    x = np.zeros(n)
    for time in rng.uniform(0, 0.8 * n / FS, rng.integers(1, 5)):
        x += strikes(n, time + rng.exponential(draw(rng, 0.02, 0.4), rng.integers(2, 40)), grains, rng, 10)
    return x


def _insect(n, rng):
    pitch = curve(n, rng, draw(rng, 1, 6), *np.array([0.85, 1.2]) * draw(rng, 90, 600))
    return tone(pitch, falling(25, rng, (0.3, 1.2)), rng) * curve(n, rng, draw(rng, 0.5, 3), 0.05, 1)


def _frogs(n, rng):
    def croak():
        size = int(FS * draw(rng, 0.1, 0.7))
        grain = [modes(rng, 3, (250, 3000), (0.003, 0.02))]
        return strikes(size, steady(size, rng, draw(rng, 15, 90), 0.02), grain, rng, 3) * np.hanning(size)

    return calls(n, rng, (0.1, 1), croak)


def _scraping(n, rng):
    x = resonate(noise(n, rng, rng.uniform(-2, 3)), draw(rng, 400, 8000, 4), draw(rng, 100, 1500, 4), 0.1)
    return x * gates(n, rng, (0.2, 1.2), (0.4, 0.9), 0.3) ** rng.uniform(0.5, 2) * curve(n, rng, 40, 0.3, 1)


def _crackle(n, rng):
    grains = [burst(rng, draw(rng, 0.0005, 0.006), draw(rng, 200, 4000), 14000) for _ in range(12)]
    return strikes(n, scattered(n, rng, draw(rng, 5, 120)), grains, rng, 12) + rng.uniform(0, 0.004) * noise(n, rng, 6)


def _machine(n, rng):
    pattern, rate = rng.uniform(0, 1, rng.integers(2, 9)), draw(rng, 0.8, 5)
    times = ((np.arange(int(n / FS * rate) + 1)[:, None] + np.sort(pattern)) / rate).ravel()
    grains = [modes(rng, 5, (80, 6000), (0.004, 0.1)) for _ in range(len(pattern))]
    x = strikes(n, times, grains, rng, 1)
    return x / (x.std() + 1e-9) + rng.uniform(0.02, 0.4) * _hum(n, rng)


def _clapping(n, rng):
    grains = [burst(rng, draw(rng, 0.003, 0.02), draw(rng, 400, 1500), draw(rng, 2000, 9000)) for _ in range(12)]
    if rng.random() < 0.5:
        return strikes(n, steady(n, rng, draw(rng, 1.5, 6), 0.04), grains, rng, 4)
    return strikes(n, scattered(n, rng, draw(rng, 20, 300)), grains, rng, 10)


GENERATORS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    make.__name__[1:]: make
    for make in (
        *(_engine, _siren, _bell, _wind, _stream, _rainfall, _drops, _birds, _ticking, _footsteps, _whistling, _alarm),
        *(_hum, _crickets, _thunder, _hiss, _knocks, _rattle, _babble, _animal, _power_tool, _glass, _insect, _frogs),
        *(_scraping, _crackle, _machine, _clapping),
    )
}


def make_sound(name: str, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """One sound of a generator: float32 [seconds * 32000], at any level; two of three in a room.

    Raises:
        KeyError: no such generator.
    """
    n = round(seconds * FS)
    x = GENERATORS[name](n, rng)
    while not np.any(x):  # all of its calls fell behind the end
        x = GENERATORS[name](n, rng)
    if rng.random() < 0.66:
        x = x / x.std() + rng.uniform(0.1, 0.8) * room(x / x.std(), rng)
    tilt = rng.uniform(-3, 3)  # dB an octave
    return apply(x, (hz(n) / 1000) ** (tilt / 6.02) / (1 + (30 / hz(n)) ** 4)).astype(np.float32)
