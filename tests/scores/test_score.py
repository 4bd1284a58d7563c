"""Scoring of a tiny folder: figures, what is left out, what is refused, and doing nothing twice."""

import itertools
import json
import math
import subprocess

import numpy as np
import pytest
import soundfile
from espnet2.bin import enh_scoring
from tiny_set import FS, write_outputs

from espnet2_ext.audio.read import FlacArkWriter
from espnet2_ext.bin import qsep_scoring
from espnet2_ext.errors import DataError
from espnet2_ext.report.experiment import load_rows, load_summary
from espnet2_ext.scores import score as score_module
from espnet2_ext.scores.score import score
from espnet2_ext.util.tables import read_scp

OPTIONS = {"espnet_keys": 0, "num_workers": 0}


def test_figures(scored):
    data, inference, signals = scored
    score(data, inference, **OPTIONS)
    rows, summary = {r["key"]: r for r in load_rows(inference)}, load_summary(inference)
    assert sorted(rows) == sorted(signals)
    row, s = rows["p0-1"], signals["p0-1"]
    ratio = np.sum(s["spk1"] ** 2) / np.sum((0.1 * s["other"]) ** 2)
    assert row["self"]["sdr"] == pytest.approx(10 * math.log10(ratio), abs=0.02)
    assert row["self"]["sdr_gain"] == pytest.approx(20, abs=0.02)  # the other sound at a tenth
    assert row["other"]["sdr_gain"] == pytest.approx(20 - 20 * math.log10(2), abs=0.02)
    assert row["self"]["clean_sdr"] == pytest.approx(60, abs=0.5)
    assert row["self"]["silence_sdr"] == pytest.approx(20, abs=0.02)
    assert row["self"]["sdr"] - row["mixture"]["sdr"] == row["self"]["sdr_gain"]
    figures = summary["protocols"]["self"]
    gains = [r["self"]["sdr_gain"] for r in rows.values() if r["self"]["sdr_gain"] is not None]
    assert figures["sdr_gain"]["mean"] == pytest.approx(np.mean(gains))
    assert [c["name"] for c in figures["classes"]] == ["Wind", "Bell"]  # worst first
    assert summary["tagging"]["self"]["map"] == 1.0
    assert summary["tagging"]["self"]["classes_without_clips"] == 1


def test_silent_references_leave_the_means_and_are_counted(scored):
    data, inference, _ = scored
    score(data, inference, **OPTIONS)
    rows, summary = {r["key"]: r for r in load_rows(inference)}, load_summary(inference)
    assert rows["p2-1"]["silent_reference"] and rows["p2-1"]["self"]["sdr"] is None
    assert rows["p2-2"]["single_source"] and rows["p2-2"]["mixture"]["sdr"] is None
    figures = summary["protocols"]["self"]
    assert figures["sdr"]["count"] == 4 and figures["sdr"]["undefined"] == 2
    assert summary["silent_references"] == 1 and summary["single_sources"] == 1
    # The estimate is a tenth of the other sound, which is the whole mixture here.
    assert figures["silent_references"]["level_db"]["mean"] == pytest.approx(-20, abs=0.01)
    assert figures["silent_references"]["false_extractions"] == 0
    assert "NaN" not in (inference / "scores/summary.json").read_text()


def test_agrees_with_espnets_scoring(scored, monkeypatch):
    """Also the unprocessed mixture; a silent estimate is kept from it, for it raises."""
    run, system = subprocess.run, itertools.count()

    def once(command, **options):  # in a process of its own; then here, where ESPnet is imported
        if next(system) == 0:
            return run(command, **options)
        enh_scoring.main(command[3:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", once)
    data, inference, signals = scored
    signals = {key: dict(s) for key, s in signals.items()}
    with FlacArkWriter(inference / "self/mixture", "spk1", FS) as writer:
        for key, s in signals.items():
            writer.write(key, 0 * s["spk1"] if key == "p1-1" else s["spk1"] + 0.1 * s["other"])
    score(data, inference, num_workers=0)
    rows, summary = {r["key"]: r for r in load_rows(inference)}, load_summary(inference)
    files = {p.name: p.read_text() for p in sorted((inference / "scores/espnet/self").iterdir())}
    score(data, inference, espnet_tool=True, num_workers=0)
    for row in load_rows(inference):
        for system in ("mixture", "self", "other"):
            ours, theirs = rows[row["key"]][system]["espnet"], row[system]["espnet"]
            assert (ours is None) == (theirs is None)
            assert ours is None or ours == pytest.approx(theirs, abs=1e-3)
    assert len(files) == 5
    for name, text in files.items():
        theirs = (inference / "scores/espnet/self" / name).read_text()
        assert [line.split()[0] for line in text.splitlines()] == [line.split()[0] for line in theirs.splitlines()]
    assert rows["p1-1"]["self"]["espnet"] is None and rows["p1-1"]["self"]["silent_estimate"]
    assert rows["p1-1"]["self"]["sdr"] == 0.0 and rows["p1-1"]["self"]["si_sdr"] is None
    for key, system in (("p0-1", "self"), ("p0-2", "other"), ("p1-2", "mixture")):
        ours, theirs = rows[key][system], rows[key][system]["espnet"]
        assert ours["bss_eval_sdr"] == pytest.approx(theirs["SDR"], abs=0.01)
        assert ours["si_sdr"] == pytest.approx(theirs["SI_SNR"], abs=0.2)  # theirs removes means
    assert summary["mixture"]["espnet"]["SDR"]["count"] == 4
    assert summary["protocols"]["self"]["espnet"]["SDR"]["count"] == 3
    lines = (inference / "scores/espnet/other/SDR_spk1").read_text().splitlines()
    assert len(lines) == 4 and lines[0].startswith("p0-1 ")


def test_a_second_run_does_nothing_and_new_outputs_are_scored(scored, monkeypatch):
    data, inference, signals = scored
    path = score(data, inference, **OPTIONS)
    before = path.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(score_module, "map_parts", lambda *a, **k: pytest.fail("scored again"))
        assert score(data, inference, **OPTIONS) == path
    assert path.stat().st_mtime_ns == before and not (inference / "scores/parts").exists()
    write_outputs(inference, signals, leak={"/m/a": 0.5, "/m/b": 0.5})
    ark = inference / "self/clean/spk1.ark"
    whole = ark.read_bytes()
    ark.write_bytes(whole[:-100])
    with pytest.raises(DataError, match="key p2-2: .*spk1.ark"):
        score(data, inference, **OPTIONS)
    assert not path.exists()  # the figures of the earlier outputs are not left to be read
    ark.write_bytes(whole)
    score(data, inference, **OPTIONS)
    gain = load_summary(inference)["protocols"]["self"]["sdr_gain"]["mean"]
    assert gain == pytest.approx(20 * math.log10(2), abs=0.02)


def test_a_stopped_run_goes_on(scored, monkeypatch):
    data, inference, _ = scored
    monkeypatch.setattr(score_module, "part_of", lambda *sizes: 2)
    real, calls = score_module.score_item, []

    def fails_at_the_fourth(item, kind):
        calls.append(item["key"])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(item, kind)

    monkeypatch.setattr(score_module, "score_item", fails_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        score(data, inference, **OPTIONS)
    assert not (inference / "scores/summary.json").exists()
    calls[:] = ["started again"] * 10
    score(data, inference, **OPTIONS)
    assert len(calls) - 10 == 4  # the first part of two keys was there


def test_24_bits_carry_100_db_and_16_do_not(scored):
    data, inference, signals = scored
    rng = np.random.default_rng(0)
    for bits, expected in ((24, 100.0), (16, 150.0)):
        folder = inference / "self/clean"
        lines = []
        for key in signals:
            ref, _ = soundfile_read(data, key)
            noise = rng.standard_normal(len(ref)) * np.sqrt(np.mean(ref**2)) * 1e-5
            soundfile.write(folder / f"{key}.flac", ref + noise, FS, subtype=f"PCM_{bits}")
            lines.append(f"{key} {folder / f'{key}.flac'}\n")
        (folder / "spk1.scp").write_text("".join(lines))
        score(data, inference, **OPTIONS)
        clean = load_summary(inference)["protocols"]["self"]["clean_sdr"]
        assert clean["median"] == pytest.approx(expected, abs=0.2)


def soundfile_read(data, key):
    from espnet2_ext.audio.read import read_audio

    audio, fs = read_audio(read_scp(data / "spk1.scp")[key])
    return audio[:, 0].astype(np.float64), fs


def test_keys_without_a_query_are_counted(scored):
    """A class of one clip has no `other`; its keys are in neither table of that protocol."""
    data, inference, _ = scored
    tables = [inference / "other" / p / "spk1.scp" for p in ("mixture", "clean", "silence")]
    for path in [data / "enroll_other.scp", *tables]:
        lines = path.read_text().splitlines()
        path.write_text("".join(f"{x}\n" for x in lines if not x.startswith("p0-1")))
    (inference / "other/tags.npz").unlink()
    score(data, inference, **OPTIONS)
    rows, summary = {r["key"]: r for r in load_rows(inference)}, load_summary(inference)
    assert "other" not in rows["p0-1"] and "self" in rows["p0-1"]
    assert summary["protocols"]["other"]["without_query"] == 1
    assert summary["protocols"]["other"]["sdr"]["count"] == 3
    assert summary["protocols"]["self"]["sdr"]["count"] == 4
    assert set(summary["tagging"]) == {"self"}


@pytest.mark.parametrize("what", ["missing", "extra", "length", "rate", "nan", "stereo"])
def test_bad_outputs_are_refused_by_key(scored, what):
    data, inference, signals = scored
    scp = inference / "other/clean/spk1.scp"
    lines = scp.read_text().splitlines()
    bad = scp.parent / "bad.wav"
    x, fs = signals["p0-1"]["spk1"].astype(np.float64), FS
    messages = {
        "missing": "key p2-2 is missing",
        "extra": "key p9-9 is not a key",
        "length": "key p0-1.*15999 samples at 16000 Hz, expected 16000",
        "rate": "key p0-1.*8000 Hz",
        "nan": "key p0-1.*other/clean.*not finite",
        "stereo": "key p0-1.*got 2",
    }
    if what == "missing":
        lines = [line for line in lines if not line.startswith("p2-2")]
    elif what == "extra":
        lines.append(f"p9-9 {bad}")
    else:
        x = {"length": x[1:], "stereo": np.stack([x, x], 1)}.get(what, x)
        if what == "nan":
            x[3] = math.nan
        soundfile.write(bad, x, 8000 if what == "rate" else fs, subtype="FLOAT")
        lines[0] = f"p0-1 {bad}"
    scp.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=messages[what]):
        score(data, inference, **OPTIONS)
    assert not (inference / "scores/summary.json").exists()


def test_folders_that_are_not_whole_are_refused(scored, tmp_path):
    data, inference, _ = scored
    with pytest.raises(DataError, match="no self/mixture/spk1.scp or other"):
        score(data, tmp_path, **OPTIONS)
    (data / "spk1.scp").rename(data / "spk1.bak")
    with pytest.raises(DataError, match="spk1.scp: no such file"):
        score(data, inference, **OPTIONS)
    (data / "spk1.scp").write_text("")
    with pytest.raises(DataError, match="set is empty"):
        score(data, inference, **OPTIONS)
    (data / "spk1.bak").rename(data / "spk1.scp")
    (data / "utt2class").write_text((data / "utt2class").read_text().replace("/m/b", "/m/x"))
    with pytest.raises(DataError, match="p0-2 has the class /m/x"):
        score(data, inference, **OPTIONS)
    (data / "list.json").unlink()
    with pytest.raises(DataError, match="list.json: no such file"):
        score(data, inference, **OPTIONS)


def test_tags_that_do_not_fit_are_refused(scored):
    data, inference, signals = scored
    keys = np.array(list(signals))
    np.savez(inference / "self/tags.npz", keys=keys, clipwise=np.zeros((len(keys), 4)))
    with pytest.raises(DataError, match=r"tags.npz: clipwise is \(6, 4\), expected \(6, 3\)"):
        score(data, inference, **OPTIONS)
    clipwise = np.zeros((len(keys), 3))
    clipwise[2, 1] = math.nan
    np.savez(inference / "self/tags.npz", keys=keys, clipwise=clipwise)
    with pytest.raises(DataError, match="key p1-1: .* is not finite"):
        score(data, inference, **OPTIONS)


def test_entry_point(scored, capsys):
    data, inference, _ = scored
    qsep_scoring.main(
        ["--data_dir", str(data), "--inference_dir", str(inference), "--espnet_keys", "0", "--num_workers", "1"]
    )
    path = inference / "scores/summary.json"
    assert capsys.readouterr().out.strip() == str(path)
    assert json.loads(path.read_text())["keys"] == 6
