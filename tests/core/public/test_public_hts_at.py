"""Public HTS-AT weights: the converted network computes what the public one does by definition.

The public forward is written out here on a state dict with the public names and shapes; maps lie
[frequency, time] in it.
"""

import librosa
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from espnet2_ext.core.nets.hts_at import HTSAT
from espnet2_ext.core.public import convert_hts_at as convert
from espnet2_ext.errors import DataError

DEPTHS, HEADS = (2, 2, 6, 2), (4, 8, 16, 32)
SIDE = 64  # tokens along each axis of the first stage
UNUSED = ("relative_position_index", "attn_mask")


def public_shapes(dim, heads=HEADS, classes=527):
    """Names and shapes of a public checkpoint, less what belongs to the trainer."""
    e = 8 * dim
    shapes = {
        "spectrogram_extractor.stft.conv_real.weight": (513, 1, 1024),
        "spectrogram_extractor.stft.conv_imag.weight": (513, 1, 1024),
        "logmel_extractor.melW": (513, 64),
        "bn0.num_batches_tracked": (),
    }
    shapes |= {f"bn0.{k}": (64,) for k in ("weight", "bias", "running_mean", "running_var")}
    shapes |= {
        "patch_embed.proj.weight": (dim, 1, 4, 4),
        "patch_embed.proj.bias": (dim,),
        "tscam_conv.weight": (classes, e, 2, 3),
        "tscam_conv.bias": (classes,),
        "head.weight": (classes, classes),
        "head.bias": (classes,),
    }
    norms = {"patch_embed.norm": dim, "norm": e}
    for i, depth in enumerate(DEPTHS):
        d = dim * 2**i
        for j in range(depth):
            at = f"layers.{i}.blocks.{j}"
            norms |= {f"{at}.norm1": d, f"{at}.norm2": d}
            shapes |= {
                f"{at}.attn.relative_position_bias_table": (225, heads[i]),
                f"{at}.attn.relative_position_index": (64, 64),
            }
            for name, out, width in (
                ("attn.qkv", 3 * d, d),
                ("attn.proj", d, d),
                ("mlp.fc1", 4 * d, d),
                ("mlp.fc2", d, 4 * d),
            ):
                shapes |= {f"{at}.{name}.weight": (out, width), f"{at}.{name}.bias": (out,)}
            if j % 2 and i < 3:
                shapes[f"{at}.attn_mask"] = ((SIDE // 8 >> i) ** 2, 64, 64)
        if i < 3:
            norms[f"layers.{i}.downsample.norm"] = 4 * d
            shapes[f"layers.{i}.downsample.reduction.weight"] = (2 * d, 4 * d)
    return shapes | {f"{k}.{kind}": (n,) for k, n in norms.items() for kind in ("weight", "bias")}


def public_state(dim=8, heads=(1, 2, 4, 8), classes=6):
    """Random weights, apart from the transform, which is as the public network carries it."""
    g = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in public_shapes(dim, heads, classes).items():
        x = torch.randn(shape, generator=g)
        fan = np.prod(shape[1:]) if len(shape) > 1 else 16
        state[key] = x if key.endswith("bias_table") else x * fan**-0.5
        if "norm" in key or key == "bn0.weight":
            state[key] = (1 if key.endswith("weight") else 0) + 0.3 * x
    state["bn0.running_mean"] -= 30
    state["bn0.running_var"] = 100 + 20 * torch.rand(64, generator=g)
    state["bn0.num_batches_tracked"] = torch.tensor(7)
    at = np.arange(1024)
    basis = np.exp(-2j * np.pi * np.outer(at[:513], at) / 1024)
    basis = torch.from_numpy(basis * (0.5 - 0.5 * np.cos(2 * np.pi * at / 1024)))[:, None]
    state["spectrogram_extractor.stft.conv_real.weight"] = basis.real.float()
    state["spectrogram_extractor.stft.conv_imag.weight"] = basis.imag.float()
    state["logmel_extractor.melW"] = torch.from_numpy(
        librosa.filters.mel(sr=32000, n_fft=1024, n_mels=64, fmin=50, fmax=14000).T
    )
    return state


class Public:
    """The public network by definition: functions of a state dict, a few loops."""

    def __init__(self, state, heads):
        self.state, self.heads = state, heads

    def linear(self, x, name):
        return F.linear(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))

    def norm(self, x, name):
        return F.layer_norm(x, x.shape[-1:], self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def log_mel(self, wave):
        s, x = self.state, F.pad(wave[:, None], (512, 512), mode="reflect")
        parts = [F.conv1d(x, s[f"spectrogram_extractor.stft.conv_{p}.weight"], stride=320) for p in ("real", "imag")]
        power = (parts[0] ** 2 + parts[1] ** 2).transpose(1, 2)
        x = 10 * torch.log10((power @ s["logmel_extractor.melW"]).clamp(min=1e-10))
        x = (x - s["bn0.running_mean"]) / (s["bn0.running_var"] + 1e-5).sqrt()
        return x * s["bn0.weight"] + s["bn0.bias"]

    def image(self, x, infer):
        """`[B, L, 64]` to `[B, 1, 256, 256]`; `infer`: as at inference, repeated first."""
        if infer:
            x = torch.cat([x] * (1024 // x.shape[1]), 1)
        if x.shape[1] < 1024:
            x = F.interpolate(x[:, None], (1024, 64), mode="bicubic", align_corners=True)[:, 0]
        rows = [x[:, 256 * r : 256 * (r + 1)].transpose(1, 2) for r in range(4)]
        return torch.cat(rows, 1)[:, None]

    def block(self, x, name, heads, shifted):
        side = x.shape[1]
        y, z = self.norm(x, f"{name}.norm1"), torch.zeros_like(x)
        # A shift with its mask is attention inside the spans between moved borders.
        borders = [0, *range(4, side, 8), side] if shifted else [*range(0, side + 1, 8)]
        spans = list(zip(borders, borders[1:]))
        for a, b in spans:
            for c, d in spans:
                part = y[:, a:b, c:d]
                at = torch.cartesian_prod(torch.arange(b - a), torch.arange(d - c))
                z[:, a:b, c:d] = self.attend(part.flatten(1, 2), at, name, heads).view_as(part)
        x = x + z
        hidden = F.gelu(self.linear(self.norm(x, f"{name}.norm2"), f"{name}.mlp.fc1"))
        return x + self.linear(hidden, f"{name}.mlp.fc2")

    def attend(self, x, at, name, heads):
        """x `[B, M, D]`, the tokens' places `[M, 2]`: frequency, time."""
        offset = at[:, None] - at[None] + 7
        table = self.state[f"{name}.attn.relative_position_bias_table"]
        bias = table[15 * offset[..., 0] + offset[..., 1]]  # [M, M, H]
        q, k, v = (t.chunk(heads, -1) for t in self.linear(x, f"{name}.attn.qkv").chunk(3, -1))
        out = []
        for h in range(heads):
            score = q[h] @ k[h].transpose(1, 2) / q[h].shape[-1] ** 0.5 + bias[..., h]
            out.append(score.softmax(-1) @ v[h])
        return self.linear(torch.cat(out, -1), f"{name}.attn.proj")

    def __call__(self, wave, infer=False):
        s = self.state
        x = F.conv2d(
            self.image(self.log_mel(wave), infer), s["patch_embed.proj.weight"], s["patch_embed.proj.bias"], stride=4
        )
        x = self.norm(x.permute(0, 2, 3, 1), "patch_embed.norm")
        for i, depth in enumerate(DEPTHS):
            for j in range(depth):
                x = self.block(x, f"layers.{i}.blocks.{j}", self.heads[i], j % 2 and i < 3)
            if i < 3:
                four = [x[:, f::2, t::2] for f, t in ((0, 0), (1, 0), (0, 1), (1, 1))]
                x = self.norm(torch.cat(four, -1), f"layers.{i}.downsample.norm")
                x = self.linear(x, f"layers.{i}.downsample.reduction")
        x = self.norm(x, "norm").permute(0, 3, 1, 2)  # [B, E, 8, 8]
        x = torch.cat([x[:, :, 2 * r : 2 * r + 2] for r in range(4)], 3)  # [B, E, 2, 32]
        tags = F.conv2d(x, s["tscam_conv.weight"], s["tscam_conv.bias"], padding=(0, 1))[:, :, 0]
        framewise = tags.sigmoid().transpose(1, 2).repeat_interleave(32, 1)
        return tags.mean(2).sigmoid(), framewise, x.mean((2, 3))


@pytest.fixture(scope="module")
def state():
    return public_state()


def ours(state, **kw):
    net = HTSAT(dim=8, heads=(1, 2, 4, 8), num_classes=6, **kw).eval()
    net.load_state_dict(convert(state))
    return net


@pytest.mark.parametrize("seconds, infer", [(10, False), (2, True), (2, False)])
def test_converted_weights_give_the_public_outputs(state, seconds, infer):
    wave = 0.1 * torch.randn(2, 32000 * seconds, generator=torch.Generator().manual_seed(1))
    wave = wave * torch.linspace(0.1, 1, wave.shape[1])  # not the same all along
    with torch.no_grad():
        clipwise, framewise, latent = Public(state, (1, 2, 4, 8))(wave, infer)
        out = ours(state, repeat=infer)(wave)
    assert latent.std() > 0.1 and framewise.std(1).min() > 1e-3  # nothing hides behind constants
    assert torch.allclose(out.embedding, latent, atol=1e-5)
    assert torch.allclose(out.clipwise.sigmoid(), clipwise, atol=1e-5)
    heard = out.framewise.sigmoid().repeat_interleave(32, 1)
    assert torch.allclose(heard, framewise[:, : heard.shape[1]], atol=1e-5)


@pytest.mark.parametrize("dim, million", [(96, 29.96), (256, 201.7)])
def test_full_sizes_have_the_public_number_of_parameters(dim, million):
    shapes = {k: v for k, v in public_shapes(dim).items() if not k.endswith(UNUSED)}
    learned = [
        k
        for k in shapes
        if k.split(".")[0] not in ("spectrogram_extractor", "logmel_extractor", "head")
        and "running" not in k
        and "tracked" not in k
    ]
    with torch.device("meta"):
        net = HTSAT(dim=dim)
    count = sum(p.numel() for p in net.parameters())  # the paper's 31 M has the fixed transform too
    assert count == sum(np.prod(shapes[k], dtype=int) for k in learned)
    assert count == pytest.approx(million * 1e6, rel=1e-3)
    assert net.query_dim == 8 * dim


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": {f"sed_model.{k}": v for k, v in s.items()}, "epoch": 3},
        lambda s: {"model": {f"module.sed_model.{k}": v for k, v in s.items()}},
    ],
)
def test_wrapped_checkpoints(state, wrap):
    plain, wrapped = convert(state), convert(wrap(state))
    assert plain.keys() == wrapped.keys()
    assert all(torch.equal(plain[k], wrapped[k]) for k in plain)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"layers.1.blocks.0.norm1.bias": None}, r"1 missing \(layers.1.blocks.0.norm1.bias\)"),
        ({"logmel_extractor.melW": None}, r"missing \(logmel_extractor.melW\)"),
        ({"tscam.weight": torch.ones(1)}, r"1 unknown \(tscam.weight\)"),
        ({"patch_embed.proj.weight": None}, "'patch_embed.proj.weight' in the checkpoint, found 0"),
        ({"logmel_extractor.melW": torch.ones(513, 64)}, r"logmel_extractor.melW \[513, 64\] is not"),
        ({"logmel_extractor.melW": torch.ones(257, 64)}, r"conv_real.weight \[513, 1, 1024\]"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(state, change, message):
    with pytest.raises(DataError, match=message):
        convert({k: v for k, v in {**state, **change}.items() if v is not None})
