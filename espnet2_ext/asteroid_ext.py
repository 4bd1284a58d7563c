"""Asteroid's side: core losses in its order, and Lightning training of a whole ESPnet model.

Losses are called `loss(est_targets, targets)`, as `asteroid.losses` are, and can be given to
`asteroid.engine.System`. What they need besides references is in `targets`.
"""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import pytorch_lightning as pl
import torch
from asteroid.engine import System
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from espnet2_ext.core.layers.padding import hide_padding
from espnet2_ext.core.layers.spectrum import STFT
from espnet2_ext.core.losses import separation, weak_label
from espnet2_ext.core.weights import check_resumable, load_weights, read_whole, save_whole, writing
from espnet2_ext.util.files import atomic_path

LAST = "last.ckpt"  # the checkpoint to resume from

# ---- losses --------------------------------------------------------------------------------------


def singlesrc_wave_l1(est_targets: Tensor, targets: Tensor) -> Tensor:
    """`core.losses.separation.wave_l1`: `[B, T]` each, returns `[B]`.

    With permutations: `PITLossWrapper(singlesrc_wave_l1, pit_from="pw_pt")`.
    """
    return separation.wave_l1(est=est_targets, ref=targets)


def multisrc_neg_sdr(est_targets: Tensor, targets: Tensor) -> Tensor:
    """`core.losses.separation.neg_sdr`, which has a gradient for silent references as well.

    `[B, S, T]` each, returns `[B]` in dB; the mixture is the sum of the targets.
    """
    mix = targets.sum(1, keepdim=True).expand_as(targets)
    est, ref, mix = (x.flatten(0, 1) for x in (est_targets, targets, mix))
    return separation.neg_sdr(est=est, ref=ref, mix=mix).unflatten(0, targets.shape[:2]).mean(-1)


class MixtureConsistency(nn.Module):
    """The estimates must add up to the mixture (Pishdadian et al., eq. 4), in the STFT domain.

    `loss(est_targets [B, S, T], targets [B, T])`, where `targets` is the mixture; returns `[]`.
    """

    def __init__(self, stft: STFT | None = None):
        super().__init__()
        self.stft = stft or STFT(512, 128, "sqrt_hann")

    def forward(self, est_targets: Tensor, targets: Tensor) -> Tensor:
        return weak_label.mixture_consistency(est=self.stft(est_targets), mix=self.stft(targets)).mean()


class WeakLabel(nn.Module):
    """`core.losses.weak_label.WeakLabelLoss` on the waveforms of any model.

    `loss(est_targets [B, S, T], targets)`, where `targets` is a dict of `mix` `[B, T]` and what
    the label type needs of `clip` `[B, K]`, `frame` `[B, K, L]`, `ref` `[B, S, T]`, `kind` `[B]`;
    with `lengths` `[B]`, samples, what lies behind is padding. Returns the mean over the batch, `[]`.

    Args:
        loss: a `WeakLabelLoss`; its classifier takes the magnitudes that `stft` gives.
        stft: default: as in the paper, for 16 kHz.
    """

    def __init__(self, loss: weak_label.WeakLabelLoss, stft: STFT | None = None):
        super().__init__()
        self.loss, self.stft = loss, stft or STFT(512, 128, "sqrt_hann")

    def forward(self, est_targets: Tensor, targets: dict[str, Tensor]) -> Tensor:
        lengths = targets.get("lengths")
        est, mix, ref = (
            None if x is None else self.stft(hide_padding(x, lengths, dim=-1))
            for x in (est_targets, targets["mix"], targets.get("ref"))
        )
        labels = weak_label.Labels(
            clip=targets.get("clip"), frame=targets.get("frame"), kind=targets.get("kind"), ref=ref
        )
        frames = None if lengths is None else self.stft.frames(lengths)
        return self.loss(est=est, mix=mix, labels=labels, lengths=frames)["loss"].mean()


# ---- training ------------------------------------------------------------------------------------


def figure(phase: str, value: str) -> str:
    """What Lightning's log calls a value of ESPnet's phase `train` or `valid`."""
    return value if phase == "train" else f"val_{value}"


class ModelSystem(System):
    """Trains a model that holds its loss: `model(**batch)` gives loss, log and weight.

    That is the interface of ESPnet's models; batches are (keys, dict of tensors), as its loaders give them.

    Args:
        model, optimizer, scheduler: as in `System`.
        loader: `loader(mode, epoch)`, mode `train` or `valid`, epoch counted from 1: the batches
            of this process. It is called when the processes of a training have found each other.
        seed: the random state is set from it and the epoch, as ESPnet does.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loader: Callable[[str, int], Iterable],
        scheduler: dict | None = None,
        seed: int = 0,
    ):
        super().__init__(model, optimizer, None, None, scheduler=scheduler)
        self.loader, self.seed = loader, seed

    def common_step(self, batch, batch_nb, train=True):
        """Loss of a batch; each value that the model reports goes into the log."""
        keys, tensors = batch
        loss, stats, weight = self.model(**tensors, utt_id=keys)
        for name, value in stats.items():
            self.log(
                figure("train" if train else "valid", name),
                value.float().mean(),
                on_step=False,
                on_epoch=True,
                batch_size=len(keys),
                sync_dist=True,
                prog_bar=name == "loss",
            )
        loss = loss.mean()
        if train and self.trainer.world_size > 1:  # processes may hold unequal parts of a batch
            weight = weight.sum().float()
            loss = loss * weight / self.all_gather(weight).mean()
        return loss

    def training_step(self, batch, batch_nb):
        return self.common_step(batch, batch_nb, train=True)

    def validation_step(self, batch, batch_nb):
        self.common_step(batch, batch_nb, train=False)

    def on_train_epoch_end(self):
        """Report the epoch's results as ESPnet's trainer does, for what reads its logs."""
        values = self.trainer.callback_metrics  # on all processes: it gathers from them
        stages: dict[str, list[str]] = {"train": [], "valid": []}
        for name, value in values.items():
            stages["valid" if name.startswith("val_") else "train"].append(f"{name.removeprefix('val_')}={value:.4g}")
        if self.trainer.is_global_zero:
            logging.info(
                "%depoch results: %s",
                self.trainer.current_epoch + 1,
                ", ".join(f"[{k}] {', '.join(v)}" for k, v in stages.items()),
            )

    def train_dataloader(self):
        pl.seed_everything(self.seed + self.trainer.current_epoch + 1, verbose=False)
        return self.loader("train", self.trainer.current_epoch + 1)

    def val_dataloader(self):
        return self.loader("valid", self.trainer.current_epoch + 1)


class _Checkpoints(TorchCheckpointIO):
    """Checkpoints that are whole and finite, and the one before `LAST`, see `core.weights`.

    Args:
        resumed: `LAST` is there, and of this training.
    """

    def __init__(self, resumed: bool):
        super().__init__()
        self.ours = resumed

    def save_checkpoint(self, checkpoint, path, storage_options=None) -> None:
        is_last = Path(path).name == LAST
        save_whole(lambda tmp: torch.save(checkpoint, tmp), checkpoint, path, self.ours if is_last else None)
        self.ours |= is_last

    def load_checkpoint(self, path, *args, **options):
        return read_whole(path, lambda: super(_Checkpoints, self).load_checkpoint(path, *args, **options))


def fit(
    system: ModelSystem,
    out_dir: str | Path,
    *,
    max_epochs: int,
    devices: int = 1,
    accelerator: str = "auto",
    patience: int | None = None,
    monitor: str = "val_loss",
    mode: str = "min",
    stop: tuple[str, str] = ("val_loss", "min"),
    keep: int = 1,
    resume: bool = False,
    **trainer,
) -> Path:
    """Train with Lightning: progress bar, checkpoints, early stopping, a CSV log, several devices.

    Args:
        out_dir: gets `lightning/` with the checkpoints (`LAST` is the one to resume from) and the log `metrics.csv`.
        devices: processes; more than one with DDP (gloo where there is no GPU).
        patience: epochs without improvement of `stop` (a figure, min or max) that are tolerated, as in ESPnet: one
            more ends the training. None: no early stopping.
        keep: best checkpoints that stay.
        resume: go on from `LAST` where there is one.
        trainer: further arguments of `Trainer`.

    Returns:
        The best checkpoint.

    Raises:
        DataError: see `core.weights.check_resumable`; weights that are not finite.
    """
    folder = Path(out_dir) / "lightning"
    plain = {"auto_insert_metric_name": False, "enable_version_counter": False}
    best = ModelCheckpoint(folder, "epoch{epoch:03d}", monitor=monitor, mode=mode, save_top_k=keep, **plain)
    callbacks = [best, ModelCheckpoint(folder, "last", **plain)]  # each epoch's, in one file
    if patience is not None:
        callbacks.append(EarlyStopping(stop[0], mode=stop[1], patience=patience + 1))
    last = folder / LAST
    if resumed := resume and last.exists():
        check_resumable(last)
    strategy = "ddp" if devices > 1 else "auto"
    lightning = pl.Trainer(
        max_epochs=max_epochs,
        devices=devices,
        accelerator=accelerator,
        strategy=strategy,
        callbacks=callbacks,
        plugins=[_Checkpoints(resumed)],
        logger=CSVLogger(folder, name="", version=""),
        use_distributed_sampler=False,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **trainer,
    )
    lightning.fit(system, ckpt_path=str(last) if resumed else None)
    return Path(best.best_model_path)


def export_weights(checkpoint: str | Path, out: str | Path) -> None:
    """Write the model's weights of a checkpoint of a `System` as ESPnet keeps them."""
    state = load_weights(checkpoint)
    with atomic_path(out) as tmp, writing(out):
        torch.save(state, tmp)
