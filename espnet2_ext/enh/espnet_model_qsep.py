"""ESPnet model of query-based separation."""

import torch
from espnet2.enh.espnet_model_tse import ESPnetExtractionModel
from torch import Tensor

from espnet2_ext.core.losses.separation import neg_sdr
from espnet2_ext.core.nets.care_sep import QueryOutput


class ESPnetQSepModel(ESPnetExtractionModel):
    """Target extraction with labels, absent targets, and queries that are embedded once.

    The queries of a batch are answered in one pass: the extractor gets num_spk times as many
    queries as mixtures. Encoder, extractor and decoder are from ESPnet's tables.

    Args:
        num_spk: targets (with a query each) in a training item: `speech_ref1`, `enroll_ref1`, ...
        The rest as in `ESPnetExtractionModel`.
    """

    def __init__(self, encoder, extractor, decoder, loss_wrappers: list, num_spk: int = 2,
                 share_encoder: bool = True, extract_feats_in_collect_stats: bool = False):
        super().__init__(
            encoder, extractor, decoder, loss_wrappers, num_spk=num_spk,
            share_encoder=share_encoder,
            extract_feats_in_collect_stats=extract_feats_in_collect_stats)

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
        speech_mix = speech_mix[:, :lengths.max()]
        spks = range(1, self.num_spk + 1)
        ref = [batch[f"speech_ref{s}"][:, :lengths.max()] for s in spks]
        enroll = [batch[f"enroll_ref{s}"] for s in spks]
        enroll_lengths = [
            batch.get(f"enroll_ref{s}_lengths", torch.full(e.shape[:1], e.shape[1]))
            for s, e in zip(spks, enroll)]
        pre, feature_mix, feature_pre, others = self.forward_enhance(
            speech_mix, lengths, enroll, enroll_lengths)
        others["speech_mix"] = speech_mix
        others.update({f"label_spk{s}": batch[f"label{s}"] for s in spks if f"label{s}" in batch})
        loss, stats, weight, _ = self.forward_loss(
            pre, lengths, feature_mix, feature_pre, others, ref)
        # several processes' values are summed only when shaped like ESPnet's own
        stats["sdr_gain"] = self._sdr_gain(pre, ref, speech_mix).reshape(weight.shape)
        return loss, stats, weight

    def forward_enhance(self, speech_mix, speech_lengths, enroll_ref, enroll_ref_lengths,
                        additional=None):
        """As ESPnet's, but all targets go through the networks as one batch."""
        n = len(enroll_ref)
        feature_mix, flens = self.encoder(speech_mix, speech_lengths)
        longest = max(e.shape[1] for e in enroll_ref)
        enroll = torch.cat([torch.nn.functional.pad(e, (0, longest - e.shape[1]))
                            for e in enroll_ref])
        feature_aux, flens_aux = enroll, torch.cat(list(enroll_ref_lengths))
        if self.share_encoder:
            feature_aux, flens_aux = self.encoder(enroll, flens_aux)
        feature_pre, _, others = self.extractor(feature_mix, flens, feature_aux, flens_aux)
        pre = self.decoder(feature_pre, speech_lengths)[0].chunk(n)
        others = {f"{key}_spk{s}": part for key, value in others.items()
                  for s, part in enumerate(value.chunk(n), 1)}
        return list(pre), feature_mix, feature_pre.chunk(n), others

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
        """Samples after which the network's windows repeat; chunks should start on multiples."""
        net = self.extractor.net
        return self.hop * net.patch_size * 2 ** len(net.encoder) * net.window

    def embed(self, wave: Tensor, lengths: Tensor | None = None) -> QueryOutput:
        """Query embeddings `[B, E]` and tags of `wave` `[B, T]`; reusable for any mixtures."""
        if lengths is None:
            lengths = torch.full(wave.shape[:1], wave.shape[1], device=wave.device)
        return self.extractor.net.embed(*self.encoder(wave, lengths))

    def separate(self, wave: Tensor, lengths: Tensor | None = None, *, query: Tensor,
                 level: Tensor | None = None) -> Tensor:
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
        if level is not None:
            # Parseval: a frame's one-sided energy is n_fft / 2 * sum(window^2) * mean square
            stft = self.encoder.stft
            level = level * (stft.n_fft / 2 * stft.window.square().sum()).sqrt()
        mask = self.extractor.net.mask(spec, frames, query, level)  # [B, Q, L, N, W]
        if wave.dim() == 2:
            return self._waveforms(spec[:, None] * mask, wave.shape[1])
        stereo = self.encoder.bands.split(self.encoder.stft(wave.transpose(1, 2)))  # [B, C, ...]
        return self._waveforms(stereo[:, None] * mask[:, :, None], wave.shape[1]).transpose(2, 3)

    def _waveforms(self, spec: Tensor, length: int) -> Tensor:
        return self.decoder(spec, torch.tensor([length]))[0]
