"""What separates: encoder, network and decoder as one module, by query or for known classes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from espnet2_ext.core.layers.spectrum import STFT
from espnet2_ext.core.nets.contracts import QueryOutput, Tagger
from espnet2_ext.core.nets.masking import QueryExtractor

TRAINING = "training_only"  # a part of a model that its training holds beside the weights that are used


class QuerySeparator(nn.Module):
    """Queries are embedded once (`embed`) and answered on any mixtures (`separate`).

    Args:
        encoder, decoder: as in `core.layers.spectrum`.
        extractor: answers queries with its `net`.
        query_net: makes the embeddings of the queries' waveforms; None: the extractor's
            own network does (CaRE-SEP's shared encoder).
        query_grad: False: the embedding was trained without regard to the separation; a `query_net`
            was frozen and may tag other classes than those that the separator was trained on.
    """

    encoder: Any
    decoder: Any
    query_net: Tagger | None

    def __init__(
        self,
        encoder: nn.Module,
        extractor: QueryExtractor,
        decoder: nn.Module,
        query_net: Tagger | None = None,
        query_grad: bool = True,
    ):
        super().__init__()
        self.encoder, self.extractor, self.decoder = encoder, extractor, decoder
        self.query_net, self.query_grad = query_net, query_grad

    @property
    def fs(self) -> int:
        """Sampling rate in Hz of all audio going in and out."""
        return self.encoder.sample_rate

    @property
    def hop(self) -> int:
        """Samples between frames."""
        return self.encoder.hop

    @property
    def grid(self) -> int:
        """Samples after which the separating network repeats; chunks should start on multiples."""
        return self.hop * self.extractor.net.grid_frames

    @property
    def embedder(self) -> Any:
        """The network that makes query embeddings, with `query_dim` and `num_classes`."""
        return self.extractor.net if self.query_net is None else self.query_net

    @property
    def query_dim(self) -> int:
        """E, width of the query embeddings."""
        return self.embedder.query_dim

    @property
    def num_classes(self) -> int:
        """K, classes that a query is tagged with; 0: none."""
        return self.embedder.num_classes

    @property
    def frozen(self) -> bool:
        """Whether the separator was trained with a query network that did not learn."""
        return self.query_net is not None and not self.query_grad

    def embed(self, wave: Tensor, lengths: Tensor | None = None) -> QueryOutput:
        """Query embeddings `[B, E]` and tags of `wave` `[B, T]`; reusable for any mixtures.

        lengths: `[B]` samples that count in each item; None: all.
        """
        if lengths is None:
            lengths = torch.full(wave.shape[:1], wave.shape[1], device=wave.device)
        if self.query_net is not None:
            return self.query_net(wave, lengths)
        return self.extractor.net.embed(*self.encoder(wave, lengths))

    def separate(
        self,
        wave: Tensor,
        lengths: Tensor | None = None,
        *,
        query: Tensor,
        level: Tensor | None = None,
        against: Tensor | None = None,
        compete: bool = False,
    ) -> Tensor:
        """Answer Q queries on each mixture.

        Args:
            wave: `[B, T]`, or `[B, T, C]`: one mask, made from the mean of the channels, goes on all of them.
            lengths: `[B]` samples that count in each item.
            query: `[B, Q, E]` from `embed`.
            level: `[B]`, RMS of the whole recording that `wave` is a part of; None: of `wave`.
            against: `[B, N, E]` from `embed`: what sounds like these is kept out, see `shared`.
            compete: the queries compete for each bin, see `competing`.

        Returns:
            `[B, Q, T]` or `[B, Q, T, C]`.
        """
        if lengths is None:
            lengths = torch.full(wave.shape[:1], wave.shape[1], device=wave.device)
        spec, frames = self.encoder(wave, lengths)
        level = None if level is None else self.encoder.level(level)
        asked = query if against is None else torch.cat([query, against], 1)
        mask = self.extractor.net.mask(spec, frames, asked, level)  # [B, Q, L, ...]
        if against is not None:
            mask = shared(*mask.tensor_split([query.shape[1]], 1))
        mask = competing(mask) if compete else mask
        length = torch.tensor([wave.shape[1]])
        if wave.dim() == 2:
            return self.decoder(spec[:, None] * mask, length)[0]
        stereo = self.encoder.spectrum(wave.transpose(1, 2))  # [B, C, L, ...]
        return self.decoder(stereo[:, None] * mask[:, :, None], length)[0].transpose(2, 3)


def shared(masks: Tensor, others: Tensor) -> Tensor:
    """Masks `[B, Q, L, ...]` where they compete with `others` `[B, N, L, ...]` for each bin.

    Where a mask m and all others n claim more than the bin, each gets its share: m / max(1, m + sum of n), in moduli.
    What nothing else claims is left as it is.

    >>> shared(torch.tensor([[[0.9, 0.2, 0.9]]]), torch.tensor([[[0.3, 0.2, 0.0]]]))
    tensor([[[0.7500, 0.2000, 0.9000]]])
    """
    own, theirs = masks.abs(), others.abs().sum(1, keepdim=True)
    return masks * own.clamp(min=1) / (own + theirs).clamp(min=1)


def competing(masks: Tensor) -> Tensor:
    """Masks in 0 to 1 of several queries, `[B, Q, ...]`, where these compete for each bin, and with the rest.

    The odds m / (1 - m) of a mask against the rest stay, whatever else is asked for: o / (1 + sum of o). One mask alone
    is left as it is.

    >>> competing(torch.tensor([[0.5, 0.5, 0.75]])).round(decimals=2)  # odds 1, 1, 3 and 1 of the rest
    tensor([[0.1700, 0.1700, 0.5000]])
    """
    masks = masks.clamp(max=1 - 1e-3)
    odds = masks / (1 - masks)
    return odds / (1 + odds.sum(1, keepdim=True))


GRID_FRAMES = 128  # at least, between the places where a chunk may start
WINDOW, HOP = 512, 128  # samples, of the STFT that stands in where the encoder is none


def frame_sizes(encoder: Any, n_fft: int = WINDOW, hop_length: int = HOP) -> tuple[int, int]:
    """(window, hop) in samples of an STFT encoder; of another encoder, those given."""
    if getattr(encoder, "n_fft", None) is None:
        return n_fft, hop_length
    return encoder.n_fft, encoder.hop_length


class ClassSeparator(nn.Module):
    """Classes of sound out of a mixture, one output each, in the order of the classes.

    Args:
        encoder, decoder: as in `core.layers.spectrum`, or ESPnet's own.
        separator: as `core.nets.masking.MaskSeparator`, or ESPnet's own; None: a classifier alone.
        classifier: as in `core.nets.sed`, or None where the training asked for none.
        class_names: K names.
        residual: there is one output more, for sound of no class.
        sample_rate: Hz, where the encoder does not know it.
        n_fft, hop_length: of the classifier's STFT where the encoder is none.
    """

    encoder: Any
    separator: Any
    decoder: Any
    classifier: Any
    stft: STFT | None
    query_dim = 0  # takes no query

    def __init__(
        self,
        encoder: nn.Module,
        separator: nn.Module | None,
        decoder: nn.Module,
        classifier: nn.Module | None,
        *,
        class_names: Sequence[str],
        residual: bool = False,
        sample_rate: int = 16000,
        n_fft: int = WINDOW,
        hop_length: int = HOP,
    ):
        super().__init__()
        self.encoder, self.separator, self.decoder = encoder, separator, decoder
        self._add_classes(classifier, class_names, residual, sample_rate, n_fft, hop_length)

    def _add_classes(
        self,
        classifier: nn.Module | None,
        class_names: Sequence[str],
        residual: bool,
        sample_rate: int,
        n_fft: int,
        hop_length: int,
    ) -> None:
        self.classifier, self.class_names, self.residual = classifier, list(class_names), residual
        self.part = "classifier" if self.separator is None else "separator"
        self.sample_rate = sample_rate
        self.n_fft, self.hop = frame_sizes(self.encoder, n_fft, hop_length)
        spectral = getattr(self.encoder, "n_fft", None) is not None
        self.stft = None if spectral else STFT(n_fft, hop_length, "sqrt_hann")

    @property
    def fs(self) -> int:
        """Sampling rate in Hz of all audio going in and out."""
        return getattr(self.encoder, "sample_rate", self.sample_rate)

    @property
    def time_pool(self) -> int:
        """Frames of the spectrum in a frame of the activity; 1 without a classifier."""
        return int(getattr(self.classifier, "time_pool", 1))

    @property
    def grid(self) -> int:
        """Samples: chunks should start on multiples, so that the activity's frames agree."""
        return self.hop * self.time_pool * -(-GRID_FRAMES // self.time_pool)

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    def separate(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        """`[B, T]` to `[B, S, T]`: the classes in order, then the residual where there is one.

        Args:
            lengths: `[B]` samples that count in each item.

        Raises:
            ValueError: a model of the part `classifier`.
        """
        if self.separator is None:
            raise ValueError("this model is a classifier alone, it separates nothing")
        whole = torch.full(wave.shape[:1], wave.shape[1], device=wave.device)
        feature, flens = self.encoder(wave, whole if lengths is None else lengths)
        masked, _, _ = self.separator(feature, flens, {})
        return torch.stack([self.decoder(m, whole)[0] for m in masked], 1)

    def classify(self, wave: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Probabilities of the classes in `[B, T]`: of frames `[B, L', K]`, of the clip `[B, K]`.

        Raises:
            ValueError: a model without a classifier (trained from strong labels).
        """
        if self.classifier is None:
            raise ValueError("this model has no classifier")
        whole = torch.full(wave.shape[:1], wave.shape[1], device=wave.device)
        spec, frames = self._spectrum(wave, whole if lengths is None else lengths)
        logits = self.classifier(spec.abs(), frames)
        clip = self.classifier.pool(logits, self.classifier.frames(frames))
        return logits.sigmoid().transpose(1, 2), clip.sigmoid()

    def _spectrum(self, wave: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Complex `[B, L, F]` that the classifier judges and losses compare, and frames `[B]`."""
        if self.stft is None:
            return self.encoder(wave, lengths)
        own = torch.arange(wave.shape[1], device=wave.device) < lengths.to(wave.device)[:, None]
        return self.stft(wave * own), self.stft.frames(lengths)
