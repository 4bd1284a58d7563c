"""Losses from weak labels against values computed by hand, and the identities they must keep."""

import doctest
import math

import pytest
import torch
from torch import nn

from espnet2_ext.core.losses import in_parts, mixture_terms, weak_label, weak_terms
from espnet2_ext.core.losses.weak_label import (
    ClassifierLoss,
    Labels,
    WeakLabelLoss,
    active_mixture,
    class_loss,
    class_weights,
    mask_inference,
    mixture_consistency,
    remix_consistency,
)
from espnet2_ext.core.losses.weak_terms import estimate_labels, pick_weights
from espnet2_ext.core.nets.sed import CRNNClassifier

LOG2 = math.log(2)
B, K, L, F = 3, 2, 10, 9


def h(label: float, p: float) -> float:
    """(7), as it stands in the paper."""
    return -label * math.log(p) - (1 - label) * math.log(1 - p)


class Loudness(nn.Module):
    """A classifier without secrets: a class is heard where its bin is loud."""

    def __init__(self, gain: float = 1.0):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, mag, lengths=None):
        return self.gain * (mag[..., :K] - 0.5).transpose(1, 2)

    def pool(self, logits, lengths=None):
        if lengths is not None:
            off = torch.arange(logits.shape[-1]) >= lengths[:, None, None]
            logits = logits.masked_fill(off, -1e9)
        return logits.amax(-1)

    def shrink(self, labels):
        return labels

    def frames(self, lengths):
        return lengths


def crnn() -> CRNNClassifier:
    torch.manual_seed(0)
    net = CRNNClassifier(F, K, channels=(2, 3, 4), kernel=3, hidden=4)
    for block in net.blocks:
        nn.init.normal_(block.norm.running_mean, std=0.1)
        nn.init.uniform_(block.norm.running_var, 0.5, 2)
    return net


def batch(sources: int = K, kind: str = "real"):
    """Estimates, mixture and labels of every type; item 1 is shorter than the others."""
    torch.manual_seed(1)
    dtype = torch.complex64 if kind == "complex" else torch.float32
    est = torch.randn(B, sources, L, F, dtype=dtype)
    ref = torch.randn(B, sources, L, F, dtype=dtype)
    est, ref = (est, ref) if kind == "complex" else (est.abs(), ref.abs())
    frame = (torch.rand(B, K, L) > 0.5).float()
    labels = Labels(frame.amax(-1), frame, ref, torch.tensor([0, 1, 2]))
    return est, ref.sum(1), labels, torch.tensor([L, 6, L])


def item(x, i: int):
    return Labels(*(None if v is None else v[i : i + 1] for v in x)) if isinstance(x, Labels) else x[i : i + 1]


@pytest.mark.parametrize("module", [weak_terms, mixture_terms, weak_label, in_parts])
def test_examples_in_docstrings(module):
    result = doctest.testmod(module, extraglobs={"torch": torch})
    assert result.attempted and not result.failed


# ---- values by hand --------------------------------------------------------------------------
def test_class_weights_by_hand():  # (16)
    got = class_weights(torch.tensor([0.1, 0.5, 0.8, 0.0, 1.0]))
    want = torch.tensor([[1 / 0.9, 2.0, 5.0, 1.0, 1.0], [10.0, 2.0, 1.25, 1.0, 1.0]])
    assert torch.allclose(got, want)


def test_weights_let_active_and_inactive_frames_count_alike():
    labels = torch.zeros(1, 2, 100)
    labels[0, 0, :10], labels[0, 1, :75] = 1, 1
    weight = pick_weights(class_weights(labels.mean((0, 2))), labels)
    on, off = (weight * labels).sum(-1), (weight * (1 - labels)).sum(-1)
    assert torch.allclose(on, torch.full_like(on, 100)) and torch.allclose(off, on)


def test_mask_inference_by_hand():  # (3), (17)
    est = torch.tensor([[[[1.0, 2.0], [0.0, 1.0]], [[0.0, 0.0], [4.0, 1.0]]]])  # 2 x 2 x 2
    ref = torch.tensor([[[[0.0, 2.0], [2.0, 1.0]], [[0.5, 0.0], [1.0, 2.0]]]])
    # |differences|: source 0: 1 + 0, 2 + 0; source 1: 0.5 + 0, 3 + 1
    assert mask_inference(est=est, ref=ref, reduction="sum").item() == 7.5
    assert mask_inference(est=est, ref=ref).item() == 7.5 / 4  # 2 bins, 2 frames
    weight = torch.tensor([[[10.0, 1.0], [2.0, 3.0]]])
    got = mask_inference(est=est, ref=ref, weight=weight, reduction="sum")
    assert got.item() == 10 * 1 + 1 * 2 + 2 * 0.5 + 3 * 4
    first = mask_inference(est=est, ref=ref, weight=weight, lengths=torch.tensor([1]))
    assert first.item() == (10 * 1 + 2 * 0.5) / 2


def test_mixture_consistency_by_hand():  # (4)
    est = torch.tensor([[[[1.0, 2.0], [0.0, 1.0]], [[0.0, 0.0], [4.0, 1.0]]]])
    mix = torch.tensor([[[2.0, 2.0], [1.0, 2.5]]])  # sums are 1, 2 and 4, 2
    assert mixture_consistency(est=est, mix=mix, reduction="sum").item() == 1 + 0 + 3 + 0.5
    assert mixture_consistency(est=est, mix=mix).item() == 4.5 / 4
    assert mixture_consistency(est=est, mix=mix, lengths=torch.tensor([1])).item() == 0.5


def test_frame_mixture_by_hand():  # (5)
    est = torch.tensor([[[[1.0], [2.0], [3.0]], [[0.5], [0.25], [4.0]]]])  # 2 sources, 3 frames
    mix = torch.tensor([[[2.0], [3.0], [9.0]]])
    active = torch.tensor([[[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]]])  # nothing sounds in frame 2
    # frame 0: |2 - 1| + |0.5|; frame 1: |3 - 2.25|; frame 2 does not count
    got = active_mixture(est=est, mix=mix, active=active, reduction="sum")
    assert got.item() == 1 + 0.5 + 0.75
    assert active_mixture(est=est, mix=mix, active=active).item() == 2.25 / 2
    signed = active_mixture(est=-est, mix=mix, active=active, reduction="sum")
    assert signed.item() == 3 + 0.5 + 5.25


def test_residual_output_takes_the_rest():
    est = torch.tensor([[[[1.0], [2.0]], [[0.5], [4.0]], [[1.0], [3.0]]]])  # 2 classes and the rest
    mix = torch.tensor([[[2.0], [9.0]]])
    active = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    # frame 0: |2 - 1 - 1| + 0.5; frame 1, where no class sounds: |9 - 3| + 2 + 4
    assert active_mixture(est=est, mix=mix, active=active, reduction="sum").item() == 0.5 + 12
    assert active_mixture(est=est, mix=mix, active=active).item() == 12.5 / 2


def test_clip_mixture_is_the_frame_mixture_of_constant_labels():  # (6)
    est, mix, labels, lengths = batch()
    for clip in (labels.clip, torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])):
        constant = clip[..., None].expand(-1, -1, L)
        for kw in ({}, {"lengths": lengths}, {"reduction": "sum"}):
            clipwise = active_mixture(est=est, mix=mix, active=clip, **kw)
            assert clipwise.equal(active_mixture(est=est, mix=mix, active=constant, **kw))
    assert active_mixture(est=est, mix=mix, active=torch.zeros(B, K)).eq(0).all()


def test_all_active_is_the_plain_mixture_consistency():
    est, mix, _, lengths = batch()
    got = active_mixture(est=est, mix=mix, active=torch.ones(B, K, L), lengths=lengths)
    assert torch.allclose(got, mixture_consistency(est=est, mix=mix, lengths=lengths))


def test_parts_of_a_mixture_of_mixtures_by_hand():
    # K 3, two parts, L 4, F 1: apart, both parts hold class 0, nothing sounds, part 0 alone
    est = torch.tensor([[1.0, 9.0, 9.0, 2.0], [2.0, 9.0, 9.0, 0.5], [4.0, 9.0, 9.0, 1.0]])
    active = torch.tensor(
        [
            [[1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]],
            [[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]],
        ]
    )
    parts = torch.tensor([[3.0, 0.0, 7.0, 2.0], [5.0, 0.0, 7.0, 0.25]])
    given = {"est": est[None, ..., None], "parts": parts[None, ..., None], "active": active[None]}
    # frame 0: |3 - 1| + |5 - 2 - 4|; frame 3: |2 - 2 - 0.5| + |0.25|
    assert remix_consistency(**given, reduction="sum").item() == 3 + 0.75
    assert remix_consistency(**given).item() == 3.75 / 2
    assert remix_consistency(**given, lengths=torch.tensor([3])).item() == 3
    of_clips = {**given, "active": active[None, ..., 0]}  # the labels of frame 0 in each frame
    want = [3, 9 + 18, abs(7 - 9) + abs(7 - 18), 0 + 1.25]
    assert remix_consistency(**of_clips, reduction="sum").item() == sum(want)
    turned = {k: x * 1j if k != "active" else x for k, x in given.items()}
    assert remix_consistency(**turned).item() == 3.75 / 2


def test_each_bin_of_a_residual_goes_to_the_part_that_it_fits():
    est = torch.tensor([[[1.0, 1.0]], [[2.0, 2.0]], [[4.0, 0.5]]])  # 2 classes, the rest; F 2
    parts = torch.tensor([[[5.5, 1.0]], [[2.0, 2.25]]])
    given = {"est": est[None], "parts": parts[None], "active": torch.eye(2)[None]}
    # bin 0: to part 0, |5.5 - 1 - 4| + 0; bin 1: to part 1, 0 + |2.25 - 2 - 0.5|
    assert remix_consistency(**given, reduction="sum").item() == 0.5 + 0.25
    silent = {**given, "active": torch.zeros(1, 2, 2)}  # bin 0: 1.5 + 2; bin 1: 1 + 1.75
    assert remix_consistency(**silent, reduction="sum").item() == 3.5 + 2.75
    assert remix_consistency(**{**silent, "est": est[None, :2]}).item() == 0


def test_one_class_a_part_is_strong_supervision():
    est, _, labels, lengths = batch()
    active = torch.eye(K).expand(B, K, K)
    got = remix_consistency(est=est, parts=labels.ref, active=active, lengths=lengths)
    assert torch.allclose(got, mask_inference(est=est, ref=labels.ref, lengths=lengths))


def test_class_terms_by_hand():  # (8), (9), (10)
    mix = torch.tensor([[[0.9], [0.2]]])  # p of 2 classes, 1 frame
    est = torch.tensor([[[[0.8], [0.3]], [[0.1], [0.4]]]])  # p of each class in each estimate
    labels = torch.tensor([[[1.0], [0.0]]])
    terms = class_loss(logits_mix=mix.logit(), logits_est=est.logit(), labels=labels)
    assert terms["class_mix"].item() == pytest.approx(h(1, 0.9) + h(0, 0.2), abs=1e-6)
    first, second = h(1, 0.8) + h(0, 0.3), h(0, 0.4) + h(0, 0.1)
    assert terms["class_est"].item() == pytest.approx(first + second, abs=1e-6)


def test_weighted_class_terms_by_hand():  # (18), (19)
    mix = torch.tensor([[[0.9], [0.2]]])
    est = torch.tensor([[[[0.8], [0.3]], [[0.1], [0.4]]]])
    labels = torch.tensor([[[1.0], [0.0]]])
    terms = class_loss(
        logits_mix=mix.logit(), logits_est=est.logit(), labels=labels, weight=class_weights(torch.tensor([0.25, 0.2]))
    )
    w0, w1 = 4.0, 1.25  # class 0 sounds, class 1 does not
    want = w0 * h(1, 0.9) + w1 * h(0, 0.2)
    assert terms["class_mix"].item() == pytest.approx(want, abs=1e-5)
    want = w0 * h(1, 0.8) + w1 * h(0, 0.3) + w1 * h(0, 0.4) + w0 * h(0, 0.1)
    assert terms["class_est"].item() == pytest.approx(want, abs=1e-5)


def test_clip_class_terms_are_those_of_a_single_frame():  # (12), (13), (14)
    torch.manual_seed(0)
    mix, est = torch.randn(B, K), torch.randn(B, K + 1, K)
    labels = (torch.rand(B, K) > 0.5).float()
    clip = class_loss(logits_mix=mix, logits_est=est, labels=labels)
    frame = class_loss(logits_mix=mix[..., None], logits_est=est[..., None], labels=labels[..., None])
    assert all(torch.allclose(clip[k], frame[k]) for k in ("class_mix", "class_est"))


def test_no_class_may_sound_in_the_residual():
    labels = torch.ones(1, 2)
    assert estimate_labels(labels, 3)[0].tolist() == [[1, 0], [0, 1], [0, 0]]
    logits = torch.full((1, 3, 2), -60.0)
    logits[0, 0, 0] = logits[0, 1, 1] = 60.0
    right = class_loss(logits_mix=None, logits_est=logits, labels=labels)["class_est"]
    logits[0, 2, 1] = 0.0
    wrong = class_loss(logits_mix=None, logits_est=logits, labels=labels)["class_est"]
    assert right.item() < 1e-20 and wrong.item() == pytest.approx(LOG2)


def test_sums_and_means_over_frames():
    torch.manual_seed(0)
    logits, labels = torch.randn(B, K, L), torch.ones(B, K, L)
    lengths = torch.tensor([L, 6, 1])
    total, mean = (
        class_loss(logits_mix=logits, logits_est=None, labels=labels, lengths=lengths, reduction=r)["class_mix"]
        for r in ("sum", "mean")
    )
    assert torch.allclose(total, mean * lengths)


def test_weights_of_one_change_nothing():
    est, _, labels, lengths = batch()
    plain = mask_inference(est=est, ref=labels.ref, lengths=lengths)
    ones = torch.ones(B, K, L)
    assert plain.equal(mask_inference(est=est, ref=labels.ref, weight=ones, lengths=lengths))
    logits = {"logits_mix": torch.randn(B, K, L), "logits_est": torch.randn(B, K, K, L)}
    plain = class_loss(**logits, labels=labels.frame)
    weighted = class_loss(**logits, labels=labels.frame, weight=torch.ones(2, K))
    assert all(plain[k].equal(weighted[k]) for k in plain)


# ---- the losses as a whole -------------------------------------------------------------------
def test_frame_and_clip_loss_by_hand():  # (11), (15)
    est = torch.tensor([[[[1.0, 0.0], [0.5, 0.0]], [[0.0, 0.5], [0.0, 2.0]]]])  # [1, 2, L 2, F 2]
    mix = torch.tensor([[[1.5, 0.5], [0.5, 2.0]]])
    frame = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    labels = Labels(clip=torch.ones(1, 2), frame=frame)

    def p(x: float) -> float:
        return 1 / (1 + math.exp(0.5 - x))

    got = WeakLabelLoss(Loudness(), alpha=10.0, strategy="joint")(est=est, mix=mix, labels=labels)
    of_mix = [h(1, p(1.5)) + h(0, p(0.5)), h(0, p(0.5)) + h(1, p(2.0))]  # frames
    of_est = [
        h(1, p(1.0)) + h(0, p(0.0)) + h(0, p(0.0)) + h(0, p(0.5)),
        h(0, p(0.5)) + h(0, p(0.0)) + h(0, p(0.0)) + h(1, p(2.0)),
    ]
    mixture = ((0.5 + 0.5 + 0.5) + (0.5 + 0.0 + 0.5)) / 4  # rest and leak of each frame
    assert got["class_mix"].item() == pytest.approx(sum(of_mix) / 2, abs=1e-6)
    assert got["class_est"].item() == pytest.approx(sum(of_est) / 2, abs=1e-6)
    assert got["mixture"].item() == pytest.approx(mixture)
    want = (sum(of_mix) + sum(of_est)) / 2 + 10 * mixture
    assert got["loss"].item() == pytest.approx(want, abs=1e-5)

    got = WeakLabelLoss(Loudness(), label_type="clip", alpha=10.0, strategy="joint", reduction="sum")(
        est=est, mix=mix, labels=labels
    )
    want = h(1, p(1.5)) + h(1, p(2.0))  # maxima over time
    want += h(1, p(1.0)) + h(0, p(0.0)) + h(0, p(0.0)) + h(1, p(2.0))
    want += 10 * 0.5  # |1.5 - 1| in one bin; the rest adds up
    assert got["loss"].item() == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("label_type", ["strong", "frame", "clip", "mixed"])
def test_no_loss_at_the_truth(label_type):
    frame = torch.zeros(B, K, L)
    frame[:, 0, :6], frame[:, 1, 3:] = 1, 1
    ref = torch.zeros(B, K, L, F)
    ref[:, 0, :, 0], ref[:, 1, :, 1] = frame[:, 0], frame[:, 1]  # each class in a bin of its own
    labels = Labels(frame.amax(-1), frame, ref, torch.arange(3))
    mix = ref.sum(1)
    if label_type in ("clip", "mixed"):
        assert labels.clip.all()
    loss = WeakLabelLoss(Loudness(gain=1000.0), label_type=label_type, strategy="joint")
    got = loss(est=ref, mix=mix, labels=labels)
    assert all(v.eq(0).all() for v in got.values())
    worse = loss(est=ref.flip(1), mix=mix, labels=labels)  # sources in the wrong order
    assert (worse["loss"] > 0.1).all()


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("sources", [K, K + 1])
@pytest.mark.parametrize("strategy", ["fixed", "joint"])
def test_a_mixed_batch_is_its_items_one_by_one(strategy, sources, kind):
    est, mix, labels, lengths = batch(sources, kind)
    net, prior = crnn().eval(), torch.tensor([0.3, 0.6])
    net.requires_grad_(strategy == "joint")
    options = {"prior": prior, "strategy": strategy, "alpha": 3.0}
    mixed = WeakLabelLoss(net, label_type="mixed", **options).eval()
    got = mixed(est=est, mix=mix, labels=labels, lengths=lengths)
    for i, label_type in enumerate(("strong", "frame", "clip")):
        alone = WeakLabelLoss(net, label_type=label_type, **options).eval()
        want = alone(
            est=item(est, i), mix=item(mix, i), labels=item(labels, i)._replace(kind=None), lengths=item(lengths, i)
        )
        for name, value in got.items():
            expected = want.get(name, torch.zeros(1))
            assert torch.allclose(value[i : i + 1], expected, atol=1e-5), (label_type, name)


@pytest.mark.parametrize("label_type", ["strong", "frame", "clip", "mixed"])
def test_the_term_of_mixtures_of_mixtures_is_added_with_its_weight(label_type):
    est, mix, labels, lengths = batch()
    active = torch.eye(K).expand(B, K, K) if label_type == "clip" else torch.eye(K)[None, ..., None].expand(B, K, K, L)
    known = labels._replace(parts=labels.ref, part_active=active)
    plain, remix = (WeakLabelLoss(crnn(), label_type=label_type, remix=r).eval() for r in (0, 7.0))
    given = {"est": est, "mix": mix, "lengths": lengths}
    before, after = plain(**given, labels=known), remix(**given, labels=known)
    term = remix_consistency(est=est, parts=labels.ref, active=torch.eye(K).expand(B, K, K), lengths=lengths)
    if label_type == "mixed":
        term = term * (labels.kind != 0)  # strong items know more
    if label_type == "strong":
        assert after.keys() == before.keys() and after["loss"].equal(before["loss"])
        return
    assert "remix" not in before and torch.allclose(after["remix"], term)
    assert torch.allclose(after["loss"], before["loss"] + 7 * term) and (term > 0).any()
    assert remix(**given, labels=labels)["remix"].eq(0).all()  # mixtures as they are


@pytest.mark.parametrize("label_type", ["strong", "frame", "clip", "mixed"])
def test_padding_changes_nothing(label_type):
    est, mix, labels, _ = batch(K + 1)
    lengths = torch.tensor([6, 6, 6])
    loss = WeakLabelLoss(crnn(), label_type=label_type, prior=torch.tensor([0.3, 0.6]))
    got = loss(est=est, mix=mix, labels=labels, lengths=lengths)
    short = Labels(labels.clip, labels.frame[..., :6], labels.ref[:, :, :6], labels.kind)
    want = loss(est=est[:, :, :6], mix=mix[:, :6], labels=short)
    assert all(torch.allclose(got[k], want[k], atol=1e-5) for k in want)


def test_fixed_classifier_learns_nothing_and_passes_the_same_gradient_on():
    est, mix, labels, lengths = batch()
    for label_type in ("frame", "clip"):
        grads, losses = [], []
        for strategy in ("fixed", "joint"):
            net = crnn().eval()
            loss = WeakLabelLoss(net, label_type=label_type, strategy=strategy, alpha=2.0).eval()
            est_ = est.clone().requires_grad_()
            got = loss(est=est_, mix=mix, labels=labels, lengths=lengths)
            got["loss"].sum().backward()
            grads.append(est_.grad)
            losses.append(got["loss"] - got.get("class_mix", 0))
            learns = [p.grad is not None for p in net.parameters()]
            assert (
                all(learns) if strategy == "joint" and label_type == "frame" else any(learns) == (strategy == "joint")
            )
        assert torch.allclose(losses[0], losses[1], atol=1e-5)  # but for the constant
        assert torch.allclose(grads[0], grads[1], atol=1e-6) and grads[0].abs().sum() > 0


@pytest.mark.parametrize("part", [1, 2, 4, 100])
def test_the_size_of_a_part_changes_nothing(part):
    est, mix, labels, lengths = batch()
    results = []
    for size in (None, part):
        est_ = est.clone().requires_grad_()
        loss = WeakLabelLoss(crnn(), prior=torch.tensor([0.3, 0.6]), part=size)
        value = loss(est=est_, mix=mix, labels=labels, lengths=lengths)["loss"]
        (value * torch.tensor([1.0, 2.0, -0.5])).sum().backward()
        with torch.no_grad():
            same = loss(est=est, mix=mix, labels=labels, lengths=lengths)["loss"]
        assert torch.allclose(same, value, atol=1e-5)
        results.append((value, est_.grad))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*results))


def test_a_fixed_classifier_stays_in_evaluation_mode():
    net = crnn()
    loss = WeakLabelLoss(net).train()
    assert not net.training and not any(p.requires_grad for p in net.parameters())
    net.train()  # as a model that holds it may do
    est, mix, labels, _ = batch()
    loss(est=est, mix=mix, labels=labels)
    assert not net.training
    assert WeakLabelLoss(crnn(), strategy="joint").train().classifier.training


def test_joint_training_reaches_every_parameter():
    est, mix, labels, lengths = batch()
    loss = WeakLabelLoss(crnn(), strategy="joint").train()
    loss(est=est, mix=mix, labels=labels, lengths=lengths)["loss"].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in loss.parameters())


def test_classifier_loss_is_the_class_term_on_the_mixture():
    _, mix, labels, lengths = batch()
    net, prior = crnn().eval(), torch.tensor([0.3, 0.6])
    frames = net.frames(lengths)
    valid = torch.arange(L) < lengths[:, None]
    logits = net(mix, lengths)
    frame = class_loss(
        logits_mix=logits,
        logits_est=None,
        labels=net.shrink(labels.frame * valid[:, None]),
        weight=class_weights(prior),
        lengths=frames,
    )["class_mix"]
    clip = class_loss(logits_mix=net.pool(logits, frames), logits_est=None, labels=labels.clip)["class_mix"]
    for label_type, want in (
        ("frame", frame),
        ("strong", frame),
        ("clip", clip),
        ("mixed", torch.cat([frame[:2], clip[2:]])),
    ):
        loss = ClassifierLoss(net, label_type=label_type, prior=prior)
        got = loss(mix=mix, labels=labels, lengths=lengths)
        assert torch.allclose(got["loss"], want, atol=1e-5) and not got["class_mix"].requires_grad


def test_strong_scale_and_clip_weights():
    est, mix, labels, _ = batch()
    one, two = (
        WeakLabelLoss(None, label_type="strong", strong_scale=s)(est=est, mix=mix, labels=labels) for s in (1.0, 2.0)
    )
    assert torch.allclose(2 * one["loss"], two["loss"]) and one["strong"].equal(two["strong"])
    half = torch.tensor([0.5, 0.5])  # weights of 2 everywhere
    plain, frame, clip = (
        WeakLabelLoss(Loudness(), label_type="clip", **kw)(est=est, mix=mix, labels=labels)["class_est"]
        for kw in ({}, {"prior": half}, {"clip_prior": half})
    )
    assert plain.equal(frame) and torch.allclose(clip, 2 * plain)


# ---- edges and refusals ----------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e4])
@pytest.mark.parametrize("strategy", ["fixed", "joint"])
def test_loss_and_gradient_are_finite_at_every_level(strategy, scale, kind):
    est, mix, labels, lengths = batch(K + 1, kind)
    est = (scale * est).requires_grad_()
    loss = WeakLabelLoss(crnn(), label_type="mixed", prior=torch.tensor([0.0, 1.0]), strategy=strategy)
    got = loss(est=est, mix=scale * mix, labels=labels._replace(ref=scale * labels.ref), lengths=lengths)
    got["loss"].sum().backward()
    assert got["loss"].isfinite().all() and torch.view_as_real(est.grad + 0j).isfinite().all()


def test_half_precision_input_is_summed_in_full():
    est, mix, labels, _ = batch()
    est, mix = est.bfloat16().requires_grad_(), mix.bfloat16()
    loss = WeakLabelLoss(crnn(), label_type="frame")
    got = loss(est=est, mix=mix, labels=labels)["loss"]
    got.sum().backward()
    assert got.dtype == torch.float32 and est.grad.isfinite().all()
    assert torch.allclose(got, loss(est=est.float(), mix=mix.float(), labels=labels)["loss"])


@pytest.mark.parametrize("strategy", ["fixed", "joint"])
def test_autocast(strategy):
    est, mix, labels, lengths = batch()
    est.requires_grad_()
    loss = WeakLabelLoss(crnn(), label_type="mixed", strategy=strategy).eval()
    want = loss(est=est, mix=mix, labels=labels, lengths=lengths)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        got = loss(est=est, mix=mix, labels=labels, lengths=lengths)["loss"]
    got.sum().backward()
    assert torch.allclose(got, want, rtol=1e-2) and est.grad.isfinite().all()


def test_items_without_any_label():
    est, mix, labels, _ = batch()
    none = Labels(torch.zeros(B, K), torch.zeros(B, K, L))
    for label_type in ("frame", "clip"):
        got = WeakLabelLoss(Loudness(), label_type=label_type)(est=est, mix=mix, labels=none)
        assert got["mixture"].eq(0).all() and (got["class_est"] > 0).all()


EST, MIX = torch.zeros(2, 3, 4, 5), torch.zeros(2, 4, 5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: mask_inference(est=EST, ref=EST[:, :2]),
        lambda: mask_inference(est=EST, ref=EST + 0j),
        lambda: mask_inference(est=EST, ref=EST, weight=torch.ones(2, 3)),
        lambda: mixture_consistency(est=EST, mix=MIX[:1]),
        lambda: mixture_consistency(est=EST, mix=MIX + 0j),
        lambda: active_mixture(est=EST, mix=MIX[..., :2], active=torch.ones(2, 3, 4)),
        lambda: active_mixture(est=EST, mix=MIX, active=torch.ones(2, 3, 5)),
        lambda: active_mixture(est=EST, mix=MIX, active=torch.ones(2, 4, 4)),
        lambda: remix_consistency(est=EST, parts=EST[:, :2, :3], active=torch.ones(2, 2, 3, 4)),
        lambda: remix_consistency(est=EST, parts=EST[:, :2] + 0j, active=torch.ones(2, 2, 3, 4)),
        lambda: remix_consistency(est=EST, parts=EST[:, :2], active=torch.ones(2, 2, 4)),
        lambda: WeakLabelLoss(Loudness(), label_type="clip", remix=1.0)(
            est=EST, mix=MIX, labels=Labels(clip=torch.ones(2, 3), parts=EST)
        ),
        lambda: class_weights(torch.ones(2, 2)),
        lambda: pick_weights(torch.ones(2, 3), torch.ones(1, 2)),
        lambda: class_loss(logits_mix=torch.ones(2, 3), logits_est=None, labels=torch.ones(2, 4)),
        lambda: class_loss(logits_mix=None, logits_est=torch.ones(2, 3, 4), labels=torch.ones(2, 3)),
        lambda: WeakLabelLoss(Loudness())(est=MIX, mix=MIX, labels=Labels()),
        lambda: WeakLabelLoss(Loudness())(est=EST, mix=MIX, labels=Labels(clip=torch.ones(2, 3))),
        lambda: WeakLabelLoss(Loudness(), label_type="clip")(est=EST, mix=MIX, labels=Labels()),
        lambda: WeakLabelLoss(None, label_type="strong")(est=EST, mix=MIX, labels=Labels()),
        lambda: WeakLabelLoss(Loudness(), label_type="mixed")(est=EST, mix=MIX, labels=Labels()),
        lambda: WeakLabelLoss(Loudness(), label_type="mixed")(
            est=EST, mix=MIX, labels=Labels(kind=torch.tensor([0, 3]))
        ),
    ],
)
def test_shapes_and_labels_that_do_not_fit_are_refused(call):
    with pytest.raises(ValueError, match="expected .*, got"):
        call()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"label_type": "weak"}, "label_type must be one of .*mixed.*, not 'weak'"),
        ({"strategy": "frozen"}, "strategy must be one of .*fixed.*, not 'frozen'"),
        ({"reduction": "max"}, "reduction must be one of .*sum.*, not 'max'"),
        ({"prior": torch.tensor([0.5, 1.5])}, "prior of class 1 must lie between 0 and 1, not 1.5"),
        ({"prior": torch.tensor([float("nan"), 0.5])}, "prior of class 0 .* not nan"),
    ],
)
def test_settings_that_do_not_exist_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        WeakLabelLoss(Loudness(), **options)


def test_weak_labels_need_a_classifier():
    with pytest.raises(ValueError, match="clip labels need a classifier"):
        WeakLabelLoss(None, label_type="clip")


@pytest.mark.parametrize("label_type, pooled", [("frame", 3), ("clip", 1)])
def test_balance_of_means_and_sums(label_type, pooled):
    """alpha of means is alpha L' / (L F) of sums for frame labels, alpha / (L F) for clip labels."""
    est, mix, labels, _ = batch(sources=K + 1)  # with a residual, all frames count
    mean = WeakLabelLoss(crnn(), label_type=label_type, alpha=100.0)
    total = WeakLabelLoss(crnn(), label_type=label_type, alpha=100.0 * pooled / (L * F), reduction="sum")
    want, got = (loss(est=est, mix=mix, labels=labels)["loss"] for loss in (mean, total))
    assert mean.classifier.frames(torch.tensor(L)) == 3 and torch.allclose(got, pooled * want, rtol=1e-4)
    assert 100 * 126 / (501 * 257) == pytest.approx(0.098, abs=5e-4)
    assert 100 / (501 * 257) == pytest.approx(7.8e-4, abs=5e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("strategy", ["fixed", "joint"])
@pytest.mark.parametrize("label_type", ["frame", "clip", "mixed"])
def test_weights_of_half_precision(dtype, strategy, label_type):
    est, mix, labels, lengths = batch()
    priors = {"prior": torch.tensor([0.2, 0.5]), "clip_prior": torch.tensor([0.4, 0.5])}
    losses = [WeakLabelLoss(crnn(), label_type=label_type, strategy=strategy, **priors) for _ in range(2)]
    want = losses[0](est=est, mix=mix, labels=labels, lengths=lengths)
    half = est.to(dtype).requires_grad_()
    got = losses[1].to(dtype)(est=half, mix=mix.to(dtype), labels=labels, lengths=lengths)
    got["loss"].sum().backward()
    assert half.grad.isfinite().all() and half.grad.dtype == dtype
    for name in want:
        assert torch.allclose(got[name], want[name], rtol=0.05), name
    alone = [ClassifierLoss(crnn(), label_type=label_type, **priors).eval() for _ in range(2)]
    whole = alone[0](mix=mix, labels=labels, lengths=lengths)["loss"]
    assert torch.allclose(alone[1].to(dtype)(mix=mix, labels=labels, lengths=lengths)["loss"], whole, rtol=0.05)


def test_second_derivatives_are_refused():
    x = torch.randn(4, 3, requires_grad=True)
    loss = in_parts.in_parts(lambda piece, here: piece.pow(3).sum(1), x, 2).sum() + x.square().sum()
    with pytest.raises(RuntimeError, match="in_parts gives no second derivatives"):
        torch.autograd.grad(loss, x, create_graph=True)
