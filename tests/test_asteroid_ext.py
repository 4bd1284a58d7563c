"""Core losses in Asteroid's order, and in its System; the example of the recipe."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from asteroid.engine import System
from asteroid.losses import PITLossWrapper

from espnet2_ext import asteroid_ext as ext
from espnet2_ext.core.layers.spectrum import STFT
from espnet2_ext.core.losses.separation import neg_sdr, wave_l1
from espnet2_ext.core.losses.weak_label import Labels, WeakLabelLoss, mixture_consistency
from espnet2_ext.core.nets.sed import RNNClassifier

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "egs2/urbansound8k_weak/local/asteroid_example.py"
B, S, T = 2, 3, 600


@pytest.fixture
def pair():
    g = torch.Generator().manual_seed(0)
    ref = torch.randn(B, S, T, generator=g)
    return ref + 0.3 * torch.randn(B, S, T, generator=g), ref


def test_losses_on_waveforms_are_those_of_the_core(pair):
    est, ref = pair
    each = ext.singlesrc_wave_l1(est[:, 0], ref[:, 0])
    assert torch.equal(each, wave_l1(est=est[:, 0], ref=ref[:, 0]))
    mix = ref.sum(1)
    want = sum(neg_sdr(est=est[:, s], ref=ref[:, s], mix=mix) for s in range(S)) / S
    assert torch.allclose(ext.multisrc_neg_sdr(est, ref), want)
    ref[:, 0] = 0.0  # a silent source has a gradient, too
    est.requires_grad_()
    ext.multisrc_neg_sdr(est, ref).sum().backward()
    assert est.grad[:, 0].abs().sum() > 0


def test_asteroids_permutations_take_them(pair):
    est, ref = pair
    straight = ext.singlesrc_wave_l1(est.flatten(0, 1), ref.flatten(0, 1)).mean()
    pit = PITLossWrapper(ext.singlesrc_wave_l1, pit_from="pw_pt")
    loss, ordered = pit(est.flip(1), ref, return_est=True)
    assert torch.allclose(loss, straight) and torch.equal(ordered, est)
    assert torch.allclose(
        PITLossWrapper(ext.multisrc_neg_sdr, pit_from="perm_avg")(est.flip(1), ref),
        ext.multisrc_neg_sdr(est, ref).mean(),
    )


def test_losses_from_labels_are_those_of_the_core(pair):
    est, ref = pair
    stft, mix = STFT(64, 32, "sqrt_hann"), ref.sum(1)
    loss = ext.MixtureConsistency(stft)
    assert loss(ref, mix).item() == pytest.approx(0, abs=1e-5)
    assert torch.allclose(loss(est, mix), mixture_consistency(est=stft(est), mix=stft(mix)).mean())
    core = WeakLabelLoss(RNNClassifier(33, S, mel_bands=None, hidden=4), label_type="mixed")
    targets = {
        "mix": mix,
        "clip": torch.ones(B, S),
        "frame": torch.ones(B, S, T // 32 + 1),
        "ref": ref,
        "kind": torch.tensor([0, 2]),
    }
    labels = Labels(targets["clip"], targets["frame"], stft(ref), targets["kind"])
    want = core(est=stft(est), mix=stft(mix), labels=labels)["loss"].mean()
    assert torch.allclose(ext.WeakLabel(core, stft)(est, targets), want)
    targets["kind"] = torch.tensor([1, 2])  # the second item is shorter
    short = {k: x[1:] for k, x in targets.items()}
    short |= {"mix": short["mix"][:, :320], "frame": short["frame"][..., :11]}
    alone = [ext.WeakLabel(core, stft)(est[:1], {k: x[:1] for k, x in targets.items()})]
    alone.append(ext.WeakLabel(core, stft)(est[1:, :, :320], short))
    both = ext.WeakLabel(core, stft)(est, {**targets, "lengths": torch.tensor([T, 320])})
    assert torch.allclose(both, sum(alone) / 2, rtol=1e-5)


def test_system_trains_on_one_of_our_losses(pair, tmp_path):
    class Split(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.full((S, 1), 0.1))

        def forward(self, mix):
            return self.gain * mix[:, None]

    _, ref = pair
    items = [(m, {"mix": m, "clip": torch.tensor([1.0, 0.0, 0.0])}) for m in ref.sum(1)]
    loader = torch.utils.data.DataLoader(items, batch_size=2)
    core = WeakLabelLoss(RNNClassifier(257, S, hidden=4), label_type="clip", strategy="joint")
    model, loss = Split(), ext.WeakLabel(core)
    optimizer = torch.optim.SGD([*model.parameters(), *loss.parameters()], 1e-3)
    system = System(model, optimizer, loss, loader, loader)
    trainer = pl.Trainer(
        max_epochs=5,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        default_root_dir=tmp_path,
        logger=pl.loggers.CSVLogger(tmp_path),
    )
    trainer.fit(system)
    gain = model.gain[:, 0]
    assert gain[0] > 0.12 and (gain[1:] < 0.09).all()  # its label says that only the first is there


def test_example_is_short_and_runs(tmp_path):
    text = EXAMPLE.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 40 and ast.parse(text)
    done = subprocess.run(
        [sys.executable, EXAMPLE, "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "validation loss: " in done.stdout
