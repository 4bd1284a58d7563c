"""Linear layers of a trained model in fewer bits, for inference: bfloat16, or 8-bit integers."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnet2_ext.errors import DataError

PRECISIONS = ("auto", "fp32", "bf16", "int8")
WIDE = 96  # inputs of a layer from which on fewer bits save time
VNNI = ("avx512_vnni", "avx_vnni", "amx_int8")  # a processor's products of 8-bit numbers


class Bf16Linear(nn.Module):
    """A linear layer whose products are of bfloat16 numbers; input and output keep their type."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.weight = layer.weight.detach().bfloat16()
        self.bias = None if layer.bias is None else layer.bias.detach().bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        return F.linear(x.bfloat16(), self.weight, self.bias).to(x.dtype)


class Int8Linear(nn.Module):
    """A linear layer whose products are of 8-bit numbers: weights with a scale for each output, inputs with one scale
    and zero, found anew for each input. On processors with `VNNI` alone: others saturate."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        weight = layer.weight.detach()
        self.scale = weight.abs().amax(1).clamp(min=1e-12) / 127
        self.zero = torch.zeros(len(weight), dtype=torch.long)
        self.bias = None if layer.bias is None else layer.bias.detach()
        self.packed = torch.ops.onednn.qlinear_prepack((weight / self.scale[:, None]).round().to(torch.int8), None)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`, float32."""
        flat = x.flatten(0, -2)
        low, high = flat.aminmax()
        low, high = low.clamp(max=0), high.clamp(min=0)
        scale = ((high - low) / 255).clamp(min=1e-12)
        zero = (-low / scale).round()
        whole = (flat / scale).add_(zero).round_().clamp_(0, 255).to(torch.uint8)
        weight = self.packed, self.scale, self.zero, self.bias
        out = torch.ops.onednn.qlinear_pointwise(
            whole, scale, zero.int(), *weight, 1.0, 0, torch.float32, "none", [], ""
        )
        return out.unflatten(0, x.shape[:-1])


LAYERS = {"bf16": Bf16Linear, "int8": Int8Linear}


def lower(model: nn.Module, precision: str, device: torch.device) -> str:
    """Let the wide linear layers of a trained model compute in `precision`, one of `PRECISIONS`; the others stay.

    auto: int8 on a processor with `VNNI`, bf16 on a GPU that has it, else fp32.

    Returns:
        the precision taken.

    Raises:
        DataError: int8 where it would be wrong or is not there.
    """
    vnni = device.type == "cpu" and has_vnni()
    if precision == "auto":
        gpu = device.type == "cuda" and torch.cuda.is_bf16_supported()
        precision = "int8" if vnni else "bf16" if gpu else "fp32"
    if precision == "int8" and not vnni:
        raise DataError("--precision int8: needs a processor with VNNI or AMX, and no GPU; give auto, bf16 or fp32")
    if precision != "fp32":
        for part in [*model.modules()]:
            for name, layer in part.named_children():
                if type(layer) is nn.Linear and layer.in_features >= WIDE:
                    setattr(part, name, LAYERS[precision](layer))
    return precision


def has_vnni() -> bool:
    """Whether the processor multiplies 8-bit numbers, and PyTorch makes use of it."""
    known = getattr(torch.cpu, "get_capabilities", dict)()
    return hasattr(torch.ops.onednn, "qlinear_pointwise") and any(known.get(name) for name in VNNI)
