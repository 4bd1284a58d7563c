"""CaRE-CLS: the embedding half of CaRE-SEP, and as a tagger of its own.

Wang et al., "Consistent and Relevant: Rethink the Query Embedding in General Sound Separation",
section 2.2 and table 1. Where the paper leaves a choice open, the line says what was chosen.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnet2_ext.core.layers.bands import BandProject, Bands
from espnet2_ext.core.layers.mel import SpecAugment
from espnet2_ext.core.layers.padding import hide_padding, host_lengths, mean_frames, numbers, on_device
from espnet2_ext.core.layers.pooling import make_pooling
from espnet2_ext.core.layers.spectrum import STFT
from espnet2_ext.core.layers.swin import PatchMerge, SwinStage, enter, hide_tokens
from espnet2_ext.core.nets.contracts import QueryOutput, Tagger, mix_up

FLOOR = 1e-10  # of a bin's energy at unit level


class CaREEncoder(nn.Module):
    """The half that embeds and tags (`embed`): band image, Swin encoder, connector, token-semantic head.

    Args:
        num_bands: N, mel-scale bands of the bins; a multiple of `patch_size` * 8.
        num_bins: F, bins of the spectrum. fs: its rate in Hz.
        dim: D, width of the first stage; 96 and 256 in the paper (query widths 768 and 2048).
        image_channels: C of the image C x L x N that the band projections make.
        depths, heads: of the three encoder stages; connector_depth, connector_heads: of the connector, at width 8 D.
        window: side of the attention windows, in tokens. patch_size: frames and bands in a token.
        num_classes: K of the token-semantic head; 0 leaves the head out.
        drop_path: stochastic depth, rising linearly to this value, as in HTS-AT.
        compress: exponent of the magnitudes that the network sees.
        query_at: from where on blocks can be given a query, as in the separation pass of `CaRESep`; None: nowhere.
        tag_pooling: from framewise to clipwise tags: `mean` of the logits, or a name of `pooling.POOLINGS`.

    Attributes:
        token_frames: frames of the spectrum in one frame of the connector's map, and of the framewise tags.
        grid_frames: frames of the spectrum after which the windows of all stages repeat.
    """

    def __init__(
        self,
        num_bands: int = 64,
        num_bins: int = 513,
        fs: int = 32000,
        dim: int = 96,
        image_channels: int = 32,
        depths: tuple[int, ...] = (2, 2, 6),
        heads: tuple[int, ...] = (4, 8, 16),
        connector_depth: int = 2,
        connector_heads: int = 32,
        window: int = 8,
        patch_size: int = 4,
        num_classes: int = 527,
        drop_path: float = 0.1,
        compress: float = 0.3,
        query_at: str | None = None,
        tag_pooling: str = "mean",
    ):
        super().__init__()
        scale = 2 ** len(depths)
        if num_bands % (patch_size * scale):
            raise ValueError(f"num_bands must be a multiple of {patch_size * scale}: {num_bands}")
        if len(depths) != len(heads):
            raise ValueError(f"depths and heads differ in number: {depths}, {heads}")
        self.num_bands, self.num_bins, self.patch_size = num_bands, num_bins, patch_size
        self.dim, self.image_channels, self.window, self.compress = dim, image_channels, window, compress
        self.token_frames = patch_size * scale
        self.grid_frames = self.token_frames * window
        self.num_classes = num_classes
        self.query_dim = e = scale * dim
        query_dim = e if query_at == "all" else 0

        self.bands = Bands(num_bins, fs, num_bands)
        self.project = BandProject(self.bands, 3, image_channels, (0.0, 0.0, FLOOR ** (compress / 2)))
        self.patch_embed = nn.Linear(patch_size**2 * image_channels, dim)
        self.patch_norm = nn.LayerNorm(dim)

        bands = num_bands // patch_size
        blocks = sum(depths) + connector_depth
        rates = [drop_path * i / max(1, blocks - 1) for i in range(blocks)]
        self.encoder, self.merges = nn.ModuleList(), nn.ModuleList()
        for i, (depth, head) in enumerate(zip(depths, heads)):
            d, at = dim * 2**i, sum(depths[:i])
            self.encoder.append(SwinStage(d, depth, head, window, bands >> i, query_dim, rates[at : at + depth]))
            self.merges.append(PatchMerge(d))
        at, rest = e if query_at in ("all", "connector") else 0, rates[sum(depths) :]
        self.connector = SwinStage(e, connector_depth, connector_heads, window, bands // scale, at, rest)
        self.connector_norm = nn.LayerNorm(e)
        # Token-semantic head of HTS-AT: folds the frequency axis, looks at three frames.
        self.head = nn.Conv2d(e, num_classes, (3, bands // scale), padding=(1, 0)) if num_classes else None
        self.clip_pooling = None if tag_pooling == "mean" else make_pooling(tag_pooling, num_classes)

    def level_of(self, spec: Tensor, frames: Tensor) -> Tensor:
        """Root of the mean energy, `[B]`, of the `frames` `[B]` of `spec` `[B, L, F]`: the input is divided by it."""
        own = numbers(frames)
        return mean_frames(hide_padding((spec.real.square() + spec.imag.square()).sum(2), own), own).sqrt()

    def image(self, spec: Tensor, frames: Tensor, level: Tensor | None = None) -> Tensor:
        """Complex spectrum `[B, L, F]` to the image `[B, L', N, C]`, L' padded to whole tokens.

        It is made of real part, imaginary part and magnitude of each bin, at unit level and compressed.
        """
        level = (self.level_of(spec, frames) if level is None else level).clamp(min=1e-8)[:, None, None]
        spec = spec.transpose(1, 2)  # [B, F, L], the order in memory
        real, imag = spec.real / level, spec.imag / level
        power = (real.square() + imag.square()).clamp(min=FLOOR)
        magnitude = (power.log() * (self.compress / 2)).exp()
        gain = magnitude * power.rsqrt()
        x = self.project(torch.stack([real * gain, imag * gain, magnitude], 1))  # [B, N, C, L]
        x = hide_padding(x, frames, 3)
        if pad := -x.shape[-1] % self.token_frames:
            x = F.pad(x, (0, pad))
        return x.permute(0, 3, 1, 2)

    def tokens(self, image: Tensor) -> Tensor:
        """Patch embedding: `[B, L, N, C]` to `[B, L / 4, N / 4, D]`."""
        p = self.patch_size
        x = image.unflatten(2, (-1, p)).unflatten(1, (-1, p))
        return self.patch_norm(self.patch_embed(x.transpose(2, 3).flatten(3)))

    def encode(self, x: Tensor, frames: Sequence[int], query: Tensor | None = None):
        """Encoder and connector on `tokens` `[B, L, N, D]`, for queries `[B Q, E]`.

        Returns skips (finest first, each with the valid tokens of its items), output `[B Q, L', N', 8 D]` and its valid
        tokens. What no query has entered yet is of B items, not of B Q.
        """
        valid = tuple(-(-f // self.patch_size) for f in frames)
        x = hide_tokens(x, valid)
        skips = []
        for stage, merge in zip(self.encoder, self.merges):
            x, valid = enter(stage, x, valid, query)
            skips.append((x, valid))
            valid = tuple(-(-v // 2) for v in valid)
            x = hide_tokens(merge(x), valid)
        return skips, *enter(self.connector, x, valid, query)

    def embed(self, spec: Tensor, frames: Tensor, level: Tensor | None = None) -> QueryOutput:
        """Query embedding and tags of `spec` `[B, L, F]` (complex) with `frames` `[B]` valid; `level` as in `image`."""
        return self.embed_image(self.image(spec, frames, level), frames)

    def embed_image(self, image: Tensor, frames: Tensor) -> QueryOutput:
        """As `embed`, from the image `[B, L', N, C]` of a spectrum."""
        _, x, valid = self.encode(self.tokens(image), numbers(frames))
        x = hide_tokens(self.connector_norm(x), valid)
        embedding = mean_frames(x.mean(2), valid)
        if self.head is None:
            return QueryOutput(embedding, None, None)
        framewise = self.head(x.permute(0, 3, 1, 2)).squeeze(-1).transpose(1, 2)  # [B, L', K]
        if self.clip_pooling is not None:
            count = on_device(valid, x.device)
            return QueryOutput(embedding, self.clip_pooling(framewise.transpose(1, 2), count), framewise)
        return QueryOutput(embedding, mean_frames(hide_padding(framewise, valid), valid), framewise)


class CaRECLS(Tagger):
    """Waveform `[B, T]` of any length to embedding and tags; its `net` initialises a `CaRESep`.

    Mixup joins spectra that were brought to unit level, so that a weight means the same however
    loud the recordings are. SpecAugment blanks frames and bands of the band image.

    Args:
        sample_rate: Hz.
        n_fft, hop_length: samples.
        num_bands: N, mel-scale bands.
        spec_augment: arguments of `SpecAugment`; None: none.
        The rest as in `CaREEncoder`.
    """

    def __init__(
        self,
        sample_rate: int = 32000,
        n_fft: int = 1024,
        hop_length: int = 320,
        num_bands: int = 64,
        dim: int = 96,
        image_channels: int = 32,
        depths: tuple[int, ...] = (2, 2, 6),
        heads: tuple[int, ...] = (4, 8, 16),
        connector_depth: int = 2,
        connector_heads: int = 32,
        window: int = 8,
        patch_size: int = 4,
        num_classes: int = 527,
        drop_path: float = 0.1,
        compress: float = 0.3,
        spec_augment: dict | None = None,
    ):
        super().__init__()
        self.stft = STFT(n_fft, hop_length)
        self.net = CaREEncoder(
            num_bands,
            n_fft // 2 + 1,
            sample_rate,
            dim,
            image_channels,
            tuple(depths),
            tuple(heads),
            connector_depth,
            connector_heads,
            window,
            patch_size,
            num_classes,
            drop_path,
            compress,
        )
        self.spec_augment = None if spec_augment is None else SpecAugment(**spec_augment)
        self.sample_rate, self.num_classes = sample_rate, num_classes
        self.query_dim = self.net.query_dim

    def forward(self, wave: Tensor, lengths: Tensor | None = None, mixup: Tensor | None = None) -> QueryOutput:
        """Embedding and tags of `wave` `[B, T]`; see `Tagger`."""
        frames = self.stft.frames(host_lengths(wave, lengths))
        spec = self.stft(wave)  # [B, L, F]
        if mixup is not None:
            level = self.net.level_of(spec, frames).clamp(min=1e-8)[:, None, None]
            spec = hide_padding(spec / level, frames)
            spec, frames = mix_up(spec, frames, mixup)
        image = self.net.image(spec, frames)
        if self.spec_augment is not None:
            image = self.spec_augment(image)
        return self.net.embed_image(image, frames)

    def edges(self, samples: int) -> Tensor:
        """Where the framewise frames of a clip of so many samples begin and end, `[L' + 1]`.

        A spectrum's frame is centred on its place: it begins half a hop before it.
        """
        step = self.net.token_frames
        count = -(-(samples // self.stft.hop + 1) // step)
        at = (torch.arange(count, dtype=torch.double) * step - 0.5) * self.stft.hop
        return torch.cat([at.clamp(min=0), at.new_tensor([samples])])
