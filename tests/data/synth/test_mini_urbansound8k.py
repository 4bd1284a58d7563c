"""The embedded effects: layout, repeatability, folds of their own, and sounds worth training on."""

import csv
import json
from collections import Counter

import numpy as np
import pytest
import soundfile

from espnet2_ext.cli import data as command
from espnet2_ext.data.corpora.urbansound8k import CLASSES, COLUMNS, Part, prepare_urbansound8k
from espnet2_ext.data.synth import urbansound8k as mini
from espnet2_ext.data.synth.urbansound8k import BACKGROUND, EFFECTS, FS, Note, Take, play
from espnet2_ext.errors import DataError


def files(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    top = tmp_path_factory.mktemp("mini")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mini, "FOLDS", 2)
        command.make_mini(
            ["urbansound8k", "--out", str(top / "u"), "--recordings", "1", "--background", "1", "--num_workers", "1"]
        )
    return top / "u"


def rows(root):
    with open(root / "metadata" / "UrbanSound8K.csv", newline="") as f:
        return list(csv.DictReader(f))


def test_layout_is_the_originals(corpus):
    table = rows(corpus)
    assert tuple(table[0]) == COLUMNS
    numbers = {name: n for name, (n, _) in (EFFECTS | BACKGROUND).items()}
    assert list(EFFECTS) == list(CLASSES)
    assert [numbers[name] for name in CLASSES] == [1, 3, 6, 7, 8]
    names = set()
    for row in table:
        path = corpus / "audio" / f"fold{row['fold']}" / row["slice_file_name"]
        fsid, number, occurrence, piece = row["slice_file_name"].removesuffix(".wav").split("-")
        assert fsid == row["fsID"] and int(number) == int(row["classID"]) == numbers[row["class"]]
        names.add((fsid, occurrence, piece))
        about = soundfile.info(path)
        seconds = float(row["end"]) - float(row["start"])
        assert about.duration == pytest.approx(seconds, abs=1e-3) and 0.3 <= seconds < 4.001
        assert about.samplerate in mini.RATES and about.channels in (1, 2)
    assert len(names) == len(table) == len(list(corpus.rglob("*.wav")))
    recordings = Counter((r["class"], r["fold"]) for r in {r["fsID"]: r for r in table}.values())
    assert set(recordings.values()) == {1} and len(recordings) == 14
    kinds = {(v.samplerate, v.channels) for v in map(soundfile.info, corpus.rglob("*.wav"))}
    assert len(kinds) >= 4


def test_reader_takes_it(corpus, tmp_path):
    about = prepare_urbansound8k(corpus, tmp_path, {"train": [Part(1)], "test": [Part(2)]})
    assert about["train"]["recordings"] == 5 and about["test"]["missing"] == 0


def test_same_settings_same_bytes(corpus, tmp_path, monkeypatch):
    before = files(corpus)
    monkeypatch.setattr(mini, "FOLDS", 2)
    mini.make_mini_urbansound8k(corpus, recordings=1, background=1, num_workers=1)
    assert files(corpus) == before
    one = mini.Recording("dog_bark", 1, 0, 100003)
    have = [(s.file, s.sound.tobytes()) for s in mini.make_slices(one, 0)]
    assert have == [(s.file, s.sound.tobytes()) for s in mini.make_slices(one, 0)]
    assert have != [(s.file, s.sound.tobytes()) for s in mini.make_slices(one, 1)]


def test_no_slice_is_silent_or_clipped(corpus):
    for path in corpus.rglob("*.wav"):
        x, fs = soundfile.read(path, always_2d=True)
        x = x.mean(axis=1)
        loudest = max(np.mean(part**2) for part in np.array_split(x, max(1, 10 * len(x) // fs)))
        assert loudest > 1e-4 and np.abs(x).max() < 0.95, path


@pytest.mark.parametrize("name", EFFECTS)
def test_folds_are_tuned_apart(name, monkeypatch):
    tunings = {}

    def listen(take, tuning):
        tunings.setdefault(fold, []).append(tuning)
        return np.ones((9, 2), np.float32)

    monkeypatch.setattr(mini, "play", listen)
    monkeypatch.setattr(mini, "resample", lambda x, *rates: x)
    for fold in range(1, 11):
        for n in range(3):
            list(mini.make_slices(mini.Recording(name, fold, n, 1), 0))
    for fold, found in tunings.items():
        assert all(10 * fold - 60 < t < 10 * fold - 50 for t in found)


def test_events_of_two_folds_are_no_copies(corpus):
    by_fold = {}
    for row in rows(corpus):
        if row["class"] in ("gun_shot", "dog_bark"):  # of a few strokes of few sounds
            path = corpus / "audio" / f"fold{row['fold']}" / row["slice_file_name"]
            x, fs = soundfile.read(path, always_2d=True)
            x = mini.resample(x.mean(axis=1), fs, 16000)
            by_fold.setdefault(row["fold"], []).append(np.fft.rfft(x / np.linalg.norm(x), 1 << 17))
    for a in by_fold["1"]:
        for b in by_fold["2"]:
            assert np.abs(np.fft.irfft(a * b.conj())).max() < 0.8


def test_pitch_follows_tuning_and_speed():
    def pitch(take, tuning):
        x = play(take, tuning)[FS // 4 : FS // 4 + FS // 2, 0]
        spectrum = np.abs(np.fft.rfft(x * np.hanning(len(x)), 1 << 17))
        return np.argmax(spectrum) * FS / (1 << 17)

    take = Take(80, False, (Note(0.0, 2.0, 69, 100),), 1.0, np.array([1.0]))
    assert pitch(take, 0.0) == pytest.approx(440, rel=2e-3)
    assert pitch(take, 1200.0) == pytest.approx(880, rel=2e-3)
    assert pitch(take._replace(speed=np.array([0.5])), 0.0) == pytest.approx(220, rel=4e-3)
    silent = take._replace(notes=(Note(0.0, 2.0, 69, 0),))
    assert play(take, 0.0).shape == (FS, 2) and play(take, 0.0).dtype == np.float32
    with pytest.raises(DataError, match="silent for program 80"):
        play(silent, 0.0)


def test_stopped_and_foreign_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(mini, "FOLDS", 1)
    with pytest.raises(DataError, match="recordings 0 must be 1 or more"):
        mini.make_mini_urbansound8k(tmp_path / "u", recordings=0)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="holds files that are not from here"):
        mini.make_mini_urbansound8k(tmp_path / "other", recordings=1)
    root, calls = tmp_path / "u", []

    def stop(recording, seed):
        calls.append(recording)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return iter([mini.Slice("a-1.wav", ("a-1.wav",), np.zeros((9, 1)), 16000)])

    monkeypatch.setattr(mini, "make_slices", stop)
    with pytest.raises(KeyboardInterrupt):
        mini.make_mini_urbansound8k(root, recordings=1, num_workers=0)
    assert not (root / "done.json").exists() and not (root / "metadata").exists()
    mini.make_mini_urbansound8k(root, recordings=1, num_workers=0)
    assert json.loads((root / "done.json").read_text())["recordings"] == 1
    mini.make_mini_urbansound8k(root, recordings=2, num_workers=0)
    assert len(calls) == 2 + 5 + 10 and not (root / "parts").exists()
