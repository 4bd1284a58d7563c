"""Class-wise scores: figures by hand, what is left out, what is refused, nothing done twice."""

import json
import math

import numpy as np
import pytest
from tiny_classes import CLASSES, FS, KEYS, make_sources, write_data, write_outputs
from tiny_set import make_signals
from tiny_set import write_data as write_queries

from espnet2_ext.audio.read import FlacArkWriter
from espnet2_ext.bin import weak_scoring
from espnet2_ext.errors import DataError
from espnet2_ext.report.experiment import load_rows, load_summary
from espnet2_ext.scores import score as score_module
from espnet2_ext.scores.score import score
from espnet2_ext.scores.tagging import f_measure, shrink
from espnet2_ext.scores.test_set import ClassSet, QuerySet, load_outputs, load_test_set
from espnet2_ext.util.tables import read_scp

OPTIONS = {"espnet_keys": 0, "num_workers": 0}


@pytest.fixture
def scored(tmp_path):
    sources = make_sources()
    write_data(tmp_path / "data", sources)
    write_outputs(tmp_path / "inf", sources, 0.1, wrong=1)
    return tmp_path / "data", tmp_path / "inf", sources


def si_sdr(est, ref):
    a = est @ ref / (ref @ ref)
    return 10 * math.log10(np.sum((a * ref) ** 2) / np.sum((a * ref - est) ** 2))


def test_figures(scored):
    data, inference, sources = scored
    score(data, inference, **OPTIONS)
    rows, summary = {r["key"]: r for r in load_rows(inference)}, load_summary(inference)
    assert list(rows) == KEYS
    expected = []
    for key, x in sources.items():
        x = x.astype(np.float64)
        for k, name in enumerate(CLASSES):
            found = rows[key]["classes"][name]
            if not x[k].any():
                assert found["state"] == "silent" and "gain" not in found
                assert found["level_db"] == pytest.approx(-20, abs=0.01)
            elif key == "m6":
                assert found["state"] == "alone" and "gain" not in found
            else:
                before = si_sdr(x.sum(0), x[k])
                after = si_sdr(x[k] + 0.1 * (x.sum(0) - x[k]), x[k])
                assert found["input"] == pytest.approx(before, abs=0.01)
                assert found["gain"] == pytest.approx(after - before, abs=0.01)
                expected.append((name, before, after - before))
    assert len(expected) == 13
    overall = summary["overall"]
    assert overall["gain"]["mean"] == pytest.approx(np.mean([e[2] for e in expected]), abs=0.01)
    assert overall["input"]["median"] == pytest.approx(np.median([e[1] for e in expected]), abs=0.01)
    assert overall["gain"]["count"] == 13 and overall["silent"]["count"] == 7
    assert overall["alone"] == 1 and summary["alone"] == 1
    bell = summary["scores"]["bell"]["gain"]
    assert bell["count"] == 4
    assert bell["mean"] == pytest.approx(np.mean([e[2] for e in expected if e[0] == "bell"]), 0.01)
    assert summary["table"]["seed"] == 3 and summary["table"]["bank_hash"] == "aa" * 16
    assert "NaN" not in (inference / "scores/summary.json").read_text()


def test_detection(scored):
    data, inference, _ = scored
    score(data, inference, **OPTIONS)
    found = load_summary(inference)["detection"]
    clip = found["clip"]  # one false positive: wind in the first mixture
    assert clip["fp"] == [0, 0, 1] and clip["fn"] == [0, 0, 0] and clip["tp"] == [4, 5, 5]
    assert clip["f"] == [1.0, 1.0, pytest.approx(10 / 11)] and clip["mixtures"] == 7
    frame = found["frame"]
    steps = -(-(12800 // 128 + 1) // 4)
    assert frame["frames"] == 7 * steps and frame["fp"][2] == steps
    assert 0 < frame["fp"][0] < steps and frame["f"][1] == 1.0
    assert clip["mean_f"] == pytest.approx(np.mean(clip["f"]))


def test_frames_of_clip_labels_are_not_compared(tmp_path):
    sources = make_sources()
    write_data(tmp_path / "data", sources, known="clip")
    write_outputs(tmp_path / "inf", sources, 0.1)
    score(tmp_path / "data", tmp_path / "inf", **OPTIONS)
    assert set(load_summary(tmp_path / "inf")["detection"]) == {"clip"}


def test_f_measure_by_hand():
    truth = np.array([[1, 0, 0], [1, 0, 0], [0, 0, 0]])
    heard = np.array([[0.5, 0.9, 0.1], [0.4, 0.1, 0.1], [0.6, 0.1, 0.1]])
    found = f_measure(truth=truth, probability=heard)
    assert (found["tp"], found["fp"], found["fn"]) == ([1, 0, 0], [1, 1, 0], [1, 0, 0])
    assert found["f"] == [0.5, 0.0, None] and found["recall"] == [0.5, None, None]
    with pytest.raises(ValueError, match=r"\(3, 3\) and \(2, 3\)"):
        f_measure(truth=truth, probability=heard[:2])


def test_shrink_is_max_pooling_with_a_short_last_step():
    labels = np.array([[0], [0], [1], [0], [0], [0], [1]])
    assert shrink(labels, 3, 3).ravel().tolist() == [1, 0, 1]
    assert shrink(labels, 3, 2).ravel().tolist() == [1, 0]
    assert shrink(labels, 1, 7).tolist() == labels.tolist()


def test_the_residual_has_scores_of_its_own(tmp_path):
    sources = make_sources(rest=True)
    write_data(tmp_path / "data", sources)
    write_outputs(tmp_path / "inf", sources, 0.1, residual=True)
    score(tmp_path / "data", tmp_path / "inf", **OPTIONS)
    summary = load_summary(tmp_path / "inf")
    assert summary["scores"]["rest"]["gain"]["count"] == 7
    assert summary["overall"]["gain"]["count"] == 14  # of the classes; nothing is alone now
    assert summary["alone"] == 0


def test_agrees_with_espnets_scoring(scored):
    data, inference, _ = scored
    with FlacArkWriter(inference, "spk2", FS, 24) as ark:  # one output silent: ESPnet would stop
        for key in KEYS:
            ark.write(
                key,
                np.zeros(12800, np.float32) if key == "m0" else 0.1 * np.random.default_rng(1).standard_normal(12800),
            )
    weak_scoring.main(["--data_dir", str(data), "--inference_dir", str(inference), "--num_workers", "0"])
    rows, summary = {r["key"]: r for r in load_rows(inference)}, load_summary(inference)
    silent = rows["m0"]["classes"]["dog_bark"]
    assert silent["silent_estimate"] and silent["gain"] is None and "espnet" not in silent
    for key, name in (("m1", "bell"), ("m1", "wind"), ("m3", "bell")):
        found = rows[key]["classes"][name]
        assert found["si_sdr"] == pytest.approx(found["espnet"]["SI_SNR"], abs=0.2)
        assert found["input"] == pytest.approx(found["espnet_input"]["SI_SNR"], abs=0.2)
    assert summary["overall"]["espnet"]["SDR"]["count"] == 12
    assert summary["overall"]["silent_estimates"] == 1
    assert len((inference / "scores/espnet/bell/SDR_spk1").read_text().splitlines()) == 4
    assert len((inference / "scores/espnet/wind/mixture/SDR_spk1").read_text().splitlines()) == 4


def test_a_folder_with_a_table_of_mixtures_has_classes(scored, tmp_path):
    data, inference, _ = scored
    found = load_test_set(data)
    assert isinstance(found, ClassSet) and found.classes == CLASSES and sorted(found.references) == sorted(CLASSES)
    items = found.items(load_outputs(inference, found))
    assert [item["key"] for item in items] == KEYS and len(items[0]["targets"]) == 3
    signals = make_signals(1)
    write_queries(tmp_path / "pairs", signals)
    queries = load_test_set(tmp_path / "pairs")
    assert isinstance(queries, QuerySet) and queries.keys == sorted(signals)
    with pytest.raises(DataError, match="no self/mixture/spk1.scp or other"):
        load_outputs(inference, queries)


def test_a_second_run_does_nothing_and_other_outputs_are_scored(scored, monkeypatch):
    data, inference, sources = scored
    path = score(data, inference, **OPTIONS)
    before = path.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(score_module, "map_parts", lambda *a, **k: pytest.fail("scored again"))
        assert score(data, inference, **OPTIONS) == path
    assert path.stat().st_mtime_ns == before and not (inference / "scores/parts").exists()
    write_outputs(inference, sources, 0.5)
    score(data, inference, **OPTIONS)
    gain = load_summary(inference)["overall"]["gain"]["mean"]
    assert gain == pytest.approx(20 * math.log10(2), abs=0.3)


def test_a_stopped_run_goes_on(scored, monkeypatch):
    data, inference, _ = scored
    real, calls = score_module.score_item, []

    def stops_at_the_fourth(item, kind):
        calls.append(item["key"])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(item, kind)

    monkeypatch.setattr(score_module, "score_item", stops_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        score(data, inference, **OPTIONS)
    calls[:] = ["again"] * 10
    score(data, inference, **OPTIONS)
    assert calls[10:] == KEYS[3:]


def drop_line(path, key):
    path.write_text("".join(f"{k} {v}\n" for k, v in read_scp(path).items() if k != key))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda d, i: (d / "list.json").unlink(), "list.json: no such file"),
        (lambda d, i: (d / "wav.scp").write_text(""), "wav.scp: the set is empty"),
        (lambda d, i: (d / "spk2.scp").unlink(), "data/spk2.scp: no such file"),
        (lambda d, i: drop_line(i / "spk3.scp", "m4"), "inf/spk3.scp: key m4 is missing"),
        (lambda d, i: (i / "about.json").unlink(), "run inference first"),
        (
            lambda d, i: (i / "about.json").write_text(json.dumps({"outputs": CLASSES[::-1]})),
            "outputs wind, dog_bark, bell, but the classes of .* are bell, dog_bark, wind",
        ),
        (
            lambda d, i: np.savez(
                i / "activity.npz", **dict(np.load(i / "activity.npz")) | {"classes": np.array(["a", "b", "c"])}
            ),
            "activity.npz: of the classes a, b, c",
        ),
        (
            lambda d, i: np.savez(
                i / "activity.npz", **dict(np.load(i / "activity.npz")) | {"clip": np.full((7, 3), np.nan)}
            ),
            "clip holds values that are no probabilities",
        ),
    ],
)
def test_refusals(scored, change, message):
    data, inference, _ = scored
    change(data, inference)
    with pytest.raises(DataError, match=message):
        score(data, inference, **OPTIONS)


def test_an_estimate_of_another_length_is_named(scored):
    data, inference, _ = scored
    with FlacArkWriter(inference, "spk1", FS) as ark:
        for key in KEYS:
            ark.write(key, np.ones(100, np.float32))
    with pytest.raises(DataError, match="key m0: .*spk1.ark.* 100 samples .* 12800 at 16000 Hz"):
        score(data, inference, **OPTIONS)
