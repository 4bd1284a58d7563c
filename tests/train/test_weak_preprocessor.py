"""What the label type allows is given, and nothing else."""

import pickle

import numpy as np
import pytest
import torch
from espnet2.train.preprocessor import AbsPreprocessor
from weak_corpus import FS, HOP, N_FFT

from espnet2_ext.core.losses.labels import joined, remixed
from espnet2_ext.core.losses.weak_terms import class_weights, pick_weights
from espnet2_ext.core.mixing.events import Event, Mixture, clip_activity, frame_activity, render
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.mixtures.event_table import MixtureTable, write_table
from espnet2_ext.errors import DataError
from espnet2_ext.train.weak_data import Partners, WeakPreprocessor, seen_priors

ALWAYS = {"speech_mix", "clip_label", "label_kind"}
REFS = {"speech_ref1", "speech_ref2", "speech_ref3"}


@pytest.fixture(scope="module")
def data(weak_corpus):
    return weak_corpus / "data/train", weak_corpus / "dump/train"


@pytest.fixture(scope="module")
def partly(data, tmp_path_factory):
    """The same mixtures, of which strong, frame, clip, strong, ... labels are known."""
    table, folder = MixtureTable(data[0]), tmp_path_factory.mktemp("partly")
    rows = [table.row(i)._replace(known=("strong", "frame", "clip")[i % 3]) for i in range(8)]
    write_table(folder, rows, fs=FS, classes=table.classes, n_fft=N_FFT, hop=HOP)
    return folder, data[1]


def make(data, label_type="frame", train=True, **options):
    return WeakPreprocessor(
        train, str(data[0]), str(data[1]), label_type=label_type, n_fft=N_FFT, hop_length=HOP, **options
    )


@pytest.mark.parametrize(
    "label_type, part, train, names",
    [
        ("strong", "separator", True, {"frame_label"} | REFS),
        ("frame", "separator", True, {"frame_label"}),
        ("clip", "separator", True, set()),
        ("mixed", "separator", True, {"frame_label"} | REFS),
        ("clip", "separator", False, REFS),  # for the score of the validation
        ("strong", "classifier", True, {"frame_label"}),
        ("clip", "classifier", False, set()),
    ],
)
def test_keys(data, label_type, part, train, names):
    prep = make(data, label_type, train, part=part)
    item = prep("m03", {"mixture": "m03"})
    assert isinstance(prep, AbsPreprocessor) and list(item)[0] == "speech_mix"
    assert item.keys() == ALWAYS | names
    assert item["label_kind"].tolist() == [["strong", "frame", "clip", "mixed"].index(label_type) % 3]


def test_values_are_those_of_the_row(data):
    table, bank = MixtureTable(data[0]), ClipBank(data[1])
    item = make(data, "strong", residual=True)("m05", {"mixture": "m05"})
    row = table.row(table.index_of("m05"))
    out = render(row, bank, 3)
    np.testing.assert_array_equal(item["speech_mix"], out["mix"])
    for s, ref in enumerate([*out["sources"], out["rest"]], 1):
        np.testing.assert_array_equal(item[f"speech_ref{s}"], ref)
    np.testing.assert_array_equal(item["clip_label"], clip_activity(row, 3))
    np.testing.assert_array_equal(item["frame_label"], frame_activity(row, 3, N_FFT, HOP))
    assert {v.dtype for k, v in item.items() if k != "label_kind"} == {np.dtype(np.float32)}
    assert item["label_kind"].dtype == np.int64
    again = pickle.loads(pickle.dumps(make(data, "strong")))("m05", {"mixture": "m05"})
    np.testing.assert_array_equal(again["speech_mix"], item["speech_mix"])


def test_mixed_items_hide_what_is_not_known(partly):
    for train in (True, False):
        prep = make(partly, "mixed", train)
        for i in range(3):
            item = prep(f"m{i:02d}", {"mixture": f"m{i:02d}"})
            assert item["label_kind"].tolist() == [i]
            assert item["frame_label"].any() == (i < 2)
            refs = np.stack([item[name] for name in sorted(REFS)])
            assert refs.any() == (i == 0) and item["clip_label"].any()


def test_shares_never_give_more_than_is_known(partly, data):
    kinds = {}
    for name, table in (("all", data), ("partly", partly)):
        for shares in ([0, 0, 1], [0, 1, 0], [1, 1, 1]):
            prep = make(table, "mixed", shares=shares)
            kinds[name, tuple(shares)] = [int(prep("", {"mixture": f"m{i:02d}"})["label_kind"][0]) for i in range(8)]
    assert kinds["all", (0, 0, 1)] == [2] * 8 and kinds["all", (0, 1, 0)] == [1] * 8
    assert kinds["partly", (0, 1, 0)] == [1, 1, 2, 1, 1, 2, 1, 1]
    assert len(set(kinds["all", (1, 1, 1)])) > 1


def test_less_than_the_label_type_needs_is_refused(partly):
    with pytest.raises(DataError, match="m01 only frame labels.*label type strong.*mixed"):
        make(partly, "strong")("m01", {"mixture": "m01"})
    make(partly, "strong", part="classifier")("m01", {"mixture": "m01"})  # frames are enough
    with pytest.raises(DataError, match="m02 only clip labels"):
        make(partly, "frame")("m02", {"mixture": "m02"})
    valid = make(partly, "clip", train=False)
    assert not valid("m02", {"mixture": "m02"})["speech_ref1"].any()  # no score there
    refs = [valid("m00", {"mixture": "m00"})[name] for name in REFS]
    assert np.stack(refs).any()


def test_crops_are_parts_of_the_mixture(data):
    whole = make(data, "strong")("m01", {"mixture": "m01"})["speech_mix"]
    prep = make(data, "strong", crop_seconds=0.25)
    np.random.seed(0)
    item = prep("m01", {"mixture": "m01"})
    assert item["speech_mix"].shape == (2000,) and item["frame_label"].shape == (2000 // HOP + 1, 3)
    starts = [o for o in range(len(whole) - 2000 + 1) if np.array_equal(whole[o : o + 2000], item["speech_mix"])]
    assert starts
    other = prep("m01", {"mixture": "m01"})["speech_mix"]
    assert not np.array_equal(other, item["speech_mix"])
    np.random.seed(0)
    np.testing.assert_array_equal(prep("m01", {"mixture": "m01"})["speech_mix"], item["speech_mix"])
    valid = make(data, "strong", train=False, crop_seconds=0.25)("m01", {"mixture": "m01"})
    np.testing.assert_array_equal(valid["speech_mix"], whole)


def test_sounds_are_augmented_in_training_alone(data):
    """Each epoch anew, with the labels of the row; references add up to the mixture."""
    row = {"mixture": "m05"}
    plain = make(data, "strong", residual=True)("m05", row)
    conf = {"augment": {"prob": 1.0}, "residual": True}
    prep = make(data, "strong", **conf)
    np.random.seed(1)
    first, second = prep("m05", row), prep("m05", row)
    np.random.seed(1)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(prep))("m05", row)["speech_mix"], first["speech_mix"])
    assert not np.allclose(first["speech_mix"], second["speech_mix"])
    for name in ("clip_label", "frame_label"):
        np.testing.assert_array_equal(first[name], plain[name])
    refs = [first[name] for name in (*sorted(REFS), "speech_ref4")]
    np.testing.assert_allclose(sum(refs), first["speech_mix"], atol=1e-6)
    np.testing.assert_array_equal(
        make(data, "strong", train=False, **conf)("m05", row)["speech_mix"], plain["speech_mix"]
    )
    with pytest.raises(DataError, match="augment.*loudness"):
        make(data, augment={"loudness": 3})
    with pytest.raises(DataError, match="u1: `augment` changes the sounds of a mixture table"):
        WeakPreprocessor(True, augment={"prob": 0.5})("u1", {"speech_mix": np.zeros(3)})


def test_espnets_own_data_is_cut_down():
    given = {
        "speech_mix": np.zeros(9),
        "clip_label": np.array([1, 0, 1]),
        "frame_label": np.zeros((4, 3)),
        "speech_ref1": np.ones(9),
    }
    clip = WeakPreprocessor(True, label_type="clip", num_classes=3)("u", given)
    assert clip.keys() == {"speech_mix", "clip_label"} and clip["clip_label"].dtype == np.float32
    frame = WeakPreprocessor(True, label_type="frame", num_classes=3)("u", given)
    assert frame.keys() == {"speech_mix", "clip_label", "frame_label"}
    strong = WeakPreprocessor(True, label_type="strong", num_classes=3)("u", given)
    assert strong.keys() == given.keys()
    del given["clip_label"]
    given["frame_label"][2, 1] = 1
    item = WeakPreprocessor(True, label_type="frame", num_classes=3)("u", given)
    assert item["clip_label"].tolist() == [0, 1, 0]


def test_bad_input_is_named(data):
    with pytest.raises(DataError, match="u1.*`mixture` or `speech_mix`.*sound"):
        make(data)("u1", {"sound": 0})
    with pytest.raises(DataError, match="no mixture 'm99'"):
        make(data)("m99", {"mixture": "m99"})
    with pytest.raises(DataError, match="m01.*table and a clip bank"):
        WeakPreprocessor(True)("m01", {"mixture": "m01"})
    with pytest.raises(DataError, match="u2: clip_label holds 2 classes, expected 3"):
        WeakPreprocessor(True, num_classes=3)("u2", {"speech_mix": np.zeros(3), "clip_label": np.zeros(2)})
    with pytest.raises(DataError, match="label_type must be one of.*weak"):
        WeakPreprocessor(True, label_type="weak")
    with pytest.raises(DataError, match="shares must be three"):
        WeakPreprocessor(True, shares=[1, 2])


# ---- partners, for mixtures of mixtures ------------------------------------------------------


def table_of(folder, mixtures, classes):
    write_table(folder, mixtures, fs=FS, classes=classes, n_fft=N_FFT, hop=HOP)
    return MixtureTable(folder)


def holding(name, classes, known="frame"):
    """A mixture of 640 samples with these classes in all of them."""
    return Mixture(name, 640, known, tuple(Event(c, None if c >= 0 else "x", 0, 0, 640, 1.0) for c in classes))


def drawn(table, row, times=2000):
    rng, draw = np.random.default_rng(0), Partners(table)
    return np.bincount([draw(row, rng) for _ in range(times)], minlength=len(table)) / times


def test_partners_by_hand(tmp_path):
    """0: a; 1: b; 2: c; 3: b, c; 4: b, c, a; 5: nothing; 6: c and sound of no class."""
    rows = [holding(f"m{i}", c) for i, c in enumerate([[0], [1], [2], [1, 2], [1, 2, 0], [], [2, -1]])]
    table = table_of(tmp_path / "t", rows, "abc")
    assert [x.tolist() for x in table.labels()] == [[0, 1, 2, 3, 3, 4, 4, 4, 6], [0, 1, 2, 1, 2, 0, 1, 2, 2]]
    share = drawn(table, 0)  # b or c; one with b has 1 and 3, one with c 2, 3 and 6; 4 holds a, too
    want = np.array([0, 1 / 1.05, 1 / 2.05, 0.05 / 1.05 + 0.05 / 2.05, 0, 0, 1 / 2.05]) / 2
    assert share == pytest.approx(want, abs=0.03) and share[4] == 0
    assert drawn(table, 3).argmax() == 0 and drawn(table, 5)[5] == 0
    assert drawn(table, 4)[5] == 0  # of what has all classes every other one shares some
    silent = table_of(tmp_path / "s", rows[5:6], "abc")
    assert drawn(silent, 0, 2).tolist() == [1]
    many = [holding(f"m{i}", range(i % 2, 40 + i % 2)) for i in range(4)]  # never alone: still each as likely
    crowded = table_of(tmp_path / "c", [*many, holding("m4", [40])], [f"c{i}" for i in range(41)])
    assert drawn(crowded, 4) == pytest.approx([0.5, 0, 0.5, 0, 0], abs=0.05)


def test_a_partner_comes_with_each_mixture_and_is_another_one_in_each_epoch(data):
    prep = make(data, "strong", remix=True)
    np.random.seed(3)
    first, second = (prep("m03", {"mixture": "m03"}) for _ in range(2))
    names = ALWAYS | {"frame_label"} | REFS
    assert first.keys() == names | {f"partner_{k.removeprefix('speech_')}" for k in names}
    np.random.seed(3)
    again = pickle.loads(pickle.dumps(prep))("m03", {"mixture": "m03"})
    assert all(np.array_equal(again[k], x) for k, x in first.items())
    many = [prep("m03", {"mixture": "m03"}) for _ in range(8)]
    assert len({x["partner_mix"].tobytes() for x in many}) > 1
    assert all(np.array_equal(x["speech_mix"], first["speech_mix"]) for x in [second, *many])
    known = {make(data)(f"m{i:02d}", {"mixture": f"m{i:02d}"})["speech_mix"].tobytes() for i in range(8)}
    assert {x["partner_mix"].tobytes() for x in many} <= known
    valid = make(data, "clip", train=False, remix=True)
    one, other = (valid("m03", {"mixture": "m03"}) for _ in range(2))
    assert {"partner_ref1", "partner_clip_label"} <= one.keys()
    assert np.array_equal(one["partner_mix"], other["partner_mix"])


def test_partners_come_behind_and_are_added():
    """Two items of 4 and 3 samples, partners of 6 and 5, in 2 and 3 frames; the shorter ones are padded."""
    batch = {
        "clip_label": torch.tensor([[1.0, 0], [1, 0]]),
        "frame_label": torch.ones(2, 2, 2),
        "speech_ref1": torch.ones(2, 4),
        "partner_mix": torch.full((2, 6), 5.0),
        "partner_mix_lengths": torch.tensor([6, 5]),
        "partner_clip_label": torch.tensor([[0.0, 1], [1, 1]]),
        "partner_frame_label": torch.zeros(2, 3, 2),
        "partner_ref1": torch.full((2, 6), 3.0),
    }
    mix, lengths, known, other = joined(torch.ones(2, 4), torch.tensor([4, 3]), batch)
    assert mix[:, 3:5].tolist() == [[1, 0], [1, 0], [5, 5], [5, 5]] and other.tolist() == [2, 3]
    assert lengths.tolist() == [4, 3, 6, 5] and known["frame_label"].shape == (4, 3, 2)
    mix, lengths, known = remixed(mix, lengths, known, other)
    assert mix.tolist() == [[6, 6, 6, 6, 5, 5]] * 2 and lengths.tolist() == [6, 5]
    assert known["speech_ref1"].tolist() == [[4, 4, 4, 4, 3, 3]] * 2
    assert known["clip_label"].tolist() == [[1, 1], [1, 1]] and known["frame_label"][0, :, 0].tolist() == [1, 1, 0]
    assert known["part_clip_label"][0].tolist() == [[1, 0], [0, 1]] and known["part_mix"].shape == (2, 2, 6)


# ---- priors of what is trained on ------------------------------------------------------------


def test_priors_of_sums_by_hand(tmp_path):
    """Each mixture holds a class of its own, in all frames: of four sums two hold it."""
    rows = [holding(f"m{k}", [k], "clip" if k == 3 else "frame") for k in range(4)]
    table = table_of(tmp_path / "t", rows, "abcd")
    assert table.info["clip_prior"] == [0.25] * 4
    seen = seen_priors(table, N_FFT, HOP, remix=True)
    assert seen["clip_prior"] == pytest.approx([0.5] * 4, abs=0.03)
    # two sums remain without the mixture of which only the clip's label is known; one of three classes is in both
    assert seen["frame_prior"] == pytest.approx([2 / 3, 2 / 3, 2 / 3, 0], abs=0.03)
    assert seen_priors(table, N_FFT, HOP) == {k: table.info[k] for k in seen}


def test_priors_of_parts(tmp_path):
    """A class in the first half only, seen through windows of a tenth."""
    rows = [Mixture(f"m{i}", 10 * FS, "frame", (Event(0, None, 0, 0, 5 * FS, 1.0),)) for i in range(20)]
    seen = seen_priors(table_of(tmp_path / "t", rows, "a"), N_FFT, HOP, crop_seconds=1.0)
    assert seen["clip_prior"][0] == pytest.approx(5 / 9, abs=0.02)
    assert seen["frame_prior"][0] == pytest.approx(0.5, abs=0.02) and seen["frame_prior"] != seen["clip_prior"]


@pytest.mark.parametrize("label_type", ["frame", "clip"])
def test_weights_let_active_and_inactive_count_alike_in_sums(tmp_path, label_type):
    """(16), in the batches that the model makes: the weighted share of each side is 1."""
    rng, k, size, rows = np.random.default_rng(0), 4, 10, []
    for i in range(200):
        length = 64 * int(rng.integers(20, 60))
        events = [
            Event(int(c), None, 0, 64 * int(rng.integers(10)), 640, 1.0) for c in rng.choice(k, rng.integers(1, 3))
        ]
        rows.append(Mixture(f"m{i}", length, "frame", tuple(events)))
    table = table_of(tmp_path / "t", rows, "abcd")
    seen, partners = seen_priors(table, N_FFT, HOP, remix=True), Partners(table)
    share, parts = torch.zeros(2, k), 0
    for start in range(0, 20 * len(rows), size):
        if start % len(rows) == 0:
            order = rng.permutation(len(rows))
        own = order[start % len(rows) :][:size].tolist()
        part = [rows[i] for i in [*own, *(partners(i, rng) for i in own)]]
        samples = torch.tensor([m.samples for m in part])
        frame = torch.zeros(2 * size, int(samples.max()) // HOP + 1, k)
        for x, m in zip(frame, part):
            x[: m.samples // HOP + 1] = torch.from_numpy(frame_activity(m, k, N_FFT, HOP))
        batch = {"clip_label": frame.amax(1), "frame_label": frame}
        mix, other = torch.zeros(2 * size, int(samples.max())), torch.arange(size, 2 * size)
        _, samples, batch = remixed(mix, samples, batch, other)
        labels, own = batch["clip_label"][..., None], torch.ones(size, 1, dtype=torch.bool)
        if label_type == "frame":
            labels = batch["frame_label"].transpose(1, 2)
            own = torch.arange(labels.shape[2]) < (samples // HOP + 1)[:, None]
        weight = pick_weights(class_weights(torch.tensor(seen[f"{label_type}_prior"])), labels) * own[:, None]
        share += torch.stack([(weight * (1 - labels)).sum((0, 2)), (weight * labels).sum((0, 2))])
        parts += int(own.sum())
    assert torch.allclose(share / parts, torch.ones(2, k), atol=0.06), share / parts
