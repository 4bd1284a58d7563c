"""Epochs of pairs: the same data however many workers and processes there are."""

import dataclasses
import logging
import os
import shutil
import signal
import time
import types

import numpy as np
import pytest
import torch

from espnet2_ext.core.mixing.pair_drawer import PairDrawer
from espnet2_ext.data.mixtures.pair_list import draw_list
from espnet2_ext.errors import DataError, explain
from espnet2_ext.train.clip_data import PairIterFactory, QSepPreprocessor
from espnet2_ext.train.row_iter_factory import batch_bounds
from espnet2_ext.util import process


def training(bank, **options):
    drawer = PairDrawer(bank, segment=0.25, query_from="mixed", anchor="random", absent_prob=0.1)
    options = {"batch_size": 4, "num_iters_per_epoch": 3, "seed": 7} | options
    return PairIterFactory(QSepPreprocessor(True, bank, [-6, 6]), drawer=drawer, **options)


def validation(bank, pairs, **options):
    return PairIterFactory(QSepPreprocessor(False, bank), rows=pairs, **options)


def items(factory, epoch=1):
    """key -> mixture, and the number of batches."""
    got, batches = {}, 0
    for keys, batch in factory.build_iter(epoch):
        assert len(keys) == len(batch["speech_mix"])
        got |= dict(zip(keys, batch["speech_mix"], strict=True))
        batches += 1
    return got, batches


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_batches_are_what_espnets_trainer_takes(bank):
    loader = training(bank).build_iter(1)
    assert len(loader) == 3
    for keys, batch in loader:
        assert keys[0].startswith("e0001-") and len(set(keys)) == 4
        names = {"speech_mix", "speech_ref1", "speech_ref2", "enroll_ref1", "enroll_ref2"}
        lengths = {f"{name}_lengths" for name in names}
        assert batch.keys() == names | lengths | {"label1", "label2", "label_mix"}
        assert all(batch[name].shape == (4, 2000) for name in names)
        assert all(batch[name].tolist() == [2000] * 4 for name in lengths)
        assert batch["label1"].shape == (4, 4) and batch["label1"].dtype == torch.float32


def test_workers_make_no_difference_and_epochs_differ(bank):
    alone = training(bank)
    first, second = items(alone, 1)[0], items(alone, 2)[0]
    for workers in (1, 2):
        factory = training(bank, num_workers=workers)
        assert_same(items(factory, 1)[0], first)
        assert_same(items(factory, 2)[0], second)  # by the same worker processes
    mixtures = {key[5:]: x for key, x in first.items()}
    assert not any(torch.equal(x, mixtures[key[5:]]) for key, x in second.items())
    assert_same(items(training(bank), 2)[0], second)  # as after a resume
    other = items(training(bank, seed=8))[0]
    assert not any(torch.equal(x, first[key]) for key, x in other.items())


def test_an_epoch_broken_off_does_not_shift_the_next(bank):
    factory = training(bank, num_workers=1)
    for _ in factory.build_iter(1):
        break
    assert_same(items(factory, 2)[0], items(training(bank), 2)[0])


def test_global_random_state_is_left_alone(bank):
    torch.manual_seed(0)
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    items(training(bank, num_workers=1))
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.array_equal(np.random.get_state()[1], state[1])


@pytest.mark.parametrize("batch_size, sizes", [(4, [2, 2]), (5, [3, 2])])
def test_processes_share_an_epoch(bank, batch_size, sizes):
    whole, _ = items(training(bank, batch_size=batch_size))
    parts = []
    for rank in range(2):
        factory = training(bank, batch_size=batch_size, rank=rank, world_size=2)
        part, batches = items(factory)
        assert batches == 3 and len(part) == 3 * sizes[rank]
        parts.append(part)
    assert not parts[0].keys() & parts[1].keys()
    assert_same(parts[0] | parts[1], whole)


def test_validation_takes_each_row_once_in_order(bank):
    pairs = draw_list(bank, 9, 3, segment=0.25, anchor="peak")
    whole, batches = items(validation(bank, pairs, batch_size=4))
    assert list(whole) == [p.id for p in pairs] and batches == 3
    again = items(validation(bank, pairs, batch_size=4, num_workers=1), 5)[0]
    assert_same(again, whole)
    parts = [items(validation(bank, pairs, batch_size=4, rank=rank, world_size=2)) for rank in (0, 1)]
    assert parts[0][1] == parts[1][1] == 2  # the ninth row joins the second batch
    assert list(parts[0][0]) == [pairs[i].id for i in (0, 2, 4, 6, 8)]
    assert_same(parts[0][0] | parts[1][0], whole)


def test_batch_bounds_by_hand():
    assert batch_bounds(9, 4, 1) == [(0, 4), (4, 8), (8, 9)]
    assert batch_bounds(9, 4, 2) == [(0, 4), (4, 9)]
    assert batch_bounds(10, 4, 2) == [(0, 4), (4, 8), (8, 10)]
    assert batch_bounds(3, 4, 3) == [(0, 3)]
    for n, size, world in ((9, 2, 3), (2, 4, 3)):
        with pytest.raises(DataError, match=f"{n} pairs in batches of {size}.*{world} processes"):
            batch_bounds(n, size, world)


def test_whole_clips_are_padded_and_lengths_told(bank):
    pairs = draw_list(bank, 6, 1)
    ((_, batch),) = validation(bank, pairs, batch_size=6).build_iter(1)
    assert batch["speech_mix_lengths"].tolist() == [p.num for p in pairs]
    assert batch["speech_mix"].shape[1] == max(p.num for p in pairs)


def test_default_epoch_shows_each_clip_once_on_average(bank):
    assert len(training(bank, num_iters_per_epoch=None).build_iter(1)) == 20 // (2 * 4)


def test_the_classes_drawn_are_logged(bank, caplog):
    with caplog.at_level(logging.DEBUG):
        items(training(bank, rank=1, world_size=2), 3)
    summary, table = caplog.messages
    assert summary.startswith("epoch 3, process 1 of 2: 12 queries of ")
    assert "of 4 classes" in summary and "queries with an absent target" in summary
    counts = [int(word.split()[-1]) for word in table.split(": ")[-1].split(", ")]
    assert sum(counts) == 12 and len(counts) == 4


def test_a_row_that_cannot_be_rendered_names_its_clip(bank):
    pair = draw_list(bank, 1, 0, segment=0.25, anchor="peak")[0]
    with pytest.raises(DataError, match="nobody"):
        items(validation(bank, [dataclasses.replace(pair, clip1="nobody")], batch_size=1))


def test_drawer_or_pairs():
    with pytest.raises(ValueError, match="either"):
        PairIterFactory(None, batch_size=1)


# ---- workers in trouble -----------------------------------------------------------------------------


def broken(error):
    """A preprocessor whose rows all fail."""

    def preprocess(key, row):
        raise error

    return preprocess


@pytest.mark.parametrize("error", [DataError("clip a: is not whole"), OSError(5, "Input/output error", "a.ark")])
def test_what_is_wrong_in_a_worker_is_raised_as_it_was(bank, error):
    factory = training(bank, num_workers=1)
    factory.loader.dataset.preprocess = broken(error)
    with pytest.raises(type(error)) as failed:
        items(factory)
    assert str(failed.value) == str(error)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
def test_a_worker_that_is_killed_or_stopped_ends_the_epoch(bank, number, monkeypatch, caplog):
    monkeypatch.setattr(process, "_PATIENCE", 1)
    factory = training(bank, num_workers=2, num_iters_per_epoch=500)
    hit = None
    try:
        for _ in factory.build_iter(1):
            if hit is None:
                os.kill(factory.workers()[0], number)
                hit = time.monotonic()
        pytest.fail("nothing was raised")
    except (RuntimeError, ChildProcessError) as e:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch raises at each end of a process, as `run` ends with
        text = explain(e)
        process.end_children()
    assert "a worker process that loads data died" in text and time.monotonic() - hit < 10
    assert (number == signal.SIGSTOP) == ("was stopped (SIGSTOP) and is ended" in caplog.text)


def test_without_shared_memory_batches_go_through_pipes(bank, monkeypatch, caplog):
    straight = items(training(bank, num_workers=2))[0]
    assert not caplog.text
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=2**16))
    assert_same(items(training(bank, num_workers=2))[0], straight)
    assert caplog.text.count("/dev/shm: 0 MB are free, too little") == 1
    caplog.clear()
    assert_same(items(training(bank, num_workers=0))[0], straight)
    assert not caplog.text
