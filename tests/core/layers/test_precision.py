"""Linear layers in fewer bits."""

import pytest
import torch
from torch import nn

from espnet2_ext.core.layers import precision
from espnet2_ext.core.layers.precision import Bf16Linear, Int8Linear, lower
from espnet2_ext.core.metrics import sdr
from espnet2_ext.errors import DataError

CPU = torch.device("cpu")
vnni = pytest.mark.skipif(not precision.has_vnni(), reason="this processor does not multiply 8-bit numbers")


def by_hand(layer, x):
    """The product of whole numbers, in float64."""
    scale = layer.weight.abs().amax(1, keepdim=True).double() / 127
    weight = (layer.weight.double() / scale).round()
    low, high = x.min().clamp(max=0).double(), x.max().clamp(min=0).double()
    step = (high - low) / 255
    zero = (-low / step).round()
    whole = (x.double() / step + zero).round().clamp(0, 255)
    return ((whole - zero) * step) @ (weight * scale).T + (0 if layer.bias is None else layer.bias.double())


@vnni
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("offset", [0.0, 5.0, -5.0])
def test_int8_is_the_product_of_whole_numbers(bias, offset):
    torch.manual_seed(0)
    layer = nn.Linear(100, 7, bias=bias).requires_grad_(False)
    x = torch.randn(2, 3, 100) + offset
    low = Int8Linear(layer)(x)
    torch.testing.assert_close(low.double(), by_hand(layer, x), atol=1e-3 * float(x.abs().max()), rtol=0)
    noise = (low - layer(x)).square().sum() / layer(x).square().sum()
    assert 30 < -10 * noise.log10() < 60  # as 8 bits, not more and not less


@vnni
def test_int8_of_silence_and_of_what_is_not_finite():
    layer = nn.Linear(100, 7).requires_grad_(False)
    torch.testing.assert_close(Int8Linear(layer)(torch.zeros(2, 100)), layer.bias.expand(2, 7))
    x = torch.zeros(2, 100)
    x[0, 0] = float("nan")
    assert not Int8Linear(layer)(x).isfinite().any()


def test_bf16_by_hand():
    layer = nn.Linear(3, 1, bias=False).requires_grad_(False)
    layer.weight[:] = torch.tensor([1.0, 2.0, 1 + 2**-10])  # the last is 1 in bfloat16
    low = Bf16Linear(layer)(torch.tensor([[1.0, 2**-10, -1.0]]))
    assert low.dtype == torch.float32 and low.tolist() == [[2**-9]]


class Fitted(nn.Module):
    """Estimates of a target from frames of a mixture, fitted in closed form over random features."""

    def __init__(self, mix, target):
        super().__init__()
        self.into, self.out = nn.Linear(96, 384), nn.Linear(384, 96, bias=False)
        self.narrow = nn.Linear(precision.WIDE - 1, 1)
        features = torch.relu(self.into(mix)).detach().double()
        fit = torch.linalg.solve(features.T @ features + 0.1 * torch.eye(384), features.T @ target.double())
        self.out.weight = nn.Parameter(fit.T.float())
        self.requires_grad_(False)

    def forward(self, x):
        return self.out(torch.relu(self.into(x)))


@pytest.mark.parametrize("name", ["bf16", pytest.param("int8", marks=vnni), "auto", "fp32"])
def test_sdr_changes_by_less_than_a_twentieth_db(name):
    torch.manual_seed(0)
    target, other = (torch.randn(4000, 24) @ torch.randn(24, 96) for _ in range(2))
    mix = target + other
    model = Fitted(mix, target)
    score = [float(sdr(est=model(mix).reshape(1, -1), ref=target.reshape(1, -1)))]
    taken = lower(model, name, CPU)
    score.append(float(sdr(est=model(mix).reshape(1, -1), ref=target.reshape(1, -1))))
    assert score[0] > 10 and abs(score[1] - score[0]) < 0.05
    assert (score[0] != score[1]) == (taken != "fp32")
    assert type(model.narrow) is nn.Linear and (type(model.out) is nn.Linear) == (taken == "fp32")


def test_int8_needs_a_processor_that_has_it(monkeypatch):
    model = nn.Sequential(nn.Linear(100, 3))
    with pytest.raises(DataError, match="VNNI"):
        lower(model, "int8", torch.device("meta"))
    monkeypatch.setattr(precision, "has_vnni", lambda: False)
    assert lower(model, "auto", CPU) == "fp32" and type(model[0]) is nn.Linear
    with pytest.raises(DataError, match="give auto, bf16 or fp32"):
        lower(model, "int8", CPU)
