"""The best segment by hand, and tables that are only used with what they were made of."""

import contextlib
import pickle

import numpy as np
import pytest
from tag_standin import FS, tone, write_bank

from espnet2_ext.core.mixing.pair_drawer import PairDrawer
from espnet2_ext.data.bank.archive import archive
from espnet2_ext.data.bank.bank import ClipBank, bank_key
from espnet2_ext.data.bank.per_clip import AnchorTable, best_starts, write_anchors
from espnet2_ext.data.bank.shards import Settings
from espnet2_ext.data.tables import Label, write_labels
from espnet2_ext.errors import DataError

EDGES = np.array([0, 10, 20, 30, 40])


def starts(column, num, samples=40, edges=EDGES):
    return best_starts(np.array(column, float)[:, None], edges, samples, num).tolist()


def test_best_starts_by_hand():
    block = [0, 1, 1, 0]
    assert starts(block, 20) == [10]
    assert starts(block, 15) == [10]  # 10 to 15 are equals
    assert starts(block, 25) == [5]  # 5 to 10 are equals
    assert starts(block, 40) == starts(block, 50) == [0]
    # 0.5 * 5 + 0.9 * 10 = 11.5 from 15 on; 10.0 from 20 on, 9.5 from 10 on
    assert starts([0.1, 0.5, 0.9, 0.2], 15) == [15]
    assert starts([0, 0, 0, 1], 15) == [25]  # the last place
    assert starts([0, 0, 0, 0], 15) == [0]
    assert starts([0, 1, 0], 12, edges=np.array([0, 7.5, 20, 40])) == [8]  # 7.5 to 8 are equals


def test_best_starts_is_the_best_of_all_places():
    rng = np.random.default_rng(0)
    for _ in range(20):
        edges = np.unique(np.r_[0, rng.integers(1, 200, 9), 200])
        activity = rng.random((len(edges) - 1, 3))
        num = int(rng.integers(1, 200))
        samples = np.repeat(activity, np.diff(edges), axis=0)
        total = np.array([samples[s : s + num].sum(0) for s in range(200 - num + 1)])
        found = best_starts(activity, edges, 200, num)
        assert total[found, range(3)] == pytest.approx(total.max(axis=0))
        assert (np.argmax(total >= total.max(0) - 1e-6, axis=0) <= found).all()


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    waves = {
        "a": (tone(0, 8000), (0, 2)),
        "b": (tone(1, 8000), (1,)),
        "c": (tone(2, 8000), (2,)),
        "d": (tone(3, 8000), (3,)),
    }
    return write_bank(tmp_path_factory.mktemp("anchors"), waves)


@pytest.fixture
def table(bank, tmp_path):
    write_anchors(tmp_path / "anchors.npz", bank, [10, 20, 30, 40, 50], 4000, "m")
    return AnchorTable(tmp_path / "anchors.npz")


def test_a_table_answers_by_clip_and_class(table):
    assert [table(0, 0, 4000), table(0, 2, 4000), table(3, 3, 4000)] == [10, 20, 50]
    assert isinstance(table(1, 1, 4000), int)
    assert table(0, 1, 4000) is None  # clip a has no class 1
    assert table(0, 0, 3999) is None  # segments of another length


def test_a_table_survives_the_way_to_another_process(bank, table):
    again = pickle.loads(pickle.dumps(table))
    assert again(1, 1, 4000) == 30 and again.key == table.key == bank_key(bank)
    assert len(pickle.dumps(table)) < 1000


def test_pairs_are_drawn_at_its_places(bank, table):
    drawer = PairDrawer(bank, segment=0.5, anchors=table)
    table.check(bank, drawer.num)
    best = {(0, 0): 10, (0, 2): 20, (1, 1): 30, (2, 2): 40, (3, 3): 50}
    for seed in range(20):
        pair = drawer.draw(np.random.default_rng(seed))
        assert pair.start1 == best[pair.clip1, pair.class1]
        assert pair.start2 == best[pair.clip2, pair.class2]


def test_other_clips_and_lengths_are_refused(bank, table, tmp_path):
    table.check(bank)
    with pytest.raises(DataError, match=r"anchors.npz: its segments are 0.5 s long, but 1 s"):
        table.check(bank, 8000)
    other = write_bank(tmp_path / "other", {"a": (tone(0, 8000), (0,))})
    with pytest.raises(DataError, match=r"other clips or classes than .*other.*manifest_hash "):
        table.check(other)
    waves = {
        "a": (tone(0, 8000), (0, 2)),
        "b": (tone(1, 8000), (1,)),
        "c": (tone(2, 8000), (2,)),
        "d": (tone(3, 8000), (3,)),
    }
    write_bank(tmp_path / "moved", waves)
    labels = [Label(k, f"/m/{3 - k}", f"Tone {3 - k}") for k in range(4)]
    write_labels(tmp_path / "moved/labels.tsv", labels)  # the same clips, classes in another order
    for fs, differs in ((FS, "labels_hash"), (FS // 2, "fs")):
        archive(tmp_path / "moved/set", tmp_path / f"{fs}", settings=Settings(fs=fs), num_workers=0)
        with pytest.raises(DataError, match=rf"other clips or classes than .*{differs} "):
            table.check(ClipBank(tmp_path / f"{fs}"))


def test_files_that_are_no_tables_are_named(tmp_path):
    with pytest.raises(DataError, match="none.npz: no such file"):
        AnchorTable(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(DataError, match="text.npz"):
        AnchorTable(tmp_path / "text.npz")
    np.savez(tmp_path / "tags.npz", start=[1])
    with pytest.raises(DataError, match="tags.npz: expected the arrays .* no indptr"):
        AnchorTable(tmp_path / "tags.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(DataError, match="one.npy"):
        AnchorTable(tmp_path / "one.npy")


def test_a_broken_table_is_named_wherever_it_is_broken(table, tmp_path):
    whole, path = table.path.read_bytes(), tmp_path / "broken.npz"
    for at in range(0, len(whole), 97):
        for broken in (whole[:at], whole[:at] + bytes([whole[at] ^ 8]) + whole[at + 1 :]):
            path.write_bytes(broken)
            with contextlib.suppress(DataError):  # anything else is not told by name
                AnchorTable(path)


def test_a_start_for_each_label(bank, tmp_path):
    with pytest.raises(ValueError, match="4 starts for 5 labels"):
        write_anchors(tmp_path / "x.npz", bank, [1, 2, 3, 4], 10, "m")
