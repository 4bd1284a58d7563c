"""Mixtures of events: audio and labels against hand-computed ones, and the rules of drawing."""

import math

import numpy as np
import pytest

from espnet2_ext.core.mixing.augment import Augment
from espnet2_ext.core.mixing.events import (
    Event,
    EventDrawer,
    Mixture,
    clip_activity,
    crop,
    frame_activity,
    render,
    truncated_poisson,
    with_ids,
)
from espnet2_ext.data.tables import Label
from espnet2_ext.errors import DataError


class Bank:
    """Clips in memory: `clips` is a list of (class, samples)."""

    fs, path = 100, "bank"

    def __init__(self, clips, names=("a", "b", "c")):
        self.sounds = [np.asarray(x, np.float32) for _, x in clips]
        self.of = [(k,) if isinstance(k, int) else k for k, _ in clips]
        self.classes = [Label(i, name, name) for i, name in enumerate(names)]

    def __len__(self):
        return len(self.sounds)

    def id(self, i):
        return f"c{i}"

    def index_of(self, id):
        if id not in {f"c{i}" for i in range(len(self))}:
            raise DataError(f"{self.path}: no clip {id!r}")
        return int(id[1:])

    def num_samples(self, i):
        return len(self.sounds[i])

    def labels(self, i):
        return np.array(self.of[i])

    def clips_of(self, k):
        return np.array([i for i, of in enumerate(self.of) if k in of])

    def envelope(self, i):
        x = self.sounds[i]
        return np.array([np.mean(x[at : at + 10] ** 2) for at in range(0, len(x), 10)])

    def read(self, i, start=0, num=None):
        x = self.sounds[i][start : None if num is None else start + num]
        return np.pad(x, (0, num - len(x)))


def noise_bank(seed=0, lengths=(400, 80, 120, 60, 49, 250)):
    rng = np.random.default_rng(seed)
    return Bank([(i % 3, rng.standard_normal(n)) for i, n in enumerate(lengths)])


def drawer(bank=None, loudness=None, classes=("a", "b", "c"), **rules):
    bank = bank or noise_bank()
    loudness = np.zeros(len(bank)) if loudness is None else loudness
    return EventDrawer(bank, loudness, classes, **rules)


# --- audio


def test_render_by_hand():
    bank = Bank([(0, [1, 2, 3]), (1, [10, 20])])
    events = (
        Event(0, 0, 1, 0, 2, 2.0),  # 4 6 . .
        Event(0, "c0", 0, 1, 3, 1.0),  # . 1 2 3
        Event(1, "c1", 0, 2, 2, -0.5),  # . . -5 -10
        Event(-1, 1, 0, 0, 1, 0.1),  # 1 . . .
        Event(1, None, 0, 0, 4, 1.0),  # a label alone makes no sound
    )
    out = render(Mixture("m", 4, "strong", events), bank, 2)
    assert out["sources"].tolist() == [[4, 7, 2, 3], [0, 0, -5, -10]]
    assert out["rest"].tolist() == [1, 0, 0, 0]
    assert out["mix"].tolist() == [5, 7, -3, -7]
    assert {x.dtype for x in out.values()} == {np.dtype("float32")}


def test_mixture_is_the_sum_exactly():
    d, rng = drawer(background=["c"], classes=["a", "b"]), np.random.default_rng(1)
    for _ in range(10):
        out = render(d.draw(rng, "m"), d.bank, 2)
        assert np.array_equal(out["mix"], out["sources"].sum(0) + out["rest"])
        assert out["rest"].any()


def test_augmented_sounds_keep_places_levels_and_the_sum():
    d, augment = drawer(event_seconds=(0.5, 1.0)), Augment(prob=1.0, speed=1.0, lowpass=None)
    mixture = d.draw(np.random.default_rng(4), "m")
    plain, out, again = (render(mixture, d.bank, 3, *more) for more in ((), (augment, 5), (augment, 5)))
    assert np.array_equal(out["mix"], out["sources"].sum(0)) and np.array_equal(out["mix"], again["mix"])
    assert not np.array_equal(out["mix"], render(mixture, d.bank, 3, augment, 6)["mix"])
    assert np.array_equal(render(mixture, d.bank, 3, Augment(prob=0.0), 5)["mix"], plain["mix"])
    one = mixture._replace(events=mixture.events[:1])
    e = one.events[0]
    before, after = (render(one, d.bank, 3, *more)["mix"] for more in ((), (augment, 5)))
    assert not after[: e.onset].any() and not after[e.onset + e.samples :].any() and not np.allclose(after, before)
    assert np.square(after).sum() == pytest.approx(np.square(before).sum(), rel=1e-4)


def test_speed_of_a_recording_stays_where_labels_lie_in_it():
    d, augment = drawer(), Augment(prob=1.0, colour_db=0, reverb=None, lowpass=None, clip=1.0, coarse=False)
    recording = Mixture("m", 400, "frame", (Event(-1, 0, 0, 0, 400, 1.0),))
    labelled = recording._replace(events=(*recording.events, Event(1, None, 30, 30, 50, 1.0)))
    plain = render(recording, d.bank, 3)["mix"]
    assert np.array_equal(render(labelled, d.bank, 3, augment)["mix"], plain)
    assert not np.array_equal(render(recording, d.bank, 3, augment)["mix"], plain)


@pytest.mark.parametrize(
    "event, message",
    [
        (Event(0, 0, 0, 3, 2, 1.0), "mixture m: an event from sample 3 to 5"),
        (Event(0, 0, 0, 9, 1, 1.0), "mixture m: an event from sample 9"),
        (Event(0, 0, 0, -1, 2, 1.0), "mixture m: an event from sample -1"),
        (Event(2, 0, 0, 0, 2, 1.0), "mixture m: class 2 of 2"),
        (Event(0, "c7", 0, 0, 2, 1.0), "no clip 'c7'"),
    ],
)
def test_render_refuses(event, message):
    with pytest.raises(DataError, match=message):
        render(Mixture("m", 4, "strong", (event,)), Bank([(0, [1, 2, 3])]), 2)


def test_crop_is_that_part_of_the_whole():
    d, rng = drawer(), np.random.default_rng(2)
    for _ in range(20):
        mixture = d.draw(rng, "m")
        onset = int(rng.integers(0, 380))
        num = int(rng.integers(1, 100))
        part = crop(mixture, onset, num)
        have, whole = render(part, d.bank, 3), render(mixture, d.bank, 3)
        assert part.samples == num and part.id == "m"
        for name, x in whole.items():
            want = x[..., onset : onset + num]
            pad = [(0, 0)] * (x.ndim - 1) + [(0, num - want.shape[-1])]
            assert np.array_equal(have[name], np.pad(want, pad))
    assert crop(mixture, 400, 10).events == ()
    with pytest.raises(ValueError, match="negative"):
        crop(mixture, -1, 10)


def test_with_ids_names_clips():
    events = Event(0, 1, 0, 0, 1, 1.0), Event(0, None, 0, 0, 1, 1.0), Event(-1, "c2", 0, 0, 1, 1.0)
    named = with_ids(Mixture("m", 4, "clip", events), noise_bank())
    assert [e.clip for e in named.events] == ["c1", None, "c2"]


# --- labels


def test_frame_activity_by_hand():
    # windows of 8 samples around 0, 4, 8, 12, 16: [-4, 4) [0, 8) [4, 12) [8, 16) [12, 20)
    events = Event(0, 0, 0, 4, 4, 1.0), Event(1, None, 0, 15, 1, 1.0), Event(-1, 0, 0, 0, 16, 1.0)
    active = frame_activity(Mixture("m", 16, "strong", events), 3, 8, 4)
    assert active.dtype == np.float32
    assert active.T.tolist() == [[0, 1, 1, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]


@pytest.mark.parametrize("n_fft, hop, samples", [(512, 128, 5000), (7, 3, 100), (9, 9, 81), (2, 5, 64)])
def test_frame_activity_against_every_sample(n_fft, hop, samples):
    rng = np.random.default_rng(n_fft)
    for _ in range(50):
        onset = int(rng.integers(samples))
        num = int(rng.integers(1, samples - onset + 1))
        mixture = Mixture("m", samples, "clip", (Event(0, None, 0, onset, num, 1.0),))
        got = frame_activity(mixture, 1, n_fft, hop)
        starts = np.arange(samples // hop + 1) * hop - n_fft // 2
        want = (starts < onset + num) & (starts + n_fft > onset)
        assert np.array_equal(got[:, 0] > 0, want)


def test_clip_activity():
    events = Event(2, None, 0, 0, 1, 1.0), Event(-1, 0, 0, 0, 1, 1.0), Event(1, 0, 0, 0, 0, 1.0)
    assert clip_activity(Mixture("m", 4, "clip", events), 3).tolist() == [0, 0, 1]
    assert clip_activity(Mixture("m", 4, "clip", ()), 2).tolist() == [0, 0]
    assert frame_activity(Mixture("m", 4, "clip", ()), 2, 4, 2).tolist() == [[0, 0]] * 3


# --- drawing


@pytest.mark.parametrize("mean", [0.05, 0.7, 5.0])
def test_truncated_poisson(mean):
    rng = np.random.default_rng(0)
    counts = np.bincount([truncated_poisson(rng, mean) for _ in range(20000)], minlength=4)
    want = [math.exp(-mean) * mean**n / math.factorial(n) for n in range(4)]
    assert counts[0] == 0
    assert np.allclose(counts[1:4] / 20000, np.array(want[1:]) / (1 - want[0]), atol=0.01)


def test_rules_of_a_mixture():
    bank, rng = noise_bank(), np.random.default_rng(0)
    levels = np.array([-20.0, -30, -40, -50, -60, -10])
    d = drawer(bank, levels, mean_events=3.0)
    mixtures = [d.draw(rng, f"m{i}", "frame") for i in range(600)]
    events = [e for m in mixtures for e in m.events]
    assert mixtures[7].id == "m7" and mixtures[7].known == "frame" and mixtures[7].samples == 400
    assert all(e.onset >= 0 and e.onset + e.samples <= 400 for e in events)
    assert all(50 <= e.samples <= bank.num_samples(e.clip) for e in events)
    assert all(0 <= e.start <= bank.num_samples(e.clip) - e.samples for e in events)
    assert all(e.cls in bank.labels(e.clip) for e in events)
    level = np.array([levels[e.clip] + 20 * math.log10(e.gain) for e in events])
    assert -30 <= level.min() < -29.9 and -25.1 < level.max() <= -25
    assert len(events) / 600 == pytest.approx(3 / (1 - math.exp(-3)), rel=0.05)
    shares = np.bincount([e.cls for e in events]) / len(events)
    assert np.allclose(shares, 1 / 3, atol=0.05)
    assert d.left_out["b"] == {"short": 1, "silent": 0, "mixed": 0}  # 49 samples of 50
    assert 4 not in {e.clip for e in events}
    assert {e.samples for e in events if e.clip == 3} == set(range(50, 61))


def test_whole_events_are_cut_to_the_longest():
    d, rng = drawer(lengths="whole", event_seconds=(0.5, 2.0)), np.random.default_rng(0)
    events = [e for i in range(200) for e in d.draw(rng).events]
    assert {(e.clip, e.samples) for e in events} == {(0, 200), (1, 80), (2, 120), (3, 60), (5, 200)}
    assert {e.start for e in events if e.clip in (1, 2, 3)} == {0}
    assert len({e.start for e in events if e.clip == 0}) > 5
    short = drawer(seconds=1.0)  # a mixture shorter than the longest event cuts too
    assert max(e.samples for i in range(50) for e in short.draw(rng).events) <= 100


def test_parts_are_not_pauses():
    x = np.zeros(400)
    x[100:130] = 1
    d, rng = drawer(Bank([(0, x)]), classes=["a"]), np.random.default_rng(0)
    events = [e for i in range(40) for e in d.draw(rng).events]
    assert all(e.start < 130 and e.start + e.samples > 100 for e in events)
    assert len({e.start for e in events}) > 50


def test_start_goes_with_the_energy_of_the_part():
    x = np.ones(400)
    x[200:] = 3  # nine times the energy: parts of 100 from 0, 200 and 300 have 1 : 9 : 9
    d, rng = drawer(Bank([(0, x)]), classes=["a"]), np.random.default_rng(0)
    starts = np.array([d._start(rng, 0, 100) for _ in range(8000)])
    inside = starts[(starts > 0) & (starts < 300)]
    low, high = np.mean(inside < 100), np.mean(inside >= 200)
    assert high / low == pytest.approx(9, rel=0.15)
    assert low + high + np.mean((inside >= 100) & (inside < 200)) == pytest.approx(1)
    silent = drawer(Bank([(0, np.zeros(400))]), classes=["a"])
    assert len({silent._start(rng, 0, 100) for _ in range(100)}) > 20


def test_background_is_of_no_class():
    d = drawer(classes=["a", "b"], background=["c"], background_lufs=(-40, -40), background_share=0.5)
    rng = np.random.default_rng(0)
    mixtures = [d.draw(rng) for _ in range(400)]
    behind = [[e for e in m.events if e.cls == -1] for m in mixtures]
    assert {len(v) for v in behind} == {0, 1}
    assert sum(map(len, behind)) / 400 == pytest.approx(0.5, abs=0.07)
    assert {(e.clip, e.samples) for v in behind for e in v} == {(2, 120), (5, 250)}
    assert all(e.gain == pytest.approx(0.01) for v in behind for e in v)
    assert {e.cls for m in mixtures for e in m.events} == {-1, 0, 1}


def test_same_seed_same_mixture():
    a, b = (drawer().draw(np.random.default_rng([3, 1]), "m") for _ in range(2))
    assert a == b != drawer().draw(np.random.default_rng([3, 2]), "m")


def test_what_cannot_be_drawn_is_counted():
    bank = Bank([(0, np.ones(99)), (0, np.ones(99)), ((0, 1), np.ones(99)), (0, np.ones(9))])
    d = drawer(bank, np.array([0, -np.inf, 0, 0]), ["a"])
    assert d.left_out == {"a": {"short": 1, "silent": 1, "mixed": 1}} and d.clips == [[0]]
    with pytest.raises(DataError, match=r"class b has no clip to draw .*1 mixed"):
        drawer(bank, np.zeros(4), ["a", "b"])
    with pytest.raises(DataError, match="class c has no clip"):
        drawer(bank, np.zeros(4), ["a"], background=["c"])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"classes": ["a", "x"]}, "no class 'x'; it has a, b, c"),
        ({"classes": ["a", "a"]}, "class a is named twice"),
        ({"classes": ["a", "b"], "background": ["a"]}, "class a is named twice"),
        ({"classes": []}, "no classes"),
        ({"mean_events": 0}, "mean_events must be positive"),
        ({"event_seconds": (2, 1)}, "event_seconds"),
        ({"event_seconds": (0.5, 1), "seconds": 0.4}, "must fit"),
        ({"lufs": (-25, -30)}, "lufs must be two rising levels"),
        ({"background_share": 2}, "background_share"),
        ({"lengths": "half"}, "lengths must be one of uniform, whole"),
        ({"loudness": np.zeros(2)}, "6 clips, but 2 levels"),
    ],
)
def test_impossible_rules(change, message):
    with pytest.raises(DataError, match=message):
        drawer(**change)
