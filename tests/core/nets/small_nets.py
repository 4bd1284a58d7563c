"""Networks of the smallest size, with weights away from their start so that nothing hides behind zeros."""

import torch
from torch import Tensor, nn

CARE_CLS = dict(num_bands=32, dim=8, image_channels=4, depths=(1, 2, 1), heads=(1, 2, 2), connector_depth=2)
CARE_CLS |= dict(connector_heads=2, window=4, num_classes=5, drop_path=0.0)
CARE = CARE_CLS | dict(num_bins=129, fs=8000)


def made(cls: type[nn.Module], std: float = 0.2, **conf) -> nn.Module:
    """A network in evaluation mode, whose weights are drawn anew with the deviation `std`."""
    torch.manual_seed(0)
    net = cls(**conf).eval()
    for p in net.parameters():
        nn.init.normal_(p, std=std)
    return net


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def spectrum(b: int, length: int, seed: int = 1) -> Tensor:
    """Complex `[B, L, F]`, as many bins as `CARE` takes."""
    return torch.randn(b, length, 129, dtype=torch.cfloat, generator=torch.Generator().manual_seed(seed))
