"""ESPnet model of query-based separation."""

from collections.abc import Iterator

import torch
from espnet2.enh.espnet_model_tse import ESPnetExtractionModel
from torch import Tensor, nn

from espnet2_ext.core.losses.separation import neg_sdr
from espnet2_ext.core.nets.tagger import QueryOutput, Tagger


class ESPnetQSepModel(ESPnetExtractionModel):
    """Target extraction with labels, absent targets, and queries that are embedded once.

    The queries of a batch are answered in one pass: the extractor gets num_spk times as many
    queries as mixtures. Encoder, extractor and decoder are from ESPnet's tables.

    Args:
        query_net: a `core.nets.tagger.Tagger` that hears the queries' waveforms and makes their
            embeddings; None: the extractor's own encoder does (CaRE-SEP's shared encoder).
        query_grad: gradients of the separation go into the query embedding. Without, the embedding
            is detached, and a `query_net` is frozen: no gradient, always as in evaluation (rows A,
            D, F and G of the CaRE-SEP paper's table 2).
        num_spk: targets (with a query each) in a training item: `speech_ref1`, `enroll_ref1`, ...
        The rest as in `ESPnetExtractionModel`.
    """

    def __init__(
        self,
        encoder,
        extractor,
        decoder,
        loss_wrappers: list,
        query_net: Tagger | None = None,
        query_grad: bool = True,
        num_spk: int = 2,
        share_encoder: bool = True,
        extract_feats_in_collect_stats: bool = False,
    ):
        super().__init__(
            encoder,
            extractor,
            decoder,
            loss_wrappers,
            num_spk=num_spk,
            share_encoder=share_encoder,
            extract_feats_in_collect_stats=extract_feats_in_collect_stats,
        )
        self.query_net, self.query_grad = query_net, query_grad
        self.frozen = query_net is not None and not query_grad
        for part in self._unreached():
            part.requires_grad_(False)
        self.train(self.training)

    def _unreached(self) -> Iterator[nn.Module]:
        """Parts that no gradient can reach: several processes wait for all that are expected."""
        tags = any("tags{}" in getattr(w.criterion, "needs", {}).values() for w in self.loss_wrappers)
        if self.frozen:
            yield self.query_net
        elif not tags:
            yield from tag_parts(self.listener)
        if self.query_net is not None or not (self.query_grad or tags):
            yield from (
                part
                for name in getattr(self.extractor, "listening", ())
                if (part := getattr(self.extractor.net, name)) is not None
            )

    def train(self, mode: bool = True) -> "ESPnetQSepModel":
        super().train(mode)
        if self.frozen:
            self.query_net.eval()  # batch norm keeps its statistics, nothing is dropped
        return self

    # ---- training ----------------------------------------------------------------------------

    def forward(self, speech_mix: Tensor, speech_mix_lengths: Tensor | None = None, **batch):
        """Loss, log and weight of a batch, as ESPnet's trainer wants them.

        Args:
            speech_mix: `[B, T]`.
            batch: `speech_ref1`, ... `[B, T]` (zeros where the query's sound is absent),
                `enroll_ref1`, ... `[B, T']`, with `enroll_ref1_lengths`, and optionally
                `label1`, ... `[B, K]`, the classes heard in the query.
        """
        lengths = speech_mix_lengths
        if lengths is None:
            lengths = torch.full(speech_mix.shape[:1], speech_mix.shape[1])
        speech_mix = speech_mix[:, : lengths.max()]
        spks = range(1, self.num_spk + 1)
        ref = [batch[f"speech_ref{s}"][:, : lengths.max()] for s in spks]
        enroll = [batch[f"enroll_ref{s}"] for s in spks]
        enroll_lengths = [
            batch.get(f"enroll_ref{s}_lengths", torch.full(e.shape[:1], e.shape[1])) for s, e in zip(spks, enroll)
        ]
        pre, feature_mix, feature_pre, others = self.forward_enhance(speech_mix, lengths, enroll, enroll_lengths)
        others["speech_mix"] = speech_mix
        others.update({f"label_spk{s}": batch[f"label{s}"] for s in spks if f"label{s}" in batch})
        loss, stats, weight, _ = self.forward_loss(pre, lengths, feature_mix, feature_pre, others, ref)
        # several processes' values are summed only when shaped like ESPnet's own
        stats["sdr_gain"] = self._sdr_gain(pre, ref, speech_mix).reshape(weight.shape)
        return loss, stats, weight

    def forward_enhance(self, speech_mix, speech_lengths, enroll_ref, enroll_ref_lengths, additional=None):
        """As ESPnet's, but all targets go through the networks as one batch."""
        n = len(enroll_ref)
        feature_mix, flens = self.encoder(speech_mix, speech_lengths)
        longest = max(e.shape[1] for e in enroll_ref)
        enroll = torch.cat([nn.functional.pad(e, (0, longest - e.shape[1])) for e in enroll_ref])
        query, tags = self._ask(enroll, torch.cat(list(enroll_ref_lengths)))
        feature_pre, _, others = self.extractor(feature_mix, flens, query, None)
        if tags is not None:
            others["tags"] = tags
        pre = self.decoder(feature_pre, speech_lengths)[0].chunk(n)
        others = {f"{key}_spk{s}": part for key, value in others.items() for s, part in enumerate(value.chunk(n), 1)}
        return list(pre), feature_mix, feature_pre.chunk(n), others

    def _ask(self, wave: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embeddings `[B, E]` as training sees them, and tags `[B, K]` where they can be trained.

        What is detached is computed with a graph all the same: under autocast, weights cast
        without one would be taken from its cache in the separation pass.
        """
        embedding, tags, _ = self.embed(wave, lengths)
        return (embedding if self.query_grad else embedding.detach(), None if self.frozen else tags)

    @torch.no_grad()
    def _sdr_gain(self, pre: list[Tensor], ref: list[Tensor], mix: Tensor) -> Tensor:
        """Mean SDR gain over the mixture, dB, over the targets that are there; 0 if none is."""
        est, ref = torch.cat(pre), torch.cat(ref)
        mix = mix.repeat(len(pre), 1)
        gain = neg_sdr(est=mix, ref=ref, mix=mix) - neg_sdr(est=est, ref=ref, mix=mix)
        there = ref.abs().amax(-1) > 0
        return (gain * there).sum() / there.sum().clamp(min=1)

    def collect_feats(self, **batch) -> dict:
        """Nothing to collect: the features are learned, lengths are known from the lists."""
        return {}

    # ---- use ---------------------------------------------------------------------------------

    @property
    def fs(self) -> int:
        """Sampling rate in Hz of all audio going in and out."""
        return self.encoder.sample_rate

    @property
    def hop(self) -> int:
        """Samples between frames."""
        return self.encoder.stft.hop

    @property
    def grid(self) -> int:
        """Samples after which the separating network repeats; chunks should start on multiples."""
        return self.hop * self.extractor.net.grid_frames

    @property
    def listener(self) -> nn.Module:
        """The network that makes query embeddings, with `query_dim` and `num_classes`."""
        return self.extractor.net if self.query_net is None else self.query_net

    def embed(self, wave: Tensor, lengths: Tensor | None = None) -> QueryOutput:
        """Query embeddings `[B, E]` and tags of `wave` `[B, T]`; reusable for any mixtures."""
        if lengths is None:
            lengths = torch.full(wave.shape[:1], wave.shape[1], device=wave.device)
        if self.query_net is not None:
            return self.query_net(wave, lengths)
        return self.extractor.net.embed(*self.encoder(wave, lengths))

    def separate(
        self, wave: Tensor, lengths: Tensor | None = None, *, query: Tensor, level: Tensor | None = None
    ) -> Tensor:
        """Answer Q queries on each mixture.

        Args:
            wave: `[B, T]`, or `[B, T, C]`: one mask, made from the mean of the channels, goes on
                all of them.
            lengths: `[B]` samples that count in each item.
            query: `[B, Q, E]` from `embed`.
            level: `[B]`, RMS of the whole recording that `wave` is a part of; None: of `wave`.

        Returns:
            `[B, Q, T]` or `[B, Q, T, C]`.
        """
        if lengths is None:
            lengths = torch.full(wave.shape[:1], wave.shape[1], device=wave.device)
        spec, frames = self.encoder(wave, lengths)
        level = None if level is None else self.encoder.level(level)
        mask = self.extractor.net.mask(spec, frames, query, level)  # [B, Q, L, ...]
        if wave.dim() == 2:
            return self._waveforms(spec[:, None] * mask, wave.shape[1])
        stereo = self.encoder.spectrum(wave.transpose(1, 2))  # [B, C, L, ...]
        return self._waveforms(stereo[:, None] * mask[:, :, None], wave.shape[1]).transpose(2, 3)

    def _waveforms(self, spec: Tensor, length: int) -> Tensor:
        return self.decoder(spec, torch.tensor([length]))[0]


def tag_parts(net: nn.Module) -> Iterator[nn.Module]:
    """The parts of a network that listens through which its tags go, but not its embedding."""
    if getattr(net, "embedding", None) != "probabilities":
        yield from (part for name, part in net.named_modules() if name.split(".")[-1] == "head")
