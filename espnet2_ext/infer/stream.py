"""Separation from a source to sinks, a chunk at a time.

The whole signal and a chunked one take the same path: one chunk is a `Plan` whose core is longer
than the signal. The network's input level is that of the whole recording, measured in a first
pass, so that it does not step from chunk to chunk.
"""

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from espnet2_ext.audio.files import BLOCK
from espnet2_ext.audio.sound import scale_note
from espnet2_ext.audio.streams import (
    ArraySink,
    ArraySource,
    FileSink,
    LastSink,
    Measured,
    Resampler,
    Sink,
    Source,
    adding_up,
    check_space,
    measure,
    open_source,
    output_type,
)
from espnet2_ext.errors import DataError
from espnet2_ext.infer.chunks import Chunker, Plan
from espnet2_ext.util.files import atomic_path, write_text

Network = Callable[[np.ndarray, float], np.ndarray]  # [T, C] and a level to [Q, T, C]
FEW_CHUNKS = 3  # no progress bar up to here


class Done(NamedTuple):
    """What a separation did: chunks run, samples clipped in all outputs, level of the input; where it was looked at,
    how likely each asked sound is there."""

    chunks: int
    clipped: int
    rms: float
    presence: Sequence[float] = ()


class Passing(Protocol):
    """What a mixture and its estimates pass, at the model's rate: it may look at them, and change the estimates."""

    def mixture(self, pieces: Iterable[np.ndarray], rms: float) -> Iterable[np.ndarray]:
        """`pieces` `[T', C]` of a mixture whose RMS is `rms`."""
        ...

    def estimates(self, found: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
        """`found` `[Q, T', C]`, in all as long."""
        ...


@dataclass
class _Sum:
    """The sum of all estimates as the only one, times `amount`, behind `watch`."""

    amount: float
    watch: Passing | None = None

    def mixture(self, pieces: Iterable[np.ndarray], rms: float) -> Iterable[np.ndarray]:
        return pieces if self.watch is None else self.watch.mixture(pieces, rms)

    def estimates(self, found: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
        for est in found if self.watch is None else self.watch.estimates(found):
            yield self.amount * est.sum(0, keepdims=True)


def estimate_blocks(
    network: Network, source: Source, level: float, fs: int, plan: Plan, num_queries: int, watch: Passing | None = None
) -> Iterator[tuple[np.ndarray, int]]:
    """Estimates `[Q, T', C]` at the source's rate, in all as many samples as it has, after they passed `watch`.

    Yields each block with the number of chunks run so far.
    """
    channels = source.channels
    if level == 0:  # silent: so is the estimate, and no network is run
        for x in source.blocks():
            yield np.zeros((num_queries, *x.shape), np.float32), 0
        return
    chunker = Chunker(lambda x: network(x, level), plan)
    down = Resampler(source.fs, fs, channels)
    up = Resampler(fs, source.fs, num_queries * channels)
    pieces = down.run(source.blocks())
    found = chunker.run(pieces if watch is None else watch.mixture(pieces, level))  # [Q, T', C] at the model's rate
    found = found if watch is None else watch.estimates(found)
    parts = (est[:, i : i + BLOCK] for est in found for i in range(0, est.shape[1], BLOCK))
    flat = (est.transpose(1, 0, 2).reshape(est.shape[1], num_queries * channels) for est in parts)
    left = source.frames
    for x in up.run(flat):
        est = x.reshape(-1, num_queries, channels).transpose(1, 0, 2)[:, :left]
        left -= est.shape[1]
        if est.shape[1]:
            yield est, chunker.calls
    if left:  # two rates may round to a sample or two less
        yield np.zeros((num_queries, left, channels), np.float32), chunker.calls


class _Taker:
    """Read a stream of `[T', C]` blocks by the number of samples."""

    def __init__(self, blocks: Iterator[np.ndarray]):
        self.blocks, self.held = blocks, None

    def take(self, n: int) -> np.ndarray:
        parts = []
        while n:
            if self.held is None or not len(self.held):
                self.held = next(self.blocks)
            parts.append(self.held[:n])
            self.held = self.held[len(parts[-1]) :]
            n -= len(parts[-1])
        return np.concatenate(parts)


def _progress(source: Source, long: bool):
    """A progress bar over the samples of a long recording; else a context of None."""
    if not long:
        return contextlib.nullcontext()
    from tqdm import tqdm

    name = Path(source.name).name
    return tqdm(total=source.frames, unit="sample", unit_scale=True, desc=name, disable=None)


def separate_stream(
    network: Network,
    source: Source,
    level: Measured,
    sinks: Sequence[Sink],
    rest: Sink | None,
    fs: int,
    plan: Plan,
    watch: Passing | None = None,
) -> Done:
    """Run `steps` to their end, with a progress bar for a long recording."""
    at_model = source.frames * fs / source.fs
    before = chunks = 0
    with _progress(source, at_model > FEW_CHUNKS * plan.core) as bar:
        for done, chunks in steps(network, source, level, sinks, rest, fs, plan, watch):  # noqa: B007, the last is reported
            if bar is not None:
                bar.update(done - before)
            before = done
    clipped = sum(getattr(s, "clipped", 0) for s in [*sinks, rest] if s is not None)
    return Done(chunks, clipped, level.rms)


def steps(
    network: Network,
    source: Source,
    level: Measured,
    sinks: Sequence[Sink],
    rest: Sink | None,
    fs: int,
    plan: Plan,
    watch: Passing | None = None,
) -> Iterator[tuple[int, int]]:
    """Separate `source`, whose level was measured; sink q takes the estimate of query q, `rest` the residual.

    Estimates and residual, as they are written, add up to the mixture: see `adding_up`. Yields, after each write, the
    samples written and the chunks run so far.

    Raises:
        DataError: damage, no memory. OSError: writing failed.
    """
    if level.rms == 0:
        logging.warning(
            "%s: %s; every estimate is silence",
            source.name,
            "is silent" if level.peak == 0 else "its channels cancel each other in their mean, the network's input",
        )
    if note := scale_note(level.peak):
        logging.warning("%s: %s", source.name, note)
    mix = _Taker(source.blocks("float64"))
    done = 0
    for est, chunks in estimate_blocks(network, source, level.rms, fs, plan, len(sinks), watch):
        asked = list(est.astype(np.float64))
        if rest is None:
            kept = [sink.held(x) for sink, x in zip(sinks, asked, strict=True)]
        else:
            kept, residual, left = adding_up(mix.take(est.shape[1]), asked, sinks, rest)
            rest.write(residual, left)
        for sink, *x in zip(sinks, kept, asked):
            sink.write(*x)
        done += est.shape[1]
        yield done, chunks


def array_source(mix: np.ndarray, fs: int) -> ArraySource:
    """A recording held in memory, `[T]` or `[T, C]`. Raises a DataError for an empty one, or another rank."""
    mix = np.asarray(mix)
    if mix.ndim not in (1, 2) or not mix.size:
        raise DataError(f"expected a mixture [T] or [T, C], not empty, got {list(mix.shape)}")
    return ArraySource(mix.reshape(len(mix), -1), fs, "the mixture")


def separate_array(network: Network, mix: np.ndarray, fs: int, num: int, model_fs: int, plan: Plan) -> np.ndarray:
    """Separate a recording held in memory: `[T]` or `[T, C]` at `fs` Hz to `[num, T(, C)]` float32.

    Raises:
        DataError: empty, NaN, another rank.
    """
    source = array_source(mix, fs)
    out = np.empty((num, *source.x.shape), np.float32)
    separate_stream(network, source, measure(source), [ArraySink(o) for o in out], None, model_fs, plan)
    return out.reshape(num, *np.shape(mix))


def separate_file(
    network: Network,
    source: Source | str | Path,
    outs: Sequence[str | Path],
    rest: str | Path | None,
    fs: int,
    plan: Plan,
    subtype: str | None = None,
    comments: Sequence[str] = (),
    amount: float | None = None,
    watch: Passing | None = None,
) -> Done:
    """Separate `source` into one file a query, and the residual file `rest` where it is given.

    Files are there whole or not at all, and keep the source's rate, length and channels; format
    and sample type as `output_type` says.

    Args:
        comments: what each file, `rest` as the last one, is to say of itself.
        amount: 0 to 1; the only one of `outs` takes the mixture less so much of all estimates, `rest` what was taken
            away. None: `outs` take the estimates.
        watch: what mixture and estimates pass.

    Raises:
        DataError: as `separate_stream`; a name that cannot be written; no room on the disk.
    """
    source = open_source(source) if isinstance(source, str | Path) else source
    paths = [Path(p) for p in [*outs, rest] if p is not None]
    if len({p.resolve() for p in paths}) < len(paths):
        raise DataError(f"two outputs have one name: {', '.join(map(str, paths))}")
    source_path = getattr(source, "path", None)
    for path in paths:
        if source_path is not None and path.resolve() == source_path.resolve():
            raise DataError(f"{path}: is the input as well as the output")
    kinds = [output_type(p, source, subtype) for p in paths]
    for path, kind in zip(paths, kinds):
        check_space(path, source, kind.subtype, len(paths))
    level = measure(source)
    with contextlib.ExitStack() as files:
        written = []
        for path, kind, comment in itertools.zip_longest(paths, kinds, comments, fillvalue=""):
            part = files.enter_context(atomic_path(path))
            written.append(FileSink(part, str(path), source.fs, source.channels, kind, comment))
            files.callback(written[-1].abandon)
        sinks, last = written[: len(outs)], written[len(outs)] if rest is not None else None
        if amount is not None:
            watch, sinks, last = _Sum(amount, watch), [last or LastSink(kinds[0])], sinks[0]
        done = separate_stream(network, source, level, sinks, last, fs, plan, watch)
        for sink in written:  # all whole before the first gets its name
            sink.close()
    for path, comment in zip(paths, comments):
        if path.suffix.lower() == ".w64":
            write_text(path.with_name(f"{path.name}.json"), comment)
    return done
