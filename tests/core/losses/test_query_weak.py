"""The loss of a separator by query that learns from labels, against a plain version of it."""

import math

import pytest
import torch
import torch.nn.functional as F

from espnet2_ext.core.losses.labels import Labels
from espnet2_ext.core.losses.query_weak import QueryWeakLoss, query_consistency, spectral_ratio
from espnet2_ext.core.nets.care_sep import CaRESep
from espnet2_ext.core.nets.encoder_tags import EncoderTags
from espnet2_ext.errors import DataError

B, K, Q, L, BINS, STEP = 2, 3, 2, 40, 33, 16
SIZES = {
    "num_bands": 16,
    "num_bins": BINS,
    "fs": 8000,
    "dim": 4,
    "image_channels": 4,
    "depths": (1, 1),
    "heads": (1, 2),
}
SIZES |= {"connector_depth": 1, "connector_heads": 2, "window": 4, "num_classes": K, "drop_path": 0.0}
SIZES |= {"query_at": "decoder", "tag_pooling": "linear_softmax"}


def make_net(seed=0, **more):
    torch.manual_seed(seed)
    return CaRESep(**{**SIZES, **more})


def spectra(seed, *shape):
    return torch.randn(*shape, dtype=torch.cfloat, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def known():
    g = torch.Generator().manual_seed(3)
    frame = (torch.rand(B, K, L, generator=g) > 0.6).float()
    frame[1, 2] = 0.0  # a class that is not there
    parts = spectra(4, B, 2, L, BINS)
    part_active = torch.zeros(B, 2, K, L)
    part_active[0, 0, 0, :20], part_active[0, 1, 1, 10:] = 1.0, 1.0  # together from frame 10 to 19
    part_active[1, 0, 0], part_active[1, 1, 1] = 1.0, 1.0
    return {
        "clip": frame.amax(2),
        "frame": frame,
        "parts": parts,
        "part_active": part_active,
        "asked": torch.tensor([[1, 0], [2, 0]]),
        "query": torch.randn(B, Q, make_net().query_dim, generator=g),
        "ref": spectra(5, B, Q, L, BINS),
    }


def ratio(est, ref, mix):
    """In dB, by hand."""
    energy = [x.abs().square().sum() for x in (est - ref, ref, mix)]
    if energy[1] < 1e-8 * energy[2]:
        return 10 * torch.log10(energy[0] / energy[2] + 10**-1.5)
    return 10 * torch.log10(energy[0] / energy[1] + 10**-2)


def plain(net, kind, est, mix, known, alpha, remix, consistency):
    """Each item's loss with loops, the networks called one spectrum at a time."""
    losses = []
    for b in range(B):
        loss = 0.0
        for q in range(Q):
            k = int(known["asked"][b, q])
            out = net.embed(est[b, q][None], (L,), torch.ones(1))
            want = torch.zeros(K)
            if kind == "clip":
                want[k] = known["clip"][b, k]
                loss += F.binary_cross_entropy(out.clipwise[0].sigmoid(), want, reduction="sum")
            else:
                for t in range(math.ceil(L / STEP)):
                    want = torch.zeros(K)
                    want[k] = known["frame"][b, k, t * STEP : (t + 1) * STEP].max()
                    one = F.binary_cross_entropy(out.framewise[0, t].sigmoid(), want, reduction="sum")
                    loss += one / math.ceil(L / STEP)
            cosine = F.cosine_similarity(out.embedding[0], known["query"][b, q], dim=0)
            loss += consistency * known["clip"][b, k] * (1 - cosine) / known["clip"][b][known["asked"][b]].sum()
        heard = net.embed(mix[b][None], (L,), torch.ones(1))
        if kind == "clip":
            loss += F.binary_cross_entropy(heard.clipwise[0].sigmoid(), known["clip"][b], reduction="sum")
        else:
            labels = F.max_pool1d(known["frame"][b][None], STEP, ceil_mode=True)[0].T
            bce = F.binary_cross_entropy(heard.framewise[0].sigmoid(), labels, reduction="none")
            loss += bce.sum(1).mean()
        found, leak = est[b, Q], torch.zeros_like(mix[b])
        for q in range(Q):
            k = int(known["asked"][b, q])
            on = known["frame"][b, k] if kind == "frame" else known["clip"][b, k].expand(L)
            found, leak = found + est[b, q] * on[:, None], leak + est[b, q] * (1 - on)[:, None]
        loss += alpha * (ratio(found, mix[b], mix[b]) + ratio(leak, 0 * mix[b], mix[b])) / 2
        each = []
        for p in range(2):
            active = known["part_active"][b]
            if kind == "clip":
                active = active.amax(2, keepdim=True).expand(-1, -1, L)
            alone = (active.sum(0) <= 1).all(0)[:, None]
            if not all(k in known["asked"][b] for k in range(K) if active[p, k].any()):
                continue
            own = sum(est[b, q] * active[p, int(known["asked"][b, q])][:, None] for q in range(Q))
            each.append(ratio(own * alone, known["parts"][b, p] * alone, known["parts"][b].sum(0)))
        losses.append(loss + remix * sum(each) / max(1, len(each)))
    return torch.stack(losses)


@pytest.mark.parametrize("kind", ["clip", "frame"])
def test_the_loss_and_its_gradients_are_those_of_a_plain_version(kind, known):
    net, mix = make_net().eval(), spectra(1, B, L, BINS)
    given = dict(known)
    if kind == "clip":
        given["part_active"] = known["part_active"].amax(3)
    names = {"clip": ("clip",), "frame": ("clip", "frame")}[kind]
    labels = Labels(**{k: given[k] for k in (*names, "parts", "part_active", "asked", "query")})
    loss = QueryWeakLoss(
        EncoderTags(net), label_type=kind, strategy="joint", alpha=0.7, remix=1.3, consistency=0.4
    ).train()
    grads = []
    for value in (
        lambda est: loss(est=est, mix=mix, labels=labels)["loss"],
        lambda est: plain(net, kind, est, mix, known, 0.7, 1.3, 0.4),
    ):
        est = (0.5 * spectra(2, B, Q + 1, L, BINS)).requires_grad_()
        found = value(est)
        grads.append((found.detach(), *torch.autograd.grad(found.sum(), [est, *net.head.parameters()])))
    for ours, theirs in zip(*grads):
        torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=1e-5)


def test_strong_items_have_the_negative_sdr_of_what_was_asked_for(known):
    net, mix, est = make_net(), spectra(1, B, L, BINS), 0.5 * spectra(2, B, Q + 1, L, BINS)
    known["ref"][1, 0] = 0.0
    labels = Labels(**{k: known[k] for k in ("clip", "frame", "ref", "asked")})
    found = QueryWeakLoss(EncoderTags(net), label_type="strong", strategy="fixed")(est=est, mix=mix, labels=labels)
    wanted = [sum(ratio(est[b, q], known["ref"][b, q], mix[b]) for q in range(Q)) / Q for b in range(B)]
    torch.testing.assert_close(found["strong"], torch.stack(wanted))
    torch.testing.assert_close(found["loss"], found["strong"] + found["class_mix"])


def test_a_judge_takes_the_place_of_the_encoder_for_estimates_alone(known):
    net, judge, mix = make_net(), make_net(seed=1), spectra(1, B, L, BINS)
    tags = EncoderTags(net)
    tags.judge = EncoderTags(judge)
    labels = Labels(**{k: known[k] for k in ("clip", "asked", "query")})
    terms = QueryWeakLoss(tags, label_type="clip", strategy="joint")(
        est=0.5 * spectra(2, B, Q + 1, L, BINS), mix=mix, labels=labels
    )
    alone = QueryWeakLoss(EncoderTags(judge), label_type="clip", strategy="joint")(
        est=0.5 * spectra(2, B, Q + 1, L, BINS), mix=mix, labels=labels
    )
    torch.testing.assert_close(terms["class_est"], alone["class_est"])
    assert not torch.allclose(terms["class_mix"], alone["class_mix"])


def test_the_level_of_an_estimate_is_heard():
    tags, spec = EncoderTags(make_net().eval()), spectra(1, B, L, BINS)
    assert torch.equal(tags(spec), tags(spec)) and not torch.allclose(tags(spec), tags(0.1 * spec), atol=1e-3)
    whole = tags.net.embed(spec, (L,) * B).framewise.transpose(1, 2)
    level = tags.net.level_of(spec, (L,) * B)[:, None, None]
    torch.testing.assert_close(tags(spec / level), whole)


def test_statistics_of_the_query_norm_are_not_moved_by_what_is_judged():
    net = make_net(query_norm=True, query_profile=True).train()
    before = net.query_norm.running_mean.clone()
    EncoderTags(net).hear(spectra(1, B, L, BINS))
    assert torch.equal(net.query_norm.running_mean, before) and net.query_norm.training


def test_refusals(known):
    with pytest.raises(DataError, match="tag_pooling"):
        EncoderTags(make_net(tag_pooling="mean"))
    with pytest.raises(DataError, match="num_classes 0"):
        EncoderTags(make_net(num_classes=0, tag_pooling="mean"))
    loss = QueryWeakLoss(EncoderTags(make_net()), label_type="clip", strategy="joint")
    with pytest.raises(ValueError, match="labels.asked"):
        loss(est=spectra(2, B, Q, L, BINS), mix=spectra(1, B, L, BINS), labels=Labels(clip=known["clip"]))
    with pytest.raises(ValueError, match="query"):
        query_consistency(est=torch.zeros(1, 2, 3), query=torch.zeros(1, 2, 4), active=torch.ones(1, 2))


def test_padding_does_not_count():
    est, ref = spectra(1, 1, L, BINS), spectra(2, 1, L, BINS)
    padded = [torch.cat([x, 9 * spectra(3, 1, 5, BINS)], 1) for x in (est, ref)]
    whole = spectral_ratio(est=est, ref=ref, mix=est + ref)
    cut = spectral_ratio(est=padded[0], ref=padded[1], mix=padded[0] + padded[1], lengths=torch.tensor([L]))
    torch.testing.assert_close(whole, cut)
