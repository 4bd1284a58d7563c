"""Public ST-SED-SEP weights: the converted U-Net gives the public one's masks by definition."""

import pytest
import torch
import torch.nn.functional as F
from test_public_cnn14 import batch_norm_shapes, random_state
from test_public_hts_at import public_state as public_tagger

from espnet2_ext.core.nets.query_unet import QueryUNet
from espnet2_ext.core.public import convert_hts_at, convert_tagger
from espnet2_ext.core.public import convert_st_sed_sep as convert
from espnet2_ext.errors import DataError

WIDTHS, QUERY, BINS = (4, 5, 6, 7, 8, 9), 7, 129


def public_shapes(widths, query, bins):
    """Names and shapes of a public checkpoint, less its tagger."""
    shapes = batch_norm_shapes("bn0", bins) | {
        "stft.conv_real.weight": (bins, 1, 2 * bins - 2),
        "istft.ola_window": (bins,),
        "after_conv2.weight": (1, widths[0], 1, 1),
        "after_conv2.bias": (1,),
    }

    def layer(name, number, width, kernel):
        nonlocal shapes
        shapes |= {
            f"{name}.conv{number}.weight": kernel,
            f"{name}.emb{number}.bias": (width,),
            f"{name}.emb{number}.weight": (width, query),
        }
        shapes |= batch_norm_shapes(f"{name}.bn{number}", width)

    def block(name, before, width):
        layer(name, 1, width, (width, before, 3, 3))
        layer(name, 2, width, (width, width, 3, 3))

    for i, (a, b) in enumerate(zip((1, *widths), widths), 1):
        block(f"encoder_block{i}.conv_block", a, b)
    block("conv_block7", widths[-1], 2 * widths[-1])
    for i, (a, b) in enumerate(zip((2 * widths[-1], *widths[::-1]), widths[::-1]), 1):
        layer(f"decoder_block{i}", 1, b, (a, b, 3, 3))  # of a transposed convolution
        block(f"decoder_block{i}.conv_block2", 2 * b, b)
    block("after_conv_block1", widths[0], widths[0])
    return shapes


@pytest.fixture(scope="module")
def state():
    return random_state(public_shapes(WIDTHS, QUERY, BINS))


class ByDefinition:
    """The public network's mask, from its state dict alone."""

    def __init__(self, state):
        self.state = state

    def norm(self, x, name):
        """Axis 1 is normalised."""
        mean, var, weight, bias = (
            self.state[f"{name}.{k}"][:, None, None] for k in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def layer(self, x, name, number, query, transposed=False):
        kernel = self.state[f"{name}.conv{number}.weight"]
        if transposed:  # zeros between the samples, then a convolution with the mirrored kernel
            b, c, length, bins = x.shape
            wide = x.new_zeros(b, c, 2 * length - 1, 2 * bins - 1)
            wide[:, :, ::2, ::2] = x
            x = F.conv2d(F.pad(wide, (2, 2, 2, 2)), kernel.transpose(0, 1).flip(2, 3))
        else:
            x = F.conv2d(x, kernel, padding=1)
        added = query @ self.state[f"{name}.emb{number}.weight"].T + self.state[f"{name}.emb{number}.bias"]
        return self.norm(x, f"{name}.bn{number}").clamp(min=0) + added[:, :, None, None]

    def block(self, x, name, query):
        return self.layer(self.layer(x, name, 1, query), name, 2, query)

    def __call__(self, magnitude, query):
        """`[B, L, F]` and `[B, E]` to `[B, L, F]`."""
        length = magnitude.shape[1]
        x = self.norm(magnitude.transpose(1, 2)[..., None], "bn0")[..., 0].transpose(1, 2)
        x = torch.cat([x, x.new_zeros(len(x), -length % 64, x.shape[2])], 1)[:, None, :, :-1]
        skips = []
        for i in range(1, 7):
            skips.append(self.block(x, f"encoder_block{i}.conv_block", query))
            x = sum(skips[-1][:, :, a::2, b::2] for a in (0, 1) for b in (0, 1)) / 4
        x = self.block(x, "conv_block7", query)
        for i in range(1, 7):
            x = self.layer(x, f"decoder_block{i}", 1, query, transposed=True)[:, :, :-1, :-1]
            x = self.block(torch.cat([x, skips.pop()], 1), f"decoder_block{i}.conv_block2", query)
        x = self.block(x, "after_conv_block1", query)
        x = (x * self.state["after_conv2.weight"][0]).sum(1) + self.state["after_conv2.bias"]
        x = torch.cat([x, x.new_zeros(*x.shape[:2], 1)], 2)  # the highest bin
        return torch.sigmoid(x[:, :length])


@pytest.mark.parametrize("length", [128, 101, 30])
def test_converted_weights_give_the_public_masks(state, length):
    g = torch.Generator().manual_seed(2)
    spec = torch.randn(2, length, BINS, generator=g, dtype=torch.cfloat)
    query = torch.randn(2, 2, QUERY, generator=g)
    net = QueryUNet(QUERY, BINS, WIDTHS).eval()
    net.load_state_dict(convert(state))
    with torch.no_grad():
        ours = net.mask(spec, torch.tensor([length, length]), query)
        for q in range(2):
            public = ByDefinition(state)(spec.abs(), query[:, q])
            assert public[..., :-1].std((1, 2)).min() > 0.05  # nothing hides behind constants
            assert torch.allclose(ours[:, q], public, atol=2e-5)
    assert (ours[:, 0] - ours[:, 1]).abs().mean() > 0.02


@pytest.mark.parametrize("query", [527, 2048])
def test_full_size_has_the_public_names_and_shapes(query):
    widths = (32, 64, 128, 256, 512, 1024)
    with torch.device("meta"):
        public = {k: torch.empty(shape) for k, shape in public_shapes(widths, query, 1025).items()}
        ours = QueryUNet(query).state_dict()
    assert {k: v.shape for k, v in convert(public).items()} == {k: v.shape for k, v in ours.items()}


def test_the_tagger_in_the_checkpoint(state):
    tagger = public_tagger()
    whole = {"state_dict": state | {f"at_model.sed_model.{k}": v for k, v in tagger.items()}}
    ours, want = convert_tagger(whole), convert_hts_at(tagger)
    assert ours.keys() == want.keys() and all(torch.equal(ours[k], want[k]) for k in want)
    assert convert(whole).keys() == convert(state).keys()
    assert convert_tagger(state) == {}
    del whole["state_dict"]["at_model.sed_model.norm.bias"]
    with pytest.raises(DataError, match=r"1 missing \(norm.bias\)"):
        convert_tagger(whole)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"decoder_block6.emb1.bias": None}, r"1 missing \(decoder_block6.emb1.bias\)"),
        ({"encoder_block7.conv_block.bn1.bias": torch.ones(1)}, r"1 unknown \(encoder_block7.conv_block.bn1.bias\)"),
        (
            {"encoder_block1.conv_block.conv1.weight": None},
            "'encoder_block1.conv_block.conv1.weight' in the checkpoint, found 0",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(state, change, message):
    with pytest.raises(DataError, match=message):
        convert({k: v for k, v in {**state, **change}.items() if v is not None})
