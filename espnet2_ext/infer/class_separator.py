"""A trained weak-label model held in memory: one output a class, in the order of the classes.

Nothing is ever permuted: output s is class s, and the last one is the residual where the model has one. A recording
goes through in chunks with context on both sides (see `infer.chunks`), so memory depends on the chunk and not on the
length. A recurrent separator has no limited context: what it gives for a chunk is close to, but not the same as, what
it gives for the whole recording. `chunk=0` takes the whole recording at once, as the paper does (Pishdadian et al.,
"Finding Strength in Weakness", III-F), and needs memory in proportion to its length.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from espnet2_ext.audio.streams import Resampler, Source
from espnet2_ext.core.nets.encoder_tags import EncoderTags
from espnet2_ext.data.outputs import RESIDUAL, Tags
from espnet2_ext.errors import BundleError, DataError
from espnet2_ext.infer.bundle import OpenBundle, hash_of_files, open_bundle
from espnet2_ext.infer.chunks import Plan, finite
from espnet2_ext.infer.exchange.hub import located
from espnet2_ext.infer.stream import Done, separate_array, separate_file
from espnet2_ext.infer.vectors.class_queries import PREFIX
from espnet2_ext.infer.vectors.presence import class_watch
from espnet2_ext.infer.weights import at_precision, model_of_bundle, model_of_exp, pick_device

if TYPE_CHECKING:  # a model of classes does without
    from espnet2_ext.infer.query_separator import Separator

CHUNK, CONTEXT = 60.0, 5.0  # seconds


class WeakSeparator:
    """Separation into the classes that one model knows.

    Args:
        model: see `core.separators.ClassSeparator`.
        device: `auto`, or a name that PyTorch knows.
        info: what is known of the model; `path` is what messages call it.

    `outputs` names the outputs: the classes and, where the model has one, `rest`.
    """

    precision = "fp32"  # see `weights.at_precision`

    def __init__(self, model: nn.Module, device: str = "auto", info: dict | None = None):
        self.info = {"path": "the model", **(info or {})}
        if model.part != "separator":
            raise BundleError(
                f"{self.info['path']}: is a classifier alone, it separates nothing; give the experiment of a separator"
            )
        self.model_hash = str(self.info.get("model_hash", ""))
        self.device = pick_device(device)
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.fs, self.hop, self.grid = int(model.fs), int(model.hop), int(model.grid)
        self.time_pool, self.n_fft = int(model.time_pool), int(model.n_fft)
        self.classes = list(model.class_names)
        self.outputs = [*self.classes, *([RESIDUAL] if model.residual else [])]
        self.tags = model.classifier is not None

    @classmethod
    def from_exp(
        cls, train_config: str | Path, model_file: str | Path, device: str = "auto", precision: str = "fp32"
    ) -> "WeakSeparator":
        """From an experiment's `config.yaml` and weights (`.pth`, or a Lightning `.ckpt`)."""
        model = model_of_exp(train_config, model_file, "weak")
        info = {"path": str(model_file), "model_hash": hash_of_files(train_config, model_file)}
        return at_precision(cls(model, device, info), precision)

    @classmethod
    def from_bundle(cls, path: str | Path, device: str = "auto", precision: str = "fp32") -> "WeakSeparator":
        """From a bundle file; raises `BundleError` with the reason when it cannot be used."""
        with open_bundle(path) as bundle:
            return cls.from_open(bundle, device, precision)

    @classmethod
    def from_pretrained(cls, name: str | Path, device: str = "auto", revision: str | None = None) -> "WeakSeparator":
        """From a bundle file, a folder with one, or a repository `OWNER/NAME` of huggingface.co; see `hub.located`."""
        return cls.from_bundle(located(name, revision), device)

    @classmethod
    def from_open(cls, bundle: OpenBundle, device: str = "auto", precision: str = "fp32") -> "WeakSeparator":
        """From a bundle that is open already."""
        return at_precision(cls(model_of_bundle(bundle, "weak"), device, bundle.about()), precision)

    @property
    def threshold(self) -> float | None:
        """Presence from which a class counts as there; None without a classifier."""
        return 0.5 if self.tags else None

    def plan(self, chunk: float = CHUNK, context: float = CONTEXT) -> Plan:
        """Chunk sizes from seconds; `chunk` 0 takes the whole recording at once."""
        return Plan.make(self.fs, self.grid, self.hop, chunk, context)

    # ---- separation ------------------------------------------------------------------------------

    @torch.inference_mode()
    def separate_batch(self, waves: np.ndarray) -> np.ndarray:
        """Mono waveforms `[B, T]` at the model's rate, each whole; returns `[B, S, T]` float32."""
        x = torch.from_numpy(np.ascontiguousarray(waves, dtype=np.float32)).to(self.device)
        est = self.model.separate(x).float().cpu().numpy()
        if est.shape != (len(waves), len(self.outputs), waves.shape[1]):
            raise BundleError(
                f"{self.info['path']}: expected outputs {len(waves)} x "
                f"{len(self.outputs)} x {waves.shape[1]}, got {list(est.shape)}"
            )
        return finite(est, self.info["path"])

    def _network(self, x: np.ndarray, level: float) -> np.ndarray:
        """x `[T, C]` at the model's rate to `[S, T, C]`: each channel is separated on its own."""
        return self.separate_batch(x.T).transpose(1, 2, 0)

    def separate(self, mix: np.ndarray, fs: int, plan: Plan | None = None) -> np.ndarray:
        """Separate a recording held in memory: `[T]` or `[T, C]` at `fs` Hz to `[S, T(, C)]`.

        Raises:
            DataError: empty, NaN, another rank.
        """
        return separate_array(self._network, mix, fs, len(self.outputs), self.fs, plan or self.plan())

    def separate_to(
        self,
        source: Source | str | Path,
        outs: Sequence[str | Path],
        rest: str | Path | None = None,
        plan: Plan | None = None,
        subtype: str | None = None,
        comments: Sequence[str] = (),
        gate: float | None = None,
    ) -> Done:
        """Separate a file of any length into files, one for each of `outputs`.

        `rest` takes the mixture less all outputs; see `stream.separate_file`. gate: outputs are muted where their
        class is less likely, see `presence.Watch`; `Done.presence` is that of each output.
        """
        if len(outs) != len(self.outputs):
            raise DataError(f"the model has {len(self.outputs)} outputs, {len(outs)} files given")
        watch = class_watch(self, gate) if self.tags else None
        done = separate_file(
            self._network, source, outs, rest, self.fs, plan or self.plan(), subtype, comments, watch=watch
        )
        return done if watch is None else done._replace(presence=watch.presence[: len(self.classes)].tolist())

    def class_row(self, name: str) -> int:
        """Which of `classes` has this name, without regard to case.

        Raises:
            DataError: none, or the model has no classifier.
        """
        found = [i for i, known in enumerate(self.classes) if known.casefold() == name.casefold()]
        if not self.tags or len(found) != 1:
            why = f"knows {', '.join(self.classes)}" if self.tags else "has no classifier, it hears no class"
            raise DataError(f"{PREFIX}{name}: {self.info['path']} {why}")
        return found[0]

    # ---- tags ------------------------------------------------------------------------------------

    @torch.inference_mode()
    def classify_batch(self, waves: np.ndarray) -> list[Tags]:
        """Activity of the classes in mono waveforms `[B, T]` at the model's rate, each whole."""
        x = torch.from_numpy(np.ascontiguousarray(waves, dtype=np.float32)).to(self.device)
        frame, clip = self.model.classify(x)
        return [Tags(c, f) for f, c in zip(frame.float().cpu().numpy(), clip.float().cpu().numpy())]

    def activity(self, source: Source, plan: Plan | None = None) -> Iterator[Tags]:
        """Activity of the classes in a recording (the mean of its channels), chunk by chunk; `clip` of each chunk is
        that with its context.
        """
        step = self.hop * self.time_pool
        for x, before, core in windows(source, self.fs, plan or self.plan()):
            found = self.classify_batch(x[None])[0]
            first = before // step
            yield Tags(found.clip, found.frame[first : None if core is None else first + core // step])

    @torch.inference_mode()
    def classify(self, source: Source, plan: Plan | None = None) -> Tags:
        """Activity of the classes in a recording, see `activity`.

        The clip's probability is pooled over the frames of all chunks.
        """
        found = list(self.activity(source, plan))
        if len(found) == 1:
            return found[0]
        frame = np.concatenate([tags.frame for tags in found])
        logits = torch.logit(torch.from_numpy(frame.T.copy()).double(), eps=1e-12)
        pooled = self.model.classifier.pool(logits[None].to(self.device, torch.float32))
        return Tags(torch.sigmoid(pooled)[0].cpu().numpy(), frame)


class AskedClasses(nn.Module):
    """A model that answers queries, asked for its classes: to inference it is what a `ClassSeparator` is.

    Args:
        model: a `core.separators.QuerySeparator` that tags, such as a training from weak labels makes.
        class_names: K names, of its tags in order.
        queries: `[K, E]`; or what each item of a batch is asked for with, `[B, K, E]`.

    Attributes:
        compete: the classes compete for each bin; False: each is asked for by itself.
    """

    part, residual, compete = "separator", False, True

    def __init__(self, model: nn.Module, class_names: Sequence[str], queries: torch.Tensor):
        super().__init__()
        self.model, self.class_names = model, list(class_names)
        self.classifier = EncoderTags(model.extractor.net)
        self.register_buffer("queries", queries)
        self.fs, self.hop, self.n_fft = model.fs, model.hop, model.encoder.n_fft
        self.time_pool = self.classifier.time_pool
        self.grid = model.grid

    def separate(self, wave: torch.Tensor) -> torch.Tensor:
        """`[B, T]` to `[B, K, T]`."""
        return self.model.separate(wave, query=self.queries.expand(len(wave), -1, -1), compete=self.compete)

    def classify(self, wave: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities of the classes in `[B, T]`: of frames `[B, L', K]`, of the clip `[B, K]`."""
        _, clip, frame = self.model.embed(wave)
        return frame.sigmoid(), clip.sigmoid()


class AskedSeparator(WeakSeparator):
    """A `WeakSeparator` of a query model: an output for each class, by its mean query unless `asking` for examples."""

    def __init__(self, separator: "Separator"):
        if separator.known is None or not separator.tags:
            raise BundleError(f"{separator.info['path']}: holds no queries of classes, or does not tag")
        self.own = {label.mid: separator.known.query(label.name) for label in separator.classes}
        self.separator, self.means = separator, torch.from_numpy(np.stack(list(self.own.values())))
        asked = AskedClasses(separator.model, list(self.own), self.means)
        super().__init__(asked, str(separator.device), separator.info)

    @classmethod
    def from_exp(cls, train_config: str | Path, model_file: str | Path, device: str = "auto") -> "AskedSeparator":
        """From an experiment's `config.yaml` and weights, with its classes and their queries beside them."""
        from espnet2_ext.infer.query_separator import Separator

        return cls(Separator.from_exp(train_config, model_file, device=device))

    @classmethod
    def from_open(cls, bundle: OpenBundle, device: str = "auto", precision: str = "fp32") -> "AskedSeparator":
        """From a bundle that is open already."""
        from espnet2_ext.infer.query_separator import Separator

        return at_precision(cls(Separator.from_open(bundle, device)), precision)

    def asking(self, classes: Sequence[str], examples: Sequence[Mapping[int, np.ndarray]]) -> None:
        """Ask the next batch with examples: of each of its items, class -> waveform `[T]` at the model's rate.

        Args:
            classes: what the outputs are; others than the model's own need an example, without one nothing is asked
                for. Of its own the mean query asks where there is no example.
        """
        names = list(classes) or list(self.own)
        nothing = np.zeros(self.separator.query_dim, np.float32)
        self.means = torch.from_numpy(np.stack([self.own.get(name, nothing) for name in names]))
        self.classes = self.outputs = self.model.class_names = names
        self.tags = names == list(self.own)
        queries = [self.means.clone() for _ in examples]
        for own, of_class in zip(queries, examples):
            for k, wave in of_class.items():
                own[k] = torch.from_numpy(self.separator.embed_one(wave, self.fs))
        self.model.queries = (torch.stack(queries) if queries else self.means).to(self.device)


def windows(source: Source, fs: int, plan: Plan) -> Iterator[tuple[np.ndarray, int, int | None]]:
    """Chunks of a recording at `fs` Hz, the mean of its channels: memory is that of one chunk.

    Yields:
        samples `[T']` with their context, how many of them lie before the core, and the length of
        the core (None: up to the end).
    """
    held, start, at = np.zeros(0, np.float32), 0, 0  # `held` begins at sample `start`
    waiting = [held]
    have = 0
    mono = (x.mean(1, keepdims=True) for x in source.blocks())
    for piece in Resampler(source.fs, fs, 1).run(mono):
        waiting.append(piece[:, 0])
        have += len(piece)
        while have > at + plan.core + plan.after:
            held = np.concatenate(waiting)
            first = max(0, at - plan.context)
            yield held[first - start : at + plan.core + plan.after - start], at - first, plan.core
            at += plan.core
            keep = max(0, at - plan.context)
            waiting, start = [held[keep - start :].copy()], keep
    held = np.concatenate(waiting)
    first = max(0, at - plan.context)
    yield held[first - start :], at - first, None
