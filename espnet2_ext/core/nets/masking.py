"""A masking network as the part of a model: `extractor_of` (by query), `separator_of` (by class); its temperature.

The constructor of such a part takes the network's own arguments; those that the model fills in are
named alike for all networks: `input_dim`, the size of the encoder's features (the network's own
`num_bins`), `num_spk` (`num_outputs`) and `sample_rate` (`fs`).
"""

import functools
import inspect
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from espnet2_ext.errors import DataError, refusing

# the network's own name of an argument -> its name for every network
RENAMED = {"num_bins": "input_dim", "num_outputs": "num_spk", "fs": "sample_rate"}
NUM_SPK = 2  # outputs unless the model says otherwise


def bounded_mask(x: Tensor, mask_type: str, bound: float) -> Tensor:
    """What a network gives, to masks.

    Args:
        x: `[B, S, ...]`; for `complex` with a last axis of 2, real and imaginary part.
        mask_type: `magnitude`: sigmoid, in 0 to 1, as in the paper. `share`: softmax over the
            outputs, so that they sum to the mixture; learns from fewer steps. `phase_sensitive`:
            real and signed, bound * tanh(x / bound). `complex`: z times bound tanh(|z| / bound) /
            |z|: the phase of z, and its modulus as long as it is small against the bound.
        bound: of the modulus.

    Returns:
        the masks; for `complex` a complex tensor without the last axis.
    """
    if mask_type == "magnitude":
        return x.sigmoid()
    if mask_type == "share":
        return x.softmax(1)
    if mask_type == "phase_sensitive":
        return bound * torch.tanh(x / bound)
    x = x.float()
    size = (x.square().sum(-1) + 1e-12).sqrt() / bound  # no root of 0, where the slope is infinite
    return torch.view_as_complex(x) * (torch.tanh(size) / size)


def check_temperature(temperature: float, mask_type: str) -> None:
    """Refuse what `temperature` cannot be.

    Raises:
        ValueError: it is not positive, or not 1 for a mask type without it.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    if temperature != 1 and mask_type not in ("magnitude", "share"):
        raise ValueError(f"temperature is for the mask types magnitude and share, not {mask_type}")


def tempered(x: Tensor, temperature: float, training: bool) -> Tensor:
    """What becomes `magnitude` and `share` masks, divided by a network's `temperature` in use, in training not.

    A network is surer of sounds that it never heard than it should be, and mutes what it takes for something else.
    Above 1, masks are softer: temperature scaling (Guo et al., "On Calibration of Modern Neural Networks").
    """
    return x if training or temperature == 1 else x / temperature


def set_temperature(model: nn.Module, temperature: float | None) -> None:
    """Let the masks of a trained model have another temperature; None: as it is.

    Raises:
        DataError: the network that makes them has none, or cannot have this one.
    """
    if temperature is None:
        return
    found: list[Any] = [net for net in model.modules() if hasattr(net, "temperature")]
    if len(found) != 1:
        raise DataError(f"temperature {temperature:g}: the model's network has none")
    with refusing("the model's network"):
        check_temperature(temperature, found[0].mask_type)
    found[0].temperature = temperature


class QueryExtractor(nn.Module):
    """Masks on a spectrum, several queries in one pass.

    Args:
        net: a `contracts.QueryMasker`.
    """

    net: Any

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    @property
    def embeds(self) -> bool:
        """Whether the network makes query embeddings itself."""
        return hasattr(self.net, "embed")

    def forward(
        self,
        input: Tensor,
        ilens: Tensor | tuple[int, ...],
        input_aux: Tensor,
        ilens_aux: Tensor | tuple[int, ...] | None,
        suffix_tag: str = "",
        additional: dict | None = None,
    ):
        """Answer queries; with Q B of them, each mixture answers Q (first all mixtures' first).

        Args:
            input: mixture `[B, L, ...]`, complex.
            ilens: its frames `[B]`, a tensor or numbers.
            input_aux: a ready embedding `[Q B, E]` or, for a network that embeds, the query's
                spectrum `[Q B, L', ...]`, complex.
            ilens_aux: the query's frames `[Q B]` (unused for an embedding).

        Returns:
            The masked spectrum `[Q B, L, ...]`, its frames, and a dict with `query{suffix_tag}`
            `[Q B, E]` and, when the network tags, `tags{suffix_tag}` `[Q B, K]` (logits).

        Raises:
            ValueError: a spectrum for a network that makes no embeddings.
        """
        others = OrderedDict()
        query = input_aux
        if input_aux.dim() != 2:
            if not self.embeds:
                raise ValueError(
                    f"{type(self.net).__name__} takes a ready embedding [Q B, E] for "
                    f"a query, got {list(input_aux.shape)}"
                )
            query, clipwise, _ = self.net.embed(input_aux, ilens_aux)
            if clipwise is not None:
                others[f"tags{suffix_tag}"] = clipwise
        others[f"query{suffix_tag}"] = query
        query = query.unflatten(0, (-1, len(input))).transpose(0, 1)  # [B, Q, E]
        masked = input[:, None] * self.net.mask(input, ilens, query)
        frames = ilens.repeat(query.shape[1]) if isinstance(ilens, Tensor) else ilens * query.shape[1]
        return masked.transpose(0, 1).flatten(0, 1), frames, others


class MaskSeparator(nn.Module):
    """One mask an output, in a fixed order: the classes, then the residual where there is one.

    Args:
        net: a `contracts.ClassMasker`: its `num_outputs` is S.
    """

    net: Any

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    @property
    def num_spk(self) -> int:
        """S, outputs."""
        return self.net.num_outputs

    @property
    def mask_type(self) -> str:
        """One of `core.nets.mask_nets.MASK_TYPES`; all but `complex` are real."""
        return self.net.mask_type

    def forward(self, input: Tensor, ilens: Tensor, additional: dict | None = None):
        """Mask a mixture.

        Args:
            input: complex `[B, L, F]`. ilens: frames `[B]`. additional: not used.

        Returns:
            S masked spectra `[B, L, F]`, `ilens`, and `mask_spk1` ... `mask_spkS` `[B, L, F]`.
        """
        masks = self.net(input, ilens).unbind(1)
        others = OrderedDict((f"mask_spk{s}", mask) for s, mask in enumerate(masks, 1))
        return [input * mask for mask in masks], ilens, others


@functools.cache
def extractor_of(net: type[nn.Module]) -> type[QueryExtractor]:
    """The part that answers queries with networks of the class `net`."""
    return _around(net, QueryExtractor)


@functools.cache
def separator_of(net: type[nn.Module]) -> type[MaskSeparator]:
    """The part that separates classes with networks of the class `net`."""
    return _around(net, MaskSeparator)


def _around(net: type[nn.Module], base: Any) -> Any:
    own = inspect.signature(net).parameters
    names = {RENAMED.get(name, name): name for name in own}
    first = [name for name in ("input_dim", "num_spk") if name in names]  # the order in which ESPnet gives them
    signature = inspect.Signature(
        [_parameter(n, own[names[n]], n in first) for n in [*first, *(n for n in names if n not in first)]]
    )

    def __init__(self, *args, **conf):
        given = signature.bind(*args, **conf)
        given.apply_defaults()
        base.__init__(self, net(**{names[name]: value for name, value in given.arguments.items()}))

    made = {"__init__": __init__, "__signature__": signature, "__doc__": net.__doc__, "__module__": net.__module__}
    return type(net.__name__, (base,), made)


def _parameter(name: str, own: inspect.Parameter, positional: bool) -> inspect.Parameter:
    if own.kind in (own.VAR_POSITIONAL, own.VAR_KEYWORD):
        raise TypeError(f"a network's constructor must name its arguments, not take *{name}")
    default = {"input_dim": own.empty, "num_spk": NUM_SPK}.get(name, own.default)
    kind = own.POSITIONAL_OR_KEYWORD if positional else own.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=own.annotation)
