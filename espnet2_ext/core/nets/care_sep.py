"""CaRE-SEP: one Swin-UNet whose encoder also makes the query embedding.

Wang et al., "Consistent and Relevant: Rethink the Query Embedding in General Sound Separation",
section 2 and figures 1 and 2. Where the paper leaves a choice open, the line says what was chosen.
"""

import torch
from torch import Tensor, nn

from espnet2_ext.core.layers.bands import BandExpand, BandProfile, Context, MaskHidden, QueryNorm
from espnet2_ext.core.layers.padding import mean_frames, numbers
from espnet2_ext.core.layers.swin import Join, PatchExpand, SwinStage, for_each, hide_tokens
from espnet2_ext.core.nets.care_cls import CaREEncoder
from espnet2_ext.core.nets.contracts import QueryOutput
from espnet2_ext.core.nets.mask_nets import ConvMasker
from espnet2_ext.core.nets.masking import bounded_mask, check_temperature, tempered

MASK_TYPES = ("magnitude", "complex")
QUERY_AT = ("all", "connector", "decoder")


class CaREQuery(CaREEncoder):
    """An encoder whose embeddings ask for sounds in mixtures, `[B, E]` of `query_dim`: `width` and the band profile."""

    width: int
    query_norm: QueryNorm | None
    profile: BandProfile | None
    context: Context | None

    def _add_query(self, norm: bool, profile: bool, context: int, shown: tuple[str, ...] = ()) -> None:
        """Layers from an embedding to a query, as the arguments of `CaRESep` say; shown: to which tokens."""
        self.width, image = self.query_dim, self.num_bands * self.image_channels
        self.query_norm = QueryNorm(self.width) if norm else None
        sizes = self.num_bands, self.image_channels, self.patch_size, self.dim
        self.profile = BandProfile(*sizes, shown) if profile else None
        self.query_dim += image * profile
        self.context = Context(self.query_dim, self.width + image, context, self.width) if context else None

    def embed_image(self, image: Tensor, frames: Tensor) -> QueryOutput:
        """As `embed`, from the image `[B, L', N, C]` of a spectrum."""
        out = super().embed_image(image, frames)
        parts = [out.embedding if self.query_norm is None else self.query_norm(out.embedding)]
        if self.profile is not None:
            parts.append(self.profile.of(image, numbers(frames)))
        return out._replace(embedding=torch.cat(parts, 1))

    def _asked(
        self, whole: Tensor, x: Tensor, valid: tuple[int, ...], image: Tensor, frames: tuple[int, ...]
    ) -> Tensor:
        """Embeddings `[B Q, width]` of queries `[B Q, E]`, moved by the mixture's map `x` and image (`Context`)."""
        query = whole[:, : self.width]
        if self.context is None:
            return query
        own = mean_frames(hide_tokens(x, valid).mean(2), valid), mean_frames(image, frames).flatten(1)
        return query + self.context(whole, torch.cat(own, 1))

    def _check_query(self, spec: Tensor, query: Tensor) -> None:
        if query.dim() != 3 or query.shape[-1] != self.query_dim or len(query) != len(spec):
            raise ValueError(f"expected queries of shape [{len(spec)}, Q, {self.query_dim}], got {list(query.shape)}")


class CaRESep(CaREQuery):
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
        if query_context and query_at != "decoder":
            raise ValueError(f"query_context is for query_at decoder, not {query_at}")

        self.expands, self.joins, self.decoder = (nn.ModuleList() for _ in range(3))
        for i in reversed(range(len(depths))):
            d = dim * 2**i
            self.expands.append(PatchExpand(2 * d, d))
            self.joins.append(Join(2 * d, d))
            self.decoder.append(SwinStage(d, depths[i], heads[i], window, num_bands // patch_size >> i, self.query_dim))
        self.patch_up = PatchExpand(dim, dim, patch_size)
        self.mask_hidden = MaskHidden(dim, image_channels, mask_hidden) if mask_hidden else None
        self.to_mask = BandExpand(self.bands, dim + image_channels * image_skip, 1 + (mask_type == "complex"))
        self._add_query(query_norm, query_profile, query_context, ("first", "last") if query_at == "all" else ("last",))

    def mask(self, spec: Tensor, frames: Tensor, query: Tensor, level: Tensor | None = None) -> Tensor:
        """Masks for several queries on each mixture.

        Args:
            spec: `[B, L, F]` complex, the mixture.
            frames: `[B]`, valid frames of each item: a tensor, best on the host, or numbers.
            query: `[B, Q, E]`. level: `[B]` in units of `level_of`; None measures it on `spec`.

        Returns:
            `[B, Q, L, F]`, real in [0, 1] (`magnitude`) or complex (`complex`).
        """
        self._check_query(spec, query)
        (b, length), image, counts = spec.shape[:2], self.image(spec, frames, level), numbers(frames)
        whole = query.flatten(0, 1)
        query, shown = whole.tensor_split([self.width], 1)
        x = self.tokens(image)
        if self.profile is not None and "first" in self.profile.into:
            counts = tuple(f for f in counts for _ in range(len(query) // b))
            x = self.profile.show("first", x, shown)
        skips, x, valid = self.encode(x, counts, query)
        query = self._asked(whole, x, valid, image, counts)
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
        return _magnitude(x.transpose(2, 3), self)

    def forward(
        self, spec: Tensor, frames: Tensor, anchor: Tensor, anchor_frames: Tensor
    ) -> tuple[Tensor, QueryOutput]:
        """Both passes: masked spectra `[B, L, F]`, one anchor an item, and the query output."""
        out = self.embed(anchor, anchor_frames)
        return spec * self.mask(spec, frames, out.embedding[:, None]).squeeze(1), out


class CaREComponents(CaREQuery):
    """Masks that are weighted sums of K components of the mixture, which are made once for all queries.

    Not in the paper, whose decoder follows each query. The logit of a bin's mask is sum over k of w_k c_k + w_0: the
    components c of a small convolutional network that sees the mixture alone, the weights w of the query, as in Zhao et
    al., "The Sound of Pixels" (ECCV 2018), whose queries are pixels. It learns in far fewer steps, and a further query
    costs a product of matrices.

    Args:
        components: K. mel_bands, channels: of the network that makes them, see `mask_nets.ConvMasker`, without LSTM.
        pick_hidden: width of the layer between a query and its weights.
        query_norm, query_profile, query_context, mask_reach, temperature: as in `CaRESep`.
        The rest as in `CaREEncoder`, which makes and tags the queries; its map of the mixture is seen at the bottom of
            the components' network, too.
    """

    mask_type = "magnitude"
    embed_only = CaRESep.embed_only
    mask_only = ("unet", "hint", "pick", "profile", "query_norm", "context")

    def __init__(
        self,
        num_bands: int = 64,
        num_bins: int = 513,
        fs: int = 32000,
        dim: int = 24,
        image_channels: int = 16,
        depths: tuple[int, ...] = (2, 2, 2),
        heads: tuple[int, ...] = (2, 4, 8),
        connector_depth: int = 2,
        connector_heads: int = 16,
        window: int = 8,
        patch_size: int = 4,
        num_classes: int = 527,
        drop_path: float = 0.0,
        compress: float = 0.3,
        components: int = 32,
        mel_bands: int = 64,
        channels: tuple[int, ...] = (24, 48, 96),
        pick_hidden: int = 128,
        query_norm: bool = True,
        query_profile: bool = True,
        query_context: int = 64,
        mask_reach: float = 0.1,
        temperature: float = 1.0,
        tag_pooling: str = "mean",
    ):
        sizes = num_bands, num_bins, fs, dim, image_channels, depths, heads, connector_depth, connector_heads
        super().__init__(*sizes, window, patch_size, num_classes, drop_path, compress, None, tag_pooling)
        check_temperature(temperature, self.mask_type)
        self.mask_reach, self.temperature = mask_reach, temperature
        self._add_query(query_norm, query_profile, query_context)
        self.unet = ConvMasker(num_bins, components, mel_bands=mel_bands, channels=channels, hidden=0, fs=fs)
        step, bands = self.unet.step, num_bands // self.token_frames
        if self.token_frames % step or mel_bands % (step * bands):
            raise ValueError(
                f"channels {list(channels)} see {step} frames at the bottom, which must divide the encoder's "
                f"{self.token_frames}, and mel_bands {mel_bands}: must be a multiple of {step} times its {bands} bands"
            )
        self.hint = nn.Linear(self.width, channels[-1])
        self.pick = nn.Sequential(
            nn.Linear(self.query_dim, pick_hidden), nn.GELU(), nn.Linear(pick_hidden, components + 1)
        )

    def mask(self, spec: Tensor, frames: Tensor, query: Tensor, level: Tensor | None = None) -> Tensor:
        """Masks `[B, Q, L, F]`, real in [0, 1]; see `CaRESep.mask`."""
        self._check_query(spec, query)
        level = (self.level_of(spec, frames) if level is None else level).clamp(min=1e-8)
        image, counts, whole = self.image(spec, frames, level), numbers(frames), query.flatten(0, 1)
        _, x, valid = self.encode(self.tokens(image), counts)
        asked = torch.cat([self._asked(whole, x, valid, image, counts), whole[:, self.width :]], 1)
        magnitude = (spec.real.square() + spec.imag.square()).clamp(min=1e-16).sqrt() / level[:, None, None]
        hint = self.hint(x).repeat_interleave(self.token_frames // self.unet.step, 1).permute(0, 3, 1, 2)
        bands = self.unet.bands(magnitude, counts, hint)  # [B, K, L, N]
        weight, base = self.pick(asked).unflatten(0, query.shape[:2]).split([bands.shape[1], 1], 2)
        x = (weight @ bands.flatten(2) + base).unflatten(2, bands.shape[2:])
        return _magnitude(x @ self.unet.spread, self)


def _magnitude(x: Tensor, net: CaRESep | CaREComponents) -> Tensor:
    """Logits to magnitude masks, with the network's temperature in use and its reach."""
    mask, r = tempered(x, net.temperature, net.training).sigmoid(), net.mask_reach
    return (mask * (1 + 2 * r) - r).clamp(0, 1) if r else mask
