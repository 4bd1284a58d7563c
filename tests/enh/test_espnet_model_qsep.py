"""The ESPnet model: both routes through it agree, and ESPnet's own pieces fit."""

import pytest
import torch

from espnet2_ext.core.layers import swin
from espnet2_ext.core.layers.bands import QueryNorm, keeping_statistics
from espnet2_ext.core.losses.separation import neg_sdr, wave_l1
from espnet2_ext.core.losses.tagging import tagging_bce
from espnet2_ext.enh.losses import KeyedOrderSolver
from espnet2_ext.errors import DataError
from espnet2_ext.registry import espnet_class
from espnet2_ext.tasks.common import build_criterion


def test_loss_is_the_weighted_sum_of_its_terms(model, batch):
    model.eval()
    loss, stats, weight = model(**batch, utt_id=["a", "b", "c"])
    terms = {"wave_l1": 0.0, "neg_sdr": 0.0, "tagging": 0.0}
    for s in (1, 2):
        out = model.embed(batch[f"enroll_ref{s}"])
        est = model.separate(batch["speech_mix"], query=out.embedding[:, None])[:, 0]
        ref = batch[f"speech_ref{s}"]
        terms["wave_l1"] += wave_l1(est=est, ref=ref).mean() / 2
        terms["neg_sdr"] += neg_sdr(est=est, ref=ref, mix=batch["speech_mix"]).mean() / 2
        terms["tagging"] += tagging_bce(logits=out.clipwise, labels=batch[f"label{s}"]).mean() / 2
    for name, value in terms.items():
        assert torch.allclose(stats[name], value, rtol=1e-3, atol=1e-4), name
    want = 10 * terms["wave_l1"] + terms["neg_sdr"] + 2 * terms["tagging"]
    assert torch.allclose(loss, want, rtol=1e-3) and int(weight) == 3


def test_tags_of_the_mixture_are_a_term_of_its_own(model, batch):
    model.loss_wrappers = [KeyedOrderSolver(espnet_class("criterion", "mixture_tagging")(), 3.0)]
    norm = model.extractor.net.query_norm = QueryNorm(model.extractor.net.width)
    with keeping_statistics(model):
        logits = model.embed(batch["speech_mix"]).clipwise
    assert norm.training and not norm.running_mean.any()
    labels = torch.tensor([[1.0, 1.0, 0.0]] * 3)
    loss = model(**batch, label_mix=labels)[0]
    assert torch.allclose(loss, 3 * tagging_bce(logits=logits, labels=labels).mean(), rtol=1e-4)
    with pytest.raises(KeyError, match="'mixture_tagging' needs 'label_mix'"):
        model(**batch)


def test_gain_leaves_absent_targets_out(model, batch):
    model.eval()
    mix, refs = batch["speech_mix"], [batch["speech_ref1"], batch["speech_ref2"]]
    assert model._sdr_gain([mix, mix], refs, mix) == 0.0  # an unprocessed mixture gains nothing
    # A tenth of the rest is left: 20 dB for four targets; one is absent, and one is the mixture.
    near = [r + 0.1 * (mix - r) for r in refs]
    assert model._sdr_gain(near, refs, mix).item() == pytest.approx(20 * 4 / 5, abs=0.01)


def test_padding_is_not_judged(model, batch):
    model.eval()
    lengths = batch["speech_mix_lengths"] = torch.tensor([4000, 4000, 1000])
    for key in ("speech_mix", "speech_ref1", "speech_ref2"):
        batch[key][2, 1000:] = 0.0
    enroll = [batch["enroll_ref1"], batch["enroll_ref2"]]
    pre = model.forward_enhance(batch["speech_mix"], lengths, enroll, [torch.full((3,), e.shape[1]) for e in enroll])[0]
    mean = {"wave_l1": 0.0, "neg_sdr": 0.0}
    for est, ref in zip(pre, (batch["speech_ref1"], batch["speech_ref2"])):
        for i, n in enumerate(lengths):
            given = {"est": est[[i], :n], "ref": ref[[i], :n]}
            mean["wave_l1"] += wave_l1(**given) / 6
            mean["neg_sdr"] += neg_sdr(**given, mix=batch["speech_mix"][[i], :n]) / 6
    stats = model(**batch)[1]
    for name, value in mean.items():
        assert torch.allclose(stats[name], value, rtol=1e-4), name


def test_every_parameter_gets_a_gradient(model, batch):
    model(**batch)[0].backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_stock_inference_route_gives_the_same(model, batch):
    """ESPnet's SeparateSpeech calls encoder, extractor and decoder itself."""
    model.eval()
    mix, enroll = batch["speech_mix"], batch["enroll_ref1"]
    lengths, lengths_aux = torch.tensor([4000] * 3), torch.tensor([3000] * 3)
    feats, flens = model.encoder(mix, lengths)
    aux, flens_aux = model.encoder(enroll, lengths_aux)
    pre, _, others = model.extractor(feats, flens, aux, flens_aux, suffix_tag="_spk1")
    stock = model.decoder(pre, lengths)[0]
    query = model.embed(enroll).embedding
    assert torch.allclose(others["query_spk1"], query)
    assert torch.allclose(stock, model.separate(mix, query=query[:, None])[:, 0], atol=1e-5)
    ready, _, _ = model.extractor(feats, flens, query, None)  # a stored embedding in its place
    assert torch.allclose(ready, pre, atol=1e-5)


def test_one_mask_for_all_channels(model):
    model.eval()
    mono, query = torch.randn(1, 3000), torch.randn(1, 2, 64)
    stereo = torch.stack([mono * 1.5, mono * 0.5], dim=-1)  # mean: mono
    alone = model.separate(mono, query=query)
    out = model.separate(stereo, query=query)
    assert out.shape == (1, 2, 3000, 2)
    assert torch.allclose(out[..., 0], 1.5 * alone, atol=1e-4)
    assert torch.allclose(out[..., 1], 0.5 * alone, atol=1e-4)


def test_level_stands_for_the_whole_recording(model):
    model.eval()
    wave, query = torch.randn(1, 16000), torch.randn(1, 1, 64)
    own = model.separate(wave, query=query)
    rms = wave.square().mean(-1).sqrt()
    assert torch.allclose(model.separate(wave, query=query, level=rms), own, atol=0.02)
    assert not torch.allclose(model.separate(wave, query=query, level=30 * rms), own, atol=0.02)


def test_grid_is_where_the_windows_repeat(model):
    assert model.fs == 8000 and model.hop == 80
    assert model.grid == 80 * 4 * 8 * 4  # hop, patch, three halvings, window


def test_audio_of_another_rate_is_refused(model):
    with pytest.raises(ValueError, match="8000 Hz, got audio at 16000 Hz"):
        model.encoder(torch.zeros(1, 100), torch.tensor([100]), fs=16000)


def test_a_key_that_a_criterion_needs_is_named(model, batch):
    del batch["label2"]
    with pytest.raises(KeyError, match="'tagging' needs 'label_spk2'"):
        model(**batch)


def test_a_model_that_was_used_can_be_trained_in_the_same_process(model, batch):
    for cached in (swin._relative_index, swin._window_groups):
        cached.cache_clear()
    with torch.inference_mode():
        query = model.embed(batch["enroll_ref1"]).embedding[:, None]
        model.separate(batch["speech_mix"], query=query)
    model(**batch)[0].backward()


def test_bf16_autocast_gives_a_finite_loss(model, batch):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _, _ = model(**batch)
    loss.backward()
    assert loss.isfinite()


def test_of_channels_the_mean_counts(model, batch):
    model.eval()
    want = model(**batch)[0]
    waves = {k: x for k, x in batch.items() if x.dim() == 2 and x.shape[1] > 1000}
    assert len(waves) == 5
    stereo = {k: torch.stack([1.5 * x, 0.5 * x], -1) for k, x in waves.items()}
    assert torch.allclose(model(**{**batch, **stereo})[0], want, rtol=1e-5)


@pytest.mark.parametrize("name, loss", [("wave_l1", wave_l1), ("neg_sdr", neg_sdr)])
def test_a_criterion_of_several_channels_is_the_mean_of_theirs(name, loss):
    ref, inf, mix = torch.randn(3, 2, 800, 3)
    criterion = espnet_class("criterion", name)(only_for_test=True)
    given = {key: mix for key in criterion.needs if key == "mix"}
    found = criterion(ref, inf, **given)
    each = [loss(est=inf[..., c], ref=ref[..., c], **{k: v[..., c] for k, v in given.items()}) for c in range(3)]
    assert criterion.only_for_test and found.shape == (2,)
    assert torch.allclose(found, sum(each) / 3)


@pytest.mark.parametrize("key", ["is_noise_loss", "is_dereverb_loss"])
@pytest.mark.parametrize("name", ["neg_sdr", "si_snr"])
def test_criterions_of_noise_are_refused(name, key):
    with pytest.raises(DataError, match=f"criterions: {name}: {key}: the models estimate sounds alone"):
        build_criterion({"name": name, "conf": {key: True}}, "keyed_order")
