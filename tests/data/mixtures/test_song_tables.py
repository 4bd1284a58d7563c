"""Mixture tables from songs: which stem is active where, by hand-made stems of known levels."""

import logging
from pathlib import Path

import numpy as np
import pytest
from sounds import noise, snapshot, write

from espnet2_ext.cli import data as command
from espnet2_ext.core.mixing.events import render
from espnet2_ext.data.bank.archive import archive, scan
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.bank.shards import Settings
from espnet2_ext.data.corpora.musdb18 import prepare_musdb18
from espnet2_ext.data.mixtures.event_table import MixtureTable
from espnet2_ext.data.mixtures.from_songs import SongSettings, make_song_table, window_levels
from espnet2_ext.errors import DataError

STEMS = ("bass", "drums", "vocals", "other")


def test_window_levels_by_hand():
    x = np.array([1, 1, 0, 0, 2], np.float32)
    np.testing.assert_array_equal(window_levels(x, 2), [1.0, 0.0, 4.0])
    np.testing.assert_array_equal(window_levels(x, 4), [0.5, 4.0])
    np.testing.assert_array_equal(window_levels(x, 9), [6 / 5])


LEVELS = {  # song.stem -> dB of each second
    "a.bass": (-20, -20, None),
    "a.drums": (None, -45, -20),
    "a.vocals": (None, -55, None),
    "a.other": (-30, -30, None),
    "b.bass": (-20, -90),
    "b.drums": (None, None),
    "b.vocals": (-20, -20, None),
    "b.other": (None, -20),
}


def square(levels) -> np.ndarray:
    """Seconds of a square wave at 16 kHz, each at its level (dB; None: zeros)."""
    wave = np.where(np.arange(16000) // 8 % 2, 1.0, -1.0)
    return np.concatenate([wave * (0 if v is None else 10 ** (v / 20)) for v in levels])


@pytest.fixture
def songs(tmp_path, monkeypatch):
    """Lists and bank of two songs whose stems have known levels each second; `a` is longer."""
    monkeypatch.chdir(tmp_path)
    for id_, levels in LEVELS.items():
        song, stem = id_.split(".")
        write(Path("corpus/train", song, f"{stem}.wav"), square(levels), 16000, "PCM_24")
    for place in ("train/v", "test/t"):
        write(Path("corpus", place, "bass.wav"), noise(9600))
    monkeypatch.setattr("espnet2_ext.data.corpora.musdb18.rank", lambda name, seed: name != "v")
    prepare_musdb18("corpus", "data", other="unlabelled", valid_share=0.3)
    scan("data/train", num_workers=1, max_bad_share=0.5)
    archive("data/train", "dump/train", settings=Settings(fs=16000), num_workers=1)
    return tmp_path


def table(settings, **kwargs):
    make_song_table("data/train", "dump/train", "table", settings=settings, num_workers=1, **kwargs)
    return MixtureTable("table")


def rows(made) -> dict[str, list[tuple]]:
    found = [made.row(i) for i in range(len(made))]
    assert {m.known for m in found} == {"strong"}
    return {m.id: [(e.cls, e.clip, e.start, e.onset, e.samples, e.gain) for e in m.events] for m in found}


def test_chunks_and_their_labels_by_hand(songs, caplog):
    caplog.set_level(logging.INFO)
    made = table(SongSettings(1.0, threshold_db=-50))
    assert made.classes == ["bass", "drums", "vocals"] and made.fs == 16000

    def event(cls, clip, n):
        return cls, clip, 16000 * n, 0, 16000, 1.0

    assert rows(made) == {
        "a.0000": [event(0, "a.bass", 0), event(-1, "a.other", 0)],
        "a.0001": [event(0, "a.bass", 1), event(1, "a.drums", 1), event(-1, "a.other", 1)],
        "a.0002": [event(1, "a.drums", 2)],
        "b.0000": [event(0, "b.bass", 0), event(2, "b.vocals", 0)],
        "b.0001": [event(2, "b.vocals", 1), event(-1, "b.other", 1)],
    }  # b's third second is silent, b.drums is not in the bank
    np.testing.assert_allclose(made.info["clip_prior"], [3 / 5, 2 / 5, 2 / 5])
    assert "bass 0.60, drums 0.40, vocals 0.40, bass with drums 0.20" in caplog.text
    lower = rows(table(SongSettings(1.0, threshold_db=-60)))
    assert event(2, "a.vocals", 1) in lower["a.0001"]
    assert [e[1] for e in lower["b.0001"]] == ["b.vocals", "b.other"]


def test_mixture_is_the_sum_of_its_stems(songs):
    made, bank = table(SongSettings(1.0)), ClipBank("dump/train")
    out = render(made.row(made.index_of("a.0001")), bank, 3)
    parts = [square(LEVELS[f"a.{s}"])[16000:32000] for s in STEMS]
    np.testing.assert_allclose(out["sources"], parts[:3], atol=2**-16)
    np.testing.assert_allclose(out["mix"], sum(parts), atol=2**-14)


def test_whole_songs_and_remainders(songs):
    assert rows(table(SongSettings(1.0, True, -50))) == {
        "a": [(0, "a.bass", 0, 0, 48000, 1.0), (1, "a.drums", 0, 0, 48000, 1.0), (-1, "a.other", 0, 0, 48000, 1.0)],
        "b": [(0, "b.bass", 0, 0, 32000, 1.0), (2, "b.vocals", 0, 0, 48000, 1.0), (-1, "b.other", 0, 0, 32000, 1.0)],
    }
    assert list(rows(table(SongSettings(2.0)))) == ["a.0000", "b.0000"]
    with pytest.raises(DataError, match="no stem of 2 songs is active in any chunk"):
        table(SongSettings(60.0))


def test_a_second_call_does_nothing(songs):
    table(SongSettings(1.0))
    before = snapshot(Path("table"))
    table(SongSettings(1.0))
    assert snapshot(Path("table")) == before
    table(SongSettings(1.0, threshold_db=-40))
    assert snapshot(Path("table")) != before


def test_song_with_a_bad_stem_is_left_out(songs, caplog):
    manifest = Path("data/train/manifest.tsv")
    text = manifest.read_text().replace("b.bass\tok", "b.bass\tcorrupt")
    manifest.write_text(text)
    with pytest.raises(DataError, match="manifest.tsv: changed since it was made"):
        table(SongSettings(1.0))
    manifest.with_suffix(".json").unlink()
    assert {m.split(".")[0] for m in rows(table(SongSettings(1.0)))} == {"a"}
    assert "song b is left out: bass is corrupt" in caplog.text
    manifest.write_text(text.replace("a.bass\tok", "a.bass\tmissing"))
    with pytest.raises(DataError, match="data/train: no song with all of its stems"):
        table(SongSettings(2.0))


def test_command_and_impossible_settings(songs, capsys):
    command.prepare(
        [
            *"musdb18 tables data/train --bank dump/train --out out --seconds 1 --threshold_db -50".split(),
            *"--num_workers 1".split(),
        ]
    )
    assert "out: 5 mixtures; share with bass 0.60" in capsys.readouterr().out
    for wrong in ({"seconds": 0.0}, {"threshold_db": 3.0}):
        with pytest.raises(DataError, match="seconds must be positive, threshold_db from"):
            SongSettings(**wrong)
