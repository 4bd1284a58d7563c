"""Small models with the interface of a query and of a class separator, for tests of what uses a model."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnet2_ext.core.separators import shared

LABELS = "index\tmid\tname\trelated\n" + "".join(
    f"{i}\t/m/0{i}\tsound {i}\t{1 - i if i < 2 else ''}\n" for i in range(5)
)


def noise(seconds: float, fs: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Noise `[T, C]` whose colour and loudness change, so that no two places look the same."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((round(seconds * fs), channels))
    t = np.arange(len(x))[:, None] / fs
    return (0.1 * x * (1 + np.sin(2 * np.pi * 0.7 * t)) / 2 + 0.05 * np.sin(2 * np.pi * (300 + 50 * t) * t)).astype(
        np.float32
    )


class Query(NamedTuple):
    embedding: Tensor
    clipwise: Tensor | None
    framewise: Tensor | None


class StandIn(nn.Module):
    """Masks an STFT; a frame's mask looks at a few frames around it and at its window of frames.

    Args:
        width: frames in a window: like the windows of a Swin network, they start on multiples, so
            that a chunk which starts elsewhere gets other masks.
        num_classes: tags; 0 for none.
        loud: factor on the estimates, to bring out clipping.
    """

    def __init__(
        self,
        fs: int = 16000,
        hop: int = 128,
        width: int = 32,
        dim: int = 8,
        num_classes: int = 5,
        loud: float = 1.0,
        seed: int = 0,
    ):
        super().__init__()
        self.fs, self.hop, self.grid, self.loud = fs, hop, hop * width, loud
        self.n_fft, self.width = 4 * hop, width
        self.query_dim, self.num_classes = dim, num_classes
        bins = self.n_fft // 2 + 1
        gen = torch.Generator().manual_seed(seed)

        def weight(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=gen) / shape[-1] ** 0.5)

        self.query = weight(dim, bins)
        self.local = nn.Parameter(torch.randn(bins, 1, 9, generator=gen) / 3)
        self.to_mask = weight(bins, dim)
        self.tags = weight(num_classes, dim) if num_classes else None
        self.calls: list[int] = []  # samples of each call

    def _stft(self, x: Tensor) -> Tensor:
        window = torch.hann_window(self.n_fft, device=x.device)
        return torch.stft(x, self.n_fft, self.hop, window=window, return_complex=True, pad_mode="constant")

    def embed(self, wave: Tensor, lengths: Tensor | None = None) -> Query:
        mag = self._stft(wave).abs().mean(-1)
        mag = mag / mag.norm(dim=-1, keepdim=True).clamp(min=1e-8)
        e = mag @ self.query.T
        return Query(e, None if self.tags is None else e @ self.tags.T, None)

    def separate(
        self, wave: Tensor, lengths=None, *, query: Tensor, level: Tensor | None = None, against: Tensor | None = None
    ) -> Tensor:
        self.calls.append(wave.shape[1])
        x = wave if wave.dim() == 3 else wave[..., None]
        mono = x.mean(-1)
        level = mono.square().mean(1).sqrt() if level is None else level
        seen = (self._stft(mono).abs() / level[:, None, None].clamp(min=1e-8)).add(1).log()
        near = F.conv1d(seen, self.local, padding=4, groups=len(self.local))
        padded = F.pad(near, (0, -near.shape[-1] % self.width))
        block = padded.unflatten(-1, (-1, self.width)).mean(-1)
        near = near + block.repeat_interleave(self.width, -1)[..., : near.shape[-1]]
        asked = query if against is None else torch.cat([query, against], 1)
        mask = torch.sigmoid(near[:, None] + (asked @ self.to_mask.T)[..., None])  # [B, Q, F, L]
        if against is not None:
            mask = shared(*mask.tensor_split([query.shape[1]], 1))
        b, c, t = len(x), x.shape[-1], x.shape[1]
        spec = self._stft(x.transpose(1, 2).reshape(b * c, t)).unflatten(0, (b, c))
        est = self.loud * mask[:, :, None] * spec[:, None]  # [B, Q, C, F, L]
        out = torch.istft(
            est.flatten(0, 2), self.n_fft, self.hop, window=torch.hann_window(self.n_fft, device=x.device), length=t
        )
        out = out.unflatten(0, est.shape[:3]).transpose(2, 3)  # [B, Q, T, C]
        return out if wave.dim() == 3 else out[..., 0]


def build_standin(config: dict, task: str, trusted: bool = False) -> StandIn:
    """In place of `build_model`."""
    return StandIn(**config["model_conf"])


# ---- classes -------------------------------------------------------------------------------------

CLASSES = ["bell", "dog", "siren"]


class Classifier(nn.Module):
    """Frame logits from bands of the magnitude, pooled over time in steps; max over a clip."""

    def __init__(self, num_classes: int, time_pool: int):
        super().__init__()
        self.time_pool = time_pool
        self.bands = nn.Parameter(torch.linspace(1, 3, num_classes))

    def forward(self, mag: Tensor) -> Tensor:  # [B, L, F] -> [B, K, L']
        bands = torch.stack([c.mean(-1) for c in mag.chunk(len(self.bands), -1)], 1)
        return F.max_pool1d(self.bands[:, None] * bands.log1p() - 1, self.time_pool)

    def pool(self, logits: Tensor, lengths: Tensor | None = None) -> Tensor:
        return logits.amax(-1)


class WeakStandIn(nn.Module):
    """Masks an STFT by bands; a frame's mask looks at four frames on both sides.

    The mask of class s keeps the s-th third of the band, more or less.
    """

    def __init__(
        self,
        fs: int = 16000,
        hop: int = 128,
        residual: bool = False,
        class_names: list = CLASSES,
        time_pool: int = 4,
        tags: bool = True,
        part: str = "separator",
        seed: int = 0,
    ):
        super().__init__()
        self.fs, self.hop, self.residual, self.part = fs, hop, residual, part
        self.class_names = list(class_names)
        self.num_spk = len(class_names) + residual
        self.n_fft, self.time_pool, self.grid = 4 * hop, time_pool if tags else 1, 128 * hop
        self.classifier = Classifier(len(class_names), time_pool) if tags else None
        gen = torch.Generator().manual_seed(seed)
        bins = self.n_fft // 2 + 1
        self.local = nn.Parameter(torch.randn(bins, 1, 9, generator=gen) / 3)
        tilt = torch.linspace(0, self.num_spk, bins)[None] - torch.arange(self.num_spk)[:, None]
        self.bands = nn.Parameter(4 - 8 * (tilt - 0.5).abs())
        self.calls: list[int] = []  # samples of each call

    def stft(self, wave: Tensor) -> Tensor:  # [B, T] -> [B, F, L]
        window = torch.hann_window(self.n_fft).sqrt().to(wave)
        return torch.stft(wave, self.n_fft, self.hop, window=window, return_complex=True, pad_mode="constant")

    def separate(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        self.calls.append(wave.shape[1])
        spec = self.stft(wave)
        near = F.conv1d(spec.abs().log1p(), self.local, padding=4, groups=len(self.local))
        mask = torch.sigmoid(near[:, None] + self.bands[None, :, :, None])
        est = (mask * spec[:, None]).flatten(0, 1)
        window = torch.hann_window(self.n_fft).sqrt().to(wave)
        out = torch.istft(est, self.n_fft, self.hop, window=window, length=wave.shape[1])
        return out.unflatten(0, mask.shape[:2])

    def classify(self, wave: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        logits = self.classifier(self.stft(wave).abs().transpose(1, 2))
        return logits.sigmoid().transpose(1, 2), self.classifier.pool(logits).sigmoid()


def build_weak_standin(config: dict, task: str, trusted: bool = False) -> WeakStandIn:
    """In place of `build_model`."""
    return WeakStandIn(**config["model_conf"])
