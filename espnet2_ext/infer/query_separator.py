"""A trained model held in memory: embed queries once, separate any number of recordings."""

import functools
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from espnet2_ext.audio.streams import LastSink, OutputType, Source, measure, open_source
from espnet2_ext.errors import DataError
from espnet2_ext.infer import queries as Q
from espnet2_ext.infer.chunks import Plan, equal_lengths, finite
from espnet2_ext.infer.stream import Done, array_source, separate_array, separate_file, steps
from espnet2_ext.infer.vectors.embedder import Embedder
from espnet2_ext.infer.vectors.presence import query_watch, scale_of

QUERIES_A_PASS = 4  # queries answered in one batch: memory grows with them
FLOATS = OutputType("WAV", "FLOAT")
QUERIES_A_FILE = 32  # outputs that are written in one pass over a file


@dataclass(frozen=True)
class Result:
    """What a recording, or a part of it, was separated into, at its rate `fs` (Hz).

    Args:
        target: `[T]` or `[T, C]` as the mixture; of several outputs (`mode="each"`) `[Q, T]` or `[Q, T, C]`. Float32.
        residual: the mixture less all of them, `[T]` or `[T, C]`.
        presence: how likely each sound that was asked for is there, `[Q]`, 0 to 1, from the beginning of the recording;
            None without a calibration, see `presence`.
        start: first sample of the part. progress: share of the recording that is done with it, up to 1.
    """

    target: np.ndarray
    residual: np.ndarray
    fs: int
    presence: np.ndarray | None = None
    start: int = 0
    progress: float = 1.0


class Separator(Embedder):
    """Query-based separation with one model; see `Embedder` for how it is made and what makes the queries."""

    def __call__(
        self,
        mix: np.ndarray | str | Path,
        fs: int | None = None,
        *,
        query: "Q.Query | Sequence[Q.Query] | Q.Ask",
        against: Q.Query | Sequence[Q.Query] = (),
        mode: str = "mean",
        query_fs: int | None = None,
        plan: Plan | None = None,
        gate: float | None = None,
    ) -> Result:
        """Separate a recording: `separator("mix.wav", query="dog.wav").target`.

        Args:
            mix: a file, or `[T]` or `[T, C]` at `fs` Hz.
            query: what is wanted: files, spans, folders, saved vectors, classes, arrays, as in `queries`; or what `ask`
                made of them.
            against, mode: as in `ask`.
            query_fs: rate of arrays among the queries; None: `fs`.
            plan: chunk sizes; None: `self.plan()`.
            gate: presence, such as `self.threshold`, below which 5 s of a target are silence; None: nothing is muted.

        Raises:
            DataError: a mixture or query that cannot be used; an array without its rate.
        """
        parts = list(
            self.stream(mix, fs, query=query, against=against, mode=mode, query_fs=query_fs, plan=plan, gate=gate)
        )
        axis = -min(parts[0].residual.ndim, 2)  # of time
        found = (np.concatenate(x, axis) for x in zip(*((part.target, part.residual) for part in parts)))
        return Result(*found, parts[0].fs, parts[-1].presence)

    def stream(
        self,
        mix: np.ndarray | str | Path,
        fs: int | None = None,
        *,
        query: "Q.Query | Sequence[Q.Query] | Q.Ask",
        against: Q.Query | Sequence[Q.Query] = (),
        mode: str = "mean",
        query_fs: int | None = None,
        plan: Plan | None = None,
        gate: float | None = None,
    ) -> Iterator[Result]:
        """The parts of a recording one after the other, as calling the separator gives them joined.

        Memory does not grow with the length. `progress` of each part says how far it is; to cancel, stop iterating.
        """
        if not isinstance(mix, np.ndarray):
            source = open_source(mix)
            mono = source.channels == 1
        elif fs is None:
            raise DataError("an array needs its rate: separator(mix, fs, query=...)")
        else:
            source, mono = array_source(mix, fs), mix.ndim == 1
        ask = query if isinstance(query, Q.Ask) else self.ask(query, against, mode, query_fs or fs)
        *sinks, rest = (LastSink(FLOATS) for _ in range(len(ask) + 1))
        network, level, start = self.network(ask), measure(source), 0
        watch = None if gate is None and self.threshold is None else query_watch(self, ask, gate)
        for done, _ in steps(network, source, level, sinks, rest, self.fs, plan or self.plan(), watch):
            *targets, residual = ((s.last[:, 0] if mono else s.last).astype(np.float32) for s in (*sinks, rest))
            target = np.stack(targets) if mode == "each" or len(targets) > 1 else targets[0]
            presence = None if watch is None or self.threshold is None else watch.presence.copy()
            yield Result(target, residual, source.fs, presence, start, done / source.frames)
            start = done

    @torch.inference_mode()
    def _network(self, x: np.ndarray, level: float, ask: Q.Ask) -> np.ndarray:
        """x `[T, C]` at the model's rate; returns `[Q, T, C]`."""
        wave = torch.from_numpy(np.ascontiguousarray(x))[None].to(self.device)
        mono = wave.shape[-1] == 1
        rms = torch.full((1,), level, device=self.device)
        queries = ask.queries[[self._nearest(x, ask.queries)]] if ask.nearest else ask.queries
        more = {} if ask.against is None else {"against": torch.from_numpy(ask.against)[None].to(self.device)}
        parts = []
        for group in torch.from_numpy(queries).to(self.device).split(QUERIES_A_PASS):
            est = self.model.separate(wave[..., 0] if mono else wave, query=group[None], level=rms, **more)
            parts.append((est[..., None] if mono else est)[0].float().cpu())
        return finite(torch.cat(parts).numpy(), self.info["path"])

    def _nearest(self, x: np.ndarray, queries: np.ndarray) -> int:
        """Which of `queries` `[Q, E]` has the highest cosine to the embedding of `x` `[T, C]`."""
        own, *others = self.apart(np.stack([self.embed_wave(x.mean(1)), *queries]))
        return int(np.argmax([other @ own / max(np.linalg.norm(other), 1e-12) for other in others]))

    @torch.inference_mode()
    def separate_batch(self, waves: np.ndarray, queries: np.ndarray) -> np.ndarray:
        """Mono waveforms `[B, T]` at the model's rate, a query each `[B, E]`; returns `[B, T]`.

        For clips of one length, whole, at the level that the model finds, as in training. A silent clip gives silence.
        """
        out = np.zeros(waves.shape, np.float32)
        rows = np.flatnonzero(waves.any(1))
        if len(rows):
            wave, query = (
                torch.from_numpy(np.ascontiguousarray(a[rows])).to(self.device)
                for a in (waves, queries.astype(np.float32))
            )
            est = self.model.separate(wave, query=query[:, None])
            out[rows] = finite(est[:, 0].float().cpu().numpy(), self.info["path"])
        return out

    def separate_clips(
        self, waves: Sequence[np.ndarray], fs: int, queries: np.ndarray, batch_size: int
    ) -> list[np.ndarray]:
        """Estimates of clips `[T]` or `[T, C]` at `fs` Hz, each with its row of `queries` `[N, E]`."""
        longest = self.plan().core
        outs: list = [None] * len(waves)
        for group in equal_lengths(waves, batch_size):
            shape = waves[group[0]].shape
            if fs == self.fs and len(shape) == 1 and shape[0] <= longest:
                est = self.separate_batch(np.stack([waves[i] for i in group]), queries[group])
            else:  # another rate, several channels, or long: one by one, in chunks
                est = [self.separate(waves[i], fs, queries[[i]])[0] for i in group]
            for i, e in zip(group, est):
                outs[i] = e
        return outs

    def network(self, queries: "np.ndarray | Q.Ask"):
        """`separate`'s inner call for `queries`, `[Q, E]` or an `Ask`: `([T, C], level) -> [Q, T, C]`."""
        return functools.partial(self._network, ask=Q.Ask.of(queries).checked(self.query_dim))

    @property
    def threshold(self) -> float | None:
        """Presence from which a sound counts as there; None where that was not calibrated."""
        return None if (scale := scale_of(self)) is None else scale.threshold

    def plan(self, chunk: float = 20.0, context: float = 2.5) -> Plan:
        """Chunk sizes from seconds; `chunk` 0 takes the whole recording at once."""
        return Plan.make(self.fs, self.grid, self.hop, chunk, context)

    def separate(self, mix: np.ndarray, fs: int, queries: "np.ndarray | Q.Ask", plan: Plan | None = None) -> np.ndarray:
        """Separate a recording held in memory.

        Args:
            mix: `[T]` or `[T, C]` at `fs` Hz; all channels get one mask.
            queries: `[Q, E]`, or an `Ask`.
            plan: chunk sizes; `self.plan()` when None.

        Returns:
            `[Q, T]` or `[Q, T, C]` float32 at `fs`.

        Raises:
            DataError: empty, NaN, another rank; a query of another width.
        """
        count = len(Q.Ask.of(queries))
        return separate_array(self.network(queries), mix, fs, count, self.fs, plan or self.plan())

    def separate_to(
        self,
        source: Source | str | Path,
        outs: Sequence[str | Path],
        queries: "np.ndarray | Q.Ask",
        rest: str | Path | None = None,
        plan: Plan | None = None,
        subtype: str | None = None,
        comments: Sequence[str] = (),
        amount: float | None = None,
        gate: float | None = None,
    ) -> Done:
        """Separate a file of any length into files, one for each of `queries`, `[Q, E]` or an `Ask`; with `amount` the
        mixture less so much of all of them into one.

        gate: outputs are muted where the sound is less likely, see `presence.Watch`; `Done.presence` holds how likely
        each is, where that was calibrated. See `stream.separate_file`; memory depends on the chunk, not on the length,
        and without `rest` not on the number of queries: more than a few dozen are answered in several passes.
        """
        queries = Q.Ask.of(queries)
        if len(outs) != (len(queries) if amount is None else 1):
            raise DataError(f"{len(queries)} queries, {len(outs)} outputs")
        plan, size = plan or self.plan(), len(outs) if rest is not None else _files_at_once(QUERIES_A_FILE)
        parts = [slice(i, i + size) for i in range(0, len(outs), size)]
        found = []
        for some in parts if len(parts) > 1 else [slice(None)]:
            watch = None if gate is None and self.threshold is None else query_watch(self, queries[some], gate)
            given = (self.network(queries[some]), source, outs[some], rest, self.fs, plan, subtype, comments[some])
            done = separate_file(*given, amount, watch)
            found.append(done if watch is None else done._replace(presence=watch.presence.tolist()))
        presence = [p for d in found for p in d.presence]
        return Done(sum(d.chunks for d in found), sum(d.clipped for d in found), found[0].rms, presence)


def _files_at_once(most: int) -> int:
    """How many of `most` files may be written at a time: each is open, and locked by another descriptor."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if soft == resource.RLIM_INFINITY else max(1, min(most, (soft - 32) // 2))
