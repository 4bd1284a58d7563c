"""Asteroid's System under Lightning's Trainer, on a loss that only knows which sounds are there."""

import sys

import pytorch_lightning as pl
import torch
from asteroid.engine import System
from asteroid.models import ConvTasNet

from espnet2_ext.asteroid_ext import WeakLabel
from espnet2_ext.core.losses.weak_label import WeakLabelLoss
from espnet2_ext.core.nets.sed import RNNClassifier


def sounds(number: int, seed: int) -> list:
    """(mixture, what is known of it): a low tone and a rising one, each there in half of them."""
    rng, pairs, t = torch.Generator().manual_seed(seed), [], torch.arange(8000) / 16000
    for _ in range(number):
        there = (torch.rand(2, generator=rng) > 0.5).float()
        pitch = 200 + 200 * torch.rand(2, 1, generator=rng)
        tones = 0.1 * torch.sin(6.28 * pitch * torch.stack([t, 8 * t * (1 + t)]))
        mix = (there[:, None] * tones).sum(0) + 0.001 * torch.randn(8000, generator=rng)
        pairs.append((mix, {"mix": mix, "clip": there}))
    return pairs


epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
sizes = {"n_filters": 64, "kernel_size": 32, "stride": 16, "bn_chan": 32, "hid_chan": 64, "skip_chan": 32}
model = ConvTasNet(2, **sizes, n_blocks=3, n_repeats=1, mask_act="sigmoid")
loss = WeakLabel(WeakLabelLoss(RNNClassifier(257, 2), label_type="clip", strategy="joint"))
optimizer = torch.optim.Adam([*model.parameters(), *loss.parameters()], lr=1e-3)
loaders = [torch.utils.data.DataLoader(sounds(n, n), batch_size=8) for n in (64, 16)]
system = System(model, optimizer, loss, *loaders)
logger = pl.loggers.CSVLogger("exp", name="asteroid_example")
trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", enable_model_summary=False, logger=logger)
trainer.fit(system)
print(f"validation loss: {float(trainer.callback_metrics['val_loss']):.2f}")
