"""Public CNN14 weights: the converted network computes what the public one does by definition."""

import pytest
import torch
import torch.nn.functional as F
from test_public_hts_at import Public as LogMelByDefinition
from test_public_hts_at import public_state as with_log_mel

from espnet2_ext.core.nets.cnn14 import CNN14
from espnet2_ext.core.public import convert_cnn14 as convert
from espnet2_ext.errors import DataError

WIDTHS, CLASSES = (4, 5, 6, 7, 8, 9), 6


def random_state(shapes):
    """Values with which the signal neither dies out nor saturates on its way."""
    g = torch.Generator().manual_seed(1)
    state = {}
    for key, shape in shapes.items():
        x = torch.randn(shape, generator=g)
        fan = x[0].numel() if len(shape) > 1 else 16
        state[key] = x * (2 / fan) ** 0.5
        if key.endswith("running_var"):
            state[key] = 0.5 + torch.rand(shape, generator=g)
        elif key.endswith("weight") and len(shape) == 1:  # batch norm
            state[key] = 1 + 0.3 * x
        elif key.endswith("tracked"):
            state[key] = torch.tensor(7)
    return state


def batch_norm_shapes(name, width):
    return {f"{name}.num_batches_tracked": ()} | {
        f"{name}.{kind}": (width,) for kind in ("weight", "bias", "running_mean", "running_var")
    }


def public_shapes(widths, classes):
    """Names and shapes of a public checkpoint after its front end."""
    shapes = {
        "fc1.weight": (widths[-1], widths[-1]),
        "fc1.bias": (widths[-1],),
        "fc_audioset.weight": (classes, widths[-1]),
        "fc_audioset.bias": (classes,),
    }
    for i, (a, b) in enumerate(zip((1, *widths), widths), 1):
        for j, width in enumerate((a, b), 1):
            shapes[f"conv_block{i}.conv{j}.weight"] = (b, width, 3, 3)
            shapes |= batch_norm_shapes(f"conv_block{i}.bn{j}", b)
    return shapes


@pytest.fixture(scope="module")
def state():
    front = ("spectrogram_extractor.", "logmel_extractor.", "bn0.")
    return {k: v for k, v in with_log_mel().items() if k.startswith(front)} | random_state(
        public_shapes(WIDTHS, CLASSES)
    )


def by_definition(s, wave):
    """Probabilities and embedding of the public network, from its state dict alone."""

    def layer(x, block, j):
        x = F.conv2d(x, s[f"conv_block{block}.conv{j}.weight"], padding=1)
        mean, var, weight, bias = (
            s[f"conv_block{block}.bn{j}.{k}"][:, None, None] for k in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * weight + bias).clamp(min=0)

    x = LogMelByDefinition(s, ()).log_mel(wave)[:, None]
    for block in range(1, 7):
        x = layer(layer(x, block, 1), block, 2)
        if block < 6:  # the mean of four neighbours; an odd one at the end is left out
            length, bands = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
            x = sum(x[:, :, a:length:2, b:bands:2] for a in (0, 1) for b in (0, 1)) / 4
    x = x.mean(3)
    x = x.max(2).values + x.mean(2)
    x = (x @ s["fc1.weight"].T + s["fc1.bias"]).clamp(min=0)
    return torch.sigmoid(x @ s["fc_audioset.weight"].T + s["fc_audioset.bias"]), x


@pytest.mark.parametrize("samples", [64000, 31990, 10240])
def test_converted_weights_give_the_public_outputs(state, samples):
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(1))
    hum = 0.01 * noise.cumsum(0) * torch.linspace(0, 1, samples)
    tone = torch.sin(0.3 * torch.arange(samples))
    wave = torch.stack([0.1 * noise, hum, tone + 0.01 * noise])
    for embedding in ("latent", "probabilities"):
        net = CNN14(widths=WIDTHS, num_classes=CLASSES, embedding=embedding).eval()
        net.load_state_dict(convert(state))
        with torch.no_grad():
            out, (clipwise, latent) = net(wave), by_definition(state, wave)
        assert latent.std(0).max() > 1e-3  # the items differ by far more than the tolerance
        assert torch.allclose(out.clipwise.sigmoid(), clipwise, atol=2e-6)
        want = latent if embedding == "latent" else clipwise
        assert torch.allclose(out.embedding, want, atol=1e-5)


def test_full_size_has_the_public_names_and_shapes():
    shapes = public_shapes((64, 128, 256, 512, 1024, 2048), 527)
    with torch.device("meta"):
        ours = {k: v for k, v in CNN14().state_dict().items() if not k.startswith("log_mel")}
        public = {k: torch.empty(shape) for k, shape in shapes.items()}
    front = {k: v for k, v in with_log_mel().items() if k.startswith(("spectrogram", "logmel", "bn0"))}
    converted = convert(public | front)
    assert {k: v.shape for k, v in converted.items() if not k.startswith("log_mel")} == {
        k: v.shape for k, v in ours.items()
    }


@pytest.mark.parametrize(
    "wrap",
    [lambda s: {"iteration": 600000, "model": s}, lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}}],
)
def test_wrapped_checkpoints(state, wrap):
    plain, wrapped = convert(state), convert(wrap(state))
    assert plain.keys() == wrapped.keys()
    assert all(torch.equal(plain[k], wrapped[k]) for k in plain)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"conv_block3.bn2.bias": None}, r"1 missing \(conv_block3.bn2.bias\)"),
        (
            {"fc_audioset.bias": None, "fc_transfer.bias": torch.ones(6)},
            r"1 missing \(fc_audioset.bias\); 1 unknown \(fc_transfer.bias\)",
        ),
        ({"conv_block1.conv1.weight": None}, "'conv_block1.conv1.weight' in the checkpoint, found 0"),
        ({"logmel_extractor.melW": torch.ones(513, 64)}, r"logmel_extractor.melW \[513, 64\] is not"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(state, change, message):
    with pytest.raises(DataError, match=message):
        convert({k: v for k, v in {**state, **change}.items() if v is not None})
