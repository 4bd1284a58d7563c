"""A step in bfloat16, and one that keeps less."""

import argparse
import copy

import pytest
import torch
from weak_corpus import model_args

from espnet2_ext.errors import DataError
from espnet2_ext.tasks.qsep import QSepTask
from espnet2_ext.tasks.weak import WeakLabelTask
from espnet2_ext.train.step import prepare


def prepared(model, **options):
    model = copy.deepcopy(model)
    prepare(model, argparse.Namespace(**options))
    return copy.deepcopy(model)


def step(model, batch):
    """Loss, gradients, and the numbers that are kept for them."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        loss = model.train()(**batch)[0].sum()
    loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return loss.item(), grads, sum({x.untyped_storage().data_ptr(): x.numel() for x in kept}.values())


def test_checkpointing_keeps_less_and_changes_nothing(model, batch):
    (loss, grads, kept), (again, others, fewer) = (
        step(prepared(model, activation_checkpointing=on), batch) for on in (False, True)
    )
    assert again == loss and fewer < 0.8 * kept
    assert grads.keys() == others.keys() and len(grads) > 50
    for name, grad in grads.items():
        torch.testing.assert_close(others[name], grad, atol=1e-6, rtol=1e-5)
    with pytest.raises(DataError, match="no attention blocks"):
        prepare(torch.nn.Linear(1, 1), argparse.Namespace(activation_checkpointing=True))


def close_in_bf16(model, batch):
    (loss, grads, _), (low, others, _) = (step(prepared(model, amp_dtype=name), batch) for name in ("fp32", "bf16"))
    assert low != loss and low == pytest.approx(loss, rel=0.02, abs=0.02)
    a, b = (torch.cat([g[name].flatten() for name in grads]) for g in (grads, others))
    assert b.dtype == torch.float32 and torch.cosine_similarity(a, b, 0) > 0.9


def test_bf16_of_a_query_model(model, batch):
    close_in_bf16(model, batch)


def test_bf16_of_a_weak_model():
    torch.manual_seed(0)
    model = WeakLabelTask.build_model(model_args("--frame_prior", 0.2, 0.5, 0.4))
    mix = torch.randn(2, 2000) * 0.1
    batch = {"speech_mix": mix, "speech_mix_lengths": torch.tensor([2000, 2000]), "label_kind": torch.ones(2, 1).int()}
    frames = model.encoder(mix, batch["speech_mix_lengths"])[0].shape[1]
    batch["frame_label"] = (torch.rand(2, frames, 3) > 0.5).float()
    close_in_bf16(model, batch | {"clip_label": batch["frame_label"].amax(1)})


def test_options_reach_the_parser():
    parser = QSepTask.get_parser()
    given = ["--output_dir", "x", "--amp_dtype", "bf16", "--activation_checkpointing", "true"]
    args = parser.parse_args(given)
    assert args.amp_dtype == "bf16" and args.activation_checkpointing is True
    with pytest.raises(DataError, match="give this or --use_amp"):
        prepare(torch.nn.Linear(1, 1), argparse.Namespace(amp_dtype="bf16", use_amp=True))
