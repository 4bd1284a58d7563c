"""CNN14 of PANNs: a convolutional tagger on the log-mel spectrogram.

Kong et al., "PANNs: Large-scale pretrained audio neural networks for audio pattern recognition"
(TASLP 2020), section III and table I.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnet2_ext.core.layers.mel import LogMel
from espnet2_ext.core.layers.swin import valid_mask
from espnet2_ext.core.nets.contracts import QueryOutput, Tagger

EMBEDDINGS = ("latent", "probabilities")


def keep(x: Tensor, frames: Tensor | None) -> Tensor:
    """x `[B, C, L, N]`, zero past the `frames` `[B]` of each item; None: all L count."""
    return x if frames is None else x * valid_mask(frames, x.shape[2]).transpose(1, 2)


class ConvBlock(nn.Module):
    """Twice: 3x3 convolution, batch norm, ReLU."""

    def __init__(self, in_width: int, width: int):
        super().__init__()
        convs = [nn.Conv2d(w, width, 3, padding=1, bias=False) for w in (in_width, width)]
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in convs)
        for conv in convs:
            nn.init.xavier_uniform_(conv.weight)

    def forward(self, x: Tensor, frames: Tensor | None) -> Tensor:
        for conv, norm in zip(self.convs, self.norms):
            x = F.relu_(norm(conv(keep(x, frames))))
        return x


class CNN14(Tagger):
    """Waveform `[B, T]` of any length to embedding and tags (clip-wise only).

    Blocks of two convolutions, 2x2 average pooling after each but the last. In a batch, frames past an item's end are
    set to zero before each convolution, as the convolution's own padding is, and an odd last frame is dropped in each
    pooling: an item comes out as it would alone, and as the public code makes it. A clip of less than one frame of the
    last map (32 frames, 0.3 s), which that code refuses, is continued with normalised zeros up to it. Zeros do count in
    the blocks' batch norms while training.

    Args:
        sample_rate, n_fft, hop_length, mel_bands, low, high, spec_augment: as in `LogMel`.
        num_classes: K; 0 leaves the head out.
        widths: channels of the blocks; the latent embedding is as wide as the last.
        embedding: `latent`, or `probabilities` of the K classes.
        conv_dropout: after each block.
        dropout: before the layer that makes the latent embedding, and on that embedding (the head gets it without).

    Raises:
        ValueError: another embedding, probabilities of no class, or bands that cannot be halved.
    """

    def __init__(
        self,
        sample_rate: int = 32000,
        n_fft: int = 1024,
        hop_length: int = 320,
        mel_bands: int = 64,
        low: float = 50.0,
        high: float = 14000.0,
        num_classes: int = 527,
        widths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048),
        embedding: str = "latent",
        conv_dropout: float = 0.2,
        dropout: float = 0.5,
        spec_augment: dict | None = None,
    ):
        super().__init__()
        self.least_frames = 2 ** (len(widths) - 1)
        if embedding not in EMBEDDINGS:
            raise ValueError(f"embedding must be one of {EMBEDDINGS}, not {embedding!r}")
        if embedding == "probabilities" and not num_classes:
            raise ValueError("embedding 'probabilities' needs num_classes above 0")
        if mel_bands < self.least_frames:
            raise ValueError(f"{len(widths)} blocks need {self.least_frames} mel bands or more, got {mel_bands}")
        width = widths[-1]
        self.sample_rate, self.num_classes, self.embedding = sample_rate, num_classes, embedding
        self.query_dim = width if embedding == "latent" else num_classes
        self.conv_dropout, self.dropout = conv_dropout, dropout

        self.log_mel = LogMel(sample_rate, n_fft, hop_length, mel_bands, low, high, spec_augment)
        self.blocks = nn.ModuleList(ConvBlock(a, b) for a, b in zip((1, *widths), widths))
        self.latent = nn.Linear(width, width)
        self.head = nn.Linear(width, num_classes) if num_classes else None
        for layer in filter(None, (self.latent, self.head)):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, wave: Tensor, lengths: Tensor | None = None, mixup: Tensor | None = None) -> QueryOutput:
        """Embedding and tags of `wave` `[B, T]`; see `Tagger`."""
        x, frames = self.log_mel(wave, lengths, mixup)  # [B, L, N]
        x = F.pad(x, (0, 0, 0, max(0, self.least_frames - x.shape[1])))
        x = F.dropout(self._pooled(x[:, None], frames), self.dropout, self.training)
        x = F.relu_(self.latent(x))
        clipwise = None if self.head is None else self.head(x)
        if self.embedding == "probabilities" and clipwise is not None:
            return QueryOutput(clipwise.sigmoid(), clipwise, None)
        return QueryOutput(F.dropout(x, self.dropout, self.training), clipwise, None)

    def _pooled(self, x: Tensor, frames: Tensor) -> Tensor:
        """Image `[B, 1, L, N]` through the blocks and over bands and time, to `[B, width]`."""
        least = frames.clamp(min=self.least_frames)
        count = None if bool((least == x.shape[2]).all()) else least
        pools = [2] * (len(self.blocks) - 1) + [1]
        for block, pool in zip(self.blocks, pools):
            x = F.avg_pool2d(block(x, count), pool)
            count = None if count is None else count // pool
            x = F.dropout(x, self.conv_dropout, self.training)
        x = keep(x, count).mean(3)  # [B, C, L'], nowhere negative: zeros do not change a maximum
        return x.amax(2) + x.sum(2) / (x.shape[2] if count is None else count[:, None])

    def edges(self, samples: int) -> Tensor:
        """There is one frame, the clip: `[0, samples]`."""
        return torch.tensor([0, samples], dtype=torch.double)
