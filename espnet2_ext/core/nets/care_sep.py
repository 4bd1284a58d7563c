"""CaRE-SEP: one Swin-UNet whose encoder also makes the query embedding.

Wang et al., "Consistent and Relevant: Rethink the Query Embedding in General Sound Separation",
section 2 and figures 1 and 2. Where the paper leaves a choice open, the line says what was chosen.
"""

import torch
from torch import Tensor, nn

from espnet2_ext.core.layers.swin import PatchExpand, SwinStage
from espnet2_ext.core.nets.care_encoder import BandLinear, CaREEncoder
from espnet2_ext.core.nets.tagger import QueryOutput

MASK_TYPES = ("magnitude", "complex")


class CaRESep(CaREEncoder):
    """The network of both passes: `embed` (query embedding, tags) and `mask` (separation).

    Args:
        mask_type: `magnitude` (sigmoid on the mixture's magnitude, its phase kept) or `complex`
            (modulus bounded by `mask_bound`).
        image_skip: join the image to the up-sampled map before the masks. The paper has no skip at
            full resolution; without it a token must carry 4 frames of 4 bands through D numbers.
        The rest as in `CaREEncoder`; the decoder mirrors the encoder's stages.
    """

    embed_only = ("connector_norm", "head")

    def __init__(
        self,
        num_bands: int = 64,
        band_width: int = 27,
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
    ):
        super().__init__(
            num_bands,
            band_width,
            dim,
            image_channels,
            depths,
            heads,
            connector_depth,
            connector_heads,
            window,
            patch_size,
            num_classes,
            drop_path,
            compress,
            takes_query=True,
        )
        if mask_type not in MASK_TYPES:
            raise ValueError(f"mask_type must be one of {MASK_TYPES}, not {mask_type!r}")
        self.mask_type, self.mask_bound, self.image_skip = mask_type, mask_bound, image_skip

        bands = num_bands // patch_size
        self.expands, self.joins, self.decoder = (nn.ModuleList() for _ in range(3))
        for i in reversed(range(len(depths))):
            d = dim * 2**i
            self.expands.append(PatchExpand(2 * d, d))
            self.joins.append(nn.Linear(2 * d, d))
            self.decoder.append(SwinStage(d, depths[i], heads[i], window, bands >> i, self.query_dim))
        self.patch_up = PatchExpand(dim, dim, patch_size)
        parts = 2 if mask_type == "complex" else 1
        self.to_mask = BandLinear(num_bands, dim + (image_channels if image_skip else 0), parts * band_width)

    def mask(self, spec: Tensor, frames: Tensor, query: Tensor, level: Tensor | None = None) -> Tensor:
        """Masks for several queries on each mixture.

        Args:
            spec: `[B, L, N, W]` complex, the mixture.
            frames: `[B]`, valid frames of each item.
            query: `[B, Q, E]`.
            level: `[B]` in units of `level_of`; None measures it on `spec`.

        Returns:
            `[B, Q, L, N, W]`, real in [0, 1] (`magnitude`) or complex (`complex`).
        """
        if query.dim() != 3 or query.shape[-1] != self.query_dim or len(query) != len(spec):
            raise ValueError(f"expected queries of shape [{len(spec)}, Q, {self.query_dim}], got {list(query.shape)}")
        b, q = query.shape[:2]
        length = spec.shape[1]
        query = query.flatten(0, 1)
        image = self.image(spec, frames, level)  # what does not depend on the query is done once
        x = self.tokens(image).repeat_interleave(q, 0)
        skips, x, _ = self.encode(x, frames.repeat_interleave(q).tolist(), query)
        for expand, join, stage, (skip, valid) in zip(self.expands, self.joins, self.decoder, reversed(skips)):
            x = join(torch.cat([expand(x), skip], dim=-1))
            x = stage(x, valid, query)
        x = self.patch_up(x)[:, :length]
        if self.image_skip:
            x = torch.cat([x, image[:, :length].repeat_interleave(q, 0)], dim=-1)
        return self._bounded(self.to_mask(x)).unflatten(0, (b, q))

    def _bounded(self, x: Tensor) -> Tensor:
        if self.mask_type == "magnitude":
            return torch.sigmoid(x)
        x = x.unflatten(-1, (self.band_width, 2))
        modulus = x.square().sum(-1, keepdim=True).clamp(min=1e-12).sqrt()
        bound = self.mask_bound
        return torch.view_as_complex((x * (bound * torch.tanh(modulus / bound) / modulus)).float())

    def forward(
        self, spec: Tensor, frames: Tensor, anchor: Tensor, anchor_frames: Tensor
    ) -> tuple[Tensor, QueryOutput]:
        """Both passes: masked spectra `[B, L, N, W]`, one anchor an item, and the query output."""
        out = self.embed(anchor, anchor_frames)
        mask = self.mask(spec, frames, out.embedding[:, None]).squeeze(1)
        return spec * mask, out
