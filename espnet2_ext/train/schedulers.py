"""Learning-rate schedules, per epoch."""

from espnet2.schedulers.abs_scheduler import AbsEpochStepScheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class WarmupHalvingLR(LambdaLR, AbsEpochStepScheduler):
    """First epochs at fixed factors of the base rate, then a peak, halved at intervals to a floor.

    CaRE-SEP paper, section 3.2: 0.05, 0.1 and 0.2 of the base rate in the first three epochs, then 0.2,
    halved every ten epochs down to 0.05 (`peak: 0.2`), as in HTS-AT's public code.

    Args:
        optimizer: its learning rate is the base rate.
        warmup: factors of the first epochs.
        peak: factor after them.
        interval: epochs between halvings, counted from the first epoch.
        floor: smallest factor.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup: list = (0.05, 0.1, 0.2),
        interval: int = 10,
        floor: float = 0.05,
        peak: float = 1.0,
    ):
        def factor(epoch: int) -> float:
            if epoch < len(warmup):
                return warmup[epoch]
            return max(floor, peak * 0.5 ** (epoch // interval))

        super().__init__(optimizer, factor)
