"""What a network must declare and do to be trained, to separate, to tag and to be drawn in figures; what taggers give.

A network need not inherit from these protocols: `check` compares it with one, as `build` does with every network of a
plugin that it makes, and `tests/test_registry.py` with ours. Those tests also try what a declaration cannot show:
gradients everywhere, chunks that agree with the whole, batches that agree with single items.
"""

import inspect
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from espnet2_ext.errors import DataError


class QueryOutput(NamedTuple):
    """Embedding `[B, E]` and tagging logits: `clipwise` `[B, K]`, `framewise` `[B, L', K]`.

    The logits are None in a network without a head, `framewise` also where tags have no time.
    """

    embedding: Tensor
    clipwise: Tensor | None
    framewise: Tensor | None


class Tagger(nn.Module):
    """Interface of a tagger: waveform to embedding and tags.

    Attributes:
        sample_rate: in Hz.
        query_dim: E, width of the embedding.
        num_classes: K; 0 without a head.
    """

    sample_rate: int
    query_dim: int
    num_classes: int

    def forward(self, wave: Tensor, lengths: Tensor | None = None, mixup: Tensor | None = None) -> QueryOutput:
        """Embedding and tags of `wave` `[B, T]`, of which `lengths` `[B]` samples count (None: all).

        mixup `[B]`: weight w of each item. The features x of an item become w x + (1 - w) x', x'
        being those of the item at the mirrored place in the batch, `x.flip(0)`.
        """
        raise NotImplementedError

    def edges(self, samples: int) -> Tensor:
        """Where the framewise frames of a clip of so many samples begin and end.

        `[L' + 1]`, double, in samples: from 0 to `samples`, rising.
        """
        raise NotImplementedError


def mix_up(x: Tensor, frames: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """`w x + (1 - w) x.flip(0)`, and the frames that count in each mixed item.

    x `[B, L, ...]`, zero past an item's `frames` `[B]`; weight w `[B]`, None: nothing is mixed.
    """
    if weight is None:
        return x, frames
    weight = weight.to(x.device).view(-1, *(1,) * (x.dim() - 1))
    return weight * x + (1 - weight) * x.flip(0), torch.maximum(frames, frames.flip(0))


class TaggingModel(nn.Module):
    """A `Tagger` as a model: its weights' names begin with `net.`, as the trained ones do."""

    hop, grid = 0, 0  # takes clips whole

    def __init__(self, net: Tagger):
        super().__init__()
        self.net = net

    @property
    def fs(self) -> int:
        """Sampling rate in Hz of the sound that the network takes."""
        return self.net.sample_rate

    @property
    def query_dim(self) -> int:
        """E, width of the embedding."""
        return self.net.query_dim

    @property
    def num_classes(self) -> int:
        """K; 0 without a head."""
        return self.net.num_classes

    def embed(self, wave: Tensor, lengths: Tensor | None = None) -> QueryOutput:
        """Embedding and tags of `wave` `[B, T]`; see `Tagger`."""
        return self.net(wave, lengths)


class Encoder(Protocol):
    """Waveforms to the complex spectra that a network sees.

    Attributes:
        sample_rate: Hz, of all audio that the model sees.
        hop: samples between frames.
        output_dim: F, or another size of a frame that the network's constructor takes.
    """

    sample_rate: int
    hop: int
    output_dim: int

    def forward(self, input: Tensor, ilens: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, T]` or `[B, T, C]` (its mean counts) and samples `[B]` to `[B, L, ...]` and frames `[B]`."""
        ...

    def spectrum(self, wave: Tensor) -> Tensor:
        """`[..., T]` to `[..., L, ...]`."""
        ...

    def level(self, rms: Tensor) -> Tensor:
        """RMS `[B]` of waveforms in the units in which the network measures level, `[B]`."""
        ...


class Decoder(Protocol):
    """The encoder's inverse."""

    def forward(self, input: Tensor, ilens: Tensor) -> tuple[Tensor, Tensor]:
        """`[..., L, ...]` and samples `[B]` to waveforms `[..., T]`, T the most of them, and `ilens`."""
        ...


class QueryMasker(Protocol):
    """A network that gives masks for queries (`extractor` in a YAML).

    Its constructor takes the encoder's `output_dim` as `input_dim` or `num_bins` and, if it needs it, the
    rate as `fs`; one that takes `query_dim` is given the width of the query network's embeddings.

    Attributes:
        query_dim: E.
        grid_frames: frames after which the network repeats (of windows or pooling): chunks start on
            multiples. 1: anywhere.
    """

    query_dim: int
    grid_frames: int

    def mask(self, spec: Tensor, frames: Tensor, query: Tensor, level: Tensor | None) -> Tensor:
        """Mixtures `[B, L, ...]`, their frames `[B]`, queries `[B, Q, E]` and level `[B]` (None: that
        of `spec`) to masks `[B, Q, L, ...]`."""
        ...


class EmbeddingMasker(QueryMasker, Protocol):
    """A `QueryMasker` that makes the query embeddings itself.

    Attributes:
        num_classes: K, classes that it tags; 0 without a head.
        embed_only: names of the parts that `embed` goes through and `mask` does not: they get no
            gradient where the embedding is not trained.
    """

    num_classes: int
    embed_only: tuple[str, ...]

    def embed(self, spec: Tensor, frames: Tensor) -> QueryOutput:
        """Queries `[B, L, ...]` and their frames `[B]` to embeddings and tags."""
        ...


class QueryNet(Protocol):
    """A tagger, and the query network of a separator (`query_net` in a YAML); see `tagger.Tagger`."""

    sample_rate: int
    query_dim: int
    num_classes: int

    def forward(self, wave: Tensor, lengths: Tensor | None, mixup: Tensor | None) -> QueryOutput: ...

    def edges(self, samples: int) -> Tensor: ...


class ClassMasker(Protocol):
    """A network that gives a mask for each class (`separator` in a YAML).

    Its constructor takes the encoder's `output_dim` as `input_dim` or `num_bins`, the number of
    outputs as `num_outputs`, and, if it needs it, the rate as `fs`.

    Attributes:
        num_outputs: S.
        mask_type: `magnitude`, `share`, `phase_sensitive` (real) or `complex`.
    """

    num_outputs: int
    mask_type: str

    def forward(self, spec: Tensor, lengths: Tensor) -> Tensor:
        """Mixtures `[B, L, F]`, complex, and their frames `[B]` to masks `[B, S, L, F]`."""
        ...


class Classifier(Protocol):
    """A detector of sound events (`classifier` in a YAML); see `sed.SoundEventDetector`.

    Its constructor takes `num_bins` (F), `num_classes` and `fs`.

    Attributes:
        num_classes: K.
        time_pool: frames of the spectrum in a frame of the logits.
    """

    num_classes: int
    time_pool: int

    def forward(self, mag: Tensor, lengths: Tensor | None) -> Tensor:
        """Magnitudes `[B, L, F]` to frame logits `[B, K, L']`."""
        ...

    def pool(self, logits: Tensor, lengths: Tensor | None) -> Tensor:
        """Frame logits `[B, K, L']` and their frames `[B]` to clip logits `[B, K]`."""
        ...

    def frames(self, lengths: Tensor) -> Tensor:
        """Frames of the spectrum `[B]` to frames of the logits `[B]`."""
        ...

    def shrink(self, labels: Tensor) -> Tensor:
        """Frame labels `[B, K, L]` to `[B, K, L']`."""
        ...


CONTRACTS: dict[str, type] = {
    "encoder": Encoder,
    "decoder": Decoder,
    "extractor": QueryMasker,
    "query_net": QueryNet,
    "separator": ClassMasker,
    "classifier": Classifier,
}


def check(kind: str, net: Any) -> None:
    """Hold a network against the contract of its kind, a key of `CONTRACTS`.

    Raises:
        DataError: naming what the network lacks, or a method that takes other arguments.
    """
    contract = CONTRACTS[kind]
    if kind == "extractor" and hasattr(net, "embed"):
        contract = EmbeddingMasker
    faults = missing(contract, net)
    faults += [f"{name}, named in embed_only" for name in getattr(net, "embed_only", ()) if not hasattr(net, name)]
    if faults:
        raise DataError(f"{kind} {type(net).__name__} lacks {', '.join(faults)}: see {contract.__name__} in {__name__}")


def missing(contract: type, net: Any) -> list[str]:
    """What `net` lacks of a protocol: attributes by name, methods as `name(arguments)`."""
    faults = []
    for cls in reversed([c for c in contract.__mro__ if c.__module__ == __name__]):
        faults += [name for name in inspect.get_annotations(cls) if not hasattr(net, name)]
        for name, wanted in vars(cls).items():
            if inspect.isfunction(wanted) and not name.startswith("_"):
                arguments = list(inspect.signature(wanted).parameters)[1:]
                if not _takes(getattr(net, name, None), len(arguments)):
                    faults.append(f"{name}({', '.join(arguments)})")
    return faults


def _takes(method: Any, count: int) -> bool:
    """Whether a method can be called with so many positional arguments."""
    if getattr(method, "__func__", None) is nn.Module.forward:  # PyTorch's, which only raises
        return False
    try:
        inspect.signature(method).bind(*range(count))
    except TypeError:
        return False
    return True
