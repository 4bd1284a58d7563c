"""A trained model held in memory: embed queries once, separate any number of recordings."""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from espnet2_ext.audio.streams import Source
from espnet2_ext.data.tables import Label
from espnet2_ext.errors import BundleError, DataError
from espnet2_ext.infer import queries as Q
from espnet2_ext.infer.bundle import OpenBundle, hash_of_files, open_bundle
from espnet2_ext.infer.chunks import Plan, equal_lengths, finite
from espnet2_ext.infer.stream import Done, separate_array, separate_file
from espnet2_ext.infer.vectors.class_queries import ClassQueries, centred, class_of
from espnet2_ext.infer.weights import check_classes, labels_beside, model_of_bundle, model_of_exp, pick_device
from espnet2_ext.util.process import files_at_once
from espnet2_ext.util.shipped import STARTER

AGREEMENT = 0.5  # lowest pairwise cosine of several queries below which they are said to disagree
QUERIES_A_PASS = 4  # queries answered in one batch: memory grows with them
WINDOWS_A_PASS = 8
QUERIES_A_FILE = 32  # outputs that are written in one pass over a file


class Separator:
    """Query-based separation with one model.

    Args:
        model: with what `core.nets.contracts` asks of it: `fs`, `hop`, `grid`, `query_dim`, `num_classes`, `embed`,
            `separate`.
        classes: its labels, empty when it was not trained with any.
        device: `auto`, or a name that PyTorch knows.
        info: what the bundle says of itself; `path` is what messages call the model.
        known: what the model heard in training, where that was measured.

    `agreement` is the warning threshold for queries; `bundle.yaml` may set it.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[Label] = (),
        device: str | torch.device = "auto",
        info: dict | None = None,
        known: ClassQueries | None = None,
    ):
        self.classes, self.info = list(classes), {"path": "the model", **(info or {})}
        self.tags = check_classes(model, self.classes, self.info["path"])
        self.device = pick_device(device)
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.fs, self.hop, self.grid = int(model.fs), int(model.hop), int(model.grid)
        self.query_dim = int(model.query_dim)
        self.model_hash = str(self.info.get("model_hash", ""))
        self.agreement = float(self.info.get("agreement", AGREEMENT))
        self.known = known
        if known is not None:
            self.agreement = known.agreement
        if known is not None and known.mean.shape[1] != self.query_dim:
            raise BundleError(f"{known.where}: has queries of other sizes than the model")

    @classmethod
    def from_bundle(cls, path: str | Path = STARTER, device: str = "auto") -> "Separator":
        """From a bundle file, or the model in the package (`starter`).

        Raises:
            BundleError: it cannot be used, with the reason.
        """
        with open_bundle(path) as bundle:
            return cls.from_open(bundle, device)

    @classmethod
    def from_open(cls, bundle: OpenBundle, device: str = "auto") -> "Separator":
        """From a bundle that is open already."""
        place = pick_device(device)  # before the weights are read
        return cls(model_of_bundle(bundle, "qsep"), bundle.labels, place, bundle.about(), bundle.class_queries())

    @classmethod
    def from_exp(
        cls, train_config: str | Path, model_file: str | Path, labels: str | Path | None = None, device: str = "auto"
    ) -> "Separator":
        """From an experiment's `config.yaml` and weights; `labels`: a labels.tsv, or None for the one beside them."""
        model = model_of_exp(train_config, model_file, "qsep")
        info = {"task": "qsep", "name": Path(model_file).absolute().parent.name, "path": str(model_file)}
        info["model_hash"] = hash_of_files(train_config, model_file)
        return cls(model, labels_beside(model_file, labels), device, info)

    # ---- queries ---------------------------------------------------------------------------------

    @torch.inference_mode()
    def embed_batch(self, waves: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Waveforms `[B, T]` at the model's rate to queries `[B, E]`, and tagging logits `[B, K]`.

        Nothing is trimmed or windowed here. The logits are None for a model that does not tag its
        own `classes`.
        """
        out = self.model.embed(torch.from_numpy(np.ascontiguousarray(waves)).to(self.device))
        tags = out.clipwise.float().cpu().numpy() if self.tags else None
        return out.embedding.float().cpu().numpy(), tags

    def embed_one(self, query: Q.Query, fs: int | None = None) -> np.ndarray:
        """One file or span of one, array (at `fs`), saved vector or class to a query `[E]`; see `queries`.

        Long ones are cut into windows of 10 s that overlap evenly; their embeddings are averaged.

        Raises:
            DataError: unreadable, NaN, silent; a vector of another width; a class that the model does not know.
        """
        if (name := class_of(query)) is not None:
            if self.known is None:
                path = self.info["path"]
                raise DataError(f"{query}: {path} holds no queries of classes; `espnet2-ext calibrate` makes them")
            return self.known.query(name)
        if Q.is_saved(query):
            return self._saved(Path(query))
        vector = self.embed_wave(Q.read_query(query, self.fs, fs))
        if not np.isfinite(vector).all():
            raise DataError(f"query {Q.shown(query)}: the model gives no finite embedding")
        return vector

    def embed_wave(self, wave: np.ndarray) -> np.ndarray:
        """Mean embedding `[E]` of the windows of a waveform `[T]` at the model's rate."""
        batch = Q.windows(wave, round(Q.WINDOW * self.fs))
        parts = [self.embed_batch(batch[i : i + WINDOWS_A_PASS])[0] for i in range(0, len(batch), WINDOWS_A_PASS)]
        return np.concatenate(parts).mean(0)

    def _saved(self, path: Path) -> np.ndarray:
        vector, made_by = Q.read_saved(path)
        if vector.shape != (self.query_dim,):
            raise DataError(f"{path}: holds {list(vector.shape)} values, this model's queries are [{self.query_dim}]")
        if made_by is None:
            logging.warning("%s: does not say which model made it; a query of another model means something else", path)
        elif made_by != self.model_hash:
            raise DataError(
                f"{path}: was made by another model ({made_by}; this is {self.model_hash}); make it anew with "
                "`espnet2-ext embed`"
            )
        return vector

    def embed_each(self, queries: Sequence[Q.Query], fs: int | None = None) -> tuple[np.ndarray, list[Q.Query]]:
        """Embeddings `[N, E]` of queries, each file counting once, and what they are of.

        Where most are far from all that the model heard, that is warned of.

        Args:
            queries: see `queries`: files, spans, folders, saved vectors, classes, arrays `[T]` or `[T, C]`.
            fs: rate of the arrays.
        """
        single = [part for query in queries for part in Q.query_parts(query)]
        if not single:
            raise DataError("no query given")
        vectors = np.stack([self.embed_one(q, fs) for q in single])
        far = [words for v in vectors if (words := self.known.far_words(v))] if self.known is not None else []
        if 2 * len(far) > len(vectors):
            more = f" and {len(single) - 1} more" * (len(single) > 1)
            logging.warning("query %s%s: %s", Q.shown(single[0]), more, far[0])
        return vectors, single

    def embed_queries(self, queries: Sequence[Q.Query], fs: int | None = None) -> tuple[np.ndarray, float]:
        """Average of several queries, see `embed_each`, and how far they agree.

        Returns:
            The mean embedding `[E]`; the lowest pairwise cosine between the files' embeddings, 1.0 for one file. A
            cosine below `agreement` is warned of.
        """
        vectors, single = self.embed_each(queries, fs)
        if len(vectors) == 1:
            return vectors[0], 1.0
        lowest, (a, b) = Q.agreement_of(self.apart(vectors))
        if lowest < self.agreement:
            logging.warning(
                "the queries disagree: cosine %.2f between %s and %s (below %.2f); their average may stand for "
                "neither. --mode each answers them one by one, --mode nearest with the nearest of them",
                lowest,
                Q.shown(single[a]),
                Q.shown(single[b]),
                self.agreement,
            )
        return vectors.mean(0), lowest

    def apart(self, vectors: np.ndarray) -> np.ndarray:
        """Embeddings `[N, E]` without what those of all classes share, where the bundle knows it: for cosines."""
        return vectors if self.known is None else centred(vectors, self.known.mean)

    # ---- separation ------------------------------------------------------------------------------

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

        For clips of one length, whole, at the level that the model finds, as in training. A
        silent clip gives silence.
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
    ) -> Done:
        """Separate a file of any length into files, one for each of `queries`, `[Q, E]` or an `Ask`; with `amount` the
        mixture less so much of all of them into one.

        See `stream.separate_file`; memory depends on the chunk, not on the length, and without `rest` not on the number
        of queries: more than a few dozen are answered in several passes over the file.
        """
        queries = Q.Ask.of(queries)
        if len(outs) != (len(queries) if amount is None else 1):
            raise DataError(f"{len(queries)} queries, {len(outs)} outputs")
        plan, size = plan or self.plan(), len(outs) if rest is not None else files_at_once(QUERIES_A_FILE)
        parts = [slice(i, i + size) for i in range(0, len(outs), size)]
        found = [
            separate_file(self.network(queries[s]), source, outs[s], rest, self.fs, plan, subtype, comments[s], amount)
            for s in (parts if len(parts) > 1 else [slice(None)])
        ]
        return Done(sum(d.chunks for d in found), sum(d.clipped for d in found), found[0].rms)
