"""ESPnet model of separation by query that is trained from weak labels."""

import copy
import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from espnet2.train.abs_espnet_model import AbsESPnetModel
from torch import Tensor, nn

from espnet2_ext.core.layers.bands import keeping_statistics
from espnet2_ext.core.layers.padding import host_lengths
from espnet2_ext.core.losses.labels import joined, of_asked, partners, remixed
from espnet2_ext.core.losses.query_weak import spectral_ratio
from espnet2_ext.core.metrics import si_sdr_gain
from espnet2_ext.core.mixing.stretches import asked_classes, surest
from espnet2_ext.core.nets.encoder_tags import EncoderTags
from espnet2_ext.core.separators import TRAINING, QuerySeparator, competing
from espnet2_ext.enh.espnet_model_weak import WeakTraining
from espnet2_ext.errors import DataError


class Stretches(NamedTuple):
    """The stretch of each recording of a batch in which each class is heard most surely, and alone.

    spec: `[B, L, F]` of the recordings or, of isolated sounds, `[B, K, L, F]`. frames: `[B]`, on the host.
    sure: `[B, K]`, log probability, -inf where a class is not there. at: `[B, K]`, its first frame.
    """

    spec: Tensor
    frames: Tensor
    sure: Tensor
    at: Tensor

    def cut(self, item: Tensor, cls: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """The stretches, of at most `size` frames, of classes `[N]` in items `[N]`: `[N, L', F]` and frames `[N]`, for
        which a GPU is waited for."""
        at, length = self.at[item, cls], self.spec.shape[-2]
        frames = (self.frames[item.cpu()] - at.cpu()).clamp(1, size)
        index = (at[:, None] + torch.arange(min(size, length), device=at.device)).clamp(max=length - 1)
        whole = self.spec[item, cls] if self.spec.dim() == 4 else self.spec[item]
        return whole.gather(1, index[..., None].expand(-1, -1, whole.shape[2])), frames


class ESPnetQueryWeakModel(WeakTraining, QuerySeparator, AbsESPnetModel):
    """CaRE-CLS+SEP from recordings of which one only knows what can be heard in them.

    Its encoder is at once the classifier that weak labels need and what embeds queries. Some classes are asked for,
    each by a stretch of another recording of the batch, in which the framewise tags are surest of that class alone, or,
    where no other has it, by the mean of its queries. They compete for each bin (`core.separators.competing`), and all
    estimates go into the criterion `weak_label`. All spectra are at the mixture's unit level.

    Args:
        encoder, extractor, decoder: as in `QuerySeparator`.
        loss_wrappers: one, of a criterion `weak_label` with `tags` as its classifier.
        tags: the extractor's encoder as a classifier. class_names: K names, those of its tags in order.
        part: `classifier` trains the encoder and its tags alone. label_type: `strong`, `frame`, `clip` or `mixed`.
        strategy: who judges the estimates. `joint`, `finetune`: the encoder itself, or its `teacher`. `fixed`: a copy
            of the encoder as the training begins, which stays.
        ask: how many classes of a mixture are asked for at most, and queries in all; the rest ask for absent ones.
        stretch: seconds of a query.
        mined: weight of a loss on mixtures of two stretches that are each purer than `purity`, taken as isolated
            sounds; 0: without. purity: geometric mean of the probability that the class alone is heard.
        teacher: decay of the average of weights that judges in place of the encoder itself; 0: none.
        gain_db: range of gains, over unit level, of the classifier's mixtures: estimates are quieter than theirs.
        train_encoder: False: with `fixed`, queries stay those of the classifier's training, too.
    """

    def __init__(
        self,
        encoder: nn.Module,
        extractor: nn.Module,
        decoder: nn.Module,
        loss_wrappers: list,
        *,
        tags: EncoderTags,
        class_names: Sequence[str],
        part: str = "separator",
        label_type: str = "clip",
        strategy: str = "finetune",
        ask: Sequence[int] = (3, 4),
        stretch: float = 1.0,
        mined: float = 0.0,
        purity: float = 0.8,
        teacher: float = 0.0,
        gain_db: Sequence[float] = (0.0, 0.0),
        train_encoder: bool = True,
        extract_feats_in_collect_stats: bool = False,
    ):
        super().__init__(encoder, extractor, decoder)
        if len(ask) != 2 or not 1 <= ask[0] <= ask[1]:
            raise DataError(f"ask must be two numbers, of active classes and of all queries; got {list(ask)}")
        if len(gain_db) != 2 or gain_db[0] > gain_db[1]:
            raise DataError(f"gain_db must be two numbers, the lowest and the highest; got {list(gain_db)}")
        if not (0 < purity < 1 and 0 <= teacher < 1 and mined >= 0 and stretch > 0):
            found = f"{purity}, {teacher}, {mined} and {stretch}"
            raise DataError(f"purity and teacher must lie in 0 to 1, mined be 0 or more, stretch positive; got {found}")
        if part == "separator" and not train_encoder and strategy != "fixed":
            raise DataError(f"train_encoder: false leaves nothing to judge by where the strategy is {strategy}")
        self.weak_wrappers, self.classifier, self.class_names = list(loss_wrappers), tags, list(class_names)
        self.num_spk, self.part, self.label_type = len(class_names), part, label_type
        self.remix = part == "separator" and any(w.criterion.loss.remix for w in loss_wrappers)
        self.ask, self.mined, self.sure = tuple(ask), mined, math.log(purity)
        self.gain_db, self.train_encoder = tuple(gain_db), train_encoder
        step = tags.time_pool
        self.tokens = max(1, round(stretch * self.fs / (self.hop * step)))  # of tags, in a stretch
        self.size = self.tokens * step
        held = nn.Module()  # of the training alone: weights are used without
        held.register_buffer("means", torch.zeros(self.num_spk, self.query_dim))
        held.register_buffer("seen", torch.zeros(self.num_spk))
        held.register_buffer("begun", torch.zeros(()))
        self.decay = 1.0 if strategy == "fixed" else teacher
        if part == "separator" and label_type != "strong" and self.decay and train_encoder:
            held.net = copy.deepcopy(extractor.net).requires_grad_(False)
            tags.judge = EncoderTags(held.net)
        self.add_module(TRAINING, held)
        self.still = list(self._still())
        for module in self.still:
            module.requires_grad_(False)
        self.train(self.training)

    def _still(self) -> Iterator[nn.Module]:
        """Parts that no gradient can reach: several processes wait for all that are expected."""
        net = self.extractor.net
        if self.part == "classifier":
            yield from (part for name, part in net.named_children() if name in net.mask_only)
        elif not self.train_encoder:
            yield from (part for name, part in net.named_children() if name not in net.mask_only)
        if self.label_type in ("strong", "frame"):
            yield net.clip_pooling

    def train(self, mode: bool = True) -> "ESPnetQueryWeakModel":
        super().train(mode)
        for module in [*self.still, *getattr(self, TRAINING).children()]:
            module.eval()
        return self

    # ---- steps -------------------------------------------------------------------------------

    def _spectrum(self, wave: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Spectra `[B, L, F]` at unit level, frames `[B]`, level `[B]`."""
        spec, frames = self.encoder(wave, lengths)
        level = self.extractor.net.level_of(spec, frames).clamp(min=1e-8)
        return spec / level[:, None, None], frames, level

    def _classifier_step(self, mix: Tensor, lengths: Tensor, batch: dict) -> tuple[Tensor, dict]:
        spec, frames, _ = self._spectrum(mix, host_lengths(mix, lengths))
        if self.training:
            spec = spec * 10 ** (spec.real.new_empty(len(spec), 1, 1).uniform_(*self.gain_db) / 20)
        return self._weak_loss(None, spec, self._labels(batch, spec), frames)

    def _separator_step(self, mix: Tensor, lengths: Tensor, batch: dict) -> tuple[Tensor, dict]:
        if self.training and self.classifier.judge is not None:
            self._teach()
        lengths, own = host_lengths(mix, lengths), batch["clip_label"]
        origins = torch.arange(len(mix), device=mix.device)[:, None]
        if self.remix:
            mix, lengths, batch, other = joined(mix, lengths, batch)
            origins = torch.cat([origins, other[:, None]], 1)
        spectrum = self._spectrum(mix, lengths)
        heard = self._stretches(spectrum, mix, lengths, batch)
        if self.remix and len(mix) > 1:
            mix, lengths, batch = remixed(mix, lengths, batch, origins[:, 1])
            spectrum = self._spectrum(mix, lengths)
        (spec, frames, level), clip = spectrum, batch["clip_label"]
        asked = asked_classes(clip, *self.ask, first=own, shuffle=self.training)  # so that a part is asked for whole
        query, pieces = self._embedded(heard, asked, self._choose(heard, asked, origins))
        masks = competing(self.extractor.net.mask(spec, frames, query))  # [B, Q, L, F]
        left = clip.sum(1) > of_asked(clip, asked).sum(1)  # something that nobody asked for
        rest = (1 - masks.abs().sum(1, keepdim=True)).clamp(min=0) * left[:, None, None, None]
        est = spec[:, None] * torch.cat([masks, rest], 1)
        labels = self._labels(batch, spec)._replace(asked=asked, query=query)
        if self.label_type in ("strong", "mixed"):
            refs = of_asked(torch.stack(self._refs(batch, mix.shape[1]), 1), asked)
            labels = labels._replace(ref=self._at_level(refs, lengths, level))
        if "part_mix" in batch and self.label_type != "strong":
            parts = self._at_level(batch["part_mix"], lengths, level)
            labels = labels._replace(parts=parts, part_active=self._part_active(batch))
        loss, stats = self._weak_loss(est, spec, labels, frames)
        if self.mined and self.label_type != "strong":
            value, more = self._mined_loss(heard, pieces)
            loss, stats = loss + self.mined * value, {**stats, **more}
        if not self.training and "speech_ref1" in batch:
            stats["si_sdr_gain"] = self._gain(est[:, : asked.shape[1]], mix, lengths, level, batch, asked)
        return loss, stats

    def _at_level(self, waves: Tensor, lengths: Tensor, level: Tensor) -> Tensor:
        """Spectra `[B, N, L, F]` of waveforms `[B, N, T]` that are parts of a mixture of this level `[B]`."""
        repeated = host_lengths(waves, lengths).repeat_interleave(waves.shape[1])
        spec = self.encoder(waves.flatten(0, 1), repeated)[0].unflatten(0, waves.shape[:2])
        return spec / level[:, None, None, None]

    # ---- queries -----------------------------------------------------------------------------

    @torch.no_grad()
    def _stretches(
        self, spectrum: tuple[Tensor, Tensor, Tensor], mix: Tensor, lengths: Tensor, batch: dict
    ) -> Stretches:
        spec, frames, level = spectrum
        clip = batch["clip_label"]
        if self.label_type == "strong":  # isolated sounds, where they are loudest
            refs = self._at_level(torch.stack(self._refs(batch, mix.shape[1]), 1), lengths, level)
            energy = F.avg_pool1d(refs.abs().square().sum(-1), min(self.size, refs.shape[2]), 1)
            return Stretches(refs, frames, torch.zeros_like(clip).masked_fill(clip < 0.5, -torch.inf), energy.argmax(2))
        logits = self.classifier(spec, frames)
        known = self._labels(batch, spec).frame
        again = functools.partial(self.classifier.hear_stretches, spec, frames, self.size) if known is None else None
        known = None if known is None else self.classifier.shrink(known)
        sure, at = surest(logits, clip, known, self.tokens, again)
        return Stretches(spec, frames, sure, at * self.classifier.time_pool)

    def _choose(self, heard: Stretches, asked: Tensor, origins: Tensor) -> Tensor:
        """Of which item of the batch a query is a stretch, `[B, Q]`; -1: of none.

        None of the recordings that are in the mixture; in training at random, as likely as it is pure.
        """
        sure = heard.sure.T[asked]  # [B, Q, B']
        sure = sure.scatter(2, origins[:, None].expand(-1, asked.shape[1], -1), -torch.inf)
        if self.training:
            noise = -torch.empty_like(sure).exponential_().log()  # Gumbel: the largest is a draw
            best = (sure.clamp(min=-9.0) + noise).masked_fill(sure.isneginf(), -torch.inf)
        else:
            best = sure
        value, item = best.max(2)
        return item.masked_fill(value.isneginf(), -1)

    def _embedded(self, heard: Stretches, asked: Tensor, source: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Queries `[B, Q, E]`, and the stretches that they were made of: items, classes and queries, `[N]` each."""
        held = getattr(self, TRAINING)
        there = source >= 0
        key = (source * self.num_spk + asked)[there]
        pairs, row = key.unique(return_inverse=True)
        item, cls = pairs // self.num_spk, pairs % self.num_spk
        query = held.means[asked]
        if not len(pairs):
            return query, (item, cls, query[:0, 0])
        made = self.extractor.net.embed(*heard.cut(item, cls, self.size)).embedding
        if self.training:
            self._remember(cls, made.detach())
        return query.masked_scatter(there[..., None], made[row].to(query.dtype)), (item, cls, made)

    @torch.no_grad()
    def _remember(self, cls: Tensor, made: Tensor) -> None:
        """Move the classes' mean queries towards those `[N, E]` of `cls` `[N]`."""
        held = getattr(self, TRAINING)
        one = F.one_hot(cls, self.num_spk).to(made)
        count = one.sum(0)
        mean = (one.T @ made) / count.clamp(min=1)[:, None]
        share = torch.where(held.seen > 0, 0.1, 1.0) * (count > 0)
        held.means.lerp_(mean, share[:, None])
        held.seen += count

    def _mined_loss(self, heard: Stretches, pieces: tuple[Tensor, ...]) -> tuple[Tensor, dict]:
        """Separation of the sum of two pure stretches of different classes; how many are pure among those used."""
        item, cls, made = pieces
        pure = heard.sure[item, cls] >= self.sure
        stats = {"mined_share": pure.float().mean().nan_to_num()}
        item, cls, made = item[pure], cls[pure], made[pure]
        if len(cls.unique()) < 2:
            return (zero := heard.sure.new_zeros(())), {**stats, "mined_loss": zero}
        spec, frames = heard.cut(item, cls, self.size)
        other = partners(F.one_hot(cls, self.num_spk).float())
        gain = 10 ** (heard.sure.new_empty(len(cls), 1, 1).uniform_(-5, 5) * self.training / 20)
        mix = spec + gain * spec[other]
        frames = torch.maximum(frames, frames[other.cpu()])
        level = self.extractor.net.level_of(mix, frames).clamp(min=1e-8)[:, None, None]
        if self.training:  # half of the queries are another stretch of the class, where there is one
            same = (cls[:, None] == cls).fill_diagonal_(False)
            drawn = (same * torch.rand_like(same, dtype=torch.float)).argmax(1)
            swap = same.any(1) & (torch.rand_like(gain[:, 0, 0]) < 0.5)
            made = torch.where(swap[:, None], made[drawn], made)
        mix = mix / level
        with keeping_statistics(self.extractor.net):  # they are of whole mixtures, which have pauses
            est = mix * self.extractor.net.mask(mix, frames, made[:, None])[:, 0]
        value = spectral_ratio(est=est, ref=spec / level, mix=mix, lengths=frames.to(mix.device)).mean()
        return value, {**stats, "mined_loss": value.detach()}

    @torch.no_grad()
    def _teach(self) -> None:
        """Move the averaged weights, and statistics, towards those of now; a copy takes those of its first step."""
        held = getattr(self, TRAINING)
        moved = 1 - self.decay * held.begun  # all at first: initial weights are loaded after the model was made
        held.begun.fill_(1)
        for old, new in zip(held.net.state_dict().values(), self.extractor.net.state_dict().values()):
            if old.is_floating_point():
                old.lerp_(new, moved.to(old.dtype))

    @torch.no_grad()
    def _gain(self, est: Tensor, mix: Tensor, lengths: Tensor, level: Tensor, batch: dict, asked: Tensor) -> Tensor:
        """Mean SI-SDR gain in dB of what is asked for and there, in mixtures of two sounds; NaN without any."""
        refs = of_asked(torch.stack(self._refs(batch, mix.shape[1]), 1), asked)
        waves = self.decoder(est * level[:, None, None, None], lengths)[0]
        counted = (refs.abs().amax(-1) > 0) & (batch["clip_label"].sum(1) > 1)[:, None]
        if not counted.any():
            return mix.new_tensor(float("nan"))
        mixes = mix[:, None].expand_as(refs)
        return si_sdr_gain(est=waves[counted], ref=refs[counted], mix=mixes[counted]).nanmean().to(mix.dtype)
