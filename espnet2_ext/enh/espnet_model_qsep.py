"""ESPnet model of query-based separation."""

from collections.abc import Iterator

import torch
from espnet2.enh.espnet_model_tse import ESPnetExtractionModel
from torch import Tensor, nn

from espnet2_ext.core.layers.bands import keeping_statistics
from espnet2_ext.core.layers.padding import Lengths, host_lengths, unless_whole
from espnet2_ext.core.layers.spectrum import mono
from espnet2_ext.core.losses.separation import neg_sdr
from espnet2_ext.core.nets.contracts import Tagger
from espnet2_ext.core.separators import QuerySeparator

MIXTURES_TAGS = "tags_mix"  # among what criteria may need


class ESPnetQSepModel(QuerySeparator, ESPnetExtractionModel):
    """Target extraction with labels, absent targets, and queries that are embedded once.

    The queries of a batch are answered in one pass: the extractor gets num_spk times as many
    queries as mixtures. Encoder, extractor and decoder are from ESPnet's tables.

    Args:
        query_net: a `core.nets.tagger.Tagger` that makes the embeddings of the queries'
            waveforms; None: the extractor's own encoder does (CaRE-SEP's shared encoder).
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
        ESPnetExtractionModel.__init__(  # holds the same parts under the same names as a QuerySeparator
            self,
            encoder,
            extractor,
            decoder,
            loss_wrappers,
            num_spk=num_spk,
            share_encoder=share_encoder,
            extract_feats_in_collect_stats=extract_feats_in_collect_stats,
        )
        self.query_net, self.query_grad = query_net, query_grad
        for part in self._unreached():
            part.requires_grad_(False)
        self.train(self.training)

    def _unreached(self) -> Iterator[nn.Module]:
        """Parts that no gradient can reach: several processes wait for all that are expected."""
        tags = bool(self._needed & {"tags{}", MIXTURES_TAGS})
        if self.frozen:
            yield self.query_net
        elif not tags:
            yield from tag_parts(self.embedder)
        if self.query_net is not None or not (self.query_grad or tags):
            yield from (
                part
                for name in getattr(self.extractor.net, "embed_only", ())
                if (part := getattr(self.extractor.net, name)) is not None
            )

    @property
    def _needed(self) -> set[str]:
        """Keys of what the criteria need beside estimates and references."""
        return {key for w in self.loss_wrappers for key in getattr(w.criterion, "needs", {}).values()}

    def train(self, mode: bool = True) -> "ESPnetQSepModel":
        super().train(mode)
        if self.frozen:
            self.query_net.eval()  # batch norm keeps its statistics, nothing is dropped
        return self

    # ---- training ----------------------------------------------------------------------------

    def forward(self, speech_mix: Tensor, speech_mix_lengths: Lengths | None = None, **batch):
        """Loss, log and weight of a batch, as ESPnet's trainer wants them.

        Args:
            speech_mix: `[B, T]`; of `[B, T, C]`, here as in `batch`, the mean of the channels counts.
            speech_mix_lengths: `[B]` samples, as all lengths best on the host or numbers; None: all.
            batch: `speech_ref1`, ... `[B, T]` (zeros where the query's sound is absent),
                `enroll_ref1`, ... `[B, T']`, with `enroll_ref1_lengths`, and optionally
                `label1`, ... `[B, K]`, the classes in the query, `label_mix` `[B, K]`, those in the mixture.
        """
        lengths = host_lengths(speech_mix, speech_mix_lengths)
        longest = int(lengths.max())
        speech_mix = mono(speech_mix)[:, :longest]
        spks = range(1, self.num_spk + 1)
        ref = [mono(batch[f"speech_ref{s}"])[:, :longest] for s in spks]
        enroll = [mono(batch[f"enroll_ref{s}"]) for s in spks]
        enroll_lengths = [host_lengths(e, batch.get(f"enroll_ref{s}_lengths")) for s, e in zip(spks, enroll)]
        pre, feature_mix, feature_pre, others = self.forward_enhance(speech_mix, lengths, enroll, enroll_lengths)
        padded = unless_whole(lengths, speech_mix.shape[1])
        others |= {"speech_mix": speech_mix, "speech_lengths": padded}
        others.update({f"label_spk{s}": batch[f"label{s}"] for s in spks if f"label{s}" in batch})
        if "label_mix" in batch:
            others["label_mix"] = batch["label_mix"]
        if MIXTURES_TAGS in self._needed:
            with keeping_statistics(self):  # they are of queries
                others[MIXTURES_TAGS] = self._ask(speech_mix, lengths)[1]
        loss, stats, weight, _ = self.forward_loss(pre, lengths, feature_mix, feature_pre, others, ref)
        # several processes' values are summed only when shaped like ESPnet's own
        stats["sdr_gain"] = self._sdr_gain(pre, ref, speech_mix, padded).reshape(weight.shape)
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
    def _sdr_gain(self, pre: list[Tensor], ref: list[Tensor], mix: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mean SDR gain over the mixture, dB, over the targets that are there; 0 if none is."""
        est, ref, mix = torch.cat(pre), torch.cat(ref), mix.repeat(len(pre), 1)
        given = {"ref": ref, "mix": mix, "lengths": None if lengths is None else lengths.repeat(len(pre))}
        gain = neg_sdr(est=mix, **given) - neg_sdr(est=est, **given)
        there = ref.abs().amax(-1) > 0
        return (gain * there).sum() / there.sum().clamp(min=1)

    def collect_feats(self, **batch) -> dict:
        """Nothing to collect: the features are learned, lengths are known from the lists."""
        return {}


def tag_parts(net: nn.Module) -> Iterator[nn.Module]:
    """The parts of a tagger through which its tags go, but not its embedding."""
    if getattr(net, "embedding", None) != "probabilities":
        yield from (part for name, part in net.named_modules() if name.split(".")[-1] == "head")
