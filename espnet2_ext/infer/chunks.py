"""Chunks with context: a long signal through a network that sees a limited piece at a time.

A chunk is a core between two pieces of context. Context is computed and discarded, because a network errs most at the
edges of what it sees; neighbouring chunks are cross-faded. Cores start on multiples of the model's `grid`, where its
STFT frames, patches and attention windows fall as they do on the whole signal.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from espnet2_ext.errors import BundleError, DataError

WHOLE = 1 << 62  # a core no signal fills: one chunk


@dataclass(frozen=True)
class Plan:
    """Sizes of a chunk in samples at the model's rate.

    Args:
        core: samples that a chunk answers for; a multiple of `grid`.
        context: samples before the core that are computed and discarded; a multiple of `grid`.
        after: the same behind the core; `context` less one hop, so that the frames of a chunk
            (T / hop + 1 in a centred STFT) fill whole patches.
        fade: length of the cross-fade, centred on the border between two cores; even.
        grid: the model's grid.
    """

    core: int
    context: int
    after: int
    fade: int
    grid: int

    @classmethod
    def make(cls, fs: int, grid: int, hop: int, chunk: float = 20.0, context: float = 2.5, fade: float = 0.5) -> "Plan":
        """From seconds; `chunk` 0 is one chunk for all. Rounded up to the grid, at least one grid.

        Raises:
            DataError: a negative or non-finite length.
        """
        for name, value in (("chunk", chunk), ("context", context), ("fade", fade)):
            if not 0 <= value < float("inf"):
                raise DataError(f"{name} must be 0 seconds or more, not {value}")
        core = max(1, -(-round(chunk * fs) // grid)) * grid if chunk else WHOLE // grid * grid
        before = -(-round(context * fs) // grid) * grid
        after = max(0, before - hop)
        half = min(round(fade * fs / 2), after, grid // 2)
        return cls(core, before, after, 2 * half, grid)

    def halved(self) -> "Plan | None":
        """The plan with half the core, or None when the core is one grid already."""
        core = self.core // 2 // self.grid * self.grid
        return replace(self, core=core) if core else None


class Chunker:
    """Take a signal in pieces of any size, give its estimates in pieces, each sample once.

    Args:
        fn: `[T, C]` float32 to `[Q, T, C]`; called on each chunk with its context.
        plan: sizes of the chunks.

    Raises (from `feed` and `finish`):
        DataError: out of memory with the smallest chunk as well.
    """

    def __init__(self, fn: Callable[[np.ndarray], np.ndarray], plan: Plan):
        self.fn, self.plan = fn, plan
        self.pieces: list[np.ndarray] = []  # from sample `start` to sample `end`
        self.start = self.end = 0
        self.at = 0  # first sample of the next core
        self.tail: np.ndarray | None = None  # previous chunk over the next cross-fade
        self.calls = 0

    def run(self, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Estimates `[Q, T', C]` of a signal that comes in `pieces` `[T, C]`."""
        for x in pieces:
            yield from self.feed(x)
        yield from self.finish()

    def feed(self, x: np.ndarray) -> Iterator[np.ndarray]:
        """Add `x` `[T, C]`; yield estimates `[Q, T', C]` as they become ready."""
        if len(x):
            self.pieces.append(x)
            self.end += len(x)
        return self._drain(last=False)

    def finish(self) -> Iterator[np.ndarray]:
        """Yield the remaining estimates; the signal ends here."""
        return self._drain(last=True)

    def _drain(self, last: bool) -> Iterator[np.ndarray]:
        while self.at < self.end:
            stop = self.at + self.plan.core + self.plan.after
            final = last and self.end <= stop
            if not final and self.end <= stop:
                return
            first = max(0, self.at - self.plan.context)
            x = self._buffer()[first - self.start : min(stop, self.end) - self.start]
            try:
                est = self.fn(x)
            except (MemoryError, torch.OutOfMemoryError, RuntimeError) as e:
                self._halve(e, len(x))
                continue
            self.calls += 1
            yield self._cut(est, first, final)

    def _buffer(self) -> np.ndarray:
        if len(self.pieces) > 1:
            self.pieces = [np.concatenate(self.pieces)]
        return self.pieces[0]

    def _cut(self, est: np.ndarray, first: int, final: bool) -> np.ndarray:
        """What chunk `est` `[Q, T, C]` (from sample `first`) answers for; moves on to the next."""
        fade = self.plan.fade
        begin = self.at - (0 if self.tail is None else self.tail.shape[1] // 2)
        end = self.end if final else self.at + self.plan.core - fade // 2
        out = est[:, begin - first : end - first]
        if self.tail is not None and (n := self.tail.shape[1]):
            out = out.copy()
            rise = ((np.arange(n, dtype=np.float32) + 0.5) / n)[:, None]
            out[:, :n] = self.tail * (1 - rise) + out[:, :n] * rise
        if final:
            self.at, self.pieces, self.tail = self.end, [], None
            return out
        self.tail = est[:, end - first : end + fade - first].copy()
        self.at += self.plan.core
        keep = max(0, self.at - self.plan.context)
        self.pieces = [self._buffer()[keep - self.start :].copy()]
        self.start = keep
        return out

    def _halve(self, error: Exception, length: int) -> None:
        if not is_out_of_memory(error):
            raise error
        smaller = self.plan.halved()
        while smaller is not None and smaller.core >= length:
            smaller = smaller.halved()
        if smaller is None:
            raise DataError(
                f"out of memory even with the smallest chunk ({length} samples at the "
                "model's rate); take --device cpu or a smaller model"
            ) from error
        self.plan = smaller
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        logging.warning("out of memory on %d samples; going on with chunks half as long (%d)", length, smaller.core)


def is_out_of_memory(error: Exception) -> bool:
    """Whether `error` says that the device or the machine has no memory left."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text


def equal_lengths(waves: Sequence[np.ndarray], batch_size: int) -> list[list[int]]:
    """Rows of `waves` in groups of one shape, at most `batch_size` each, so that nothing is padded."""
    by_shape: dict[tuple, list[int]] = {}
    for i, wave in enumerate(waves):
        by_shape.setdefault(wave.shape, []).append(i)
    return [rows[i : i + batch_size] for rows in by_shape.values() for i in range(0, len(rows), batch_size)]


def finite(est: np.ndarray, where: str) -> np.ndarray:
    """`est`, unless it holds values that are not finite (BundleError)."""
    if not np.isfinite(est).all():
        raise BundleError(f"{where}: gives values that are not numbers; the training of this model may have failed")
    return est
