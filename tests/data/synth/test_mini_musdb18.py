"""The embedded songs: how they are composed, and the corpus they make."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet2_ext.cli import data as command
from espnet2_ext.data.corpora.musdb18 import find_songs, prepare_musdb18
from espnet2_ext.data.synth import musdb18 as mini
from espnet2_ext.data.synth import songs
from espnet2_ext.data.synth.score import motifs
from espnet2_ext.data.tables import read_clips
from espnet2_ext.errors import DataError
from espnet2_ext.util import locks

SMALL = {"train_songs": 2, "test_songs": 1, "seconds": (5.0, 7.0)}


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("mini") / "corpus"
    return mini.make_mini_musdb18(root, **SMALL, num_workers=1)


@pytest.fixture(scope="module")
def drawn():
    """Songs of both sides, as composed."""
    return {
        split: [songs.compose_song(split, 27.0, np.random.default_rng([n, split == "eval"])) for n in range(6)]
        for split in ("train", "eval")
    }


# --- composition


def test_no_motif_is_in_both_sets(drawn):
    found = {split: set().union(*(motifs(v) for s in some for v in s.scores.values())) for split, some in drawn.items()}
    assert min(map(len, found.values())) > 300
    assert not found["train"] & found["eval"]


def test_parts_keep_to_key_tempo_and_their_spans(drawn):
    for song in drawn["train"] + drawn["eval"]:
        grid = 30 / song.bpm
        low, high = songs.STYLES[song.style].bpm
        assert low <= song.bpm <= high
        for stem, score in song.scores.items():
            for note in score.notes:
                assert any(a <= note.start < note.end <= b + 1e-9 for a, b in song.spans[stem])
                assert note.start / grid % 1 < 0.013 / grid  # at most 12 ms behind the beat
            keys = {(n.key - song.tonic) % 12 for n in score.notes}
            scale = next(s for s in songs.SCALES[:3] if keys <= set(s)) if not score.drum else ()
            assert score.drum or len(keys) <= len(scale)
            times = {n.key: [] for n in score.notes}
            for n in score.notes:
                times[n.key] += [n.start, n.end]
            assert all(v == sorted(v) for v in times.values())  # one note a key at a time
    assert len({(s.style, s.bpm, s.tonic) for s in drawn["train"]}) == 6
    assert len({s.style for some in drawn.values() for s in some}) >= 3


def test_every_part_pauses_now_and_then_but_not_all_at_once():
    plans = [songs.draw_plan(6, np.random.default_rng(n)) for n in range(200)]
    for plan in plans:
        assert set(plan) == set(songs.STEMS)
        assert np.logical_or.reduce([plan[s] for s in songs.STEMS[:3]]).all()
    shares = {s: np.mean([p[s] for p in plans]) for s in songs.STEMS}
    assert all(0.5 < v < 0.75 for v in shares.values())
    alone = [sum(p[s][n] for s in songs.STEMS[:3]) == 1 for p in plans for n in range(6)]
    assert np.mean(alone) > 0.1
    assert songs.draw_plan(1, np.random.default_rng(0))["bass"].shape == (1,)


# --- sounds


def test_corpus_has_the_layout_of_the_original(corpus, tmp_path):
    found = find_songs(corpus)
    assert {k: len(v) for k, v in found.items()} == {"train": 2, "test": 1}
    for path in (s.path for some in found.values() for s in some):
        assert {p.name for p in path.iterdir()} == {f"{stem}.wav" for stem in ("mixture", *songs.STEMS)}
        infos = [soundfile.info(p) for p in path.iterdir()]
        assert {(i.samplerate, i.channels, i.subtype) for i in infos} == {(44100, 1, "PCM_16")}
        assert len({i.frames for i in infos}) == 1 and 5 * 44100 <= infos[0].frames <= 7 * 44100
    prepare_musdb18(corpus, tmp_path / "data")
    assert len(list(read_clips(tmp_path / "data/train/clips.tsv"))) == 3
    assert json.loads((corpus / "done.json").read_text())["train"] == 2


def test_mixture_is_the_sum_of_stems_that_are_silent_where_they_pause(corpus):
    place = mini.Place("train", 1)
    song, levels = mini.draw_song(place, SMALL["seconds"], 0)
    folder = corpus / "train" / mini.song_name(place)
    sound = {p.stem: soundfile.read(p, dtype="int16")[0].astype(int) for p in folder.glob("*.wav")}
    np.testing.assert_array_equal(sound["mixture"], sum(sound[s] for s in songs.STEMS))
    assert 1000 < np.abs(sound["mixture"]).max() < 32767
    for stem in songs.STEMS:
        plays = np.zeros(len(sound[stem]), bool)
        for start, end in song.spans[stem]:
            plays[int(start * 44100) : int(end * 44100) + 1] = True
        assert not sound[stem][~plays].any()
        if not plays.any():
            continue
        level = 10 * np.log10(np.mean((sound[stem][plays] / 32768) ** 2))
        assert level < levels[stem] + 0.1 and level > levels[stem] - 15


def test_same_settings_give_the_same_bytes_and_other_seeds_other_songs(corpus, tmp_path):
    before = contents(corpus)
    mini.make_mini_musdb18(corpus, **SMALL)
    assert contents(corpus) == before  # made already
    one = mini.make_song(mini.Place("test", 0), (5.0, 7.0), 1, 0)
    folder = corpus / "test" / mini.song_name(mini.Place("test", 0))
    for name, x in one.items():
        stored = soundfile.read(folder / f"{name}.wav", dtype="int16")[0]
        np.testing.assert_array_equal(x[:, 0], stored)
    assert (
        mini.draw_song(mini.Place("test", 0), (5.0, 7.0), 1)[0].scores
        != mini.draw_song(mini.Place("test", 0), (5.0, 7.0), 0)[0].scores
    )


def test_stereo_and_a_killed_process_and_other_settings(tmp_path, monkeypatch):
    root = tmp_path / "c"
    cmd = ["--out", str(root), "--train_songs", "1", "--test_songs", "1", "--seconds", "4", "4", "--num_workers", "1"]
    command.make_mini(["musdb18", *cmd, "--channels", "2"])
    file = next(root.glob("test/*/vocals.wav"))
    before = contents(root)
    assert soundfile.info(file).channels == 2 and soundfile.info(file).frames == 4 * 44100
    (root / "done.json").unlink()
    (root / "parts").mkdir()
    (file.parent / ".tmp-00-x.wav").touch()
    file.unlink()
    monkeypatch.setattr(locks, "_swept", set())  # of another process
    command.make_mini(["musdb18", *cmd, "--channels", "2"])
    assert contents(root) == before
    command.make_mini(["musdb18", *cmd])
    assert soundfile.info(file).channels == 1


def test_names_of_songs_differ():
    names = [mini.song_name(mini.Place(p, n)) for p in mini.SPLITS for n in range(60)]
    assert len(set(names)) == 120 and "Ada & the Loops - Two Rivers No. 1" in names


def test_impossible_settings(tmp_path):
    for wrong, words in (
        ({"train_songs": 0}, "train_songs 0 and test_songs 6 must be 1 or more"),
        ({"channels": 3}, "channels 3 1 or 2"),
        ({"seconds": (9.0, 5.0)}, "two rising lengths of 4 or more"),
    ):
        with pytest.raises(DataError, match=words):
            mini.make_mini_musdb18(tmp_path / "c", **wrong)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine.txt").touch()
    with pytest.raises(DataError, match="holds files that are not from here"):
        mini.make_mini_musdb18(tmp_path / "c")
