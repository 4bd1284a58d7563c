"""The convolutional U-Net of ST-SED-SEP and PANN-SEP: a mask for a magnitude spectrum and a query.

Chen et al., "Zero-shot audio source separation through query-based learning from weakly-labeled
data" (AAAI 2022), after Kong et al., "Source separation with weakly labelled data: an approach to
computational auditory scene analysis" (ICASSP 2020). The two differ in who makes the query.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnet2_ext.core.layers.swin import valid_mask


class QueryLayer(nn.Module):
    """Convolution, batch norm, ReLU; then a linear map of the query is added to the channels."""

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d, query_dim: int, momentum: float):
        super().__init__()
        self.conv = conv
        self.norm = nn.BatchNorm2d(conv.out_channels, momentum=momentum)
        self.query = nn.Linear(query_dim, conv.out_channels)
        nn.init.xavier_uniform_(conv.weight)
        nn.init.uniform_(self.query.weight, -0.1, 0.1)
        nn.init.zeros_(self.query.bias)

    def forward(self, x: Tensor, query: Tensor, keep: Tensor | None) -> Tensor:
        """x `[B, C, L, F]` or `[B Q, C, L, F]`, query `[B Q, E]`; returns `[B Q, C', L', F']`.

        `keep` `[B Q, 1, L', 1]` is 0 in frames that do not count; None: all count.
        """
        x = x.contiguous(memory_format=torch.channels_last)  # faster where channels are few
        x = F.relu_(self.norm(self.conv(x)))
        query = self.query(query).unflatten(0, (len(x), -1))
        x = (x[:, None] + query[..., None, None]).flatten(0, 1)
        return x if keep is None else x * keep


class QueryBlock(nn.Module):
    """Two layers with 3x3 convolutions."""

    def __init__(self, in_width: int, width: int, query_dim: int, momentum: float):
        super().__init__()
        self.layers = nn.ModuleList(
            QueryLayer(nn.Conv2d(w, width, 3, padding=1, bias=False), query_dim, momentum) for w in (in_width, width)
        )

    def forward(self, x: Tensor, query: Tensor, keep: Tensor | None) -> Tensor:
        """`[B, C, L, F]` to `[B Q, C', L, F]`; arguments as in `QueryLayer`."""
        for layer in self.layers:
            x = layer(x, query, keep)
        return x


class Enlarge(nn.ConvTranspose2d):
    """3x3 transposed convolution from L x F to exactly 2 L x 2 F: the last row and column go."""

    def __init__(self, in_width: int, width: int):
        super().__init__(in_width, width, 3, stride=2, bias=False)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """`[B, C, L, F]` to `[B, C', 2 L, 2 F]`."""
        return super().forward(input, output_size)[..., :-1, :-1]


class UpBlock(nn.Module):
    """Twice the size, then a block on that and the map of the same size on the way down."""

    def __init__(self, in_width: int, width: int, query_dim: int, momentum: float):
        super().__init__()
        self.enlarge = QueryLayer(Enlarge(in_width, width), query_dim, momentum)
        self.block = QueryBlock(2 * width, width, query_dim, momentum)

    def forward(self, x: Tensor, skip: Tensor, query: Tensor, keep: Tensor | None) -> Tensor:
        """x `[B Q, C, L, F]` and skip `[B Q, C', 2 L, 2 F]` to the size of skip."""
        x = self.enlarge(x, query, keep)
        return self.block(torch.cat([x, skip], dim=1), query, keep)


class QueryUNet(nn.Module):
    """Masks in [0, 1] for a spectrum, one for each query (`mask`).

    Magnitudes are normalised bin by bin; they are not brought to a level first, so loudness
    matters. The highest bin takes no part and is halved. Frames are padded with zeros to a multiple
    of `grid_frames`. Where a batch holds items of more than one such multiple, a shorter item's
    further frames are set to zero before each convolution, so a mask is what it would be alone.

    With converted weights the masks are those of the public code of ST-SED-SEP, clip by clip. What that code does and
    this does not: it knows no lengths, so padding within a batch counts, and counted by the batch norm over bins. In
    training, the batch norms of its transposed convolutions count the row and the column that are then cut off. It
    leaves the first layer of each up block at PyTorch's initial values, here drawn as all others. And its STFT pads by
    reflection, `core.layers.spectrum.STFT` with zeros, which a clip's first and last frames show.

    While training on a batch of unlike lengths, the inner batch norms count the zeros past the shorter items.

    Args:
        query_dim: E.
        num_bins: F; F - 1 must be a multiple of 2^n.
        widths: channels of the n down blocks, mirrored by the up blocks; the centre between them is
            twice as wide as the last.
        momentum: of the batch norms.

    Raises:
        ValueError: F - 1 cannot be halved n times.
    """

    def __init__(
        self,
        query_dim: int = 2048,
        num_bins: int = 1025,
        widths: tuple[int, ...] = (32, 64, 128, 256, 512, 1024),
        momentum: float = 0.01,
    ):
        super().__init__()
        self.query_dim, self.num_bins, self.grid_frames = query_dim, num_bins, 2 ** len(widths)
        if num_bins <= self.grid_frames or (num_bins - 1) % self.grid_frames:
            raise ValueError(
                f"num_bins - 1 must be a multiple of {self.grid_frames} for "
                f"{len(widths)} down blocks, got num_bins {num_bins}"
            )
        shared = query_dim, momentum
        self.norm = nn.BatchNorm1d(num_bins, momentum=momentum)
        self.down = nn.ModuleList(QueryBlock(a, b, *shared) for a, b in zip((1, *widths), widths))
        self.centre = QueryBlock(widths[-1], 2 * widths[-1], *shared)
        back = tuple(reversed(widths))
        self.up = nn.ModuleList(UpBlock(a, b, *shared) for a, b in zip((2 * widths[-1], *back), back))
        self.after = QueryBlock(widths[0], widths[0], *shared)
        self.last = nn.Conv2d(widths[0], 1, 1)
        nn.init.xavier_uniform_(self.last.weight)
        nn.init.zeros_(self.last.get_parameter("bias"))

    def mask(self, spec: Tensor, frames: Tensor, query: Tensor, level: Tensor | None = None) -> Tensor:
        """Masks for several queries on each mixture.

        Args:
            spec: `[B, L, F]` complex, the mixture.
            frames: `[B]`, valid frames of each item.
            query: `[B, Q, E]`.
            level: not used (see the class); there for other networks' sake.

        Returns:
            `[B, Q, L, F]`, real, in [0, 1]; 0.5 in the highest bin.

        Raises:
            ValueError: bins or queries of another number or width.
        """
        if spec.shape[-1] != self.num_bins:
            raise ValueError(f"expected a spectrum of {self.num_bins} bins, got {spec.shape[-1]}")
        if query.dim() != 3 or query.shape[-1] != self.query_dim or len(query) != len(spec):
            raise ValueError(f"expected queries of shape [{len(spec)}, Q, {self.query_dim}], got {list(query.shape)}")
        b, q = query.shape[:2]
        query, frames = query.flatten(0, 1), frames.to(spec.device)
        x = self._image(spec, frames)
        keeps = self._keeps(frames, q, x.shape[2])
        skips = []
        for block, keep in zip(self.down, keeps):  # the first convolution: once for all queries
            skips.append(block(x, query, keep))
            x = F.avg_pool2d(skips[-1], 2)
        x = self.centre(x, query, keeps[-1])
        for block, keep in zip(self.up, reversed(keeps[:-1])):
            x = block(x, skips.pop(), query, keep)
        x = self.last(self.after(x, query, keeps[0]))[:, 0, : spec.shape[1]]
        return F.pad(x, (0, 1)).sigmoid().unflatten(0, (b, q))

    def _image(self, spec: Tensor, frames: Tensor) -> Tensor:
        """`[B, L, F]` complex to magnitudes `[B, 1, L', F - 1]`: normalised, 0 past the frames."""
        valid = valid_mask(frames, spec.shape[1])[:, :, 0, 0]
        x = torch.zeros_like(spec, dtype=spec.real.dtype)
        x[valid] = self.norm(spec[valid].abs())
        return F.pad(x[..., :-1], (0, 0, 0, -x.shape[1] % self.grid_frames))[:, None]

    def _keeps(self, frames: Tensor, q: int, length: int) -> list[Tensor | None]:
        """What each level keeps, finest first: whole grids, so that each pooled frame is whole.

        `[B Q, 1, L', 1]`, or None where every item fills the `length` frames of the batch.
        """
        n = len(self.down)
        grids = -(-frames // self.grid_frames)
        if bool((grids * self.grid_frames >= length).all()):
            return [None] * (n + 1)
        grids = grids.repeat_interleave(q)
        return [valid_mask(grids << (n - i), length >> i).transpose(1, 2) for i in range(n + 1)]
