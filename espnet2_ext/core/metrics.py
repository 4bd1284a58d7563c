"""Scores of a separated signal: one call signature, one value an item, no permutation search.

Every function of `METRICS` is called `fn(*, est, ref, mix)` on signals [B, T] (tensors or arrays) and returns [B]
float64 values in dB on the device of `est`. "Not defined" is NaN, and only that: `summarise` leaves it out of every
mean and counts it. Ratios are held within +-MAX_DB, so an exact copy reads 150 dB and no infinity reaches a mean.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch

# Mean squares under this are silence: the floor of the silence-SDR (-80 dB re full scale).
SILENCE = 1e-8
# float32 samples carry about 150 dB; what lies beyond is rounding, not separation.
MAX_DB = 150.0


def sdr(*, est, ref, mix=None) -> torch.Tensor:
    """Signal-to-distortion ratio, 10 log10(|ref|^2 / |ref - est|^2), in dB (also called SNR).

    This is the SDR of BSSEval v4 over the whole signal (one window): there the distortions of one
    target add up to est - ref, so the 512-tap filters move energy between ISR, SIR and SAR and
    leave the SDR alone (Liutkus et al., "The 2018 Signal Separation Evaluation Campaign", 2018).
    It depends on the level of the estimate; a silent estimate has 0 dB.

    Args:
        est, ref: [B, T].  mix: not used.
    Returns:
        [B] float64; NaN where `ref` is silent.
    Raises:
        ValueError: shapes that differ or are not [B, T]; a sample that is not finite.
    """
    est, ref = _signals(est=est, ref=ref)
    energy = _energy(ref)
    return _ratio_db(energy, _energy(ref - est)).masked_fill(energy / ref.shape[-1] < SILENCE, math.nan)


def si_sdr(*, est, ref, mix=None) -> torch.Tensor:
    """Scale-invariant SDR, in dB (Le Roux et al., "SDR - half-baked or well done?", eq. 4).

    The reference is scaled to the estimate first: a = <est, ref> / |ref|^2, then
    10 log10(|a ref|^2 / |a ref - est|^2). Means are not removed (ESPnet's SI-SNR removes them).

    Args:
        est, ref: [B, T].  mix: not used.
    Returns:
        [B] float64; NaN where `ref` is silent or `est` is all zeros (then the ratio is 0 / 0).
    Raises:
        ValueError: as `sdr`.
    """
    est, ref = _signals(est=est, ref=ref)
    energy = _energy(ref)
    scale = _dot(est, ref) / energy.clamp_min(torch.finfo(torch.float64).tiny)
    ratio = _ratio_db(scale.square() * energy, _energy(torch.addcmul(est, scale[:, None], ref, value=-1)))
    undefined = (energy / ref.shape[-1] < SILENCE) | (_energy(est) == 0)
    return ratio.masked_fill(undefined, math.nan)


def silence_sdr(*, est, mix, ref=None) -> torch.Tensor:
    """How far an input without the asked-for sound is pushed down, in dB: mix over est.

    10 log10(ms(mix) / ms(est)), ms the mean square, both floored at `SILENCE`. Its negative is the
    output's level against the input.

    Args:
        est, mix: [B, T].  ref: not used (the reference is silence).
    Returns:
        [B] float64, always defined.
    Raises:
        ValueError: as `sdr`.
    """
    est, mix = _signals(est=est, mix=mix)
    before, after = (_mean_square(x).clamp_min(SILENCE) for x in (mix, est))
    return 10 * (before / after).log10()


def sdr_gain(*, est, ref, mix) -> torch.Tensor:
    """`sdr` of the estimate minus that of the unprocessed mixture, [B] in dB."""
    return sdr(est=est, ref=ref) - sdr(est=mix, ref=ref)


def si_sdr_gain(*, est, ref, mix) -> torch.Tensor:
    """`si_sdr` of the estimate minus that of the unprocessed mixture, [B] in dB."""
    return si_sdr(est=est, ref=ref) - si_sdr(est=mix, ref=ref)


METRICS: dict[str, Callable[..., torch.Tensor]] = {
    "sdr": sdr,
    "sdr_gain": sdr_gain,
    "si_sdr": si_sdr,
    "si_sdr_gain": si_sdr_gain,
    "silence_sdr": silence_sdr,
}


def is_silent(signal) -> torch.Tensor:
    """[B] bool: the mean square of `signal` [B, T] lies under `SILENCE`."""
    (signal,) = _signals(signal=signal)
    return _mean_square(signal) < SILENCE


def level_db(signal) -> torch.Tensor:
    """[B] float64: mean square of `signal` [B, T] in dB re full scale, floored at `SILENCE`."""
    (signal,) = _signals(signal=signal)
    return 10 * _mean_square(signal).clamp_min(SILENCE).log10()


def summarise(values: Iterable[float | None]) -> dict[str, float | int | None]:
    """Mean, median, std, count and undefined of `values`; NaN and None count as not defined.

    `std` is that of the population. With no defined value the first three are None, never NaN.
    """
    values = np.array([math.nan if v is None else v for v in values], dtype=np.float64)
    defined = values[~np.isnan(values)]
    some = len(defined) > 0
    return {
        "mean": float(defined.mean()) if some else None,
        "median": float(np.median(defined)) if some else None,
        "std": float(defined.std()) if some else None,
        "count": len(defined),
        "undefined": len(values) - len(defined),
    }


def _signals(**named) -> list[torch.Tensor]:
    """The named signals as float64 tensors of one shape [B, T]; refuses anything else."""
    out = []
    for name, value in named.items():
        x = torch.as_tensor(value).to(torch.float64)
        if x.ndim != 2 or x.shape[-1] == 0:
            raise ValueError(f"{name}: expected [B, T] with T > 0, got {tuple(x.shape)}")
        if out and x.shape != out[0].shape:
            first = next(iter(named))
            raise ValueError(f"{first} and {name} differ in shape: {tuple(out[0].shape)} and {tuple(x.shape)}")
        if not torch.isfinite(x.sum()):  # a sum in float64 is not finite if one sample is not
            raise ValueError(f"{name} holds samples that are not finite (NaN or infinite)")
        out.append(x)
    return out


def _dot(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.einsum("bt,bt->b", x, y)  # without an array of the products


def _energy(x: torch.Tensor) -> torch.Tensor:
    return _dot(x, x)


def _mean_square(x: torch.Tensor) -> torch.Tensor:
    return _energy(x) / x.shape[-1]


def _ratio_db(num: torch.Tensor, den: torch.Tensor) -> torch.Tensor:
    """10 log10(num / den) within +-MAX_DB; what is not defined is the caller's to mark."""
    tiny = torch.finfo(torch.float64).tiny
    ratio = num.clamp_min(tiny).log10() - den.clamp_min(tiny).log10()
    return (10 * ratio).clamp(-MAX_DB, MAX_DB)
