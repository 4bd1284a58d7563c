"""The loss of a separator by query that learns from weak labels.

Its terms are those of Pishdadian et al., "Finding Strength in Weakness", with the classes that were asked for in place
of all classes: (9) and (14) are judged by the separator's own encoder; the distances of spectra in (3), (5) and (6) are
ratios in dB, as in Wisdom et al., "Unsupervised Sound Separation Using Mixture Invariant Training", eq. 2, so that a
quiet source counts as much as a loud one. Not in the papers: `query_consistency`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from espnet2_ext.core.losses.labels import CLIP, FRAME, Labels, Target, by_frame, given, of_asked
from espnet2_ext.core.losses.separation import neg_sdr
from espnet2_ext.core.losses.weak_label import WeakLabelLoss
from espnet2_ext.core.losses.weak_terms import estimate_labels, valid_frames

MAX_DB, SILENCE_DB = 20.0, 15.0  # where the gain for a better, and for a quieter, estimate ends


def spectral_ratio(*, est: Tensor, ref: Tensor, mix: Tensor, lengths: Tensor | None = None) -> Tensor:
    """`neg_sdr` of complex spectra `[N, L, F]` in dB, `[N]`; of a silent `ref` the level of `est` against `mix`.

    >>> mix = torch.ones(1, 2, 3, dtype=torch.cfloat)
    >>> spectral_ratio(est=0.5 * mix, ref=mix, mix=mix).round(decimals=2)  # 10 log10(0.25 + 0.01)
    tensor([-5.8500])
    """
    valid = valid_frames(lengths, est.shape[1])
    flat = [
        torch.view_as_real(x if valid is None else x.masked_fill(~valid[..., None], 0)).flatten(1)
        for x in (est, ref, mix)
    ]
    return neg_sdr(est=flat[0], ref=flat[1], mix=flat[2], max_db=MAX_DB, silence_db=SILENCE_DB)


def query_consistency(*, est: Tensor, query: Tensor, active: Tensor) -> Tensor:
    """An estimate must lie, for the encoder, where its query lies: 1 - cos, mean over what is there.

    Args:
        est: `[B, Q, E]`, embeddings of the estimates. query: `[B, Q, E]`, those that they were asked for with.
        active: `[B, Q]`, 1 where the class that was asked for is in the mixture.

    Returns:
        `[B]`; 0 for a mixture without any.

    >>> query_consistency(est=torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]), query=torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]),
    ...                   active=torch.ones(1, 2))
    tensor([0.5000])
    """
    if est.shape != query.shape or est.shape[:2] != active.shape:
        raise ValueError(
            f"expected est and query [B, Q, E] and active [B, Q], got {list(est.shape)}, {list(query.shape)} and "
            f"{list(active.shape)}"
        )
    away = 1 - F.cosine_similarity(est.float(), query.float(), dim=2)
    return (away * active).sum(1) / active.sum(1).clamp(min=1)


class QueryWeakLoss(WeakLabelLoss):
    """`WeakLabelLoss` of complex estimates `[B, Q + 1, L, F]`: of the classes `Labels.asked`, and of all others.

    - strong items: mean over Q of the negative SDR in dB (of an absent class the output's level), and (8).
    - class term: (9) or (14) over the Q estimates, and (8) or (13), whatever the strategy.
    - mixture term, weight `alpha`: in dB, how the active estimates and the rest miss the mixture, and the level of the
      inactive ones; mean of both.
    - remix term, weight `remix`: in dB, how the estimates of each part's classes miss that part, mean over the parts
      whose classes were all asked for, on frames in which no class is in two parts.

    Args:
        classifier: a `core.nets.encoder_tags.EncoderTags`; its `judge`, where it has one, judges the estimates.
        consistency: weight of `query_consistency`.
        The rest as in `WeakLabelLoss`.
    """

    def __init__(self, classifier: Any, *, consistency: float = 0.0, **options):
        super().__init__(classifier, **options)
        self.fixed = False  # who judges is the model's choice; the encoder's own tags always learn
        self.consistency = consistency

    @property
    def names(self) -> list[str]:
        """As of `WeakLabelLoss`."""
        strong = ["class_mix"] * (self.label_type == "strong")
        return super().names + strong + ["consistency"] * (self.label_type != "strong" and self.consistency > 0)

    def strong_terms(self, est: Tensor, mix: Tensor, lengths: Tensor | None, labels: Labels) -> dict[str, Tensor]:
        """Of strong items; `loss` and its terms, `[B]`."""
        number = given(labels.asked, "asked", "[B, Q]").shape[1]
        ref = given(labels.ref, "ref", "[B, Q, L, F]")
        strong = _each(est[:, :number], ref, mix, lengths).mean(1)
        tags = self.judge(self.seen(mix), self.target(FRAME, labels, lengths))
        return {"loss": self.strong_scale * strong + tags, "strong": strong, "class_mix": tags}

    def weak_terms(
        self, est: Tensor, mix: Tensor, lengths: Tensor | None, labels: Labels, kind: int
    ) -> dict[str, Tensor]:
        """Of items of a weak label type; `loss` and its terms, `[B]`."""
        asked = given(labels.asked, "asked", "[B, Q]")
        active = given(labels.clip, "clip", "[B, K]") if kind == CLIP else given(labels.frame, "frame", "[B, K, L]")
        on = (by_frame(of_asked(active, asked), 3, est.shape[2]) > 0.5).float()[..., None]  # [B, Q, L, 1]
        own, rest = est[:, : asked.shape[1]], est[:, asked.shape[1] :].sum(1)
        found, leak = (own * on).sum(1) + rest, (own * (1 - on)).sum(1)
        missed = spectral_ratio(est=found, ref=mix, mix=mix, lengths=lengths)
        loud = spectral_ratio(est=leak, ref=torch.zeros_like(mix), mix=mix, lengths=lengths)
        terms = self.asked_terms(est, mix, self.target(kind, labels, lengths), labels)
        mixture = (missed + loud) / 2
        loss = sum(terms.values()) + self.alpha * mixture
        if self.remix and labels.parts is not None:
            active = given(labels.part_active, "part_active", "[B, P, K, L]")
            terms["remix"] = self.remix_term(own, labels.parts, active, asked, lengths)
            loss = loss + self.remix * terms["remix"]
        return {"loss": loss, "mixture": mixture, **terms}

    def remix_term(self, est: Tensor, parts: Tensor, active: Tensor, asked: Tensor, lengths: Tensor | None) -> Tensor:
        """`[B]` of estimates `[B, Q, L, F]` and parts `[B, P, L, F]` with classes `[B, P, K]` or `[B, P, K, L]`."""
        known = by_frame(active, 4, est.shape[2])
        alone = (known.sum(1) <= 1).all(1)[:, None, :, None]  # [B, 1, L, 1]
        all_asked = known.amax(3).sum(2) <= of_asked(known.amax(3), asked, 2).sum(2)  # [B, P]
        on = of_asked(known, asked, 2)[..., None]  # [B, P, Q, L, 1]
        found = (est[:, None] * on).sum(2) * alone
        each = _each(found, parts * alone, parts.sum(1), lengths)
        counted = all_asked & alone.any(2)[..., 0]
        return (each * counted).sum(1) / counted.sum(1).clamp(min=1)

    def asked_terms(self, est: Tensor, mix: Tensor, target: Target, labels: Labels) -> dict[str, Tensor]:
        """`[B]`: (9) or (14) summed over the estimates, (8) or (13), and the consistency."""
        asked = given(labels.asked, "asked", "[B, Q]")
        batch, number = asked.shape
        weight, lengths = (None if x is None else x.repeat_interleave(number, 0) for x in target[1:])
        heard = (self.classifier.judge or self.classifier).hear(est[:, :number].flatten(0, 1), lengths)
        wanted = estimate_labels(target.labels, number, asked).flatten(0, 1)
        logits = heard.clipwise if wanted.dim() == 2 else heard.framewise.transpose(1, 2)
        each = self.compared(logits, Target(wanted, weight, lengths))
        terms = {"class_est": each.reshape(batch, number).sum(1), "class_mix": self.judge(self.seen(mix), target)}
        if self.consistency:
            active = of_asked(target.labels if target.labels.dim() == 2 else target.labels.amax(2), asked)
            found = heard.embedding.unflatten(0, (batch, number))
            query = given(labels.query, "query", "[B, Q, E]")
            terms["consistency"] = self.consistency * query_consistency(est=found, query=query, active=active)
        return terms


def _each(est: Tensor, ref: Tensor, mix: Tensor, lengths: Tensor | None) -> Tensor:
    """`spectral_ratio` of each of `[B, N, L, F]`, `[B, N]`."""
    number = est.shape[1]
    repeated = None if lengths is None else lengths.repeat_interleave(number, 0)
    flat = (est.flatten(0, 1), ref.flatten(0, 1), mix.repeat_interleave(number, 0))
    return spectral_ratio(est=flat[0], ref=flat[1], mix=flat[2], lengths=repeated).unflatten(0, (-1, number))
