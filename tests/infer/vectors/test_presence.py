"""Presence: its numbers by hand, its calibration, windows, the gate, and what the commands make of it."""

import logging

import numpy as np
import pytest
import soundfile
import torch
import yaml
from sounds import bank_of
from standin import StandIn, WeakStandIn, noise

from espnet2_ext.audio.streams import ArraySource, measure
from espnet2_ext.cli import main as cli
from espnet2_ext.cli.bundles import qsep_pack
from espnet2_ext.data.tables import Label
from espnet2_ext.errors import DataError
from espnet2_ext.infer.class_separator import WeakSeparator
from espnet2_ext.infer.pack import rewrite
from espnet2_ext.infer.queries import Ask
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.infer.vectors.calibrate import area_under_curve, calibrate, logistic, tag_readout
from espnet2_ext.infer.vectors.class_queries import ClassQueries
from espnet2_ext.infer.vectors.presence import NAMES, Features, Scale, Watch, loudest, scorer, sigmoid, sounding
from espnet2_ext.train.experiment import facts
from espnet2_ext.util.binary import npz_bytes

FS = 16000
NO_TAGS = np.zeros((9, 0))


def scale(weights=(), **other) -> Scale:
    """Of queries of width 8; weights by name, and of the constant."""
    own = np.zeros(len(NAMES) + 1)
    for name, value in dict(weights).items():
        own[-1 if name == "constant" else NAMES.index(name)] = value
    values = {"threshold": 0.5, "rare": 0.8, "auc": 0.9, "miss": 0.1, "false_alarm": 0.2, "mixtures": 50}
    return Scale(own, **{"readout": NO_TAGS, **values, **other})


def known(presence=None) -> ClassQueries:
    """Two classes of queries of width 8, whose means have the mean 0."""
    mean = np.zeros((2, 8), np.float32)
    mean[:, 0] = 1, -1
    rest = np.zeros((0, 8)), np.float32([1, 1]), 9.0, -1.0
    return ClassQueries(["dog", "bell"], np.array([2, 2]), mean, *rest, presence=presence)


class Embedder:
    """Embeds a waveform as the first 8 samples, and tags it with the two after them; a step is 10 samples."""

    known = known()
    tags, fs = True, 20

    def apart(self, vectors):
        return vectors

    def embed_batch(self, waves):
        return waves[:, :8], waves[:, 8:10]


def test_features_by_hand():
    """Of the samples 20 to 69, in which the estimate is loudest; of one that is silent, the first 50."""
    mix, est = np.ones((2, 100), np.float32)
    est[:20], est[60:] = 0.05, 0.1
    mix[20:30] = 0, 2, 0, 0, 0, 0, 0, 0, -1, 3
    est[20:30] = 0.3, 0.4, 0, 0, 0, 0, 0, 0, 0.5, -2
    est[50:60] = 3
    query = np.array([[0.6, 0.8, *np.zeros(6)]])
    readout = np.zeros((9, 2))
    readout[0], readout[8] = (5, 0), (0, 1)  # logits of the query: 3 and 1
    level = 20 * np.log10(np.sqrt((4.5 + 20 + 90 + 0.1) / (14 + 40)))
    share = np.exp([3, 1]) / np.exp([3, 1]).sum()
    active = [np.log(share @ sigmoid(np.array(logits))) for logits in ((0.5, -2), (-1, 3))]
    loudness = 20 * np.log10(np.sqrt((20 + 14 + 70) / 100) / 8)
    found = Features(Embedder(), query, readout)(mix, est[None], 8.0)
    np.testing.assert_allclose(found, [[level, 1, 0.8, 1, 0, *active, loudness]], atol=1e-6)
    untagged = Features(Embedder(), np.vstack([query, -query]), NO_TAGS)(mix, np.stack([est, 0 * est]), 4e4)
    silent = [-60, 0, -1.4 / np.sqrt(8), 0, -1, 0, 0, -20]
    np.testing.assert_allclose(untagged, [[level, 1, 0.8, 1, 0, 0, 0, -20], silent], atol=1e-6)


@pytest.mark.parametrize(
    ("x", "start"), [([0, 0, 1, 2, 0, 0], 20), ([3, 1, 0, 0, 2, 3], 40), ([0, 0, 0], 0), ([0, 0, 0, -1], 20), ([5], 0)]
)
def test_where_it_is_loudest(x, start):
    assert loudest(np.repeat(np.float32(x), 10), 20, 10) == slice(start, start + 20)
    assert loudest(np.float32([*np.zeros(13), 1, 1, 0, 0]), 4, 3) == slice(12, 16)


@pytest.mark.parametrize(
    ("x", "part"), [([0, 0, 0, 1, 2, 0], (3, 5)), ([0, 0, 9, 0.5, 0.91, 0], (2, 5)), ([0, 0, 0], (0, 3)), ([5], (0, 1))]
)
def test_where_something_is(x, part):
    assert sounding(np.repeat(np.float32(x), 10), 10) == slice(part[0] * 10, part[1] * 10)
    assert sounding(np.float32([*np.zeros(20), 1, 1]), 10) == slice(12, 22)  # never less than a step


def test_probability_of_references():
    """Of several references for one output the likeliest counts."""
    embedder = Embedder()
    embedder.known = known(scale({"likeness": 2.0, "constant": -1.0}))
    mix, query = np.zeros(20, np.float32), np.eye(8)[:2]
    mix[[0, 1]] = 3, 4
    expected = 1 / (1 + np.exp(1 - 2 * np.array([0.6, 0.8])))
    np.testing.assert_allclose(scorer(embedder, Ask(query))(mix, mix[None].repeat(2, 0), 1), expected, atol=1e-6)
    np.testing.assert_allclose(scorer(embedder, Ask(query, nearest=True))(mix, mix[None], 1), expected[1:], atol=1e-6)


def test_logistic_regression_of_two_groups():
    """One feature of two values: the odds of the groups, up to the decay, as if half of all were true; a constant one
    takes no weight."""
    x = np.c_[np.repeat([0.0, 1.0], 100), np.ones(200)]
    y = np.tile(np.arange(100) < 50, 2)
    y[100:] = np.arange(100) < 75
    w = logistic(x, y)
    shares = (50 / 125, 75 / 125), (50 / 75, 25 / 75)  # of what is true, and of what is not, in each group
    np.testing.assert_allclose(
        sigmoid(w[0] * np.array([0, 1]) + w[1] + w[2]), [yes / (yes + no) for yes, no in zip(*shares)], atol=0.01
    )
    assert w[1] == 0 and area_under_curve(np.array([1.0, 2]), np.array([0, 1.0])) == 7 / 8


def test_readout_of_linear_tags():
    rng = np.random.default_rng(0)
    x, to = rng.standard_normal((200, 5)), rng.standard_normal((5, 3))
    found = tag_readout(list(x), list(x @ to + 2))
    np.testing.assert_allclose(x @ found[:-1] + found[-1], x @ to + 2, atol=0.01)
    assert tag_readout(list(x), [None] * 200).shape == (6, 0)


# ---- windows and the gate ------------------------------------------------------------------------


def watched(gate, seconds, size, present=lambda n: n % 2 == 0):
    """Ones of `seconds` in pieces of `size` samples through a watch at 100 Hz whose windows are in turn."""
    seen = []

    def score(mix, est, rms):
        assert rms == 1.0
        seen.append((len(mix), float(mix[0])))
        return np.array([0.9 if present(len(seen) - 1) else 0.1, 0.7])

    watch = Watch(score, 2, 100, gate)
    mix = np.arange(1, seconds * 100 + 1, dtype=np.float32)[:, None].repeat(2, 1)
    cut = range(size, len(mix), size)
    passed = list(watch.mixture(np.split(mix, cut), 1.0))
    out = list(watch.estimates(np.ones((2, *x.shape), np.float32) for x in passed))
    return np.concatenate(out, 1), seen, watch.presence


@pytest.mark.parametrize("size", [30, 700, 5000])
def test_windows_of_any_pieces(size):
    """22 s in windows of 5 s, the last of 7; nothing is lost, and muted is what is unlikely, with fades."""
    out, seen, presence = watched(0.5, 22, size)
    assert out.shape == (2, 2200, 2) and seen == [(500, 1.0), (500, 501.0), (500, 1001.0), (700, 1501.0)]
    assert presence.tolist() == [0.9, 0.7] and (out[1] == 1).all()
    steps = np.array([0.8, 0.6, 0.4, 0.2, 0])
    expected = np.ones(2200)
    expected[500:1000] = expected[1500:] = 0
    expected[500:505] = expected[1500:1505] = steps
    expected[1000:1005] = 1 - steps
    np.testing.assert_allclose(out[0, :, 0], expected, atol=1e-6)
    assert (watched(None, 22, size)[0] == 1).all()


def test_silence_is_not_scored():
    watch = Watch(lambda mix, est, rms: 1 / 0, 1, 100)
    passed = [*watch.mixture([np.zeros((300, 1), np.float32)], 1.0)]
    assert len([*watch.estimates([x[None] for x in passed])]) == 1 and watch.presence == [0]


def test_separated_with_a_gate(separator):
    """The stand-in's outputs where all of it is likely, and nothing where it is not; no chunk is left out."""
    x, query = noise(23, FS, 2), np.eye(8, dtype=np.float32)[:2]
    separator.known = known(scale({"likeness": 9.0}, threshold=0.3))
    assert separator.threshold == 0.3
    plan = separator.plan(4, 1)
    result = separator(x, FS, query=Ask(query), plan=plan)
    own = separator.separate(x, FS, query, plan)
    np.testing.assert_allclose(result.target, own, atol=1e-6)
    parts = list(separator.stream(x, FS, query=Ask(query), plan=plan))
    assert (np.diff([part.presence for part in parts], axis=0) >= 0).all()
    np.testing.assert_array_equal(result.presence, parts[-1].presence)
    size = 5 * FS
    windows = [(i * size, (i + 1) * size if i < 3 else len(x)) for i in range(4)]
    score, rms = scorer(separator, Ask(query)), measure(ArraySource(x, FS)).rms
    expected = np.max([score(x[a:b].mean(1), own[:, a:b].mean(2), rms) for a, b in windows], 0)
    np.testing.assert_allclose(result.presence, expected, atol=1e-4)
    gate = float(expected.max() + expected.min()) / 2
    gated = separator(x, FS, query=Ask(query), plan=plan, gate=gate)
    quiet = int(expected.argmin())
    loudest = np.abs(gated.target).max((1, 2))
    assert loudest[quiet] < 1e-7 and loudest[1 - quiet] > 1e-3  # the sum with the residual is kept to the last bit
    np.testing.assert_allclose(gated.target.sum(0) + gated.residual, x, atol=1e-6)
    separator.known = None
    assert separator(x[:FS], FS, query=Ask(query)).presence is None and separator.threshold is None


def test_classes(tmp_path, wav):
    """Of a weak-label model the activity of the window; the output for the rest has none and stays."""
    separator = WeakSeparator(WeakStandIn(residual=True), "cpu")
    x = noise(4, FS)
    path, outs = wav("mix.wav", x, subtype="FLOAT"), [tmp_path / f"{i}.wav" for i in range(4)]
    clip = separator.classify_batch(x.T)[0].clip
    gate = float(np.sort(clip)[1])
    done = separator.separate_to(path, outs, gate=gate + 1e-4)
    np.testing.assert_allclose(done.presence, clip, atol=1e-4)
    silent = [not soundfile.read(out)[0].any() for out in outs]
    assert silent == [*(clip <= gate), False] and sum(silent) == 2
    assert WeakSeparator(WeakStandIn(tags=False), "cpu").threshold is None


# ---- the bundle and the commands -----------------------------------------------------------------


def test_a_bundle_holds_it(toy_bundle, tmp_path):
    own = known(scale({"level": 0.25, "constant": 3}, readout=np.ones((9, 5))))
    rewrite(toy_bundle, tmp_path / "new.zip", more={"class_queries.npz": npz_bytes(own.arrays())})
    found = Separator.from_bundle(tmp_path / "new.zip", "cpu").known.presence
    np.testing.assert_array_equal(found.weights, own.presence.weights)
    assert (found.readout == 1).all() and found.words() == own.presence.words()
    arrays = own.arrays()
    assert ClassQueries.of_arrays({**arrays, "presence_features": np.array(["other"])}, "a").presence is None
    for broken in ({"presence_weights": np.ones(3)}, {"presence_readout": np.ones((3, 5))}):
        with pytest.raises(DataError, match="a: its presence arrays do not fit together"):
            ClassQueries.of_arrays({**arrays, **broken}, "a")


@pytest.fixture
def bank(tmp_path):
    """Three classes of tones that lie far from each other, six each."""
    rng = np.random.default_rng(0)
    waves = {}
    for name, hz in (("low", 300), ("mid", 1500), ("high", 5000)):
        for i in range(6):
            x = 0.2 * np.sin(2 * np.pi * hz * rng.uniform(0.999, 1.001) * np.arange(2 * FS) / FS)
            waves[f"{name}{i}"] = x, (name,)
    labels = [Label(i, n, n) for i, n in enumerate(("low", "mid", "high"))]
    return bank_of(tmp_path / "data", waves, labels, FS, "train", tmp_path / "dump/train", max_bad_share=1.0).path


def test_calibrated_on_mixtures(toy_bundle, bank, tmp_path, monkeypatch, caplog, capsys):
    """Tones are told apart by the stand-in's embedding; what is found is in the bundle, and the commands use it."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)
    few = calibrate("toy.zip", bank, out="few.zip", device="cpu", mixtures=4)
    assert few.presence is None and "the presence score is not calibrated: " in caplog.text
    cli.main(["calibrate", "toy.zip", "--bank", "dump/train", "--mixtures", "24", "-o", "new.zip", "--device", "cpu"])
    assert "new.zip: presence: AUC 0.9" in caplog.text or "new.zip: presence: AUC 1.0" in caplog.text
    again = calibrate("toy.zip", bank, out="again.zip", device="cpu", mixtures=24).presence
    found = Separator.from_bundle("new.zip", "cpu").known.presence
    np.testing.assert_array_equal(found.weights, again.weights)
    assert found.auc > 0.9 and found.mixtures == 24

    soundfile.write("mix.wav", 0.3 * np.sin(2 * np.pi * 300 * np.arange(3 * FS) / FS), FS)
    run = ["separate", "mix.wav", "--query", "class:low", "--query", "class:high", "--mode", "each", "-o", "out"]
    cli.main([*run, "--bundle", "new.zip", "--gate", "--device", "cpu"])
    low, high = (soundfile.read(f"out/mix.{name}.wav")[0] for name in ("low", "high"))
    assert low.any() and not high.any() and "out/mix.low.wav: presence 1.00" in caplog.text
    cli.main([*run, "--bundle", "new.zip", "--gate", "--threshold", "0", "--skip_existing", "--device", "cpu"])
    assert soundfile.read("out/mix.high.wav")[0].any()  # made with another gate
    cli.main(["find", "mix.wav", "--query", "class:low", "--bundle", "new.zip", "--device", "cpu"])
    assert capsys.readouterr().out.startswith("start,end,score\n0.000,3.000,")


def weights(exp, seed):
    torch.save(StandIn(fs=FS, num_classes=3, seed=seed).state_dict(), exp / "valid.loss.ave.pth")


def packed(exp, bank, most=20):
    """The bundle of an experiment with the classes of the bank."""
    out = exp / "toy.zip"
    given = ["--exp_dir", exp, "--model_file", exp / "valid.loss.ave.pth", "--train_bank", bank, "--held_out", bank]
    qsep_pack([str(x) for x in [*given, "--most", most, "--mixtures", 12, "-o", out, "--device", "cpu"]])
    return out


@pytest.fixture
def trained(exp, bank):
    (exp / "config.yaml").write_text(yaml.safe_dump({"model_conf": {"fs": FS, "num_classes": 3}}))
    (exp / "labels.tsv").write_bytes((bank / "labels.tsv").read_bytes())
    weights(exp, 0)
    return exp


def test_the_bundle_of_a_recipe(trained, bank):
    """Calibrated once, before packing; RESULTS.md says what was measured. Other weights are measured anew."""
    exp, bundle, heard = trained, packed(trained, bank), trained / "class_queries.npz"
    found, made = Separator.from_bundle(bundle, "cpu").known.presence, bundle.stat().st_mtime_ns
    assert facts(exp)["presence, on validation mixtures"] == found.words() and "(12 mixtures)" in found.words()
    packed(exp, bank)
    assert bundle.stat().st_mtime_ns == made
    files = exp / "config.yaml", exp / "valid.loss.ave.pth"
    assert Separator.from_exp(*files, device="cpu").known is not None
    weights(exp, 4)
    assert Separator.from_exp(*files, device="cpu").known is None
    before = heard.read_bytes()
    packed(exp, bank)
    assert Separator.from_bundle(bundle, "cpu").known is not None and heard.read_bytes() != before


def test_too_little_to_calibrate_keeps_the_bundle(trained, bank, caplog):
    bundle = packed(trained, bank, 1)
    assert "toy.zip: is not calibrated: no class has two sounds" in caplog.text
    assert Separator.from_bundle(bundle, "cpu").known is None and not (trained / "class_queries.npz").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--gate"], "--gate: toy.zip holds no calibration of presence; `espnet2-ext calibrate` puts one into it"),
        (["--gate", "--bundle", "old.zip"], "--gate: old.zip holds no calibration of presence"),
        (["--gate", "--threshold", "2", "--bundle", "new.zip"], "--threshold 2: a probability, from 0 to 1"),
        (["--threshold", "0.5"], "--threshold: is of --gate"),
    ],
)
def test_what_a_gate_needs(toy_bundle, tmp_path, monkeypatch, capsys, more, message):
    """A bundle of an earlier version holds class queries alone."""
    monkeypatch.chdir(tmp_path)
    for name, own in (("old.zip", known()), ("new.zip", known(scale()))):
        rewrite("toy.zip", name, more={"class_queries.npz": npz_bytes(own.arrays())})
    soundfile.write("mix.wav", noise(1, FS), FS)
    with pytest.raises(SystemExit):
        cli.main(["separate", "mix.wav", "--query", "mix.wav", "--bundle", "toy.zip", "-o", "out.wav", *more])
    assert message in capsys.readouterr().err and not (tmp_path / "out.wav").exists()
