"""CaRE-SEP: one Swin-UNet whose encoder also makes the query embedding.

Wang et al., "Consistent and Relevant: Rethink the Query Embedding in General Sound Separation",
section 2 and figures 1 and 2. Where the paper leaves a choice open, the line says what was chosen.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnet2_ext.core.layers.bands import BandExpand, BandProfile, BandProject, Bands, Context, MaskHidden, QueryNorm
from espnet2_ext.core.layers.padding import hide_padding, mean_frames, numbers, on_device
from espnet2_ext.core.layers.pooling import make_pooling
from espnet2_ext.core.layers.swin import Join, PatchExpand, PatchMerge, SwinStage, enter, for_each, hide_tokens
from espnet2_ext.core.nets.contracts import QueryOutput
from espnet2_ext.core.nets.masking import bounded_mask, check_temperature, tempered

MASK_TYPES = ("magnitude", "complex")
QUERY_AT = ("all", "connector", "decoder")
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
        self.window, self.compress = window, compress
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


class CaRESep(CaREEncoder):
    """The network of both passes: `embed` (query embedding, tags) and `mask` (separation).

    Args:
        mask_type: `magnitude` (sigmoid on the mixture's magnitude, phase kept) or `complex` (bounded by `mask_bound`).
        image_skip: join the image to the up-sampled map before the masks. The paper has no skip at
            full resolution; without it a token must carry 4 frames of 4 bands through D numbers.
        query_at: from where on the query is added to the maps of the separation pass: `all` (the paper),
            `connector` or `decoder`. What lies before is done once for all queries on a mixture.
        query_norm: bring the numbers of the query embedding to mean 0 and variance 1 over the queries of training
            (batch normalisation). Not in the paper: as they are, they hardly differ from query to query at first.
        query_profile: join the mean over time of the query's band image to its embedding, and add it to the tokens of
            the mixture's bands before the first stage (with `query_at: all`) and the last. Not in the paper.
        query_context: width of layers that move the query embedding by the mixture's own mean map and band image
            (`Context`), where `query_at` is `decoder`; 0, the paper's: none.
        mask_reach: the sigmoid of a magnitude mask goes from -mask_reach to 1 + mask_reach and is cut at 0 and 1, so
            that a bin can be left as it is, or out. 0 is the paper's.
        mask_hidden: width of a layer before the masks (`MaskHidden`); 0, the paper's: none.
        temperature: of magnitude masks in use, see `masking.tempered`; 1 is the paper's.
        The rest as in `CaREEncoder`; the decoder mirrors the encoder's stages.
    """

    embed_only = ("connector_norm", "head", "clip_pooling")
    _decoding = ("expands", "joins", "decoder", "patch_up", "to_mask", "mask_hidden")
    mask_only = (*_decoding, "profile", "query_norm", "context")

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
        mask_type: str = "magnitude",
        mask_bound: float = 2.0,
        image_skip: bool = True,
        drop_path: float = 0.1,
        compress: float = 0.3,
        query_at: str = "all",
        query_norm: bool = False,
        query_profile: bool = False,
        query_context: int = 0,
        mask_reach: float = 0.0,
        mask_hidden: int = 0,
        temperature: float = 1.0,
        tag_pooling: str = "mean",
    ):
        if mask_type not in MASK_TYPES or query_at not in QUERY_AT:
            raise ValueError(f"mask_type {mask_type!r} is none of {MASK_TYPES}, or query_at {query_at!r} of {QUERY_AT}")
        sizes = num_bands, num_bins, fs, dim, image_channels, depths, heads, connector_depth, connector_heads
        super().__init__(*sizes, window, patch_size, num_classes, drop_path, compress, query_at, tag_pooling)
        self.mask_type, self.mask_bound, self.image_skip = mask_type, mask_bound, image_skip
        check_temperature(temperature, mask_type)
        self.mask_reach, self.temperature = mask_reach, temperature
        self.width = self.query_dim
        self.query_norm = QueryNorm(self.width) if query_norm else None

        self.expands, self.joins, self.decoder = (nn.ModuleList() for _ in range(3))
        for i in reversed(range(len(depths))):
            d = dim * 2**i
            self.expands.append(PatchExpand(2 * d, d))
            self.joins.append(Join(2 * d, d))
            self.decoder.append(SwinStage(d, depths[i], heads[i], window, num_bands // patch_size >> i, self.width))
        self.patch_up = PatchExpand(dim, dim, patch_size)
        self.mask_hidden = MaskHidden(dim, image_channels, mask_hidden) if mask_hidden else None
        self.to_mask = BandExpand(self.bands, dim + image_channels * image_skip, 1 + (mask_type == "complex"))
        self.profile = None
        if query_profile:
            places = ("first", "last") if query_at == "all" else ("last",)
            self.profile = BandProfile(num_bands, image_channels, patch_size, dim, places)
            self.query_dim += num_bands * image_channels
        if query_context and query_at != "decoder":
            raise ValueError(f"query_context is for query_at decoder, not {query_at}")
        own = self.width + num_bands * image_channels
        self.context = Context(self.query_dim, own, query_context, self.width) if query_context else None

    def embed_image(self, image: Tensor, frames: Tensor) -> QueryOutput:
        """As `embed`, from the image `[B, L', N, C]` of a spectrum."""
        out = super().embed_image(image, frames)
        parts = [out.embedding if self.query_norm is None else self.query_norm(out.embedding)]
        if self.profile is not None:
            parts.append(self.profile.of(image, numbers(frames)))
        return out._replace(embedding=torch.cat(parts, 1))

    def mask(self, spec: Tensor, frames: Tensor, query: Tensor, level: Tensor | None = None) -> Tensor:
        """Masks for several queries on each mixture.

        Args:
            spec: `[B, L, F]` complex, the mixture.
            frames: `[B]`, valid frames of each item: a tensor, best on the host, or numbers.
            query: `[B, Q, E]`. level: `[B]` in units of `level_of`; None measures it on `spec`.

        Returns:
            `[B, Q, L, F]`, real in [0, 1] (`magnitude`) or complex (`complex`).
        """
        if query.dim() != 3 or query.shape[-1] != self.query_dim or len(query) != len(spec):
            raise ValueError(f"expected queries of shape [{len(spec)}, Q, {self.query_dim}], got {list(query.shape)}")
        (b, length), image, counts = spec.shape[:2], self.image(spec, frames, level), numbers(frames)
        whole = query.flatten(0, 1)
        query, shown = whole.tensor_split([self.width], 1)
        x = self.tokens(image)
        if self.profile is not None and "first" in self.profile.into:
            counts = tuple(f for f in counts for _ in range(len(query) // b))
            x = self.profile.show("first", x, shown)
        skips, x, valid = self.encode(x, counts, query)
        if self.context is not None:
            own = mean_frames(hide_tokens(x, valid).mean(2), valid), mean_frames(image, counts).flatten(1)
            query = query + self.context(whole, torch.cat(own, 1))
        for expand, join, stage, (skip, valid) in zip(self.expands, self.joins, self.decoder, reversed(skips)):
            x = join(expand(x), skip, query)
            valid = for_each(query, skip, valid)[1]
            if self.profile is not None and stage is self.decoder[-1]:
                x = self.profile.show("last", x, shown)
            x = stage(x, valid, query)
        x, image = self.patch_up(x)[:, :length], image[:, :length]
        if self.mask_hidden is not None:
            x = self.mask_hidden(x, image, query)
        x = x.permute(0, 2, 3, 1).unflatten(0, (b, -1))  # [B, Q, N, D, L]
        return self._bounded(self.to_mask(x, image.permute(0, 2, 3, 1) if self.image_skip else None))

    def _bounded(self, x: Tensor) -> Tensor:
        """`[B, Q, P F, L]` to masks `[B, Q, L, F]`."""
        if self.mask_type == "complex":
            return bounded_mask(x.unflatten(2, (-1, 2)).permute(0, 1, 4, 2, 3).contiguous(), "complex", self.mask_bound)
        mask, r = tempered(x, self.temperature, self.training).sigmoid().transpose(2, 3), self.mask_reach
        return (mask * (1 + 2 * r) - r).clamp(0, 1) if r else mask

    def forward(
        self, spec: Tensor, frames: Tensor, anchor: Tensor, anchor_frames: Tensor
    ) -> tuple[Tensor, QueryOutput]:
        """Both passes: masked spectra `[B, L, F]`, one anchor an item, and the query output."""
        out = self.embed(anchor, anchor_frames)
        return spec * self.mask(spec, frames, out.embedding[:, None]).squeeze(1), out
