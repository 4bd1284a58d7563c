"""MUSDB18 in both layouts: songs, sets, stem files, lists."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sounds import noise, snapshot, write

from espnet2_ext.audio.optional import STREAMS, read_mono_stems, read_stems
from espnet2_ext.audio.read import resample, to_mono
from espnet2_ext.cli import data as command
from espnet2_ext.data.corpora.musdb18 import VALIDATION, Song, find_songs, hold_out, prepare_musdb18
from espnet2_ext.data.tables import read_clips, read_labels
from espnet2_ext.errors import DataError

STEMS = ("bass", "drums", "vocals", "other")


@pytest.fixture(scope="module")
def stem_file() -> Path:
    """The piece of a song in MUSDB18's format that the package stempeg brings."""
    package = importlib.util.find_spec("stempeg")  # it cannot be imported without ffmpeg
    return next(Path(package.submodule_search_locations[0], "data").glob("*.stem.mp4"))


def hq(top: Path, part: str, name: str, seconds: float = 0.6, stems=STEMS) -> None:
    for n, stem in enumerate(stems):
        write(top / part / name / f"{stem}.wav", noise(int(seconds * 16000), n))


def clips(datadir: Path, name: str):
    return {c.id: c for c in read_clips(datadir / name / "clips.tsv")}


# --- stem files


def test_stems_of_a_real_file_add_up_to_its_mixture(stem_file):
    stems, fs = read_stems(stem_file)
    assert fs == 44100 and tuple(stems) == STREAMS
    assert {x.shape for x in stems.values()} == {(268288, 2)}
    assert all(x.dtype == np.float32 for x in stems.values())
    inside = slice(fs // 2, 5 * fs)  # the excerpt was cut out of the coded song: its ends are not
    mix = stems["mixture"][inside]
    rest = mix - sum(stems[s][inside] for s in STREAMS[1:])
    assert 10 * np.log10(np.mean(mix**2) / np.mean(rest**2)) > 20
    levels = [10 * np.log10(np.mean(x[inside] ** 2)) for x in stems.values()]
    assert all(-40 < v < -12 for v in levels) and levels[0] == max(levels)


def test_mono_stems_are_what_the_whole_would_be_resampled(stem_file):
    stems, fs = read_stems(stem_file, ("drums", "vocals"))
    mono = read_mono_stems(stem_file, 16000, ("drums", "vocals"))
    assert tuple(mono) == ("drums", "vocals")
    for name, x in mono.items():
        whole = resample(to_mono(stems[name]), fs, 16000)
        assert x.dtype == np.float32 and len(x) == len(whole)
        np.testing.assert_allclose(x, whole, atol=1e-6)


def test_stem_files_that_cannot_be_read(stem_file, tmp_path):
    with pytest.raises(DataError, match=r"nowhere.stem.mp4: no such file"):
        read_stems(tmp_path / "nowhere.stem.mp4")
    (tmp_path / "text.stem.mp4").write_bytes(b"no sound at all" * 100)
    with pytest.raises(DataError, match=r"text.stem.mp4: cannot be decoded"):
        read_stems(tmp_path / "text.stem.mp4")
    one = write(tmp_path / "one.wav", noise(8000))
    with pytest.raises(DataError, match=r"one.wav: 1 audio streams where 5 are expected"):
        read_stems(one)
    cut = tmp_path / "cut.stem.mp4"
    cut.write_bytes(stem_file.read_bytes()[:500000])
    with pytest.raises(DataError, match=r"cut.stem.mp4: .*(ends at sample|cannot be decoded|damaged after sample)"):
        read_mono_stems(cut, 16000)


# --- songs and sets


def test_the_corpus_own_validation_songs_are_held_out():
    names = sorted([f"Artist {n} - Song" for n in range(86)] + list(VALIDATION))
    songs = [Song(n, n, Path(n)) for n in names]
    train, valid = hold_out(songs, 0.5, 0)
    assert len(train) == 86 and {s.name for s in valid} == VALIDATION


def test_other_songs_are_held_out_by_share_and_name():
    songs = [Song(f"s{n}", f"s{n}", Path("x")) for n in range(24)]
    train, valid = hold_out(songs, 0.14, 0)
    assert len(valid) == 3 and sorted(train + valid) == sorted(songs)
    assert hold_out(songs[::-1], 0.14, 0)[1] == valid[::-1]
    assert hold_out(songs, 0.14, 1)[1] != valid
    assert len(hold_out(songs[:2], 0.01, 0)[1]) == 1
    for few, share in ((songs[:1], 0.14), (songs, 0.99), (songs, 0.0)):
        with pytest.raises(DataError, match="none for training"):
            hold_out(few, share, 0)


def test_songs_of_both_layouts(tmp_path):
    hq(tmp_path, "train", "A & B - It's")
    hq(tmp_path, "test", "C - D")
    for name in ("E - F", "A & B - It's", "A + B - It-s"):
        (tmp_path / "train" / f"{name}.stem.mp4").touch()
    found = find_songs(tmp_path)
    assert [(s.name, s.id, s.path.is_dir()) for s in found["train"]] == [
        ("A & B - It's", "A-B-It-s", True),
        ("A + B - It-s", "A-+-B-It-s", False),
        ("E - F", "E-F", False),
    ]
    shutil.rmtree(tmp_path / "test")
    with pytest.raises(DataError, match=r"test: no such folder .MUSDB18 has"):
        find_songs(tmp_path)


def test_folders_that_are_not_musdb18(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match=r"train: neither SONG.stem.mp4 nor SONG/bass.wav in it"):
        find_songs(tmp_path)
    hq(tmp_path, "train", "A - B")
    hq(tmp_path, "test", "A - B")
    with pytest.raises(DataError, match="'A - B' is in train and in test"):
        find_songs(tmp_path)
    with pytest.raises(DataError, match="other must be one of none, class, unlabelled"):
        prepare_musdb18(tmp_path, tmp_path / "data", other="rest")


# --- lists


@pytest.mark.parametrize(
    "other, classes, labels",
    [
        ("none", ["bass", "drums", "vocals"], None),
        ("class", ["bass", "drums", "vocals", "other"], ("other",)),
        ("unlabelled", ["bass", "drums", "vocals"], ()),
    ],
)
def test_lists_of_wav_folders(tmp_path, monkeypatch, caplog, other, classes, labels):
    monkeypatch.chdir(tmp_path)
    for name in ("A - 1", "A - 2", "A - 3"):
        hq(Path("corpus"), "train", name)
    hq(Path("corpus"), "test", "B - 1", stems=("drums", "vocals", "other", "mixture"))
    command.prepare(["musdb18", "lists", "--musdb18", "corpus", "--other", other, "--valid_share", "0.3"])
    assert [v.mid for v in read_labels("data/labels.tsv")] == classes
    sets = {name: clips(Path("data"), name) for name in ("train", "valid", "test")}
    stems = 3 if labels is None else 4
    assert [len(v) for v in sets.values()] == [2 * stems, stems, stems]
    assert sets["test"]["B-1.drums"].labels == ("drums",)
    assert sets["test"]["B-1.drums"].source == "corpus/test/B - 1/drums.wav"
    assert sets["test"]["B-1.bass"].source == "" and "set test: 1 listed clips have no file (bass 1)" in caplog.text
    assert sets["test"].get("B-1.other") is None if labels is None else (sets["test"]["B-1.other"].labels == labels)


def test_stem_files_are_decoded_once(tmp_path, monkeypatch, stem_file):
    monkeypatch.chdir(tmp_path)
    for place in ("train/A - 1", "train/A - 2", "test/B - 1"):
        target = Path("corpus", f"{place}.stem.mp4")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(stem_file)
    cmd = ["lists", "--musdb18", "corpus", "--decoded", "stems", "--num_workers", "1"]
    command.prepare(["musdb18", *cmd])
    listed = clips(Path("data"), "test")
    x, fs = soundfile.read(listed["B-1.vocals"].source, dtype="float32")
    want = read_mono_stems(stem_file, 16000, ("vocals",))["vocals"]
    assert fs == 16000 and soundfile.info(listed["B-1.vocals"].source).subtype == "PCM_16"
    np.testing.assert_allclose(x, want, atol=2**-16 + 1e-7)
    before = snapshot(Path("stems"))
    assert sum(name.endswith(".flac") for name in before) == 12
    command.prepare(["musdb18", *cmd])
    after = snapshot(Path("stems"))
    assert {k: v for k, v in before.items() if k.endswith(".flac")} == {
        k: v for k, v in after.items() if k.endswith(".flac")
    }
    Path(listed["B-1.vocals"].source).unlink()
    with pytest.raises(DataError, match=r"vocals.flac: was decoded and is gone; remove stems"):
        command.prepare(["musdb18", *cmd])
