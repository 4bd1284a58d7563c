"""ESPnet's criterion `asteroid` and separator `asteroid_masker`: any waveform loss or mask network of Asteroid.

Asteroid is imported when one is built, not with this module.
"""

import inspect
from collections.abc import Callable

import torch
import torch.nn.functional as F
from espnet2.enh.loss.criterions.time_domain import TimeDomainLoss
from torch import Tensor, nn

from espnet2_ext.core.layers.padding import by_length, unless_whole
from espnet2_ext.core.nets.mask_nets import LOG_FLOOR
from espnet2_ext.errors import DataError

# how a loss is called, by the beginning of its name: [B, T] or [B, S, T] to [B], or to [B, S, S]
KINDS = ("singlesrc", "multisrc", "pairwise")
SPECTRA = ("SingleSrcPMSQE",)  # take magnitudes, not waveforms


class AsteroidLoss(TimeDomainLoss):
    """A loss of `asteroid.losses` in ESPnet's order `(ref, inf)`, with one value an item.

    In a YAML: `{name: asteroid, conf: {loss: pairwise_neg_sisdr, pit: true}, wrapper:
    all_sources}`. Under ESPnet's own wrappers (`fixed_order`, `pit`), which show one source at a
    time, and under `keyed_order` it works as well; then leave `pit` out. Negative SI-SDR and its
    kin have no gradient towards silence for a silent reference.

    Args:
        loss: a name such as `singlesrc_neg_sisdr`, `multisrc_neg_snr`, `pairwise_mse`, or a class
            (`PairwiseNegSDR`, `SingleSrcNegSTOI`, `SingleSrcMultiScaleSpectral`, ...).
        loss_conf: for a class, its arguments.
        pit: the best order of the sources instead of the given one; by Asteroid's search, which
            takes the Hungarian method from four sources on.
        name: in the log; default: that of the loss.
        only_for_test: compute it in validation only.

    Raises:
        DataError: no such loss, one that takes no waveforms, or arguments that it does not take.
    """

    def __init__(
        self,
        loss: str,
        loss_conf: dict | None = None,
        pit: bool = False,
        name: str | None = None,
        only_for_test: bool = False,
    ):
        super().__init__(name or loss, only_for_test=only_for_test)
        self.kind = next((k for k in KINDS if loss.lower().startswith(k)), None)
        self.loss = find_loss(loss, loss_conf)
        self.pit = pit

    needs, optional = {"lengths": "speech_lengths"}, ("lengths",)

    def forward(self, ref: Tensor, inf: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Waveforms `[B, T]` or, all sources at once, `[B, S, T]`; returns `[B]`.

        `lengths`: `[B]` samples; what lies behind is padding, which Asteroid's losses do not know:
        items of one length are judged together.
        """
        return self.with_order(ref, inf, lengths)[0]

    def with_order(self, ref: Tensor, inf: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Loss `[B]` and order `[B, S]`: the output that stands for each source.

        Raises:
            ValueError: the loss does not give one value an item.
        """
        from asteroid.losses import PITLossWrapper

        if (lengths := unless_whole(lengths, ref.shape[-1])) is not None:
            loss, perm = by_length(self.with_order, lengths, ref, inf)
            return loss, perm
        if isinstance(self.loss, torch.nn.Module):
            self.loss.to(inf.device)  # ESPnet's models do not hold their criterions as modules
        if ref.dim() == 2:
            ref, inf = ref[:, None], inf[:, None]
        perm = torch.arange(ref.shape[1], device=ref.device).repeat(len(ref), 1)
        if self.kind == "pairwise":
            table = self.loss(inf, ref)  # [B, output, source]
            if self.pit:
                return PITLossWrapper.find_best_perm(table)
            return table.diagonal(dim1=1, dim2=2).mean(-1), perm
        if self.kind == "multisrc":
            if self.pit:
                return PITLossWrapper.best_perm_from_perm_avg_loss(self._whole, inf, ref)
            return self._whole(inf, ref), perm
        if self.pit:
            table = PITLossWrapper.get_pw_losses(self._whole, inf, ref)
            return PITLossWrapper.find_best_perm(table)
        each = self._whole(inf.flatten(0, 1), ref.flatten(0, 1))
        return each.unflatten(0, ref.shape[:2]).mean(-1), perm

    def _whole(self, est: Tensor, target: Tensor) -> Tensor:
        """The loss in Asteroid's order."""
        value = self.loss(est, target)
        if value.shape != est.shape[:1]:
            raise ValueError(f"{self.name}: expected one value for each of {len(est)} items, got {list(value.shape)}")
        return value


def find_loss(name: str, conf: dict | None = None) -> Callable:
    """A loss of Asteroid by name; errors as in `AsteroidLoss`."""
    import asteroid.losses
    from asteroid.losses import mse, sdr

    places = (asteroid.losses, sdr, mse)
    if name in SPECTRA:
        raise DataError(f"asteroid loss {name!r} takes spectra, not waveforms")
    found = next((getattr(p, name) for p in places if hasattr(p, name)), None)
    if found is None or not name.lower().startswith(KINDS):
        names = {n for p in places for n in vars(p) if n.lower().startswith(KINDS)} - {*SPECTRA}
        raise DataError(
            f"no asteroid loss {name!r} on waveforms; there is: "
            f"{', '.join(sorted(names))} (permutations are `pit: true`)"
        )
    if not isinstance(found, type):
        if conf:
            raise DataError(f"asteroid loss {name!r} takes no loss_conf; name its class instead")
        return found
    try:
        return found(**conf or {})
    except (TypeError, AssertionError) as e:
        raise DataError(f"asteroid loss {name!r}, loss_conf: {e}") from e


class AsteroidMasker(nn.Module):
    """A class of `asteroid.masknn` on the log magnitude of the encoder's spectrum.

    With an encoder whose features are real (ESPnet's `conv`) they go in as they are.

    Args:
        input_dim: F, from the encoder.
        num_outputs: S; the weak-label task gives it.
        masker: name, such as `TDConvNet`, `LSTMMasker`, `DPRNN`, `DPTransformer`, `SuDORMRF`.
        masker_conf: its arguments but `in_chan` and `n_src`. `mask_act` is `sigmoid` unless given, for masks in 0 to 1.

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
