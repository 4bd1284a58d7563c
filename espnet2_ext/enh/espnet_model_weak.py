"""ESPnet model of separation from weak labels: a separator, and the classifier that judges it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from espnet2.enh.espnet_model import ESPnetEnhancementModel
from espnet2.torch_utils.device_funcs import force_gatherable
from torch import Tensor, nn

from espnet2_ext.core.layers.padding import hide_padding, unless_whole
from espnet2_ext.core.layers.spectrum import mono
from espnet2_ext.core.losses.labels import joined, remixed
from espnet2_ext.core.losses.weak_label import KINDS, Labels
from espnet2_ext.core.metrics import si_sdr_gain
from espnet2_ext.core.separators import HOP, WINDOW, ClassSeparator
from espnet2_ext.enh.losses import WeakLabelCriterion


class WeakTraining:
    """What ESPnet models of weak labels share: the batch, its labels, and the criterion that takes them.

    A model has `part`, `label_type`, `num_spk` (the number of isolated sources), `hop`, `classifier`, `weak_wrappers`,
    and takes the steps `_classifier_step` and `_separator_step`.
    """

    part: str
    label_type: str
    num_spk: int
    hop: int
    classifier: Any
    weak_wrappers: list
    _classifier_step: Callable
    _separator_step: Callable

    def forward(self, speech_mix: Tensor, speech_mix_lengths: Tensor | None = None, **batch):
        """Loss, log and weight of a batch, as ESPnet's trainer wants them.

        Args:
            speech_mix: `[B, T]`; of `[B, T, C]`, here as in `speech_ref1`, ..., the mean of the channels counts.
            batch: what the label type needs of `clip_label` `[B, K]`, `frame_label` `[B, L, K]`,
                `speech_ref1`, ... `[B, T]` and, for mixed labels, `label_kind` `[B, 1]`; the same of partners, which
                are added where mixtures of mixtures are made: `partner_mix`, `partner_clip_label`, ...

        Raises:
            ValueError: a key that the label type needs is not there, or does not fit.
        """
        mix = mono(speech_mix)
        lengths = speech_mix_lengths
        if lengths is None:
            lengths = torch.full(mix.shape[:1], mix.shape[1], device=mix.device)
        mix = mix[:, : lengths.max()]
        step = self._classifier_step if self.part == "classifier" else self._separator_step
        loss, stats = step(mix, lengths, batch)
        if self.label_type == "mixed":  # a batch without items of one type leaves parts unused
            loss = loss + sum(0.0 * p.sum() for p in self.classifier.parameters() if p.requires_grad)
        stats["loss"] = loss.detach()
        return force_gatherable((loss, stats, len(mix)), loss.device)

    def _weak_loss(self, est: Tensor | None, spec: Tensor, labels: Labels, frames: Tensor) -> tuple[Tensor, dict]:
        lengths = unless_whole(frames, spec.shape[1])
        given = {"mix_spectrum": spec, "labels": labels, "frames": None if lengths is None else lengths.to(spec.device)}
        loss, stats = 0.0, {}
        for wrapper in self.weak_wrappers:
            value, more, _ = wrapper(None, est, given)
            more.pop(wrapper.criterion.name)  # its terms are logged, and the sum of all
            loss, stats = loss + wrapper.weight * value, {**stats, **more}
        return loss, stats

    def _labels(self, batch: dict, spec: Tensor) -> Labels:
        clip, frame, kind = (batch.get(k) for k in ("clip_label", "frame_label", "label_kind"))
        if self.label_type == "clip":
            return Labels(clip=clip)
        if frame is not None:
            if frame.shape[1] != spec.shape[1]:
                raise ValueError(
                    f"frame_label holds {frame.shape[1]} frames, the spectrum "
                    f"{spec.shape[1]}: labels must be given every {self.hop} samples"
                )
            frame = frame.transpose(1, 2)
        return Labels(clip, frame, None, kind.reshape(-1) if self.label_type == "mixed" else None)

    def _refs(self, batch: dict, samples: int) -> list[Tensor]:
        names = [f"speech_ref{s}" for s in range(1, self.num_spk + 1)]
        if missing := [name for name in names if name not in batch]:
            raise ValueError(f"isolated sources are needed, and the data has no {missing[0]}")
        return [mono(batch[name])[:, :samples] for name in names]

    def _part_active(self, batch: dict) -> Tensor:
        """Labels of the mixtures in a mixture: of clips `[B, P, K]`, of frames `[B, P, K, L]`."""
        clip = batch["part_clip_label"]
        if self.label_type == "clip":
            return clip
        frame = batch["part_frame_label"].transpose(2, 3)
        if self.label_type == "frame":
            return frame
        only_clip = batch["part_label_kind"].reshape(*clip.shape[:2], 1, 1) == KINDS["clip"]
        return torch.where(only_clip, clip[..., None], frame)

    def collect_feats(self, **batch) -> dict:
        """Nothing to collect."""
        return {}


class ESPnetWeakLabelModel(WeakTraining, ClassSeparator, ESPnetEnhancementModel):
    """Classes of sound out of a mixture, one output each, in the order of the classes.

    With an STFT encoder estimates are masked spectra: real ones for real masks, on the mixture's
    magnitude, as in the paper (Pishdadian et al., "Finding Strength in Weakness", eq. 2), complex
    ones for complex masks. With any other encoder the outputs are decoded, and both they and the
    mixture go through an STFT of the model's own.

    Where a criterion has `remix`, a separator trains on mixtures of mixtures, and is validated on
    them: to each mixture of a batch its partner is added, or the one that shares the fewest classes
    with it; strong sources are added, too.

    Args:
        encoder, decoder: from ESPnet's tables. separator: the same, or None for part `classifier`.
        loss_wrappers: with criterions of any kind; those on references need strong labels.
        classifier: as in `core.nets.sed`, or None where nothing asks for one.
        class_names: K names. residual: there is one output more, for sound of no class.
        part: `separator` or `classifier`. label_type: `strong`, `frame`, `clip` or `mixed`.
        freeze_classifier: the strategy `fixed`.
        sample_rate: Hz, where the encoder does not know it.
        n_fft, hop_length: of the STFT that stands in where the encoder is none.
    """

    def __init__(
        self,
        encoder,
        separator,
        decoder,
        loss_wrappers: list,
        *,
        classifier: nn.Module | None,
        class_names: Sequence[str],
        residual: bool = False,
        part: str = "separator",
        label_type: str = "frame",
        freeze_classifier: bool = False,
        sample_rate: int = 16000,
        n_fft: int = WINDOW,
        hop_length: int = HOP,
        extract_feats_in_collect_stats: bool = False,
    ):
        self_made = [w for w in loss_wrappers if isinstance(w.criterion, WeakLabelCriterion)]
        ESPnetEnhancementModel.__init__(  # holds the same parts under the same names as a ClassSeparator
            self,
            encoder,
            separator,
            decoder,
            None,
            [w for w in loss_wrappers if w not in self_made],
            extract_feats_in_collect_stats=extract_feats_in_collect_stats,
        )
        self.weak_wrappers = self_made
        self._add_classes(classifier, class_names, residual, sample_rate, n_fft, hop_length)
        self.part, self.label_type = part, label_type
        self.remix = part == "separator" and any(w.criterion.loss.remix for w in self_made)
        self.freeze_classifier = freeze_classifier
        self._freeze()

    def _freeze(self) -> None:
        """No gradient where none can come: several processes wait for all that are expected."""
        still = [self.encoder, self.decoder] if self.part == "classifier" else []
        if self.classifier is not None and self.freeze_classifier:
            still.append(self.classifier)
        elif self.classifier is not None and self.label_type in ("strong", "frame"):
            still.append(getattr(self.classifier, "clip_pooling", nn.Identity()))
        for module in still:
            module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "ESPnetWeakLabelModel":
        super().train(mode)
        if self.freeze_classifier and self.classifier is not None:
            self.classifier.eval()
        return self

    # ---- training ----------------------------------------------------------------------------

    def _classifier_step(self, mix: Tensor, lengths: Tensor, batch: dict) -> tuple[Tensor, dict]:
        spec, frames = self._spectrum(mix, lengths)
        labels = self._labels(batch, spec)
        return self._weak_loss(None, spec.abs(), labels, frames)

    def _separator_step(self, mix: Tensor, lengths: Tensor, batch: dict) -> tuple[Tensor, dict]:
        if self.remix:
            mix, lengths, batch = remixed(*joined(mix, lengths, batch))
        feature, flens = self.encoder(mix, lengths)
        masked, _, others = self.separator(feature, flens, {})
        padded = unless_whole(lengths, mix.shape[1])
        scored = not self.training and "speech_ref1" in batch
        waves = None
        if self.loss_wrappers or self.stft is not None or scored:
            waves = [hide_padding(self.decoder(m, lengths)[0], padded) for m in masked]
        loss, stats = mix.new_zeros(()), {}
        if self.weak_wrappers:
            est, spec = self._estimates(masked, others, feature, waves, mix)
            labels = self._labels(batch, spec)
            if self.label_type in ("strong", "mixed"):
                refs = torch.stack(self._refs(batch, mix.shape[1]), 1)
                labels = labels._replace(ref=self._spectra_like(est, refs, mix, lengths))
            if "part_mix" in batch and self.label_type != "strong":
                parts = self._spectra_like(est, batch["part_mix"], mix, lengths)
                labels = labels._replace(parts=parts, part_active=self._part_active(batch))
            frames = flens if self.stft is None else self.stft.frames(lengths)
            loss, stats = self._weak_loss(est, spec, labels, frames)
        if self.loss_wrappers:
            others |= {"speech_mix": mix, "speech_lengths": padded}
            other, more, _, _ = self.forward_loss(
                waves, lengths, feature, masked, others, self._refs(batch, mix.shape[1])
            )
            loss, stats = loss + other.squeeze(), {**stats, **more}
        if scored:
            refs = torch.stack(self._refs(batch, mix.shape[1]), 1)
            stats["si_sdr_gain"] = gain_where_mixed(torch.stack(waves, 1), refs, mix)
        return loss, stats

    @torch.no_grad()
    def _spectra_like(self, est: Tensor, waves: Tensor, mix: Tensor, lengths: Tensor) -> Tensor:
        """Spectra `[B, N, L, F]` of `waves` `[B, N, T]`, of the kind of the estimates."""
        repeated = lengths.repeat_interleave(waves.shape[1])
        ref = self._spectrum(waves.flatten(0, 1), repeated)[0].unflatten(0, waves.shape[:2])
        if est.is_complex():
            return ref
        if getattr(self.separator, "mask_type", "magnitude") != "phase_sensitive":
            return ref.abs()
        return (ref * torch.exp(-1j * self._spectrum(mix, lengths)[0].angle())[:, None]).real

    # ---- spectra -----------------------------------------------------------------------------

    def _estimates(
        self, masked: list, others: dict, feature: Tensor, waves: list | None, mix: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Estimates `[B, S, L, F]` and mixture `[B, L, F]`, both real or both complex."""
        if self.stft is not None:
            return self.stft(torch.stack(waves, 1)), self.stft(mix)
        masks = [others.get(f"mask_spk{s}") for s in range(1, len(masked) + 1)]
        if any(m is None or m.is_complex() or m.shape != feature.shape for m in masks):
            return torch.stack(list(masked), 1), feature
        mag = feature.abs()
        return torch.stack(masks, 1) * mag[:, None], mag


@torch.no_grad()
def gain_where_mixed(est: Tensor, ref: Tensor, mix: Tensor) -> Tensor:
    """Mean SI-SDR gain in dB of `est` over `mix` by the paper's rule (III-C): `[]`.

    Silent sources, and mixtures with a single source, are left out; NaN where nothing is left.

    Args:
        est, ref: `[B, S, T]`. mix: `[B, T]`.
    """
    active = ref.abs().amax(-1) > 0  # [B, S]
    counted = active & (active.sum(1, keepdim=True) > 1)
    if not counted.any():
        return mix.new_tensor(float("nan"))
    mixes = mix[:, None].expand_as(ref)
    gains = si_sdr_gain(est=est[counted].nan_to_num(), ref=ref[counted], mix=mixes[counted])
    return gains.nanmean().to(mix.dtype)
