"""The tagging model: its loss by hand, with mixed labels, and what validation logs."""

import pytest
import torch
from sklearn.metrics import label_ranking_average_precision_score
from tag_standin import BandTagger

from espnet2_ext.enh.espnet_model_tag import ESPnetTaggingModel, ranking_precision


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ESPnetTaggingModel(BandTagger())


@pytest.fixture
def batch():
    speech = torch.randn(3, 1200, generator=torch.Generator().manual_seed(1))
    return {"speech": speech, "label": torch.eye(4)[:3], "speech_lengths": torch.tensor([1200, 1200, 800])}


def bce(p, y):
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean(-1)


def test_loss_is_the_cross_entropy_of_the_clips_own_samples(model, batch):
    loss, stats, weight = model(**batch, utt_id=["a", "b", "c"])
    p = torch.cat([model.net(batch["speech"][:2]).clipwise, model.net(batch["speech"][2:, :800]).clipwise]).sigmoid()
    assert torch.allclose(loss, bce(p, batch["label"]).mean())
    assert int(weight) == 3 and torch.allclose(stats["loss"], loss)


def test_mixup_mixes_features_and_labels_alike(model, batch):
    w = torch.tensor([0.9, 0.3, 0.6])
    loss, stats, _ = model(**batch, mixup=w[:, None])
    p = model.net(batch["speech"], batch["speech_lengths"], w).clipwise.sigmoid()
    first, middle, last = torch.eye(4)[:3]
    labels = torch.stack([0.9 * first + 0.1 * last, middle, 0.6 * last + 0.4 * first])
    assert torch.allclose(loss, bce(p, labels).mean(), atol=1e-6)
    assert "ranking" not in stats  # a mix has no ranking of its own
    del batch["speech_lengths"]
    alone = model(**batch, mixup=torch.ones(3, 1))[0]
    assert torch.allclose(alone, model(**batch)[0], atol=1e-6)  # weight 1: not mixed


def test_every_parameter_gets_a_gradient(model, batch):
    model(**batch)[0].backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_ranking_precision_by_hand_and_as_scikit_learn():
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]] * 4)
    label = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1], [1, 0, 1, 0], [0, 0, 0, 0]])
    assert ranking_precision(logits, label).tolist() == pytest.approx([1, 1 / 4, 5 / 6, 1])
    g = torch.Generator().manual_seed(0)
    logits, label = torch.randn(50, 6, generator=g), (torch.rand(50, 6, generator=g) < 0.3).float()
    theirs = label_ranking_average_precision_score(label.numpy(), logits.numpy())
    assert ranking_precision(logits, label).mean().item() == pytest.approx(theirs, abs=1e-6)


def test_rate_is_the_networks(model):
    assert model.fs == 8000 and list(model.state_dict()) == ["net.head.weight", "net.head.bias"]
