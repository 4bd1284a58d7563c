"""The two-network route, written plainly: the yardstick of the benchmark, never trained here; CaRE-SEP against it.

ST-SED-SEP (Chen et al., "Zero-shot audio source separation through query-based learning from weakly-labeled data", AAAI
2022): the tagger HTS-AT (Chen et al., ICASSP 2022) makes the query's embedding, a convolutional U-Net answers it on the
mixture. Layers and sizes are the papers'; attention is a matrix product, a softmax and another product, and nothing is
fused or cached beyond the shift masks. The spectra are made by FFT, so the route is if anything faster than
implementations that make them by convolution.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnet2_ext.bench.configs import Options, build, name_of, noise
from espnet2_ext.bench.measure import TIMES, Columns, at, gflop, interleaved, not_valid, parameters
from espnet2_ext.bench.query import ANCHOR, passes

FS = 32000
WINDOW = 8  # of HTS-AT, in tokens
ROUTE_TARGET, TAGGER_TARGET = 0.1, 2.5  # of the two-network route, and of HTS-AT 96-d on 10 s
TARGET_WIDTH = 768  # the query's width for which the targets are set
PASSES = {"mask": ("mask", "clip"), "embed": ("embedding", "clip"), "embed_anchor": ("embedding", "anchor")}


def mel_filters(bins: int = 513, bands: int = 64, low: float = 50.0, high: float = 14000.0) -> Tensor:
    """Triangular filters `[F, bands]`, evenly spaced in HTK mel."""
    ends = [1127.0 * math.log1p(f / 700.0) for f in (low, high)]
    edges = 700.0 * torch.expm1(torch.linspace(*ends, bands + 2) / 1127.0)
    width = edges.diff()
    hertz = torch.linspace(0, FS / 2, bins)[:, None]
    up, down = (hertz - edges[:-2]) / width[:-1], (edges[2:] - hertz) / width[1:]
    return torch.minimum(up, down).clamp(min=0)


class PlainAttention(nn.Module):
    """Attention in windows of w x w tokens, with a bias for each relative position."""

    def __init__(self, dim: int, heads: int, window: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        at = torch.cartesian_prod(torch.arange(window), torch.arange(window))
        rel = at[:, None] - at[None, :] + window - 1
        self.register_buffer("index", rel[..., 0] * (2 * window - 1) + rel[..., 1])

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x `[B n, M, D]`, mask `[n, M, M]` or None."""
        bn, m, d = x.shape
        q, k, v = self.qkv(x).view(bn, m, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        score = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        score = score + self.bias[self.index.flatten()].view(m, m, -1).permute(2, 0, 1)
        if mask is not None:
            score = score.view(-1, len(mask), self.heads, m, m) + mask[:, None]
            score = score.view(bn, self.heads, m, m)
        x = score.softmax(-1) @ v
        return self.proj(x.transpose(1, 2).reshape(bn, m, d))


class PlainSwinBlock(nn.Module):
    """Swin block on `[B, R, R, D]`; with a shift, windows are moved by half their side."""

    def __init__(self, dim: int, heads: int, window: int, size: int, shifted: bool):
        super().__init__()
        self.window, self.size = window, size
        self.shift = window // 2 if shifted and size > window else 0
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = PlainAttention(dim, heads, window)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.register_buffer("mask", self._mask() if self.shift else None)

    def _mask(self) -> Tensor:
        region = torch.zeros(self.size)
        region[-self.window :], region[-self.shift :] = 1, 2
        region = self._split((region[:, None] * 3 + region)[None, :, :, None]).squeeze(-1)
        return (region[:, :, None] != region[:, None, :]) * -100.0

    def _split(self, x: Tensor) -> Tensor:
        n, w = self.size // self.window, self.window
        return x.reshape(-1, n, w, n, w, x.shape[-1]).transpose(2, 3).reshape(-1, w * w, x.shape[-1])

    def _join(self, x: Tensor) -> Tensor:
        n, w, r = self.size // self.window, self.window, self.size
        return x.view(-1, n, n, w, w, x.shape[-1]).transpose(2, 3).reshape(-1, r, r, x.shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        if self.shift:
            y = y.roll((-self.shift, -self.shift), (1, 2))
        y = self._join(self.attention(self._split(y), self.mask))
        if self.shift:
            y = y.roll((self.shift, self.shift), (1, 2))
        x = x + y
        return x + self.mlp(self.norm2(x))


class PlainMerge(nn.Module):
    """Patch merging: `[B, R, R, D]` to `[B, R / 2, R / 2, 2 D]`."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm, self.reduce = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[:, a::2, b::2] for b in (0, 1) for a in (0, 1)], -1)
        return self.reduce(self.norm(x))


class HTSAT(nn.Module):
    """HTS-AT: waveform at 32 kHz to an embedding of width 8 D and class probabilities.

    Any clip is stretched to 1024 log-mel frames, folded to one image of 256 x 256.
    """

    def __init__(self, dim: int = 96, depths=(2, 2, 6, 2), heads=(4, 8, 16, 32), num_classes: int = 527):
        super().__init__()
        self.register_buffer("mel", mel_filters())
        self.register_buffer("hann", torch.hann_window(1024))
        self.norm0 = nn.BatchNorm1d(64)
        self.patch, self.patch_norm = nn.Conv2d(1, dim, 4, 4), nn.LayerNorm(dim)
        layers = []
        for i, (depth, head) in enumerate(zip(depths, heads)):
            size = 64 >> i
            layers += [PlainSwinBlock(dim << i, head, WINDOW, size, j % 2 == 1) for j in range(depth)]
            layers += [PlainMerge(dim << i)] if i < len(depths) - 1 else []
        self.layers, self.norm = nn.Sequential(*layers), nn.LayerNorm(8 * dim)
        self.head = nn.Conv2d(8 * dim, num_classes, (2, 3), padding=(0, 1))

    def image(self, wave: Tensor) -> Tensor:
        """`[B, T]` to `[B, 1, 256, 256]`: four stretches of time, one above the other."""
        spec = torch.stft(wave, 1024, 320, window=self.hann, return_complex=True)
        power = spec.real.square() + spec.imag.square()
        x = torch.einsum("bfl,fm->bml", power, self.mel).clamp(min=1e-10).log10() * 10
        x = F.interpolate(self.norm0(x)[:, None], (64, 1024), mode="bicubic", align_corners=True)
        return x.view(-1, 64, 4, 256).transpose(1, 2).reshape(-1, 1, 256, 256)

    def forward(self, wave: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`[B, T]` to embedding `[B, 8 D]`, clip-wise `[B, K]` and frame-wise `[B, 32, K]`."""
        x = self.patch_norm(self.patch(self.image(wave)).permute(0, 2, 3, 1))
        x = self.norm(self.layers(x))  # [B, 8, 8, 8 D]
        embedding = x.mean((1, 2))
        x = x.view(len(x), 4, 2, 8, -1).permute(0, 4, 2, 1, 3).flatten(3)  # [B, 8 D, 2, 32]
        frames = self.head(x).squeeze(2).transpose(1, 2).sigmoid()
        return embedding, frames.mean(1), frames


class ConvBlock(nn.Module):
    """Two 3x3 convolutions with batch norm; the query is added after each activation."""

    def __init__(self, c_in: int, c_out: int, query_dim: int):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(c, c_out, 3, padding=1, bias=False) for c in (c_in, c_out))
        self.norms = nn.ModuleList(nn.BatchNorm2d(c_out) for _ in range(2))
        self.queries = nn.ModuleList(nn.Linear(query_dim, c_out) for _ in range(2))

    def forward(self, x: Tensor, query: Tensor) -> Tensor:
        for conv, norm, add in zip(self.convs, self.norms, self.queries):
            x = F.relu(norm(conv(x))) + add(query)[:, :, None, None]
        return x


class UpBlock(nn.Module):
    """Transposed convolution to twice the size, joined with the map of that size."""

    def __init__(self, c_in: int, c_out: int, query_dim: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(c_in, c_out, 3, 2, bias=False)
        self.norm, self.query = nn.BatchNorm2d(c_out), nn.Linear(query_dim, c_out)
        self.block = ConvBlock(2 * c_out, c_out, query_dim)

    def forward(self, x: Tensor, skip: Tensor, query: Tensor) -> Tensor:
        x = F.relu(self.norm(self.up(x)[:, :, :-1, :-1])) + self.query(query)[:, :, None, None]
        return self.block(torch.cat([x, skip], 1), query)


class QueryUNet(nn.Module):
    """The U-Net of ST-SED-SEP: mixture and query embedding to the answer."""

    def __init__(self, query_dim: int = 2048, widths: tuple = (32, 64, 128, 256, 512, 1024)):
        super().__init__()
        self.register_buffer("hann", torch.hann_window(2048))
        self.norm = nn.BatchNorm1d(1025)
        self.first = nn.ModuleList(ConvBlock(a, b, query_dim) for a, b in zip((1, *widths), widths))
        self.centre = ConvBlock(widths[-1], 2 * widths[-1], query_dim)
        self.second = nn.ModuleList(UpBlock(2 * w, w, query_dim) for w in reversed(widths))
        self.after = ConvBlock(widths[0], widths[0], query_dim)
        self.last = nn.Conv2d(widths[0], 1, 1)

    def mask(self, magnitude: Tensor, query: Tensor) -> Tensor:
        """`[B, 1025, L]` and `[B, E]` to a mask `[B, 1025, L]`; the top bin is let go."""
        frames = magnitude.shape[-1]
        x = self.norm(magnitude)[:, None, :-1]
        x = F.pad(x, (0, -frames % 2 ** len(self.first)))
        skips = []
        for block in self.first:
            skips.append(block(x, query))
            x = F.avg_pool2d(skips[-1], 2)
        x = self.centre(x, query)
        for block, skip in zip(self.second, reversed(skips)):
            x = block(x, skip, query)
        mask = self.last(self.after(x, query))[:, 0, :, :frames].sigmoid()
        return F.pad(mask, (0, 0, 0, 1))

    def forward(self, wave: Tensor, query: Tensor) -> Tensor:
        """`[B, T]` and `[B, E]` to `[B, T]`."""
        spec = torch.stft(wave, 2048, 320, window=self.hann, return_complex=True)
        mask = self.mask(spec.abs(), query)
        return torch.istft(spec * mask, 2048, 320, window=self.hann, length=wave.shape[-1])


# ---- CaRE-SEP against them ---------------------------------------------------------------------


def compare(paths: list, options: Options) -> dict:
    """Time each model's passes and the plain networks', one call of each in every turn.

    Returns:
        `plain`: a row for each plain network and clip length (`parameters_m`, `gflop`, times as in
        `interleaved`); `models`: for each YAML, its query's width and the times of its passes.
    """
    device = options.start()
    models = {name_of(path): build(path, device)[0] for path in paths}
    with torch.no_grad():
        nets, calls = plain_calls(options.seconds, device)
        plain = {key: {"parameters_m": parameters(nets[key[0]]), "gflop": gflop(call)} for key, call in calls.items()}
        for name, model in models.items():
            calls |= {(name, key): call for key, call in passes(model, options.seconds, device).items()}
        took = interleaved(calls, options.repeats, device)
    rows = {
        name: {"width": model.query_dim, **{key: took[name, key] for key in PASSES}} for name, model in models.items()
    }
    plain = {" ".join(key): row | took[key] for key, row in plain.items()}
    return {"seconds": options.seconds, "models": rows, "plain": plain}


def plain_calls(seconds: float, device: torch.device) -> tuple[dict, dict]:
    """The plain networks by name, and their calls by (name, `clip` or `anchor`)."""
    torch.manual_seed(0)
    nets = {"HTS-AT 96-d": HTSAT(96), "HTS-AT 256-d": HTSAT(256), "U-Net": QueryUNet()}
    nets = {name: net.to(device).eval() for name, net in nets.items()}
    clip, anchor = noise(1, seconds, FS, device), noise(1, ANCHOR, FS, device)
    query = torch.zeros(1, 2048, device=device)
    calls = {
        (name, length): lambda net=nets[name], x=x: net(x)
        for name in ("HTS-AT 96-d", "HTS-AT 256-d")
        for length, x in (("clip", clip), ("anchor", anchor))
    }
    calls["U-Net", "clip"] = lambda: nets["U-Net"](clip, query)
    return nets, calls


def verdicts(result: dict) -> list[str]:
    """Lines that say how the models compare, and for CaRE-SEP 768 which targets are met."""
    length, plain = f"{result['seconds']:g} s", {k: v["s"] for k, v in result["plain"].items()}
    tagger, unet = plain["HTS-AT 96-d clip"], plain["U-Net clip"]
    lines = []
    for name, row in result["models"].items():
        mask = row["mask"]["s"]
        asked = {
            f"a query of {length}": ("embed", plain["HTS-AT 256-d clip"]),
            f"an anchor of {ANCHOR:g} s": ("embed_anchor", plain["HTS-AT 256-d anchor"]),
            "an embedding at hand": (None, 0.0),
        }
        for query, (key, other) in asked.items():
            embed = row[key]["s"] if key else 0.0
            ours, route = embed + mask, other + unet
            parts = f" (embedding {embed:.3f} + mask {mask:.3f})" if key else " (mask pass alone)"
            theirs = f" (embedding {other:.3f} + U-Net {unet:.3f})" if key else " (U-Net alone)"
            line = (
                f"{name} answers {query} on {length} in {ours:.3f} s{parts}; two-network route {route:.3f} s{theirs}: "
                f"ratio 1/{route / ours:.1f}; HTS-AT 96-d {tagger:.3f} s: ratio {ours / tagger:.2f}."
            )
            if row["width"] == TARGET_WIDTH:
                line += (
                    f" Targets: at most 1/{1 / ROUTE_TARGET:g} of the route {_met(ours / route, ROUTE_TARGET)}; "
                    f"at most {TAGGER_TARGET} x HTS-AT 96-d {_met(ours / tagger, TAGGER_TARGET)}."
                )
            lines.append(line)
    times = [row[key] for row in result["models"].values() for key in PASSES]
    return lines + not_valid([*result["plain"].values(), *times])


def _met(ratio: float, target: float) -> str:
    return "MET" if ratio <= target else "MISSED"


AGAINST: Columns = {"network": at("name"), "M param.": at("parameters_m"), "GFLOP": at("gflop"), **TIMES}


def table_rows(result: dict) -> list[dict]:
    """Rows of `AGAINST`: plain networks, then the passes of the models."""
    lengths = {"clip": f"{result['seconds']:g} s", "anchor": f"{ANCHOR:g} s"}
    plain = [(*name.rsplit(" ", 1), row) for name, row in result["plain"].items()]
    rows = [{"name": f"{net}, {lengths[length]}", **row} for net, length, row in plain]
    for model, row in result["models"].items():
        rows += [{"name": f"{model}: {what}, {lengths[of]}", **row[key]} for key, (what, of) in PASSES.items()]
    return rows
