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
from espnet2.tasks import enh, enh_tse
from espnet2.train.class_choices import ClassChoices
from espnet2.utils.types import str_or_none
from torch import Tensor, nn
from torch_complex.tensor import ComplexTensor

from espnet2_ext.core.nets.contracts import Tagger
from espnet2_ext.core.nets.masking import extractor_of, separator_of

# what a loss's argument is called among what the model and the batch give; {}: the target
SOURCES = {
    "mix": "speech_mix",
    "logits": "tags{}",
    "labels": "label{}",
    "mix_logits": "tags_mix",
    "mix_labels": "label_mix",
    "query": "query{}",
    "lengths": "speech_lengths",
}
ESTIMATE = ("est", "ref")
BASES = {"encoder": AbsEncoder, "decoder": AbsDecoder, "extractor": AbsExtractor, "separator": AbsSeparator}


@functools.cache
def as_criterion(loss: Callable[..., Tensor] | type[nn.Module], name: str) -> type[AbsEnhLoss]:
    """ESPnet's criterion around a plain loss, called `name` in the log unless a YAML says otherwise.

    Args:
        loss: a function `loss(*, est, ref, mix, ...) -> [B]`, or a class whose `forward` is one. Of `est`, `ref`
            `[B, T]` and the keys of `SOURCES` it takes which it needs (one with a default may be missing, `lengths` is
            None where nothing is padded); what else it (or the class's constructor) takes are options of the YAML.
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


def as_espnets(kind: str, found: Any, name: str = "") -> type:
    """What `registry.find` gives, as a class for ESPnet's table of that kind.

    Encoders and decoders are like those of `core.layers.spectrum`, extractors are around a `contracts.QueryMasker`,
    separators around a `contracts.ClassMasker`; what criteria are called in the log: `name`.
    """
    if kind == "criterion":
        return found if isinstance(found, type) and issubclass(found, AbsEnhLoss) else as_criterion(found, name)
    around = {"extractor": extractor_of, "separator": separator_of}
    found = around[kind](found) if kind in around else found
    return _under(found, BASES[kind]) if kind in BASES else found


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


# ESPnet has none for these: classifiers of `core.nets.sed`, query networks of `core.nets.tagger`
classifier_choices = ClassChoices(name="classifier", classes={}, type_check=nn.Module, default="crnn")
query_net_choices = ClassChoices(name="query_net", classes={}, type_check=Tagger, default="hts_at")


def table(kind: str) -> ClassChoices:
    """ESPnet's table of a kind of `registry.TABLE`, or `preprocessor`s of its extraction task."""
    if kind in ("classifier", "query_net"):
        return {"classifier": classifier_choices, "query_net": query_net_choices}[kind]
    return getattr(enh_tse if kind == "extractor" else enh, f"{kind}_choices")


def add(choices: ClassChoices, name: str, cls: type) -> None:
    """Put one class into a table; again changes nothing.

    Raises:
        ValueError: a name that is not lower case, is taken by another class, or a class of the wrong kind.
    """
    if name != name.lower():
        raise ValueError(f"{choices.name} {name!r}: names must be lower case")
    if choices.base_type is not None and not issubclass(cls, choices.base_type):
        raise ValueError(f"{choices.name} {name!r}: {cls.__name__} is not a {choices.base_type.__name__}")
    if choices.classes.setdefault(name, cls) is not cls:
        raise ValueError(f"{choices.name} {name!r} is already {choices.classes[name].__name__}")


class OrPath(tuple):
    """Names that an option takes; a class path, `package.module:Class`, is one as well."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or ":" in str(name)


def name_or_path(text: str) -> str | None:
    """A name in lower case, a class path as it is."""
    return text if ":" in text else str_or_none(text.lower())


class PluginChoices(ClassChoices):
    """A table whose option takes class paths, too.

    Args:
        choices: ESPnet's table, whose names are shared.
        resolve: (kind, class path) to a class for ESPnet.
    """

    def __init__(self, choices: ClassChoices, resolve: Callable[[str, str], type]):
        super().__init__(choices.name, {}, choices.base_type, choices.default, choices.optional)
        self.classes, self.resolve = choices.classes, resolve

    def choices(self) -> tuple[str | None, ...]:
        return OrPath(super().choices())

    def get_class(self, name: str | None) -> type | None:
        return self.resolve(self.name, name) if name is not None and ":" in name else super().get_class(name)

    def add_arguments(self, parser) -> None:
        super().add_arguments(parser)
        option = parser._option_string_actions[f"--{self.name}"]
        option.type, option.help = name_or_path, f"{option.help}, or a class path: my_package.my_net:MyNet"
