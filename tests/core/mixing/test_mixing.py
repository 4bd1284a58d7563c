"""Drawing and rendering of pairs, against an in-memory bank and hand-computed values."""

import dataclasses
import types

import numpy as np
import pytest

from espnet2_ext.core.mixing.pair_drawer import Pair, PairDrawer, energy_gain, render, self_query
from espnet2_ext.core.mixing.pairs import measure, peak_start, sampled_start
from espnet2_ext.errors import DataError

FS = 1000


class FakeBank:
    """A bank of arrays; `clips`: list of (float32 [T], labels); `related`: pairs of classes."""

    fs, path = FS, "fake"

    def __init__(self, clips, num_classes, related=()):
        self.clips, self.num_classes = clips, num_classes
        self.related = np.eye(num_classes, dtype=bool)
        for a, b in related:
            self.related[a, b] = self.related[b, a] = True
        self.members = [
            np.array([i for i, (_, labels) in enumerate(clips) if k in labels], dtype=int) for k in range(num_classes)
        ]
        self.classes = [
            types.SimpleNamespace(index=k, mid=f"/m/{k}", name=f"Class{k}", related=()) for k in range(num_classes)
        ]

    def __len__(self):
        return len(self.clips)

    def id(self, i):
        return f"clip{i:04d}"

    def index_of(self, id):
        return int(id[4:])

    def num_samples(self, i):
        return len(self.clips[i][0])

    def labels(self, i):
        return np.array(self.clips[i][1])

    def clips_of(self, k):
        return self.members[k]

    def envelope(self, i):
        x, starts = self.clips[i][0], np.arange(0, self.num_samples(i), FS // 10)
        sums = np.add.reduceat(np.square(x), starts)
        return sums / np.diff(np.append(starts, len(x)))

    def read(self, i, start=0, num=None):
        x = self.clips[i][0][start : None if num is None else start + num]
        return np.pad(x, (0, (num or len(x)) - len(x))).astype(np.float32)


def noise_bank(clips_a_class, related=(), seconds=3.0):
    """`clips_a_class[k]` noise clips of class k, levels and lengths differing."""
    rng = np.random.default_rng(0)
    clips = []
    for k, n in enumerate(clips_a_class):
        for _ in range(n):
            length = int(seconds * FS * rng.uniform(0.5, 1.0))
            x = rng.standard_normal(length) * rng.uniform(0.01, 0.3)
            clips.append((x.astype(np.float32), [k]))
    return FakeBank(clips, len(clips_a_class), related)


def draws(drawer, n, seed=0):
    return [drawer.draw(np.random.default_rng([seed, i]), id=f"p{i}") for i in range(n)]


def a_pair(**changes):
    pair = Pair("p", 0, 0, 1, 0, 4, 0, 1, None, 0, 0, 1, 0, 4, 1, 0)
    return dataclasses.replace(pair, **changes)


@pytest.mark.parametrize(
    "first, second, gain",
    [
        ([1, -1, 1, -1], [0.5, 0.5, -0.5, -0.5], 2.0),
        ([1, 1, 0, 0], [2, 2, 2, 2], np.sqrt(0.5 / 4)),  # zeros behind a short clip count
        ([1, 1, 1, 1], [0.001] * 4, 50.0),  # 1000 asked for
        ([0.001] * 4, [1, 1, 1, 1], 0.02),
        ([0, 0, 0, 0], [1, 1, 1, 1], 0.02),
        ([1, 1, 1, 1], [0, 0, 0, 0], 50.0),
        ([0, 0, 0, 0], [0, 0, 0, 0], 1.0),
    ],
)
def test_gain_by_hand(first, second, gain):
    assert energy_gain(np.float32(first), np.float32(second)) == pytest.approx(gain, rel=1e-6)


def test_render_by_hand():
    bank = FakeBank([(np.float32([1, 1, -1, 1]), [0]), (np.float32([0.5, -0.5]), [1])], 2)
    out = render(a_pair(), bank)
    # energies 1 and 0.125 over four samples: factor sqrt(8)
    np.testing.assert_allclose(out["ref2"], np.sqrt(8) * np.array([0.5, -0.5, 0, 0]), rtol=1e-6)
    np.testing.assert_array_equal(out["query2"], out["ref2"])
    assert np.mean(out["ref2"] ** 2) == pytest.approx(np.mean(out["ref1"] ** 2))
    fixed = render(a_pair(gain2=3.0), bank)
    np.testing.assert_array_equal(fixed["ref2"], np.float32([1.5, -1.5, 0, 0]))
    assert render(a_pair(), bank, gain_range=(0.1, 2))["ref2"][0] == 1.0
    assert all(v.dtype == np.float32 for v in out.values())


def test_silent_anchors_stay_finite():
    loud, silent = np.ones(4, np.float32), np.zeros(4, np.float32)
    for one, two, expected in ((loud, silent, loud), (silent, loud, 0.02 * loud)):
        out = render(a_pair(), FakeBank([(one, [0]), (two, [1])], 2))
        np.testing.assert_allclose(out["mix"], expected, rtol=1e-6)


def test_mix_is_the_sum_of_the_references():
    bank = noise_bank([3, 3, 3])
    for pair in draws(PairDrawer(bank, segment=1.0, query_from="mixed"), 20):
        out = render(pair, bank)
        np.testing.assert_array_equal(out["mix"], out["ref1"] + out["ref2"])
        np.testing.assert_array_equal(out["ref1"], bank.read(pair.clip1, pair.start1, pair.num))
        assert len(out["mix"]) == len(out["query1"]) == FS


def test_rows_with_ids_render_as_rows_with_numbers():
    bank = noise_bank([3, 3])
    pair = draws(PairDrawer(bank, segment=1.0, query_from="other"), 1)[0]
    clips = ("clip1", "clip2", "query1", "query2")
    named = dataclasses.replace(pair, **{c: bank.id(getattr(pair, c)) for c in clips})
    for key, value in render(named, bank).items():
        np.testing.assert_array_equal(value, render(pair, bank)[key])


def test_labels_are_disjoint_up_and_down_the_ontology():
    rng = np.random.default_rng(1)
    clips = [(np.ones(FS, np.float32), sorted(rng.choice(8, rng.integers(1, 3), replace=False))) for _ in range(60)]
    bank = FakeBank(clips, 8, related=[(0, 1), (1, 2), (3, 4), (6, 7)])
    for balance in ("class", "clip"):
        drawer = PairDrawer(bank, segment=0.5, balance=balance, draw_absent=True)
        for pair in draws(drawer, 200):
            one, two = bank.labels(pair.clip1), bank.labels(pair.clip2)
            assert not bank.related[np.ix_(one, two)].any()
            assert pair.class1 in one and pair.class2 in two
            assert not bank.related[pair.class1][bank.labels(pair.absent1)].any()
            assert not bank.related[pair.class2][bank.labels(pair.absent2)].any()


def test_classes_are_drawn_evenly():
    n, sizes = 1500, [1, 5, 50, 200]
    pairs = draws(PairDrawer(noise_bank(sizes, seconds=0.2), segment=0.1), n)
    counts = np.bincount([k for p in pairs for k in (p.class1, p.class2)], minlength=4)
    # each class is in half of the pairs; a chi-square of 3 degrees of freedom is below 16.3 in
    # 99.9 % of all cases
    assert np.sum((counts - n / 2) ** 2 / (n / 2)) < 16.3
    first = np.bincount([p.clip1 for p in pairs if p.class1 == 1] or [0])[1:6]
    assert np.sum((first - first.sum() / 5) ** 2 / (first.sum() / 5)) < 18.5
    by_clip = draws(PairDrawer(noise_bank(sizes, seconds=0.2), segment=0.1, balance="clip"), n)
    counts = np.bincount([p.class1 for p in by_clip], minlength=4)
    assert counts[3] / n == pytest.approx(200 / 256, abs=0.03)


def test_same_seed_same_row_and_another_seed_another():
    drawer = PairDrawer(noise_bank([4, 4, 4]), segment=0.5, anchor="random", query_from="mixed")
    assert draws(drawer, 30) == draws(drawer, 30)
    assert draws(drawer, 30) != draws(drawer, 30, seed=1)


def test_peak_anchor_is_the_loudest_segment_and_the_first_of_equals():
    x = np.zeros(1000, np.float32)
    x[420:520] = 1.0
    bank = FakeBank([(x, [0]), (np.ones(1000, np.float32), [1]), (x[:150], [1])], 2)
    assert peak_start(bank, 0, 200) == 400
    assert peak_start(bank, 1, 300) == 0
    assert draws(PairDrawer(bank, segment=0.2), 1)[0].num == 200
    pair = PairDrawer(bank, segment=0.2).draw(np.random.default_rng(0), clip1=2)
    assert (pair.start1, pair.start2) == (0, 400)
    assert np.count_nonzero(render(pair, bank)["ref1"]) == 0  # short clip, silence in it


def test_sampled_anchor_follows_the_energy():
    x = np.repeat(np.float32([1, 0, 2, 0]), 100)  # segments of one frame: energies 1 0 4 0
    bank = FakeBank([(x, [0])], 1)
    rng = np.random.default_rng(0)
    starts = [sampled_start(rng, bank, 0, 100) for _ in range(2000)]
    assert set(starts) == {0, 200}
    assert np.mean(np.equal(starts, 200)) == pytest.approx(0.8, abs=0.03)
    silent = FakeBank([(np.zeros(400, np.float32), [0])], 1)
    assert {sampled_start(rng, silent, 0, 100) for _ in range(100)} == {0, 100, 200, 300}


def test_random_anchor_stays_inside_and_whole_clips_are_padded():
    bank = noise_bank([3, 3])
    for pair in draws(PairDrawer(bank, segment=0.7, anchor="random"), 50):
        assert 0 <= pair.start1 <= bank.num_samples(pair.clip1) - 700
    for pair in draws(PairDrawer(bank, segment=None, anchor="whole"), 5):
        out, lengths = render(pair, bank), [bank.num_samples(c) for c in (pair.clip1, pair.clip2)]
        assert len(out["mix"]) == max(lengths)
        assert not out["ref1"][lengths[0] :].any() and not out["ref2"][lengths[1] :].any()


def test_anchor_table_comes_first_and_falls_back():
    def table(clip, k, num):
        return 123 if clip == 0 else None

    bank = FakeBank([(np.ones(1000, np.float32), [0]), (np.ones(1000, np.float32), [1])], 2)
    pair = PairDrawer(bank, segment=0.2, anchors=table).draw(np.random.default_rng(0), clip1=0)
    assert (pair.start1, pair.start2) == (123, 0)


def test_queries_of_another_clip():
    bank = noise_bank([3, 1, 4])
    pairs = draws(PairDrawer(bank, segment=0.5, query_from="other"), 300)
    for p in pairs:
        assert bank.labels(p.query1) == p.class1 and bank.labels(p.query2) == p.class2
        assert (p.query1 == p.clip1) == (p.class1 == 1)  # class 1 has one clip
    asked = {(p.clip1, p.query1) for p in pairs if p.class1 == 0}
    assert asked == {(a, b) for a in range(3) for b in range(3) if a != b}
    mixed = draws(PairDrawer(bank, segment=0.5, query_from="mixed", other_prob=0.25), 800)
    share = np.mean([p.query1 != p.clip1 for p in mixed if p.class1 != 1])
    assert share == pytest.approx(0.25, abs=0.06)
    q = render(pairs[0], bank)["query1"]
    np.testing.assert_array_equal(q, bank.read(pairs[0].query1, pairs[0].qstart1, 500))


def test_other_query_avoids_the_rivals_class():
    ones = np.ones(200, np.float32)
    bank = FakeBank([(ones, [0]), (ones, [0, 1]), (ones, [0]), (ones, [1])], 2)
    for i in range(50):
        drawer = PairDrawer(bank, segment=0.1, query_from="other")
        assert drawer.draw(np.random.default_rng(i), clip1=0).query1 == 2


def test_longer_query_of_the_target_itself_keeps_its_middle_and_level():
    bank = noise_bank([2, 2], seconds=3.0)
    pair = draws(PairDrawer(bank, segment=0.5, query_segment=1.0, anchor="random"), 1)[0]
    last = bank.num_samples(pair.clip2) - 1000
    assert pair.qstart2 == np.clip(pair.start2 - 250, 0, last) and pair.qnum == 1000
    out = render(dataclasses.replace(pair, gain2=2.0), bank)
    np.testing.assert_array_equal(out["query2"], 2 * bank.read(pair.clip2, pair.qstart2, 1000))
    assert self_query(pair).qnum == pair.num
    out = render(self_query(pair), bank)
    np.testing.assert_array_equal(out["query2"], out["ref2"])


def test_absent_queries_ask_for_silence():
    bank = noise_bank([3, 3, 3, 3], related=[(2, 3)])
    pairs = draws(PairDrawer(bank, segment=0.5, absent_prob=1.0), 60)
    found = 0
    for p in pairs:
        one, two = bank.labels(p.clip1)[0], bank.labels(p.clip2)[0]
        absent = p.query1 != p.clip1
        found += absent
        if absent:
            assert not bank.related[p.class1][[one, two]].any()
            out = render(p, bank)
            assert not out["ref1"].any() and not out["ref2"].any() and out["mix"].any()
    assert found == 60
    two = draws(PairDrawer(noise_bank([2, 2]), segment=0.5, absent_prob=1.0), 5)
    assert all(p.query1 == p.clip1 for p in two)  # nothing is unrelated to both
    some = draws(PairDrawer(bank, segment=0.5, absent_prob=0.2), 1000)
    assert np.mean([p.query1 != p.clip1 for p in some]) == pytest.approx(0.2, abs=0.04)


def test_first_clip_given():
    bank = noise_bank([3, 3, 3])
    drawer = PairDrawer(bank, segment=0.5)
    got = [drawer.draw(np.random.default_rng(i), clip1=i).clip1 for i in range(len(bank))]
    assert got == list(range(9))


def test_bad_banks_and_options_are_refused():
    with pytest.raises(DataError, match=r"Class2 \(/m/2\)"):
        PairDrawer(noise_bank([1, 1, 1], related=[(0, 2), (1, 2)]))
    with pytest.raises(DataError, match="no class has a clip"):
        PairDrawer(FakeBank([], 2))
    bank = noise_bank([2, 2])
    for options, word in (
        ({"anchor": "loud"}, "anchor"),
        ({"query_from": "none"}, "query_from"),
        ({"balance": "fair"}, "balance"),
        ({"absent_prob": 1.5}, "absent_prob"),
        ({"segment": 0.0}, "segment"),
        ({"segment": None}, "whole"),
    ):
        with pytest.raises(DataError, match=word):
            PairDrawer(bank, **options)
    ones = np.ones(200, np.float32)
    mixed = FakeBank([(ones, [0, 1]), (ones, [0]), (ones, [1])], 2)
    with pytest.raises(DataError, match="clip0000.*Class"):
        PairDrawer(mixed, segment=0.1).draw(np.random.default_rng(0), clip1=0)
    # without a given clip another first target is taken
    assert {p.clip1 for p in draws(PairDrawer(mixed, segment=0.1), 20)} == {1, 2}


def rms_db(x):
    return 10 * np.log10(np.mean(np.square(x, dtype=np.float64)))


def test_levels_lie_within_the_interval_and_are_rendered():
    bank = noise_bank([3, 3])
    pairs = draws(PairDrawer(bank, segment=1.0, anchor="peak", snr_db=[-15, 25]), 200)
    levels = [p.snr_db for p in pairs]
    assert -15 <= min(levels) < -12 and 22 < max(levels) <= 25
    for pair in pairs[:20]:
        out = render(pair, bank)
        assert rms_db(out["ref1"]) - rms_db(out["ref2"]) == pytest.approx(pair.snr_db, abs=1e-3)
        np.testing.assert_array_equal(out["mix"], out["ref1"] + out["ref2"])
        fixed = measure(pair, bank)
        np.testing.assert_array_equal(render(fixed, bank)["mix"], out["mix"])
        assert fixed.gain2 is not None


def test_a_target_alone_is_asked_for_twice():
    bank = noise_bank([3, 3])
    pairs = draws(PairDrawer(bank, segment=0.5, query_from="other", single_prob=0.3, draw_absent=True), 400)
    alone = [p for p in pairs if p.alone]
    assert len(alone) / 400 == pytest.approx(0.3, abs=0.07)
    for pair in alone:
        out = render(measure(pair, bank), bank)
        np.testing.assert_array_equal(out["mix"], bank.read(pair.clip1, pair.start1, pair.num))
        np.testing.assert_array_equal(out["ref1"], out["mix"])
        np.testing.assert_array_equal(out["ref2"], out["mix"])
        assert bank.labels(pair.query1) == bank.labels(pair.query2) == pair.class1 == pair.class2
        assert bank.labels(pair.absent1) != pair.class1
    absent = draws(PairDrawer(noise_bank([3, 3, 3]), segment=0.5, absent_prob=1.0, single_prob=1.0), 20)
    assert all(not render(p, noise_bank([3, 3, 3]))["ref1"].any() for p in absent)


def test_further_sounds_are_of_classes_of_their_own_and_at_their_levels():
    bank = noise_bank([3, 3, 3, 3, 3], related=[(3, 4)])
    pairs = draws(PairDrawer(bank, segment=0.5, num_sources=[2, 4], snr_db=[0, 10]), 200)
    assert {len(p.others) for p in pairs} == {0, 1, 2}
    assert PairDrawer(bank).sums and not PairDrawer(bank, num_sources=[2, 3]).sums
    assert not PairDrawer(bank, single_prob=0.1).sums
    for pair in pairs:
        labels = [bank.labels(c)[0] for c in (pair.clip1, pair.clip2, *(o.clip for o in pair.others))]
        assert not (bank.related[np.ix_(labels, labels)] & ~np.eye(len(labels), dtype=bool)).any()
    pair = next(p for p in pairs if len(p.others) == 2)
    out = render(pair, bank)
    rest = out["mix"] - out["ref1"] - out["ref2"]
    parts = [bank.read(o.clip, o.start, pair.num) for o in pair.others]
    parts = [x * 10 ** ((rms_db(out["ref1"]) - rms_db(x) - o.snr_db) / 20) for x, o in zip(parts, pair.others)]
    np.testing.assert_allclose(rest, sum(parts), atol=1e-6)
    assert len(draws(PairDrawer(noise_bank([2, 2]), segment=0.5, num_sources=4), 1)[0].others) == 0


def test_classes_can_be_drawn_more_often():
    bank = noise_bank([2, 2, 2, 2])
    pairs = draws(PairDrawer(bank, segment=0.5, class_weights={"Class1": 3.0}), 600)
    # first draws: 3 of 6
    assert np.mean([p.class1 == 1 for p in pairs]) == pytest.approx(0.5, abs=0.06)
    rest = [p.class2 for p in pairs if p.class1 == 0]
    assert np.mean(np.equal(rest, 1)) == pytest.approx(3 / 5, abs=0.12)
    for wrong in ({"Class9": 1.0}, {"Class1": 0}):
        with pytest.raises(DataError, match="class_weights: Class"):
            PairDrawer(bank, class_weights=wrong)


@pytest.mark.parametrize(
    "option, value",
    [("snr_db", "loud"), ("snr_db", [5, -5]), ("snr_db", [0, float("nan")]), ("snr_db", [1, 2, 3])]
    + [("num_sources", 1), ("num_sources", [2, 2.5]), ("single_prob", 1.5)],
)
def test_impossible_mixtures_name_the_option(option, value):
    with pytest.raises(DataError, match=option):
        PairDrawer(noise_bank([2, 2]), **{option: value})
