"""A tiny tagger and a corpus of tones that it can tell apart, for tests of the pipeline."""

import contextlib
from pathlib import Path

import numpy as np
import torch
from sounds import bank_of
from torch import Tensor, nn

from espnet2_ext.core.nets.contracts import QueryOutput, Tagger, mix_up
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.tables import Label
from espnet2_ext.enh.adapt import query_net_choices
from espnet2_ext.registry import TABLE

FS = 8000
TONES = (500.0, 1500.0, 2500.0, 3500.0)  # Hz, one a class, in the middle of the bands below


class BandTagger(Tagger):
    """Log energies of four equal bands in frames of `hop` samples, and a linear head on them."""

    def __init__(self, sample_rate: int = FS, num_classes: int = 4, hop: int = 400, frames: bool = True):
        super().__init__()
        self.sample_rate, self.num_classes, self.query_dim = sample_rate, num_classes, 4
        self.hop, self.frames = hop, frames
        self.head = nn.Linear(4, num_classes)
        self.batches: list = []  # lengths of what was listened to

    def forward(self, wave: Tensor, lengths: Tensor | None = None, mixup: Tensor | None = None) -> QueryOutput:
        self.batches.append(tuple(wave.shape))
        if lengths is None:
            lengths = torch.full(wave.shape[:1], wave.shape[1])
        frames = -(-lengths // self.hop)
        x = nn.functional.pad(wave, (0, -wave.shape[1] % self.hop)).unflatten(1, (-1, self.hop))
        power = torch.fft.rfft(x).abs().square()[..., 1:].unflatten(2, (4, -1)).mean(-1)
        x, frames = mix_up((power + 1e-3).log10(), frames, mixup)
        valid = (torch.arange(x.shape[1]) < frames[:, None])[..., None]
        framewise = self.head(x)
        clipwise = (framewise * valid).sum(1) / frames[:, None]
        embedding = (x * valid).sum(1) / frames[:, None]
        return QueryOutput(embedding, clipwise, framewise if self.frames else None)

    def edges(self, samples: int) -> Tensor:
        at = torch.arange(0, samples, self.hop, dtype=torch.double)
        return torch.cat([at, at.new_tensor([samples])])

    def know(self) -> "BandTagger":
        """With weights set by hand: class k is the energy of band k."""
        nn.init.eye_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        return self


@contextlib.contextmanager
def registered():
    """While this lasts, YAMLs may say `query_net: bands`."""
    TABLE["query_net"]["bands"] = "tag_standin:BandTagger"
    query_net_choices.classes["bands"] = BandTagger
    try:
        yield
    finally:
        del TABLE["query_net"]["bands"]
        del query_net_choices.classes["bands"]


def tone(k: int, samples: int, start: int = 0, end: int | None = None) -> np.ndarray:
    """A tone of class k from `start` to `end` over faint noise, float32 [samples]."""
    rng = np.random.default_rng([k, samples, start])
    x = 1e-3 * rng.standard_normal(samples)
    at = np.arange(samples)
    inside = (start <= at) & (at < (samples if end is None else end))
    return (x + 0.3 * inside * np.sin(2 * np.pi * TONES[k] / FS * at)).astype(np.float32)


def write_bank(top: Path, waves: dict[str, tuple[np.ndarray, tuple[int, ...]]], classes: int = 4) -> ClipBank:
    """A bank of clips: id -> (wave, its classes)."""
    named = {key: (wave, tuple(f"/m/{k}" for k in own)) for key, (wave, own) in waves.items()}
    return bank_of(top, named, [Label(k, f"/m/{k}", f"Tone {k}") for k in range(classes)], FS)


def write_tones(top: Path, clips_a_class: int, seed: int = 0) -> ClipBank:
    """A bank of tones, one class a clip, at a random place in clips of 1 or 1.25 s."""
    rng, waves = np.random.default_rng(seed), {}
    for k in range(4):
        for n in range(clips_a_class):
            samples = int(rng.choice([FS, FS * 5 // 4]))
            start = int(rng.integers(samples - FS // 2))
            waves[f"t{k}{n:02d}"] = tone(k, samples, start, start + FS // 2), (k,)
    return write_bank(top, waves)
