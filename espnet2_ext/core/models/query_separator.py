"""Separation by query: encoder, network, decoder, and what makes the query embeddings."""

from typing import Any

import torch
from torch import Tensor, nn

from espnet2_ext.core.nets.masking import QueryExtractor
from espnet2_ext.core.nets.tagger import QueryOutput, Tagger


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
    ) -> Tensor:
        """Answer Q queries on each mixture.

        Args:
            wave: `[B, T]`, or `[B, T, C]`: one mask, made from the mean of the channels, goes on
                all of them.
            lengths: `[B]` samples that count in each item.
            query: `[B, Q, E]` from `embed`.
            level: `[B]`, RMS of the whole recording that `wave` is a part of; None: of `wave`.
            against: `[B, N, E]` from `embed`: what sounds like these is kept out, see `shared`.

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
