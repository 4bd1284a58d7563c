"""The preprocessor's names, labels and gain, on a bank on disk."""

import pickle

import numpy as np
import pytest
from espnet2.train.preprocessor import AbsPreprocessor

from espnet2_ext.core.mixing.pair_drawer import PairDrawer, render
from espnet2_ext.errors import DataError
from espnet2_ext.train.clip_data import QSepPreprocessor


@pytest.fixture(scope="module")
def pair(bank):
    drawer = PairDrawer(bank, segment=0.5, query_from="other")
    return drawer.draw(np.random.default_rng(0), id="p")


def test_a_pair_becomes_espnets_names(bank, pair):
    prep = QSepPreprocessor(train=True, bank=str(bank.path))
    assert isinstance(prep, AbsPreprocessor)
    data, out = prep("p", {"pair": pair}), render(pair, bank)
    assert list(data)[0] == "speech_mix"
    names = {
        "speech_mix": "mix",
        "speech_ref1": "ref1",
        "speech_ref2": "ref2",
        "enroll_ref1": "query1",
        "enroll_ref2": "query2",
    }
    for name, rendered in names.items():
        np.testing.assert_array_equal(data[name], out[rendered])
    assert {v.dtype for v in data.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(data["label1"], np.eye(4)[bank.labels(pair.query1)[0]])
    np.testing.assert_array_equal(data["label2"], np.eye(4)[bank.labels(pair.query2)[0]])
    np.testing.assert_array_equal(data["label_mix"], data["label1"] + data["label2"])


def test_labels_of_a_mixture_are_of_all_that_sounds_in_it(bank):
    drawer = PairDrawer(bank, segment=0.5, num_sources=3, absent_prob=1.0)
    pair = drawer.draw(np.random.default_rng(0))
    data = QSepPreprocessor(train=True, bank=bank)("p", {"pair": pair})
    heard = {k for clip in (pair.clip1, pair.clip2, pair.others[0].clip) for k in bank.labels(clip)}
    assert set(data["label_mix"].nonzero()[0]) == heard and len(heard) == 3
    assert data["label1"][list(heard)].sum() == 0  # it asks for what is not there


def test_label_of_an_absent_query_is_the_querys(bank):
    drawer = PairDrawer(bank, segment=0.5, absent_prob=1.0)
    pair = drawer.draw(np.random.default_rng(0))
    data = QSepPreprocessor(train=True, bank=bank)("p", {"pair": pair})
    assert data["label1"].argmax() == pair.class1 and pair.class1 not in bank.labels(pair.clip1)
    assert not data["speech_ref1"].any() and data["speech_mix"].any()


def test_gain_is_put_on_mixture_and_targets_alike(bank, pair):
    plain = QSepPreprocessor(train=True, bank=bank)("p", {"pair": pair})
    prep = QSepPreprocessor(train=True, bank=bank, gain_db=[-12, -6])
    loud = prep("p", {"pair": pair})
    factor = loud["speech_mix"][0] / plain["speech_mix"][0]
    assert 10 ** (-12 / 20) <= factor <= 10 ** (-6 / 20)
    for name in ("speech_mix", "speech_ref1", "speech_ref2"):
        np.testing.assert_allclose(loud[name], factor * plain[name], rtol=1e-5)
        assert loud[name].dtype == np.float32
    np.testing.assert_array_equal(loud["enroll_ref1"], plain["enroll_ref1"])
    again = pickle.loads(pickle.dumps(prep))("other name", {"pair": pair})
    np.testing.assert_array_equal(again["speech_mix"], loud["speech_mix"])
    valid = QSepPreprocessor(train=False, bank=bank, gain_db=[-12, -6])("p", {"pair": pair})
    np.testing.assert_array_equal(valid["speech_mix"], plain["speech_mix"])


def test_gain_range_counts_for_rows_without_gain(bank, pair):
    prep = QSepPreprocessor(train=True, bank=bank, gain_range=[0.5, 0.5])
    data = prep("p", {"pair": pair})
    expected = np.float32(0.5) * bank.read(pair.clip2, pair.start2, pair.num)
    np.testing.assert_array_equal(data["speech_ref2"], expected)


def test_a_mixture_passes_through_without_a_bank():
    data = {"speech_mix": np.zeros(3), "enroll_ref1": np.zeros(2)}
    assert QSepPreprocessor(train=False, bank="no/such/bank")("u", data) is data


def test_bad_input_is_refused(bank, pair):
    with pytest.raises(DataError, match="u1.*`pair` or `speech_mix`.*source"):
        QSepPreprocessor(train=True, bank=bank)("u1", {"source": np.zeros(3)})
    with pytest.raises(DataError, match="u1.*no"):
        QSepPreprocessor(train=True)("u1", {"pair": pair})
    with pytest.raises(DataError, match="no/such/bank"):
        QSepPreprocessor(train=True, bank="no/such/bank")("u1", {"pair": pair})
    with pytest.raises(DataError, match="gain_db"):
        QSepPreprocessor(train=True, gain_db=[3, -3])


def test_sources_are_changed_in_training_only(bank, pair):
    plain = QSepPreprocessor(train=True, bank=bank)("p", {"pair": pair})
    conf = {"prob": 1.0, "reverb": None}
    changed = QSepPreprocessor(train=True, bank=bank, augment=conf)("p", {"pair": pair})
    assert (changed["speech_mix"] != plain["speech_mix"]).any()
    np.testing.assert_array_equal(changed["speech_mix"], changed["speech_ref1"] + changed["speech_ref2"])
    valid = QSepPreprocessor(train=False, bank=bank, augment=conf)("p", {"pair": pair})
    np.testing.assert_array_equal(valid["speech_mix"], plain["speech_mix"])
    with pytest.raises(DataError, match="augment.*speeds"):
        QSepPreprocessor(train=True, bank=bank, augment={"speeds": 2})
