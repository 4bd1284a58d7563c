"""A query tuned on a few examples: mixtures of them with other sounds teach the query alone, the network is frozen.

After audio prompt tuning: the loss of training goes through the network to the vector that it is given.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from espnet2_ext.core.losses.separation import neg_sdr
from espnet2_ext.core.mixing.pairs import energy_gain
from espnet2_ext.errors import DataError
from espnet2_ext.infer.query_separator import Separator

LEVELS = (-10.0, 15.0)  # dB of an example over what it is mixed with
HELD_OUT = 5  # one of so many sounds
VALID, EVERY = 16, 20  # mixtures of held-out sounds; steps from one look at them to the next


class Adapted(NamedTuple):
    """query: `[E]`. mean_sdr, sdr: on mixtures of held-out sounds, of the mean query and of `query`, in dB. step: after
    which `query` was found; 0: none was better than the mean query."""

    query: np.ndarray
    mean_sdr: float
    sdr: float
    step: int


def adapt(
    separator: Separator,
    examples: Sequence[np.ndarray],
    others: Sequence[np.ndarray],
    *,
    steps: int = 300,
    seconds: float = 2.03,
    batch_size: int = 4,
    lr: float = 0.002,
    seed: int = 0,
) -> Adapted:
    """Tune the mean query of `examples`, and keep the vector that answers best on sounds that were held out.

    A fifth of the examples and of the others, at least one of each, makes the held-out mixtures.

    Args:
        examples: two or more sounds `[T]` of what is asked for, at the model's rate, from `queries.read_query`.
        others: sounds `[T]` that it is mixed with; of a single one the last fifth is held out.
        steps: of Adam. seconds: length of a mixture. lr: learning rate, relative to the query's RMS.

    Raises:
        DataError: fewer than two examples, or nothing to mix them with.
    """
    if len(examples) < 2 or not others:
        raise DataError(f"adapting takes two examples or more (five are better) and other sounds; got {len(examples)}")
    mean = torch.from_numpy(np.mean([separator.embed_one(x, separator.fs) for x in examples], axis=0))
    scale, num = mean.square().mean().sqrt(), round(seconds * separator.fs)
    mean, scale = mean.to(separator.device), scale.to(separator.device)
    if len(others) == 1:
        cut = len(others[0]) * (HELD_OUT - 1) // HELD_OUT
        others = [others[0][:cut], others[0][cut:]]
    (own, held_own), (rest, held_rest) = map(_split, (examples, others))
    valid = _mixtures(np.random.default_rng([seed, 0]), held_own, held_rest, VALID, num)
    rng, change = np.random.default_rng([seed, 1]), torch.zeros_like(mean, requires_grad=True)
    optimizer = torch.optim.Adam([change], lr)
    best = first = _loss_of(separator, mean, valid, batch_size)
    query, found = mean, 0
    for step in range(1, steps + 1):
        batch = _mixtures(rng, own, rest, batch_size, num)
        optimizer.zero_grad()
        _loss(separator, mean + scale * change, *batch).mean().backward()
        optimizer.step()
        if step % EVERY == 0 or step == steps:
            now = (mean + scale * change).detach()
            loss = _loss_of(separator, now, valid, batch_size)
            logging.info("step %d: SDR %.2f dB on held-out sounds (mean query: %.2f dB)", step, -loss, -first)
            if loss < best:
                best, query, found = loss, now, step
    return Adapted(query.cpu().numpy(), -first, -best, found)


def _split(sounds: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What is learned from, and what is held out: each fifth, at least the last."""
    held = set(range(HELD_OUT - 1, len(sounds), HELD_OUT)) or {len(sounds) - 1}
    return [x for i, x in enumerate(sounds) if i not in held], [sounds[i] for i in sorted(held)]


def _mixtures(
    rng: np.random.Generator, own: Sequence[np.ndarray], others: Sequence[np.ndarray], count: int, num: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixtures and their targets, `[count, num]` each."""
    mixes, refs = np.zeros((2, count, num), np.float32)
    for i in range(count):
        refs[i], rest = _stretch(rng, own, num), _stretch(rng, others, num)
        mixes[i] = refs[i] + energy_gain(refs[i], rest) * 10 ** (-rng.uniform(*LEVELS) / 20) * rest
    return torch.from_numpy(mixes), torch.from_numpy(refs)


def _stretch(rng: np.random.Generator, sounds: Sequence[np.ndarray], num: int) -> np.ndarray:
    """`num` samples of one of the sounds, silence around a shorter one; not silent if ten tries can help it."""
    x = np.zeros(0, np.float32)
    for _ in range(10):
        x = sounds[rng.integers(len(sounds))]
        start = rng.integers(max(len(x) - num, 0) + 1)
        x = x[start : start + num]
        if x.any():
            break
    before = rng.integers(num - len(x) + 1)
    return np.pad(x, (before, num - len(x) - before))


def _loss(separator: Separator, query: torch.Tensor, mix: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
    """Negative SDR in dB of each mixture `[B, T]`, answered with `query` `[E]`."""
    mix, ref = mix.to(separator.device), ref.to(separator.device)
    est = separator.model.separate(mix, query=query.expand(len(mix), 1, -1))[:, 0]
    return neg_sdr(est=est, ref=ref, mix=mix)


@torch.no_grad()
def _loss_of(separator: Separator, query: torch.Tensor, mixtures: tuple, batch_size: int) -> float:
    """Mean loss of all mixtures."""
    parts = zip(*(x.split(batch_size) for x in mixtures))
    return float(torch.cat([_loss(separator, query, *part) for part in parts]).mean())
