"""ESPnet separator `asteroid_masker`: any of Asteroid's mask networks, by name.

Asteroid is imported when such a separator is built, not with this module.
"""

import inspect

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnet2_ext.core.layers.padding import by_length, unless_whole
from espnet2_ext.core.nets.mask_nets import LOG_FLOOR
from espnet2_ext.errors import DataError


class AsteroidMasker(nn.Module):
    """A class of `asteroid.masknn` on the log magnitude of the encoder's spectrum.

    With an encoder whose features are real (ESPnet's `conv`) they go in as they are.

    Args:
        input_dim: F, from the encoder.
        num_outputs: S; the weak-label task gives it.
        masker: name, such as `TDConvNet`, `LSTMMasker`, `DPRNN`, `DPTransformer`, `SuDORMRF`.
        masker_conf: its arguments but `in_chan` and `n_src`. `mask_act` is `sigmoid` unless given,
            for masks in 0 to 1.

    Raises:
        DataError: no such class, or arguments that it does not take.
    """

    mask_type = "magnitude"

    def __init__(self, input_dim: int, num_outputs: int, masker: str = "LSTMMasker", masker_conf: dict | None = None):
        super().__init__()
        name, conf, self.num_outputs = masker, masker_conf or {}, num_outputs
        from asteroid import masknn

        if name not in masknn.__all__:
            raise DataError(f"no asteroid masker {name!r}; there is: {', '.join(sorted(masknn.__all__))}")
        cls = getattr(masknn, name)
        takes = inspect.signature(cls).parameters
        if unknown := [k for k in conf if k not in takes or k in ("in_chan", "n_src")]:
            raise DataError(f"masker_conf of {name}: unknown key {', '.join(map(repr, unknown))}")
        if "mask_act" in takes:
            conf = {"mask_act": "sigmoid", **conf}
        self.masker = cls(input_dim, num_outputs, **conf)
        self._freeze_unused(input_dim)

    def _freeze_unused(self, bins: int) -> None:
        """Freeze what no output depends on (a TDConvNet's last residual path): several processes
        would wait for its gradient."""
        if any(p.is_meta for p in self.masker.parameters()):
            return
        self.masker.eval()
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            used = torch.autograd.grad(
                self.masker(torch.rand(1, bins, 64)).sum(), list(self.masker.parameters()), allow_unused=True
            )
        for p, grad in zip(self.masker.parameters(), used):
            p.requires_grad_(grad is not None)
        self.masker.train()

    def forward(self, spec: Tensor, lengths: Tensor) -> Tensor:
        """`[B, L, F]` to masks `[B, S, L, F]`; Asteroid's masks are `[B, S, F, L]`.

        Its networks know no lengths `[B]`: items of one length go through together.
        """
        x = ((spec.abs() + LOG_FLOOR).log() if spec.is_complex() else spec).transpose(1, 2)
        frames = x.shape[-1]
        if unless_whole(lengths, frames) is None:
            return self.masker(x).transpose(2, 3)
        (masks,) = by_length(lambda x: (F.pad(self.masker(x), (0, frames - x.shape[-1])),), lengths, x)
        return masks.transpose(2, 3)
