"""A trained network that tags, and the clips of a bank through it."""

import argparse
import functools
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from espnet2_ext.core.nets.tagger import QueryOutput, Tagger
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.tables import Label, read_labels
from espnet2_ext.errors import BundleError, DataError
from espnet2_ext.infer.bundle import build_from_bundle, build_from_exp
from espnet2_ext.infer.query_separator import pick_device
from espnet2_ext.infer.weak_weights import read_config, read_weights
from espnet2_ext.infer.weights import fill
from espnet2_ext.infer.work import ModelFiles
from espnet2_ext.tasks.tagging import TaggingTask, check_fits


class Heard(NamedTuple):
    """Probabilities: clip [B, K]; frame [B, L, K], and edges [L + 1] of its frames in samples.

    The last two are None where the network's tags have no time.
    """

    clip: np.ndarray
    frame: np.ndarray | None
    edges: np.ndarray | None


class SeparatorTags(Tagger):
    """The tags of a query-based separator, such as CaRE-CLS+SEP, of whole clips.

    Args:
        model: an `ESPnetQSepModel`; where: what messages call it.

    Raises:
        BundleError: a model without a head.
    """

    def __init__(self, model: torch.nn.Module, where: str):
        super().__init__()
        self.model, self.sample_rate = model.eval(), int(model.fs)
        with torch.inference_mode():
            out = self(torch.zeros(1, self.sample_rate))
        if out.clipwise is None:
            raise BundleError(f"{where}: this separator has no head that tags")
        self.query_dim, self.num_classes = out.embedding.shape[1], out.clipwise.shape[1]

    def forward(
        self, wave: torch.Tensor, lengths: torch.Tensor | None = None, mixup: torch.Tensor | None = None
    ) -> QueryOutput:
        """See `Tagger`; nothing is mixed."""
        return self.model.embed(wave, lengths)._replace(framewise=None)


class Listener:
    """Tags sound with one network.

    Args:
        net: a `Tagger`.
        classes: its labels, empty when they are not known.
        device: `auto`, or a name that PyTorch knows.
    """

    def __init__(self, net: Tagger, classes: Sequence[Label] = (), device: str = "auto"):
        self.device = pick_device(device)
        self.net = net.to(self.device).eval().requires_grad_(False)
        self.classes = list(classes)

    @classmethod
    def from_bundle(cls, path: str | Path, device: str = "auto") -> "Listener":
        """From the bundle of a separator that tags; raises `BundleError`."""
        model, bundle = build_from_bundle(path)
        return cls(SeparatorTags(model, str(path)), bundle.labels, device)

    @classmethod
    def from_exp(cls, train_config: str | Path, model_file: str | Path, device: str = "auto") -> "Listener":
        """From `config.yaml` and weights of an experiment, with the `labels.tsv` beside them.

        The experiment is a tagger's, or that of a separator that tags.

        Raises:
            BundleError: a file that is missing, broken or of another model.
        """
        config = read_config(train_config)
        if "extractor" in config:  # a separator's
            model, classes, _ = build_from_exp(train_config, model_file)
            return cls(SeparatorTags(model, str(model_file)), classes, device)
        try:
            model = TaggingTask.build_model(argparse.Namespace(**config))
        except (AttributeError, TypeError, ValueError) as e:
            raise BundleError(f"{train_config}: does not build a tagger: {e}") from e
        fill(model, lambda: read_weights(model_file), str(model_file))
        labels = Path(model_file).parent / "labels.tsv"
        return cls(model.net, read_labels(labels) if labels.exists() else (), device)

    def check(self, bank: ClipBank) -> None:
        """Refuse a bank of another rate or of other classes than the model's (DataError)."""
        check_fits(self.net, bank)
        theirs = [c.mid for c in bank.classes]
        if self.classes and [c.mid for c in self.classes] != theirs:
            raise DataError(f"{bank.path}: its classes are not those that the tagger was trained on")

    @torch.inference_mode()
    def hear(self, waves: np.ndarray) -> Heard:
        """Tag sounds of one length, [B, T] float32."""
        out = self.net(torch.from_numpy(waves).to(self.device))
        clip = out.clipwise.float().sigmoid().cpu().numpy()
        if out.framewise is None:
            return Heard(clip, None, None)
        edges = self.net.edges(waves.shape[1]).cpu().numpy()
        return Heard(clip, out.framewise.float().sigmoid().cpu().numpy()[:, : len(edges) - 1], edges)


@dataclass(frozen=True)
class TagFiles(ModelFiles):
    """Where a network that tags is: `ModelFiles` of a tagger, or of a separator that tags."""

    def load(self) -> Listener:
        """The `Listener`, once a process (until a file changes)."""
        stats = [os.stat(f) for f in (self.bundle, self.train_config, self.model_file) if f]
        return _load(self, tuple((s.st_mtime_ns, s.st_size) for s in stats))


@functools.lru_cache(maxsize=1)
def _load(files: TagFiles, stats: tuple) -> Listener:
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)  # the worker processes are what runs side by side
    if files.bundle:
        return Listener.from_bundle(files.bundle, files.device)
    return Listener.from_exp(files.train_config, files.model_file, files.device)


def equal_batches(bank: ClipBank, rows: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Positions in `rows` in batches of clips of one length, so that none is padded."""
    by_length: dict[int, list[int]] = {}
    for at, row in enumerate(rows):
        by_length.setdefault(bank.num_samples(row), []).append(at)
    for places in by_length.values():
        yield from (places[i : i + batch_size] for i in range(0, len(places), batch_size))


def hear_clips(listener: Listener, bank: ClipBank, rows: Sequence[int], batch_size: int) -> Iterator[tuple[int, Heard]]:
    """(position in `rows`, what is heard in that clip alone) in some order.

    Raises:
        DataError: naming a clip whose tags are not numbers.
    """
    for places in equal_batches(bank, rows, batch_size):
        heard = listener.hear(np.stack([bank.read(rows[at]) for at in places]))
        for i, at in enumerate(places):
            frame = None if heard.frame is None else heard.frame[i]
            if not (np.isfinite(heard.clip[i]).all() and (frame is None or np.isfinite(frame).all())):
                raise DataError(f"{bank.path}: clip {bank.id(rows[at])}: tags that are not finite")
            yield at, Heard(heard.clip[i], frame, heard.edges)
