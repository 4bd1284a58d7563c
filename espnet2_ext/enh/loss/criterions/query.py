"""ESPnet criterions for query-based separation: core losses in ESPnet's order (ref, inf).

`needs` names the keys of ESPnet's `others` that a criterion takes as keyword arguments; the loss
wrapper `keyed_order` hands them over.
"""

from espnet2.enh.loss.criterions.time_domain import TimeDomainLoss
from torch import Tensor

from espnet2_ext.core.losses.separation import neg_sdr, wave_l1
from espnet2_ext.core.losses.tagging import tagging_bce


class WaveL1Loss(TimeDomainLoss):
    """`core.losses.separation.wave_l1`."""

    def __init__(self, name: str = "wave_l1"):
        super().__init__(name)

    def forward(self, ref: Tensor, inf: Tensor) -> Tensor:
        """`[B, T]` each; returns `[B]`."""
        return wave_l1(est=inf, ref=ref)


class QuerySDRLoss(TimeDomainLoss):
    """`core.losses.separation.neg_sdr`, which also has a value for absent sounds."""

    needs = {"mix": "speech_mix"}

    def __init__(self, name: str = "neg_sdr", max_db: float = 60.0, silence_db: float = 30.0):
        super().__init__(name)
        self.max_db, self.silence_db = max_db, silence_db

    def forward(self, ref: Tensor, inf: Tensor, mix: Tensor) -> Tensor:
        """`[B, T]` each; returns `[B]` in dB."""
        return neg_sdr(est=inf, ref=ref, mix=mix, max_db=self.max_db, silence_db=self.silence_db)


class TaggingLoss(TimeDomainLoss):
    """`core.losses.tagging.tagging_bce` of the query's tags; a time-domain loss by name only,
    because ESPnet's extraction model takes no other kinds."""

    needs = {"logits": "tags{}", "labels": "label{}"}

    def __init__(self, name: str = "tagging"):
        super().__init__(name)

    def forward(self, ref: Tensor, inf: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """logits and labels `[B, K]`; returns `[B]`. `ref` and `inf` are not looked at."""
        return tagging_bce(logits=logits, labels=labels)
