"""The model of separation by query from weak labels: what learns, what is asked for, what is kept of a training."""

import pytest
import torch
import yaml
from weak_corpus import CLASSES, HOP, ROOT, model_args

from espnet2_ext.build import build_model
from espnet2_ext.core.separators import TRAINING
from espnet2_ext.errors import DataError
from espnet2_ext.tasks.qweak import QueryWeakTask
from espnet2_ext.util.config import read_config

T, B = 8000, 6
CONFIG = "conf/debug/train_qweak.yaml"
PRIORS = ["--frame_prior", 0.2, 0.5, 0.4, "--clip_prior", 0.5, 0.5, 0.5]


def build(*more, seed=0):
    torch.manual_seed(seed)
    model = QueryWeakTask.build_model(model_args(*PRIORS, *more, config=CONFIG, task=QueryWeakTask))
    torch.nn.init.normal_(model.extractor.net.context.outer.weight)  # which begins with adding nothing
    return model.train()


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(1)
    refs = torch.randn(B, 3, T, generator=g) * 0.1
    clip = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 0], [0, 1, 1]])
    refs = refs * clip[..., None]
    frame = clip[:, None].repeat(1, T // HOP + 1, 1)
    return {
        "speech_mix": refs.sum(1),
        "speech_mix_lengths": torch.tensor([T, T, T, T, T - 500, T]),
        "clip_label": clip,
        "frame_label": frame,
        "label_kind": torch.tensor([[0], [1], [2], [2], [1], [0]]),
        **{f"speech_ref{s}": refs[:, s - 1] for s in range(1, 4)},
    }


def stretches(model, batch, lengths):
    mix = batch["speech_mix"]
    return model._stretches(model._spectrum(mix, lengths), mix, lengths, batch)


def without_gradient(model):
    return [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]


@pytest.mark.parametrize("strategy", ["joint", "fixed"])
@pytest.mark.parametrize("part", ["classifier", "separator"])
@pytest.mark.parametrize("kind", ["strong", "frame", "clip", "mixed"])
def test_every_weight_that_can_learn_does(batch, kind, part, strategy):
    model = build("--part", part, "--label_type", kind, "--strategy", strategy)
    loss, stats, weight = model(**batch)
    loss.backward()
    assert loss.isfinite() and all(v.isfinite().all() for v in stats.values()) and weight == B
    assert without_gradient(model) == []
    assert all(p.requires_grad == (part == "separator") for p in model.extractor.net.unet.parameters())
    assert all(p.requires_grad for p in model.extractor.net.encoder.parameters())


def test_validation_is_repeatable_and_scores_where_sources_are_known(batch):
    model = build("--label_type", "clip").eval()
    with torch.no_grad():
        first, again = model(**batch)[1], model(**batch)[1]
    assert {k: v.item() for k, v in first.items()} == {k: v.item() for k, v in again.items()}
    assert first["si_sdr_gain"].isfinite()


def test_a_query_comes_from_another_recording_that_has_the_class(batch):
    model = build("--label_type", "clip")
    lengths = batch["speech_mix_lengths"]
    heard = stretches(model, batch, lengths)
    asked = torch.arange(3).expand(B, 3)
    origins = torch.stack([torch.arange(B), (torch.arange(B) + 1) % B], 1)
    for _ in range(20):
        source = model._choose(heard, asked, origins)
        assert (source >= 0).all()  # each class is in three recordings
        assert batch["clip_label"][source, asked].all()
        assert not (source[..., None] == origins[:, None]).any()
    assert (model._choose(heard, asked, torch.arange(B).expand(B, B)) == -1).all()


def test_a_stretch_heard_by_itself_knows_nothing_of_the_rest(batch):
    """As the cut piece; the last stretch lies behind the end of the fifth recording."""
    model = build("--label_type", "clip").eval()
    lengths = batch["speech_mix_lengths"]
    spec, frames, _ = model._spectrum(batch["speech_mix"], lengths)
    step, size, frames[4] = model.classifier.time_pool, model.size, 40
    last = -(-40 // step)
    got = model.classifier.hear_stretches(spec, frames, size, [0, 2, last])
    piece = spec[:, 2 * step : 2 * step + size]
    want = model.classifier.hear(piece, (frames - 2 * step).clamp(1, size)).clipwise
    torch.testing.assert_close(got[:, 1], want)
    assert got.shape == (B, 3, 3) and (got[4, 2] == -20).all() and (got[0, 2] > -20).all()
    changed = spec.clone()
    changed[:, :step] *= 7.0
    assert torch.equal(model.classifier.hear_stretches(changed, frames, size, [2]), got[:, 1:2])


def test_partners_are_added_and_ask_for_other_mixtures(batch):
    model = build("--label_type", "clip", "--remix", 1.0)
    order = torch.tensor([1, 0, 0, 2, 2, 0])  # which share no class with the six
    more = {f"partner_{k.removeprefix('speech_')}": x[order] for k, x in batch.items()}
    seen, asked = [], []
    model.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    choose = model._choose
    model._choose = lambda *given: asked.append((*given, choose(*given))) or asked[-1][-1]
    loss, stats, weight = model(**batch, **more)
    loss.backward()
    assert weight == B and stats["remix"].isfinite() and without_gradient(model) == []
    mix = batch["speech_mix"]
    assert torch.equal(seen[0], torch.cat([mix, mix[order]])) and torch.equal(seen[1], mix + mix[order])
    (_, classes, origins, source) = asked[0]
    assert origins.tolist() == [[i, B + i] for i in range(B)] and source.max() >= B
    assert not (source[..., None] == origins[:, None]).any()
    assert torch.cat([batch["clip_label"], more["partner_clip_label"]])[source[source >= 0], classes[source >= 0]].all()


def test_without_another_recording_the_mean_query_of_the_class_asks(batch):
    model = build("--label_type", "clip")
    heard = stretches(model, batch, batch["speech_mix_lengths"])
    asked = torch.tensor([[0, 1, 2]] * B)
    query, (item, cls, made) = model._embedded(heard, asked, torch.tensor([[0, 1, 2]] * B))
    means = getattr(model, TRAINING).means
    torch.testing.assert_close(means, made.detach())  # the first ones
    again, (_, _, none) = model._embedded(heard, asked, torch.full((B, 3), -1))
    torch.testing.assert_close(again, means.expand(B, -1, -1))
    assert len(none) == 0 and query.shape == again.shape


def test_stretches_are_cut_where_the_class_is_sure(batch):
    model = build("--label_type", "frame")
    batch["frame_label"][0, :, 0] = 0.0
    batch["frame_label"][0, 20:45, 0] = 1.0  # of 126 frames
    heard = stretches(model, batch, batch["speech_mix_lengths"])
    assert heard.at[0, 0] <= 20 and heard.at[0, 0] + model.size >= 45
    spec, frames = heard.cut(torch.tensor([0, 4]), torch.tensor([0, 0]), 10)
    at = heard.at[0, 0]
    assert torch.equal(spec[0], heard.spec[0, at : at + 10]) and frames.tolist() == [10, 10]


def test_the_teacher_follows_and_is_not_part_of_what_is_used(batch):
    model = build("--label_type", "clip", "--strategy", "finetune")
    held = getattr(model, TRAINING)
    model(**batch)  # begins with the weights that the model has by then
    old = held.net.head.weight.clone()
    torch.testing.assert_close(old, model.extractor.net.head.weight)
    with torch.no_grad():
        model.extractor.net.head.weight.add_(1.0)
    model(**batch)
    torch.testing.assert_close(held.net.head.weight, old + 0.1)  # decay 0.9
    config = vars(model_args(*PRIORS, config=CONFIG, task=QueryWeakTask)) | {"class_names": CLASSES}
    config["extractor_conf"] = {**config["extractor_conf"], "num_classes": 3}
    used = build_model(config, "qsep").state_dict().keys()
    ours = model.state_dict().keys()
    assert used == {k for k in ours if not k.startswith(TRAINING)} and any(k.startswith(TRAINING) for k in ours)


def test_an_encoder_that_stays_judges_without_a_copy(batch):
    model = build("--label_type", "clip", "--strategy", "fixed", "--model_conf", "train_encoder=false")
    loss, _, _ = model(**batch)
    loss.backward()
    assert without_gradient(model) == [] and model.classifier.judge is None
    learns = {name.split(".")[2] for name, p in model.named_parameters() if p.requires_grad}
    assert learns == {"unet", "hint", "pick", "context"}
    with pytest.raises(DataError, match="train_encoder: false leaves nothing to judge by.* joint"):
        build("--strategy", "joint", "--model_conf", "train_encoder=false")


def test_tags_are_trained_on_mixtures_of_the_gains(batch, monkeypatch):
    model = build("--part", "classifier", "--label_type", "clip", "--model_conf", "gain_db=[-20,-20]")
    heard = []
    monkeypatch.setattr(model, "_weak_loss", lambda est, spec, labels, frames: heard.append(spec))
    for mode in (False, True):
        model.train(mode)._classifier_step(batch["speech_mix"], batch["speech_mix_lengths"], batch)
    torch.testing.assert_close(heard[1], heard[0] / 10)


def test_pieces_leave_the_statistics_of_mixtures_as_they_are(batch):
    model = build("--label_type", "clip", "--model_conf", "purity=0.001", "--model_conf", "mined=1.0")
    heard = stretches(model, batch, batch["speech_mix_lengths"])
    heard = heard._replace(sure=torch.where(heard.sure.isneginf(), heard.sure, 0.0))
    item, cls = (batch["clip_label"] > 0.5).nonzero().T
    made = model.extractor.net.embed(*heard.cut(item, cls, model.size)).embedding
    before = {n: b.clone() for n, b in model.extractor.net.named_buffers()}
    value, stats = model._mined_loss(heard, (item, cls, made))
    value.backward()
    assert stats["mined_share"] == 1 and model.extractor.net.unet.norm.training
    assert all(torch.equal(b, before[n]) for n, b in model.extractor.net.named_buffers())


def test_a_query_must_not_enter_the_encoder(tmp_path):
    conf = {"num_bands": 32, "tag_pooling": "max", "depths": [1], "heads": [1], "connector_heads": 2, "window": 4}
    config = read_config(ROOT / CONFIG) | {"extractor": "care_sep", "extractor_conf": conf}
    (tmp_path / "sep.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(DataError, match="care_components does, or care_sep with query_at: decoder"):
        QueryWeakTask.build_model(model_args(*PRIORS, config=tmp_path / "sep.yaml", task=QueryWeakTask))


def test_refusals():
    with pytest.raises(DataError, match="num_classes is 7"):
        build("--extractor_conf", "num_classes=7")
    with pytest.raises(DataError, match="ask must be two numbers"):
        build("--model_conf", "ask=[3,2]")
    with pytest.raises(DataError, match="gain_db must be two numbers"):
        build("--model_conf", "gain_db=[0,-5]")
    with pytest.raises(DataError, match="residual"):
        build("--residual", "true")
