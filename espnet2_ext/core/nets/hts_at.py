"""HTS-AT (ST-SED): a Swin transformer on a folded log-mel spectrogram that tags and localises.

Chen et al., "HTS-AT: A hierarchical token-semantic audio transformer for sound classification and
detection" (ICASSP 2022); with dim 256 it makes the queries of Chen et al., "Zero-shot audio source
separation through query-based learning from weakly-labeled data" (AAAI 2022).
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnet2_ext.core.layers.mel import LogMel
from espnet2_ext.core.layers.swin import PatchMerge, SwinStage
from espnet2_ext.core.nets.contracts import QueryOutput, Tagger


class HTSAT(Tagger):
    """Waveform `[B, T]` of any length to embedding and tags; the maps lie [time, frequency].

    The Swin part sees `span` = spec_size^2 / mel_bands log-mel frames (1024: 10.24 s), folded to an
    image of spec_size x spec_size: one stretch of spec_size frames lies beside the next along
    frequency. A clip of another length is brought to it:

    - shorter: repeated as often as it fits whole (`repeat`), then stretched by bicubic
      interpolation. That is what the public code does to a query; its tagger only stretches, which
      is the same for clips of more than half the span.
    - longer: as many windows of `span` frames as it takes, evenly placed from its start to its end.
      Embedding and clip-wise logits are the windows' mean; a framewise frame is the mean of the
      windows that contain it. (The public code cuts two or three crops there, up to some 20 s, and
      gives no embedding.)

    Parts are named as in `CaREEncoder`, whose encoder takes their weights where shapes agree.

    Args:
        sample_rate, n_fft, hop_length, mel_bands, low, high, spec_augment: as in `LogMel`.
        spec_size: side of the image; a multiple of `mel_bands` and of what the stages divide by.
        dim: D, width of the first stage; the embedding is 8 D wide (768 and 2048 in the papers).
        depths, heads: of the stages; the last one is the connector.
        window: side of the attention windows, in tokens.
        patch_size: side of a token, in frames and bands.
        num_classes: K of the token-semantic head; 0 leaves the head out.
        drop_path: stochastic depth, rising linearly to this value.
        repeat: see above.
    """

    def __init__(
        self,
        sample_rate: int = 32000,
        n_fft: int = 1024,
        hop_length: int = 320,
        mel_bands: int = 64,
        low: float = 50.0,
        high: float = 14000.0,
        spec_size: int = 256,
        dim: int = 96,
        depths: tuple[int, ...] = (2, 2, 6, 2),
        heads: tuple[int, ...] = (4, 8, 16, 32),
        window: int = 8,
        patch_size: int = 4,
        num_classes: int = 527,
        drop_path: float = 0.1,
        spec_augment: dict | None = None,
        repeat: bool = True,
    ):
        super().__init__()
        scale = 2 ** (len(depths) - 1)
        self.token_frames = patch_size * scale
        if len(depths) != len(heads):
            raise ValueError(f"depths and heads differ in number: {depths}, {heads}")
        if spec_size % mel_bands or mel_bands % self.token_frames:
            raise ValueError(
                f"spec_size must be a multiple of mel_bands, and mel_bands of {self.token_frames} "
                f"(patch_size * {scale}): spec_size {spec_size}, mel_bands {mel_bands}"
            )
        self.sample_rate, self.hop_length, self.num_classes = sample_rate, hop_length, num_classes
        self.folds, self.patch_size, self.repeat = spec_size // mel_bands, patch_size, repeat
        self.span = spec_size * self.folds
        self.query_dim = e = scale * dim

        self.log_mel = LogMel(sample_rate, n_fft, hop_length, mel_bands, low, high, spec_augment)
        self.patch_embed = nn.Linear(patch_size**2, dim)
        self.patch_norm = nn.LayerNorm(dim)
        rates = torch.linspace(0, drop_path, sum(depths), device="cpu").tolist()
        side, stages = spec_size // patch_size, []
        for i, (depth, head) in enumerate(zip(depths, heads)):
            at, tokens = sum(depths[:i]), side >> i
            stages.append(SwinStage(dim * 2**i, depth, head, window, tokens, 0, rates[at : at + depth], length=tokens))
        self.encoder, self.connector = nn.ModuleList(stages[:-1]), stages[-1]
        self.merges = nn.ModuleList(PatchMerge(dim * 2**i) for i in range(len(depths) - 1))
        self.connector_norm = nn.LayerNorm(e)
        self.head = (
            nn.Conv2d(e, num_classes, (3, mel_bands // self.token_frames), padding=(1, 0)) if num_classes else None
        )

    # ---- clips to images and back ------------------------------------------------------------

    def starts(self, frames: int) -> list[int]:
        """First frames of the windows over a clip of so many log-mel frames."""
        windows = -(-frames // self.span)
        return [round(i * (frames - self.span) / max(1, windows - 1)) for i in range(windows)] if windows > 1 else [0]

    def copies(self, frames: int) -> int:
        """How often a clip of so many frames stands in its window."""
        return max(1, self.span // frames) if self.repeat else 1

    def fold(self, x: Tensor) -> Tensor:
        """Log-mels `[B, L, N]`, L at most `span`, to images `[B, spec_size, spec_size]`."""
        b, length, bands = x.shape
        x = x.repeat(1, self.copies(length), 1)
        if x.shape[1] < self.span:
            x = F.interpolate(x[:, None], (self.span, bands), mode="bicubic", align_corners=True)[:, 0]
        x = x.view(b, self.folds, -1, bands)
        return x.transpose(1, 2).flatten(2)

    def unfold(self, x: Tensor) -> Tensor:
        """Map `[B, L', folds * N', D]` back to `[B, folds * L', N', D]`, all of time in one row."""
        x = x.unflatten(2, (self.folds, -1))
        return x.transpose(1, 2).flatten(1, 2)

    def _join(self, framewise: Tensor, frames: int) -> Tensor:
        """Windows' framewise logits `[windows, B, L', K]` to those of the clip, `[B, L'', K]`."""
        starts = self.starts(frames)
        if len(starts) == 1:
            return framewise[0, :, : -(-framewise.shape[2] // self.copies(frames))]
        step, count = self.token_frames, -(-frames // self.token_frames)
        middle = (torch.arange(count) * step + step // 2).clamp(max=frames - 1)
        within = middle - torch.tensor(starts)[:, None]  # [windows, L'']
        inside = (0 <= within) & (within < self.span)
        weight = (inside / inside.sum(0)).to(framewise)
        at = torch.where(inside, within // step, 0)
        return functools.reduce(torch.add, (one[:, a] * w[:, None] for one, a, w in zip(framewise, at, weight)))

    def edges(self, samples: int) -> Tensor:
        """Where the framewise frames of a clip of so many samples begin and end, `[L' + 1]`."""
        frames = samples // self.hop_length + 1
        if frames > self.span:  # a token's frames are centred on multiples of the hop
            at = torch.arange(-(-frames // self.token_frames), dtype=torch.double)
            at = ((at * self.token_frames - 0.5) * self.hop_length).clamp(min=0)
        else:
            tokens, copies = self.span // self.token_frames, self.copies(frames)
            at = torch.arange(-(-tokens // copies), dtype=torch.double) * copies * samples / tokens
        return torch.cat([at, at.new_tensor([samples])])

    # ---- network -----------------------------------------------------------------------------

    def embed_image(self, image: Tensor) -> QueryOutput:
        """Images `[B, spec_size, spec_size]` to embedding and tags."""
        p = self.patch_size
        x = image.unflatten(2, (-1, p)).unflatten(1, (-1, p)).transpose(2, 3).flatten(3)
        x = self.patch_norm(self.patch_embed(x))
        for stage, merge in zip(self.encoder, self.merges):
            x = merge(stage(x, [x.shape[1]] * len(x)))
        x = self.connector_norm(self.connector(x, [x.shape[1]] * len(x)))
        embedding = x.mean((1, 2))
        if self.head is None:
            return QueryOutput(embedding, None, None)
        x = self.head(self.unfold(x).permute(0, 3, 1, 2))
        framewise = x.squeeze(-1).transpose(1, 2)
        return QueryOutput(embedding, framewise.mean(1), framewise)

    def forward(self, wave: Tensor, lengths: Tensor | None = None, mixup: Tensor | None = None) -> QueryOutput:
        """Embedding and tags of `wave` `[B, T]`; see `Tagger`. Past an item's own frames framewise is 0."""
        x, frames = self.log_mel(wave, lengths, mixup)
        frames = frames.tolist()
        groups = {f: [i for i, g in enumerate(frames) if g == f] for f in sorted(set(frames))}
        out = self.embed_image(
            torch.cat(
                [
                    self.fold(x[items, start : min(start + self.span, f)])
                    for f, items in groups.items()
                    for start in self.starts(f)
                ]
            )
        )
        order = torch.tensor(sum(groups.values(), [])).argsort().to(x.device)
        sizes = [len(self.starts(f)) * len(items) for f, items in groups.items()]

        def by_window(rows: Tensor) -> list[Tensor]:
            return [part.unflatten(0, (-1, len(items))) for part, items in zip(rows.split(sizes), groups.values())]

        embedding = torch.cat([part.mean(0) for part in by_window(out.embedding)])[order]
        if out.clipwise is None or out.framewise is None:
            return QueryOutput(embedding, None, None)
        clipwise = torch.cat([part.mean(0) for part in by_window(out.clipwise)])[order]
        parts = [self._join(part, f) for part, f in zip(by_window(out.framewise), groups)]
        longest = max(part.shape[1] for part in parts)
        parts = [F.pad(part, (0, 0, 0, longest - part.shape[1])) for part in parts]
        return QueryOutput(embedding, clipwise, torch.cat(parts)[order])
