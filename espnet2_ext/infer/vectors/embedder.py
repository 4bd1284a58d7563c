"""A query model held in memory, and its vectors of queries: what the command line and Python ask it."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import nn

from espnet2_ext.data.tables import Label
from espnet2_ext.errors import BundleError, DataError
from espnet2_ext.infer import queries as Q
from espnet2_ext.infer.bundle import OpenBundle, hash_of_files, open_bundle
from espnet2_ext.infer.exchange.hub import located
from espnet2_ext.infer.vectors.class_queries import ARRAYS, ClassQueries, centred, class_of
from espnet2_ext.infer.weights import (
    at_precision,
    check_classes,
    heard_beside,
    labels_beside,
    model_of_bundle,
    model_of_exp,
    pick_device,
)
from espnet2_ext.util.binary import read_npz
from espnet2_ext.util.names import STARTER

AGREEMENT = 0.5  # lowest pairwise cosine of several queries below which they are said to disagree
WINDOWS_A_PASS = 8
MODES = ("mean", "each", "nearest")  # what several queries are answered with, see `ask`


class Embedder:
    """Query vectors of one model.

    Args:
        model: with what `core.nets.contracts` asks of it: `fs`, `hop`, `grid`, `query_dim`, `num_classes`, `embed`,
            `separate`.
        classes: its labels, empty when it was not trained with any.
        device: `auto`, or a name that PyTorch knows.
        info: what the bundle says of itself; `path` is what messages call the model.
        known: what the model heard in training, where that was measured.

    `agreement` is the warning threshold for queries; `bundle.yaml` may set it.
    """

    precision = "fp32"  # see `weights.at_precision`

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
    def from_bundle(cls, path: str | Path = STARTER, device: str = "auto", precision: str = "fp32") -> Self:
        """From a bundle file, or the model in the package (`starter`); precision: see `core.layers.precision`.

        Raises:
            BundleError: it cannot be used, with the reason.
        """
        with open_bundle(path) as bundle:
            return cls.from_open(bundle, device, precision)

    @classmethod
    def from_pretrained(cls, name: str | Path = STARTER, device: str = "auto", revision: str | None = None) -> Self:
        """From a bundle file, a folder with one, or a repository of huggingface.co (`OWNER/NAME`); see `hub.located`.

        Raises:
            BundleError: there is none, or it cannot be used, with the reason.
        """
        return cls.from_bundle(located(name, revision), device)

    @classmethod
    def from_open(cls, bundle: OpenBundle, device: str = "auto", precision: str = "fp32") -> Self:
        """From a bundle that is open already."""
        place = pick_device(device)  # before the weights are read
        more = bundle.labels, place, bundle.about(), bundle.class_queries()
        return at_precision(cls(model_of_bundle(bundle, "qsep"), *more), precision)

    @classmethod
    def from_exp(
        cls, train_config: str | Path, model_file: str | Path, labels: str | Path | None = None, device: str = "auto"
    ) -> Self:
        """From an experiment's `config.yaml` and weights, with a `class_queries.npz` beside them if there is one.

        labels: a labels.tsv; None: the one beside the weights.
        """
        model = model_of_exp(train_config, model_file, "qsep")
        info = {"task": "qsep", "name": Path(model_file).absolute().parent.name, "path": str(model_file)}
        info["model_hash"] = hash_of_files(train_config, model_file)
        heard = heard_beside(train_config, model_file)
        known = ClassQueries.of_arrays(read_npz(heard, ARRAYS), str(heard)) if heard else None
        return cls(model, labels_beside(model_file, labels), device, info, known)

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
        return self.heard(wave)[0]

    def heard(self, wave: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Mean embedding `[E]` and mean tagging logits `[K]`, or None, of the windows of a waveform `[T]`."""
        batch = Q.windows(wave, round(Q.WINDOW * self.fs))
        parts = [self.embed_batch(batch[i : i + WINDOWS_A_PASS]) for i in range(0, len(batch), WINDOWS_A_PASS)]
        vectors, tags = zip(*parts)
        return np.concatenate(vectors).mean(0), np.concatenate(tags).mean(0) if self.tags else None

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
                "neither; mode each answers them one by one, mode nearest with the nearest of them",
                lowest,
                Q.shown(single[a]),
                Q.shown(single[b]),
                self.agreement,
            )
        return vectors.mean(0), lowest

    def ask(
        self,
        query: Q.Query | Sequence[Q.Query],
        against: Q.Query | Sequence[Q.Query] = (),
        mode: str = "mean",
        fs: int | None = None,
    ) -> Q.Ask:
        """What a mixture is asked for; what the queries are is logged.

        Args:
            query: one or several, see `queries`.
            against: what sounds like these is kept out.
            mode: `mean`: one output for the average of all; `each`: an output for each; `nearest`: one output, for
                which each chunk is answered with the nearest of them.
            fs: rate of arrays.

        Raises:
            DataError: another mode; as `embed_one`.
        """
        queries, others = Q.as_list(query), Q.as_list(against)
        if mode not in MODES:
            raise DataError(f"mode {mode!r}: is none of {', '.join(MODES)}")
        negative = np.stack([self._mean(f"not {Q.shown(q)}", [q], fs) for q in others]) if others else None
        words = f"query {', '.join(map(Q.shown, queries))}"
        if mode == "nearest":
            references, parts = self.embed_each(queries, fs)
            logging.info("%s: %d references, the nearest to each chunk answers", words, len(parts))
            return Q.Ask(references, negative, nearest=True)
        if mode == "each" and queries:
            return Q.Ask(np.stack([self._mean(f"query {Q.shown(q)}", [q], fs) for q in queries]), negative)
        return Q.Ask(self._mean(words, queries, fs)[None], negative)

    def _mean(self, words: str, queries: Sequence[Q.Query], fs: int | None) -> np.ndarray:
        vector, agreement = self.embed_queries(queries, fs)
        count = sum(len(Q.query_parts(q)) for q in queries)
        about = f"mean of {count} sounds, which agree to a cosine of {agreement:.2f} at least"
        logging.info("%s: %s", words, "1 sound" if count == 1 else about)
        return vector

    def apart(self, vectors: np.ndarray) -> np.ndarray:
        """Embeddings `[N, E]` without what those of all classes share, where the bundle knows it: for cosines."""
        return vectors if self.known is None else centred(vectors, self.known.mean)
