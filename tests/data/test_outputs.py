"""What inference writes is read back, and what does not fit is refused by name."""

from dataclasses import replace

import numpy as np
import pytest

from espnet2_ext.audio.read import FlacArkWriter, read_audio
from espnet2_ext.data import outputs
from espnet2_ext.data.outputs import Activity
from espnet2_ext.errors import DataError


def classes(n: int = 3) -> Activity:
    """Of a class separator: recordings of 1, 2, ... frames."""
    lengths = np.arange(1, n + 1)
    rng = np.random.default_rng(0)
    return Activity(
        keys=np.array([f"k{i}" for i in range(n)]),
        frame=rng.random((lengths.sum(), 2), np.float32),
        indptr=np.concatenate([[0], np.cumsum(lengths)]),
        fs=16000,
        clip=rng.random((n, 2), np.float32),
        classes=np.array(["bell", "dog"]),
        time_pool=4,
        n_fft=512,
        hop=128,
    )


def tagger() -> Activity:
    """Of a tagger: the same with edges."""
    one = classes()
    edges = np.concatenate([np.arange(n + 2.0) * 100 for n in range(3)])
    return Activity(one.keys, one.frame, one.indptr, one.fs, edges=edges)


@pytest.mark.parametrize("activity", [classes(), tagger()])
def test_activity_there_and_back_and_in_another_order(tmp_path, activity):
    path = tmp_path / "activity.npz"
    outputs.write_activity(path, activity)
    back = outputs.read_activity(path)
    for name, value in vars(activity).items():
        assert np.array_equal(getattr(back, name), value), name
    turned = back.select(["k2", "k0", "k1"], path)
    assert [len(f) for f in turned.frames] == [3, 1, 2]
    assert np.array_equal(turned.frames[0], activity.frames[2]) and list(turned.keys) == ["k2", "k0", "k1"]
    if activity.edges is not None:
        assert turned.edges[:4].tolist() == [0, 100, 200, 300] and turned.edges[4:6].tolist() == [0, 100]
    with pytest.raises(DataError, match="key k9 is missing"):
        back.select(["k0", "k1", "k9"], path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"indptr": np.array([0, 1, 3])}, "indptr does not divide 6 frames among 3 keys"),
        ({"frame": np.full((6, 2), 1.5)}, "frame holds values that are no probabilities"),
        ({"clip": np.full((3, 2), np.nan)}, "clip holds values that are no probabilities"),
        ({"edges": np.arange(4.0)}, "4 edges for 6 frames of 3 keys"),
    ],
)
def test_broken_activity_is_named(tmp_path, change, message):
    path = tmp_path / "activity.npz"
    outputs.write_activity(path, replace(classes(), **change))
    with pytest.raises(DataError, match=f"activity.npz: {message}"):
        outputs.read_activity(path)


def test_tags_and_queries(tmp_path):
    tags, queries = tmp_path / "tags.npz", tmp_path / "queries.npz"
    values = np.random.default_rng(0).random((2, 3))
    outputs.write_tags(tags, ["a", "b"], values)
    outputs.write_queries(queries, ["a", "b"], values)
    for keys, array in (outputs.read_tags(tags, 3), outputs.read_queries(queries)):
        assert keys == ["a", "b"] and np.array_equal(array, values)
    with pytest.raises(DataError, match=r"tags.npz: clipwise is \(2, 3\), expected \(2, 4\)"):
        outputs.read_tags(tags, 4)
    with pytest.raises(DataError, match="tags.npz: expected the arrays keys and embedding"):
        outputs.read_queries(tags)
    outputs.write_tags(tags, ["a", "b"], np.array([[0.0], [np.nan]]))
    with pytest.raises(DataError, match="key b: .* not finite"):
        outputs.read_tags(tags, 1)
    tags.write_bytes(queries.read_bytes()[:200])
    with pytest.raises(DataError, match="tags.npz: is not a whole .npz file"):
        outputs.read_tags(tags, 1)
    with pytest.raises(DataError, match="none.npz: no such file; run inference first"):
        outputs.read_tags(tmp_path / "none.npz", 1)


def test_estimates_of_parts_are_joined_in_the_order_of_the_keys(tmp_path):
    parts = []
    for n, keys in enumerate((("b", "a"), ("c",))):
        writers = [FlacArkWriter(tmp_path, f"spk{s}.{n:05d}", 8000, 24) for s in (1, 2)]
        for s, writer in enumerate(writers, 1):
            with writer:
                for key in keys:
                    writer.write(key, np.full(80, 0.1 * s + 0.01 * ord(key) / 128))
        outputs.write_part(tmp_path / f"part{n}", {"archives": outputs.archive_sizes(writers)}, {})
        parts.append(outputs.read_part(tmp_path / f"part{n}"))
    outputs.join_estimates(tmp_path, ["a", "b", "c"], parts, outputs=2)
    first, second = outputs.read_estimates(tmp_path, ["a", "b", "c"], 2)
    assert list(first) == list(second) == ["a", "b", "c"]
    assert read_audio(second["c"])[0][0, 0] == pytest.approx(0.2 + 0.01 * ord("c") / 128, abs=1e-6)
    outputs.remove_old(tmp_path, outputs.ARCHIVES, keep=parts)
    outputs.remove_old(tmp_path, outputs.TABLES)
    assert sorted(p.name for p in tmp_path.glob("spk*.scp")) == ["spk1.scp", "spk2.scp"]
    assert len(list(tmp_path.glob("spk*.ark"))) == 4
    (tmp_path / "spk2.00001.ark").write_bytes(b"")
    with pytest.raises(DataError, match="spk2.00001.ark: is missing or was changed"):
        outputs.join_estimates(tmp_path, ["a", "b", "c"], parts, outputs=2)
    assert not (tmp_path / "part1").exists() and (tmp_path / "part0").exists()
