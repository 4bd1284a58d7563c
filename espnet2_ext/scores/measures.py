"""Measures of ESPnet's scoring: STOI and ESTOI with the values of the package `pystoi`, and the SDR of BSSEval v3.

Taal et al., "An Algorithm for Intelligibility Prediction of Time-Frequency Weighted Noisy Speech", 2011, and Jensen and
Taal, "An Algorithm for Predicting the Intelligibility of Speech Masked by Modulated Noise Maskers", 2016. ESPnet's
scoring calls the package twice for each estimate; here the reference is resampled and analysed once for all.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.linalg import toeplitz
from scipy.signal import resample_poly

from espnet2_ext.core.metrics import MAX_DB, SILENCE

FS = 10000  # Hz, of the measure
_FRAME, _HOP, _FFT = 256, 128, 512
_BANDS, _LOWEST = 15, 150.0  # third-octave bands, and the centre of the first in Hz
_SEGMENT = 30  # frames
_RANGE = 40.0  # dB under the loudest frame of the reference; frames below are left out
_CLIP = 1 + 10 ** (15 / 20)  # the estimate's band is clipped at so many times the reference's
_BLOCK = 4096  # segments at a time
_EPS = np.finfo(float).eps


class Stoi(NamedTuple):
    """Both measures of an estimate, 1 for a copy of the reference."""

    stoi: float
    estoi: float


def stoi(*, est: np.ndarray, ref: np.ndarray, fs: int) -> list[Stoi] | None:
    """STOI and ESTOI of each estimate.

    Args:
        est: [S, T]. ref: [T]. fs: their rate in Hz.
    Returns:
        S pairs; None where less than half a second of the reference is loud enough.
    """
    bands = _bands(np.stack([_resample(x.astype(np.float64), fs) for x in (ref, *est)]))  # [1 + S, J, L]
    count = bands.shape[-1] - _SEGMENT + 1
    if count < 1:
        return None
    sums = np.zeros((len(est), 2))
    for start in range(0, count, _BLOCK):
        part = bands[..., start : min(start + _BLOCK, count) + _SEGMENT - 1]
        x, *ys = np.lib.stride_tricks.sliding_window_view(part, _SEGMENT, axis=-1)  # [J, M, N] each
        sums += _correlations(np.ascontiguousarray(x), ys)
    return [Stoi(float(a), float(b)) for a, b in sums / (count * np.array([_BANDS, 1]))]


def _correlations(x: np.ndarray, ys: list[np.ndarray]) -> list[tuple[float, float]]:
    """Sums over segments (and bands) of the correlations with `x` [J, M, N], plain and extended."""
    length, centred, extended = _norm(x), _centred(x), _extended(x)
    most, found = _CLIP * x, []
    for y in map(np.ascontiguousarray, ys):
        clipped = _centred(np.minimum(y * (length / (_norm(y) + _EPS)), most))
        plain = np.einsum("jmn,jmn->jm", clipped, centred) / ((_norm(clipped) + _EPS) * (_norm(centred) + _EPS))[..., 0]
        found.append((plain.sum(), np.vdot(extended, _extended(y)) / _SEGMENT))
    return found


def _norm(x: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("jmn,jmn->jm", x, x))[..., None]


def _centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean(axis=-1, keepdims=True)


def _extended(x: np.ndarray) -> np.ndarray:
    """Each band's envelope [J, M, N] with mean 0 and norm 1 over time, then each frame likewise over bands."""
    x = _centred(x)
    x /= _norm(x) + _EPS
    x -= x.mean(axis=0)
    x /= np.sqrt(np.einsum("jmn,jmn->mn", x, x)) + _EPS
    return x


def _bands(x: np.ndarray) -> np.ndarray:
    """Magnitudes in bands [S, J, L] of signals [S, T], the reference first, without its silent frames."""
    if x.shape[-1] <= _FRAME:
        return np.zeros((len(x), _BANDS, 0))
    window = np.hanning(_FRAME + 2)[1:-1]
    frames = np.lib.stride_tricks.sliding_window_view(x[:, :-1], _FRAME, axis=-1)[:, ::_HOP] * window
    energy = 20 * np.log10(np.linalg.norm(frames[0], axis=-1) + _EPS)
    frames = frames[:, energy > energy.max() - _RANGE]
    halves = np.zeros((len(x), frames.shape[1] + 1, _HOP))  # what is kept, overlapped and added
    halves[:, :-1] = frames[..., :_HOP]
    halves[:, 1:] += frames[..., _HOP:]
    frames = np.concatenate([halves[:, :-2], halves[:, 1:-1]], axis=-1)
    frames *= window
    spectrum = rfft(frames, _FFT)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    return np.sqrt(_octaves() @ power.swapaxes(-1, -2))


@functools.cache
def _octaves() -> np.ndarray:
    """Bins of each band, [J, F] of 0 and 1."""
    bins = np.arange(_FFT // 2 + 1) * FS / _FFT
    edges = _LOWEST * 2 ** ((2 * np.arange(_BANDS)[:, None] + [-1, 1]) / 6)
    low, high = np.abs(bins - edges[..., None]).argmin(axis=-1).T[..., None]
    return ((np.arange(len(bins)) >= low) & (np.arange(len(bins)) < high)).astype(float)


def _resample(x: np.ndarray, fs: int) -> np.ndarray:
    """A signal [T] at `FS`, by the filter of Octave's `resample`; a matrix product where the ratio is simple."""
    if fs == FS:
        return x
    up, down = FS // math.gcd(FS, fs), fs // math.gcd(FS, fs)
    if up > 400:
        return resample_poly(x, up, down, window=_filter(up, down))
    matrix, left, step = _matrix(up, down)
    num = -(-len(x) * up // down)
    padded = np.zeros((-(-num // matrix.shape[1]) - 1) * step + len(matrix))
    padded[left : left + len(x)] = x[: len(padded) - left]
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(matrix))[::step]
    return (np.ascontiguousarray(windows) @ matrix).reshape(-1)[:num]


@functools.lru_cache(2)
def _matrix(up: int, down: int) -> tuple[np.ndarray, int, int]:
    """Inputs to outputs of a block [I, O], inputs before the block's first, and those from block to block."""
    fir = up * _filter(up, down)
    half, repeat = len(fir) // 2, -(-80 // up)
    left = -(-half // up)
    outputs, inputs = np.arange(up * repeat), np.arange(down * repeat + 2 * left)
    tap = half + down * outputs - up * (inputs[:, None] - left)
    inside = (tap >= 0) & (tap < len(fir))
    return np.where(inside, fir[np.where(inside, tap, 0)], 0.0), left, down * repeat


@functools.lru_cache(2)
def _filter(up: int, down: int) -> np.ndarray:
    """Low pass of 60 dB by a Kaiser window, sum 1: cut off at half the lower rate, a tenth of that wide."""
    cutoff = 1 / (2 * max(up, down))
    half = math.ceil((60 - 8) / (28.714 * cutoff / 10))
    fir = np.kaiser(2 * half + 1, 0.1102 * (60 - 8.7)) * np.sinc(2 * cutoff * np.arange(-half, half + 1))
    return fir / fir.sum()


_SAMPLES = 4096


def bss_eval_sdr(*, est: np.ndarray, ref: np.ndarray, taps: int = 512) -> np.ndarray:
    """SDR in dB of BSSEval v3 (`bss_eval_sources`): after the best filter of `taps` taps from reference to estimate.

    Vincent, Gribonval and Févotte, "Performance measurement in blind audio source separation", 2006, eq. 8 and 17 to
    20. The estimate is projected onto the span of the reference delayed by 0 to 511 samples; what the projection leaves
    over is distortion. The public packages do the same through one FFT of the whole signal; correlating in blocks gives
    their numbers in a sixth of the time (the tests hold both to 0.001 dB).

    Args:
        est: [..., T], finite. ref: [T], finite.
        taps: length of the filter.
    Returns:
        [...], dB within +-MAX_DB; NaN where `ref` is silent or an estimate is all zeros.
    Raises:
        ValueError: signals that differ in length; a reference that is not [T].
    """
    est, ref = np.asarray(est, dtype=np.float64), np.asarray(ref, dtype=np.float64)
    if est.shape[-1:] != ref.shape or ref.ndim != 1:
        raise ValueError(f"est and ref: expected [..., T] and [T], got {est.shape} and {ref.shape}")
    ests = est.reshape(-1, est.shape[-1])
    found = np.full(len(ests), math.nan)
    sounds = [n for n, x in enumerate(ests) if x.any()]
    if sounds and np.mean(np.square(ref)) >= SILENCE:
        auto, *cross = _lagged(ref, [ref, *ests[sounds]], taps)
        # As of unit energy: the system of equations and its rounding do not depend on the levels.
        norm = math.sqrt(auto[0])
        auto = auto / auto[0]
        cross = np.stack([c / (norm * np.linalg.norm(ests[n])) for n, c in zip(sounds, cross)], axis=1)  # [taps, S]
        try:
            fir = np.linalg.solve(toeplitz(auto) + np.finfo(float).eps * np.eye(taps), cross)
        except np.linalg.LinAlgError:
            fir = np.linalg.lstsq(toeplitz(auto), cross)[0]
        # Share of the estimate's energy that the filtered reference explains.
        share = np.clip((cross * fir).sum(axis=0), 0.0, 1.0)
        tiny = np.finfo(float).tiny
        ratio = 10 * (np.log10(np.maximum(share, tiny)) - np.log10(np.maximum(1.0 - share, tiny)))
        found[sounds] = np.clip(ratio, -MAX_DB, MAX_DB)
    return found.reshape(est.shape[:-1])


def _lagged(x: np.ndarray, ys: Sequence[np.ndarray], lags: int) -> list[np.ndarray]:
    """sum_t x[t] y[t + l] for l = 0 .. lags - 1, for each of `ys` [T]: [lags] each."""
    blocks, n = -(-len(x) // _SAMPLES), next_fast_len(_SAMPLES + lags, real=True)
    parts = np.zeros((blocks, _SAMPLES))
    parts.reshape(-1)[: len(x)] = x
    spectrum, padded, out = rfft(parts, n).conj(), np.zeros(blocks * _SAMPLES + lags), []
    for y in ys:
        padded[: len(y)] = y
        windows = np.lib.stride_tricks.sliding_window_view(padded, _SAMPLES + lags)[::_SAMPLES]
        out.append(irfft(np.einsum("bf,bf->f", spectrum, rfft(windows, n)), n)[:lags])
    return out
