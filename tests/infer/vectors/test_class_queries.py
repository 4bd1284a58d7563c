"""Means of classes: measured, in a bundle, asked by name, and what lies far from all."""

import shutil
import zipfile

import numpy as np
import pytest
import soundfile
from sounds import bank_of
from standin import noise

from espnet2_ext.cli import main as cli
from espnet2_ext.data.tables import Label
from espnet2_ext.errors import BundleError, DataError
from espnet2_ext.infer.bundle import open_bundle
from espnet2_ext.infer.pack import rewrite
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.infer.vectors.calibrate import calibrate
from espnet2_ext.infer.vectors.class_queries import ClassQueries, measured
from espnet2_ext.util.binary import npz_bytes


def known(**other) -> ClassQueries:
    """Two classes of queries of width 8, on the first two axes, the second four times as wide."""
    values = {
        "names": ["Dog", "bell tower"],
        "count": np.array([2, 3]),
        "mean": np.eye(8, dtype=np.float32)[:2],
        "axes": np.zeros((0, 8), np.float32),
        "spread": np.float32([0.5, 2]),
        "far": 2.0,
        "agreement": -1.0,
    }
    return ClassQueries(**values | other)


def test_measured_by_hand():
    """Three classes whose means have the mean `shift`, which takes no part in the cosines."""
    shift = np.array([100.0, 50.0])
    a, b, c = np.array([[2.0, 0.0], [-2.0, 1.0], [0.0, -1.0]]) + shift
    up = np.array([0.0, 1.0])
    queries = [("b", b + up), ("a", a), ("c", c), ("b", b - up)]
    wide = np.sqrt(2)  # of b: two sounds at 1 from their mean; the others, of one sound, take that of all
    found = measured(queries, held_out=[a, c - 3 * up, b + 2 * up])
    assert list(found.names) == ["a", "b", "c"] and found.count.tolist() == [1, 2, 1]
    np.testing.assert_allclose(found.mean, [a, b, c], rtol=1e-6)
    # within the classes, the variance is 1/2 along `up` and 1/4 in the mean; beyond a fifth of that, it is taken away
    np.testing.assert_allclose(np.abs(found.axes), [up * np.sqrt(1 - np.sqrt(0.1))], rtol=1e-6)
    np.testing.assert_allclose(found.spread, [wide * np.sqrt(0.1)] * 3, rtol=1e-5)
    assert found.far == pytest.approx(np.quantile([0, 3 / wide, 2 / wide], 0.99))
    assert found.agreement == pytest.approx(1 / np.sqrt(2))  # of [-2, 2] and [-2, 0]


def test_without_held_out_sounds_the_halves_are_compared():
    """A class of few sounds takes no part: its mean would be one of them."""
    x = np.array([[1.0, 0], [10, 0], [-1, 0], [12, 0]])  # halves: mean 0 and 11, spread sqrt(2) each
    found = measured([("x", v) for v in x] + [("y", np.array([-50.0, 0]))])
    to_other = np.array([10, 12, 10, 12]) / np.sqrt(2)
    assert found.far == pytest.approx(np.quantile(to_other, 0.99)) and list(found.names) == ["x", "y"]
    same = measured([("x", x[0]), ("x", x[0])])
    assert same.far == 0 and same.agreement == pytest.approx(1) and same.spread.tolist() == [1]
    for queries in ([], [("x", x[0]), ("y", x[0])]):
        with pytest.raises(DataError, match="no class has two sounds"):
            measured(queries, [x[0]])


def test_classes_by_name():
    found = known(names=["Dog", "dog house", "BELL", "bell"])
    found = known(names=found.names, mean=np.eye(8, dtype=np.float32)[:4])
    for name, row in (("dog", 0), ("DOG HOUSE", 1), ("bell", 3), ("BELL", 2)):
        np.testing.assert_array_equal(found.query(name), found.mean[row])
    for name, message in (
        ("dgo house", "no class is called 'dgo house'; did you mean class:dog house"),
        ("dgo", r"did you mean class:Dog\?"),
        ("house", r"did you mean class:dog house\?"),
        ("Bell", "several classes are called 'Bell'"),
        ("violin", "no class is called 'violin'; `espnet2-ext classes` lists them"),
    ):
        with pytest.raises(DataError, match=message):
            found.query(name)


def test_what_lies_far():
    x = np.eye(8)
    assert known().nearest(x[0] * 1.1) == (pytest.approx(0.2), "Dog") and known().far_words(x[0] * 1.1) == ""
    assert known().nearest(x[0] * 2) == (pytest.approx(np.sqrt(5) / 2), "bell tower")  # farther, but wider
    assert known().far_words(x[1] + 3.9 * x[2]) == ""
    assert "distance 2.1 to bell tower" in known().far_words(x[1] + 4.2 * x[2])
    half = known(axes=x[2:3] * np.sqrt(0.5))  # what lies along it counts half
    assert half.nearest(x[1] + 4.2 * x[2]) == (pytest.approx(1.05), "bell tower")


def test_agreement_of_queries_is_that_of_what_tells_them_apart(separator, caplog):
    waves = [noise(1, 16000, seed=seed)[:, 0] for seed in (0, 1)]
    vectors = np.stack([separator.embed_one(x, 16000) for x in waves])
    plain = separator.embed_queries(waves, 16000)[1]
    assert plain > 0.9 and not caplog.text
    about = Separator(separator.model, device="cpu", known=known(mean=vectors, agreement=0.0, far=3.0))
    assert about.embed_queries(waves, 16000)[1] == pytest.approx(-1, abs=1e-4)
    assert "the queries disagree: cosine -1.00" in caplog.text


def with_queries(bundle, out, found: ClassQueries, **arrays):
    content = found.arrays() | arrays
    rewrite(bundle, out, more={"class_queries.npz": npz_bytes({k: v for k, v in content.items() if v is not None})})
    return out


def test_in_a_bundle(toy_bundle, tmp_path):
    path = with_queries(toy_bundle, tmp_path / "a.zip", known())
    with open_bundle(toy_bundle) as old, open_bundle(path) as new:
        assert old.class_queries() is None and old.model_hash == new.model_hash
        found = new.class_queries()
    for name, value in known().arrays().items():
        np.testing.assert_array_equal(found.arrays()[name], value)


def test_in_half_precision():
    """Tables of 8 bits: within half a step of each row, 1/127 of its largest number; rows of zeros stay."""
    axes = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    a = known(mean=np.array([[1, -2, 0.3, 0, 0, 0, 0, 254], [0] * 8], np.float32), axes=axes)
    small = a.arrays(half=True)
    assert small["mean"].dtype == small["axes"].dtype == np.int8 and small["spread"].dtype == np.float32
    assert small["mean"].tolist() == [[0, -1, 0, 0, 0, 0, 0, 127], [0] * 8]
    assert small["mean_step"].tolist() == [[2], [0]]
    b = ClassQueries.of_arrays(small, "a bundle")
    assert b.mean.dtype == b.axes.dtype == np.float32
    assert b.mean.tolist() == [[0, -2, 0, 0, 0, 0, 0, 254], [0] * 8]
    assert (np.abs(b.axes - axes) <= np.abs(axes).max(1, keepdims=True) / 253).all()

    halves = {k: v.astype(np.float16) if k in ("mean", "axes") else v for k, v in a.arrays().items()}  # as before
    np.testing.assert_allclose(ClassQueries.of_arrays(halves, "a bundle").mean, a.mean, rtol=1e-3)
    with pytest.raises(DataError, match="not those of 2 classes"):
        ClassQueries.of_arrays(small | {"mean_step": np.ones((3, 1), np.float32)}, "a bundle")


def test_broken_ones_are_refused(toy_bundle, tmp_path):
    nan = np.full((2, 8), np.nan, np.float32)
    for arrays, message in (
        ({"agreement": np.zeros(2)}, "not those of 2 classes"),
        ({"far": None}, "expected the arrays"),
        ({"spread": np.zeros(2, np.float32)}, "not those of 2 classes"),
        ({"axes": np.zeros((1, 7), np.float32)}, "not those of 2 classes"),
        ({"mean": nan}, "not those of 2 classes"),
        ({"mean": np.zeros((3, 8), np.float32)}, "not those of 2 classes"),
        ({"mean": np.zeros((2, 8), np.int64)}, "not those of 2 classes"),
        ({"count": np.zeros(3, np.int64)}, "not those of 2 classes"),
        ({"names": np.array([1, 2])}, "not those of 2 classes"),
        ({"names": np.array(["a", "b\x1b"])}, "not a name of a class"),
        ({"names": np.zeros(0, "U1")}, "not those of 0 classes"),
        (
            {"mean": np.zeros((2, 7), np.float32), "axes": np.zeros((0, 7), np.float32)},
            "queries of other sizes than the model",
        ),
    ):
        path = with_queries(toy_bundle, tmp_path / "a.zip", known(), **arrays)
        with pytest.raises(BundleError, match=message) as e:
            Separator.from_bundle(path, "cpu")
        assert "a.zip: class_queries.npz" in str(e.value)
    shutil.copy(toy_bundle, tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "a") as z:
        z.writestr("class_queries.npz", b"PK no arrays")
    with pytest.raises(BundleError, match="b.zip: class_queries.npz: is not a whole .npz file"):
        Separator.from_bundle(tmp_path / "b.zip", "cpu")


# ---- commands -----------------------------------------------------------------------------------


@pytest.fixture
def bank(tmp_path):
    """Three sounds of `hum`, one of which is of `buzz` too, and a silent one."""
    fs, t = 16000, np.arange(16000) / 16000
    sounds = {f"c{i}": 0.3 * np.sin(2 * np.pi * (200 + i) * t) for i in range(3)} | {"quiet": np.zeros(fs)}
    waves = {name: (x, ("hum", "buzz") if name == "c1" else ("hum",)) for name, x in sounds.items()}
    labels = [Label(0, "hum", "Hum"), Label(1, "buzz", "Buzz")]
    return bank_of(tmp_path / "data", waves, labels, fs, "train", tmp_path / "dump/train", max_bad_share=1.0).path


def test_calibrated_with_a_bank(toy_bundle, bank, tmp_path, caplog, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.main(["calibrate", "toy.zip", "--bank", "dump/train", "-o", "new.zip"])
    separator = Separator.from_bundle("new.zip", "cpu")
    hum = [separator.embed_one(tmp_path / f"data/c{i}.wav") for i in range(3)]
    np.testing.assert_allclose(separator.known.query("hum"), np.mean(hum, 0), atol=1e-5)
    np.testing.assert_allclose(separator.known.query("buzz"), hum[1], atol=1e-5)
    assert separator.known.count.tolist() == [1, 3] and separator.agreement == separator.known.agreement
    cli.main(["classes", "new.zip"])
    assert capsys.readouterr().out.splitlines()[1].startswith("Hum        3 sounds  spread ")
    cli.main(["classes", "toy.zip"])
    assert capsys.readouterr().out.splitlines()[4] == "sound 4"
    assert calibrate("toy.zip", bank, out="few.zip", most=2, device="cpu", held_out=bank).count.tolist() == [1, 2]


def test_a_damaged_bank_is_not_calibrated_with(toy_bundle, bank, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shard = bank / "audio.00000.ark"
    shard.write_bytes(shard.read_bytes()[:2000] + bytes(shard.stat().st_size - 2000))
    with pytest.raises(DataError, match="audio.00000.ark: clip c"):
        calibrate("toy.zip", bank, out="bad.zip", device="cpu", mixtures=0)
    assert not (tmp_path / "bad.zip").exists()


def test_asked_by_class(toy_bundle, tmp_path, monkeypatch, caplog, capsys):
    monkeypatch.chdir(tmp_path)
    soundfile.write("mix.wav", noise(1, 16000), 16000)
    far = known(far=-1.0)  # everything is far
    with_queries(toy_bundle, "a.zip", known(mean=np.eye(8, dtype=np.float32)[:2] * 3))
    with_queries(toy_bundle, "b.zip", far)
    run = ["separate", "mix.wav", "--bundle", "a.zip"]
    cli.main([*run, "--query", "class:dog", "--query", "class:Bell tower", "--mode", "each", "-o", "out"])
    separator = Separator.from_bundle("a.zip", "cpu")
    x = soundfile.read("mix.wav", dtype="float32")[0]
    for name, query in (("dog", 0), ("Bell tower", 1)):
        expected = separator.separate(x, 16000, separator.known.mean[[query]])[0]
        np.testing.assert_allclose(soundfile.read(f"out/mix.{name}.wav")[0], expected, atol=2**-14)
    caplog.clear()
    cli.main([*run, "--query", "class:dog", "--query", "class:Bell tower", "-o", "out", "--skip_existing"])
    cli.main([*run, "--query", "class:dog", "-o", "out", "--skip_existing"])
    assert "mix.wav: was made of another query" in caplog.text and "unlike all" not in caplog.text
    vector, _ = separator.embed_queries(["class:dog", np.asarray(x), "mix.wav"], 16000)
    cli.main(["separate", "mix.wav", "--bundle", "b.zip", "--query", "mix.wav", "-o", "far.wav"])
    assert caplog.text.count("query mix.wav: unlike all that the model was trained on") == 1
    for bundle, query, message in (
        ("a.zip", "class:dig", "a.zip: class_queries.npz: no class is called 'dig'"),
        ("toy.zip", "class:dog", "class:dog: toy.zip holds no queries of classes; `espnet2-ext calibrate`"),
    ):
        with pytest.raises(SystemExit):
            cli.main(["separate", "mix.wav", "--bundle", bundle, "--query", query, "-o", "x.wav"])
        assert message in capsys.readouterr().err
