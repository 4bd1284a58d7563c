"""ESPnet's classes around plain PyTorch: their signature is that of the plain class, so that ESPnet
shows its defaults and unknown keys of a YAML are refused.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from espnet2.enh.decoder.abs_decoder import AbsDecoder
from espnet2.enh.encoder.abs_encoder import AbsEncoder
from espnet2.enh.extractor.abs_extractor import AbsExtractor
from espnet2.enh.loss.criterions.abs_loss import AbsEnhLoss
from espnet2.enh.loss.criterions.time_domain import TimeDomainLoss
from espnet2.enh.separator.abs_separator import AbsSeparator
from torch import Tensor, nn
from torch_complex.tensor import ComplexTensor

from espnet2_ext.core.nets.masking import extractor_of, separator_of

# what a loss's argument is called among what the model and the batch give; {}: the target
SOURCES = {
    "mix": "speech_mix",
    "logits": "tags{}",
    "labels": "label{}",
    "query": "query{}",
    "lengths": "speech_lengths",
}
ESTIMATE = ("est", "ref")


def as_encoder(net: type[nn.Module]) -> type[AbsEncoder]:
    """ESPnet's encoder of a class like those of `core.layers.spectrum`."""
    return _under(net, AbsEncoder)


def as_decoder(net: type[nn.Module]) -> type[AbsDecoder]:
    """ESPnet's decoder of a class like those of `core.layers.spectrum`."""
    return _under(net, AbsDecoder)


def as_extractor(net: type[nn.Module]) -> type[AbsExtractor]:
    """ESPnet's extractor around a `contracts.QueryMasker`."""
    return _under(extractor_of(net), AbsExtractor)


def as_separator(net: type[nn.Module]) -> type[AbsSeparator]:
    """ESPnet's separator around a `contracts.ClassMasker`."""
    return _under(separator_of(net), AbsSeparator)


@functools.cache
def as_criterion(loss: Callable[..., Tensor] | type[nn.Module], name: str) -> type[AbsEnhLoss]:
    """ESPnet's criterion around a plain loss, called `name` in the log unless a YAML says otherwise.

    Args:
        loss: a function `loss(*, est, ref, mix, ...) -> [B]`, or a class whose `forward` is one. Of
            `est`, `ref` `[B, T]` and the keys of `SOURCES` it takes which it needs (one with a default
            may be missing, `lengths` is None where nothing is padded); what else it (or the class's
            constructor) takes are options of the YAML.
    """
    is_class = isinstance(loss, type)
    takes = inspect.signature(loss.forward if is_class else loss).parameters
    options = inspect.signature(loss).parameters
    options = [p.replace(kind=p.KEYWORD_ONLY) for k, p in options.items() if k not in (*ESTIMATE, *SOURCES)]

    def __init__(self, name: str = name, only_for_test: bool = False, **options):
        TimeDomainLoss.__init__(self, name, only_for_test)
        self.loss = loss(**options) if is_class else functools.partial(loss, **options)

    def forward(self, ref: Tensor, inf: Tensor, **keyed: Tensor) -> Tensor:
        """`[B, T]` each; returns `[B]`, of `[B, T, C]` the mean over the channels."""
        if inf.dim() == 3:
            each = [
                forward(
                    self, ref[..., c], inf[..., c], **{k: v[..., c] if v.dim() == 3 else v for k, v in keyed.items()}
                )
                for c in range(inf.shape[-1])
            ]
            return torch.stack(each).mean(0)
        return self.loss(**{k: v for k, v in (("est", inf), ("ref", ref)) if k in takes}, **keyed)

    named = (("name", name, str), ("only_for_test", False, bool))
    own = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=d, annotation=t) for n, d, t in named]
    made = {
        "__init__": __init__,
        "__signature__": inspect.Signature([*own, *options]),
        "__doc__": loss.__doc__,
        "__module__": loss.__module__,
        "forward": forward,
        "needs": {k: SOURCES[k] for k in takes if k in SOURCES},
        "optional": [k for k, p in takes.items() if p.default is not p.empty],
    }
    return type(loss.__name__, (TimeDomainLoss,), made)


def as_espnets(kind: str, found: Any, name: str) -> type:
    """What `registry.find` gives, as a class for ESPnet's table of that kind."""
    if kind == "criterion":
        return found if isinstance(found, type) and issubclass(found, AbsEnhLoss) else as_criterion(found, name)
    make = {"encoder": as_encoder, "decoder": as_decoder, "extractor": as_extractor, "separator": as_separator}
    return make[kind](found) if kind in make else found


@functools.cache
def _under(net: type, base: type) -> type:
    """A class that is both, with the constructor of `net`; ESPnet's ComplexTensor will do for complex tensors."""
    if issubclass(net, base):
        return net

    @functools.wraps(net.forward)
    def forward(self, *given, **named):
        return net.forward(self, *map(_builtin, given), **{k: _builtin(v) for k, v in named.items()})

    return type(net.__name__, (net, base), {"__doc__": net.__doc__, "__module__": net.__module__, "forward": forward})


def _builtin(x: Any) -> Any:
    return torch.complex(x.real, x.imag) if isinstance(x, ComplexTensor) else x
