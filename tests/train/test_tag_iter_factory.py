"""Excerpts for taggers: what is drawn how often, and the same for any number of workers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from espnet2_ext.errors import DataError
from espnet2_ext.train.clip_data import Excerpt, ExcerptReader, TagDrawer, TagIterFactory, whole_clips


class Tables:
    """A bank without sound: clip 0 alone in class 0; clips 1, 2, 3 in class 1; class 2 empty; clip
    4 in classes 1 and 3."""

    fs, path, num_classes = 100, "tables", 4
    of = [[0], [1], [1], [1], [1, 3]]

    def __len__(self):
        return len(self.of)

    def labels(self, i):
        return np.array(self.of[i])

    def clips_of(self, k):
        return np.array([i for i, labels in enumerate(self.of) if k in labels], int)

    def num_samples(self, i):
        return 100 + i


N = 5000


def drawn(n=N, **options):
    drawer = TagDrawer(Tables(), **options)
    return [drawer.draw(np.random.default_rng([3, i])) for i in range(n)]


@pytest.mark.parametrize(
    "balance, shares",
    [
        ("class", [1 / 3, 1 / 12, 1 / 12, 1 / 12, 1 / 12 + 1 / 3]),  # 3 classes with clips
        ("clip", [1 / 5] * 5),
    ],
)
def test_how_often_each_clip_comes(balance, shares):
    counts = np.bincount([row.clip for row in drawn(balance=balance)], minlength=5)
    expected = N * np.array(shares)
    assert (np.abs(counts - expected) < 4 * np.sqrt(expected)).all(), (counts, expected)


def test_excerpts_lie_in_their_clips_at_any_place():
    rows = drawn(segment=0.5)
    assert {row.num for row in rows} == {50}
    for clip in range(5):  # each place comes, at least once in hundreds of draws
        assert {row.start for row in rows if row.clip == clip} == set(range(51 + clip))
    short = drawn(100, segment=1.02)  # two samples longer than clip 0
    assert {(row.start, row.num) for row in short if row.clip == 0} == {(0, 100)}
    assert {row.num for row in short if row.clip == 4} == {102}
    assert {(row.start, row.num) for row in drawn(100) if row.clip == 1} == {(0, 101)}


def test_gain_and_mixup_are_drawn_as_asked_for():
    rows = drawn(gain_db=[-20, 0], mixup_alpha=0.5)
    gains, weights = (np.array([getattr(r, n) for r in rows]) for n in ("gain", "mixup"))
    assert 0.1 <= gains.min() and gains.max() <= 1
    assert np.median(gains) == pytest.approx(10**-0.5, rel=0.05)
    # Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1)) = 1/8
    assert weights.mean() == pytest.approx(0.5, abs=0.02)
    assert weights.var() == pytest.approx(1 / 8, abs=0.005)
    assert {(r.gain, r.mixup) for r in drawn(9)} == {(1.0, None)}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"balance": "all"}, "balance must be one of class, clip; got 'all'"),
        ({"segment": 0.001}, "segment must be longer than one sample; got 0.001 s"),
        ({"mixup_alpha": -1}, "mixup_alpha must not be negative"),
        ({"gain_db": [3]}, r"gain_db must be \[lowest, highest\]; got \[3\]"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(DataError, match=message):
        TagDrawer(Tables(), **options)


def test_a_bank_without_labels_is_refused(monkeypatch):
    monkeypatch.setattr(Tables, "of", [[], []])
    with pytest.raises(DataError, match="tables: no clip has a label"):
        TagDrawer(Tables())


# ---- with sound ----------------------------------------------------------------------------------


def training(bank, **options):
    drawer = TagDrawer(bank, segment=0.25, mixup_alpha=0.5, gain_db=[-6, 6])
    options = {"batch_size": 4, "num_iters_per_epoch": 2, "seed": 7} | options
    return TagIterFactory(ExcerptReader(bank), drawer=drawer, **options)


def items(factory, epoch=1):
    """key -> (speech, label, weight) of an epoch, and the sizes of its batches."""
    got, sizes = {}, []
    for keys, batch in factory.build_iter(epoch):
        got |= {key: [batch[n][i] for n in ("speech", "label", "mixup")] for i, key in enumerate(keys)}
        sizes.append(len(keys))
    return got, sizes


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(x, y) for key in a for x, y in zip(a[key], b[key], strict=True))


def test_an_item_is_its_row(bank):
    item = ExcerptReader(bank)("x", {"excerpt": Excerpt("x", 6, 100, 500, 0.5, 0.25)})
    assert np.array_equal(item["speech"], 0.5 * bank.read(6, 100, 500))
    assert item["label"].tolist() == [0, 0, 1, 0] and item["mixup"].tolist() == [0.25]
    assert "mixup" not in ExcerptReader(bank)("x", {"excerpt": Excerpt("x", 6, 0, 5)})


def test_batches_are_what_espnets_trainer_takes(bank):
    (keys, batch), _ = training(bank).build_iter(1)
    assert keys[0] == "e0001-00000000" and batch["speech"].shape == (4, 2000)
    assert batch.keys() == {"speech", "speech_lengths", "label", "mixup"}
    assert batch["label"].shape == (4, 4) and batch["mixup"].shape == (4, 1)
    assert len(training(bank, num_iters_per_epoch=None).build_iter(1)) == 20 // 4


def test_workers_make_no_difference_and_epochs_can_be_repeated(bank):
    first, second = items(training(bank), 1)[0], items(training(bank), 2)[0]
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    factory = training(bank, num_workers=2)
    assert_same(items(factory, 1)[0], first)
    assert_same(items(factory, 2)[0], second)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.array_equal(np.random.get_state()[1], state[1])
    assert not any(torch.equal(first[k][2], second[k.replace("e0001", "e0002")][2]) for k in first)


def test_processes_share_an_epoch(bank):
    whole, _ = items(training(bank))
    parts = [items(training(bank, rank=rank, world_size=2)) for rank in (0, 1)]
    assert [sizes for _, sizes in parts] == [[2, 2], [2, 2]]
    assert not parts[0][0].keys() & parts[1][0].keys()
    assert_same(parts[0][0] | parts[1][0], whole)


def test_validation_takes_each_clip_once_and_whole(bank):
    factory = TagIterFactory(ExcerptReader(bank), rows=whole_clips(bank), batch_size=8)
    batches = list(factory.build_iter(1))
    assert sum((keys for keys, _ in batches), []) == [bank.id(i) for i in range(20)]
    lengths = torch.cat([batch["speech_lengths"] for _, batch in batches]).tolist()
    assert lengths == [bank.num_samples(i) for i in range(20)]
    assert all("mixup" not in batch for _, batch in batches)


def test_the_classes_drawn_are_logged(bank, caplog):
    with caplog.at_level("DEBUG"):
        items(training(bank))
    summary, table = caplog.messages
    assert summary.startswith("epoch 1, process 0 of 1: 8 clips of ")
    assert table.startswith("epoch 1: clips by class: Class 0 ")


def test_too_few_excerpts_are_said_so(bank):
    with pytest.raises(DataError, match="1 excerpts in batches of 4 are too few for 2 processes"):
        TagIterFactory(None, rows=whole_clips(bank)[:1], batch_size=4, world_size=2)
    with pytest.raises(ValueError, match="either a drawer"):
        TagIterFactory(None, batch_size=1)


def test_a_task_gives_each_process_its_share(monkeypatch, bank):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    args = SimpleNamespace(seed=7, num_workers=0, ngpu=0, train_dtype="float32")
    options = SimpleNamespace(distributed=True, preprocess_fn=ExcerptReader(bank), batch_size=4, collate_fn=None)
    factory = TagIterFactory.of_task(args, options, rows=whole_clips(bank))
    assert [keys[0] for keys, _ in factory.build_iter(1)][:2] == [bank.id(1), bank.id(5)]
    options.distributed = False
    assert TagIterFactory.of_task(args, options, rows=whole_clips(bank)).world_size == 1
