import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet2_ext.audio.read import read_mono
from espnet2_ext.cli import data as command
from espnet2_ext.data.corpora.starter import make_labels
from espnet2_ext.data.synth import starter
from espnet2_ext.data.synth.procedural import GENERATORS, make_sound
from espnet2_ext.data.synth.signals import FS, band, modes, strikes, tone
from espnet2_ext.data.tables import read_clips, read_labels
from espnet2_ext.errors import DataError
from espnet2_ext.util.documents import read_json

SMALL = {"clips": 2, "formula_clips": 2, "valid_clips": 1, "clip_seconds": 1.0, "num_workers": 1}
LICENCE = """\
- **[1-1-A.ogg](https://x.org/1-1-A.ogg)**:  clip derived from [a.wav](http://f.org/1/) by *Ann* ([CC0](http://c.org/))
- **[1-2-A.ogg](https://x.org/1-2-A.ogg)**:  clip derived from [b.wav](http://f.org/2/) by *Bob* ([CC-BY](http://c.org/))
- **[2-3-A.ogg](https://x.org/2-3-A.ogg)**:  clip derived from [c](http://f.org/3/) by *Cy* ([CC-Sampling+](http://c.org/))
- **[2-4-A.ogg](https://x.org/2-4-A.ogg)**:  clip derived from [d.wav](http://f.org/4/) by *Di D.* ([CC0](http://c.org/))
- [3-5-A.ogg]: clip derived from e (by the sea).wav (http://f.org/5/) by Ed [CC0]
- [4-8-A.ogg]: clip derived from h.wav (http://f.org/8/) by Hal [CC-BY]
- **[4-6-A.ogg](https://x.org/4-6-A.ogg)**:  clip derived from [f.wav](http://f.org/6/) by *Flo* ([CC-BY](http://c.org/))
"""


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.flac")}


@pytest.fixture
def esc50(tmp_path):
    root = tmp_path / "ESC-50"
    (root / "audio").mkdir(parents=True)
    (root / "meta").mkdir()
    (root / "LICENSE-ESC-10.md").write_text(LICENCE)
    names = ["1-1-A", "1-2-A", "2-3-A", "2-4-A", "3-5-A", "4-6-A", "4-7-A"]
    rows = "".join(f"{name}-0.wav,{name[0]},0,rain,True\n" for name in names) + "4-8-A-1.wav,4,1,pig,False\n"
    (root / "meta/esc50.csv").write_text(f"filename,fold,target,category,esc10\n{rows}")
    return root


# --- sounds made by formula


@pytest.mark.parametrize("name", GENERATORS)
def test_each_formula_makes_a_sound_that_its_generator_decides(name):
    one, again, other = (make_sound(name, 1.0, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert one.dtype == np.float32 and one.shape == (FS,) and np.isfinite(one).all() and one.std() > 0
    assert np.array_equal(one, again)
    assert np.corrcoef(one, other)[0, 1] < 0.9


def test_band_and_tone_and_strikes_do_what_they_say():
    rng = np.random.default_rng(0)
    x = tone(np.full(FS, 1000.0), [1.0, 0.5], rng)
    spectrum = np.abs(np.fft.rfft(x)) / (FS / 2)
    assert spectrum[1000] == pytest.approx(1.0, abs=1e-6) and spectrum[2000] == pytest.approx(0.5, abs=1e-6)
    low = np.abs(np.fft.rfft(band(x, 0.0, 1000.0))) / (FS / 2)
    assert 20 * np.log10(low[1000]) == pytest.approx(-3.01, abs=0.01)  # 1 / sqrt(2) at the edge
    assert 20 * np.log10(low[2000] / 0.5) == pytest.approx(-24.1, abs=0.1)  # an octave beyond it
    assert not tone(np.full(100, 15900.0), [1.0], rng).any()  # too near to half the rate
    hits = strikes(100, [10 / FS, 50 / FS, 200 / FS], [np.array([3.0, 4.0])], rng, 0.0)
    assert np.flatnonzero(hits).tolist() == [10, 11, 50, 51]  # the one behind the end is left out
    assert hits[[10, 11]] == pytest.approx([0.6, 0.8])
    assert modes(rng, 3, (200, 400), (0.01, 0.02)).shape[0] <= 5 * 0.02 * FS


# --- the plan


def test_a_variant_is_in_training_or_in_validation_never_in_both():
    sounds = list(starter.plan(list(starter.all_variants({"timgm6mb": None, "formula": None})), 8, 8, 2))
    sides = {s: {(v.name, v.key) for v in sounds if v.set == s and v.source != "formula"} for s in ("train", "valid")}
    assert sides["valid"] and not sides["train"] & sides["valid"]
    assert len({s.id for s in sounds}) == len(sounds)
    counts = Counter((s.set, s.name) for s in sounds)
    assert counts["train", "piano"] == 8 and counts["valid", "piano"] == 2
    assert counts["valid", "celesta"] == 2 and counts["valid", "harpsichord"] == 0  # of two programs none is kept
    assert counts["train", "engine"] == 8 and counts["valid", "engine"] == 2  # each is another sound


def test_all_classes_that_are_related_exist_and_patterns_name_sources():
    table = starter.starter_table()
    made = {*GENERATORS, *table["voices"], *(name for files in table["files"].values() for name in files)}
    esc10 = {"dog", "rain", "sea_waves", "crying_baby", "clock_tick", "helicopter", "chainsaw", "crackling_fire"}
    assert {name for group in table["related"] for name in group} <= made | esc10 | {"rooster"}
    assert {name for whole, parts in table["holds"].items() for name in (whole, *parts)} | set(table["many"]) <= made
    assert set(table["files"]) <= set(table["sources"])
    heard, unheard = (
        {n for s, files in table["files"].items() if starter.is_unheard(s) == side for n in files} for side in (0, 1)
    )
    assert not (heard | set(table["voices"]) | set(GENERATORS)) & unheard and len(unheard) >= 8


# --- the sounds


def test_same_settings_give_the_same_bytes_and_sources_do_not_change_each_other(tmp_path):
    classes = ["piano", "hand_clap", "engine"]
    both = starter.make_starter(tmp_path / "a", sources=["timgm6mb", "formula"], classes=classes, **SMALL)
    one = starter.make_starter(tmp_path / "b", sources=["formula"], classes=["engine"], **SMALL)
    found, part = contents(both), contents(one)
    assert len(found) == 3 * 2 + 2 and len(part) == 3
    assert all(found[name] == data for name, data in part.items())
    first = min(both.rglob("*.flac"))
    assert soundfile.info(first).samplerate == FS and len(read_mono(first)) == FS
    stamp = first.stat().st_mtime_ns
    starter.make_starter(both, sources=["timgm6mb", "formula"], classes=classes, **SMALL)
    assert first.stat().st_mtime_ns == stamp  # up to date


def test_one_shots_and_loops_of_a_package(tmp_path):
    folder = tmp_path / "usr/share/sonic-pi/samples"
    folder.mkdir(parents=True)
    for n, name in enumerate(["bd_a", "bd_b", "bd_c", "loop_tabla", "tabla_x"]):
        x = np.sin(np.arange(4000) * (0.1 + 0.05 * n)) * np.exp(-np.arange(4000) / 900)
        soundfile.write(folder / f"{name}.flac", x, 44100)
    root = starter.make_starter(tmp_path / "out", sources=["sonic-pi"], packages=tmp_path, **SMALL)
    rows = Counter((row["set"], row["class"]) for row in starter.read_sounds(root))
    assert rows == {
        ("train", "kick_drum"): 2,
        ("valid", "kick_drum"): 1,  # of three files one is kept for validation
        ("train", "drum_loop"): 2,
        ("train", "tabla"): 2,
    }
    assert all(np.abs(read_mono(row["path"])).max() > 0.01 for row in starter.read_sounds(root))


def test_recordings_of_an_archive_a_series_is_one_variant_and_one_class_holds_others(tmp_path):
    archive = tmp_path / "usr/share/games/0ad/mods/public/public.zip"
    archive.parent.mkdir(parents=True)
    names = [f"audio/actor/singlesteps/fs_{ground}_{n}" for ground in ("grass", "rock") for n in (1, 2)]
    names += [f"audio/music/piece_{n}" for n in range(5)]
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr("art/readme.txt", "no sound")
        for n, name in enumerate(names):
            file = tmp_path / "x.ogg"
            soundfile.write(file, 0.5 * np.sin(np.arange(6000) * (0.05 + 0.05 * n)), 32000)
            z.write(file, f"{name}.ogg")
    options = {**SMALL, "clips": 4, "sources": ["0ad"], "packages": tmp_path}
    root = starter.make_starter(tmp_path / "out", **options)
    assert sum(path.is_file() for path in (tmp_path / "out_unpacked").rglob("*")) == len(names)
    rows = starter.read_sounds(root)
    assert Counter((row["set"], row["class"]) for row in rows) == {
        ("train", "footsteps_recorded"): 4,  # of two variants none is kept for validation
        ("train", "music"): 16,  # four times as many
        ("valid", "music"): 4,
    }
    steps = read_mono(next(row["path"] for row in rows if row["class"] == "footsteps_recorded"))
    assert 0 < np.mean(np.abs(steps) < 1e-4) < 0.9, "with pauses"
    music = read_mono(next(row["path"] for row in rows if row["class"] == "music"))
    assert np.mean(np.abs(music) < 1e-4) < 0.05, "cut as it is"
    labels = {v.mid: v for v in make_labels(["music", "piano", "violin"])}
    assert labels["music"].related == (1, 2) and labels["piano"].related == (0,)
    archive.write_bytes(b"no archive")
    with pytest.raises(DataError, match="public.zip: damaged"):
        starter.make_starter(tmp_path / "new", **options)


def test_what_is_missing_is_named_with_the_command_that_brings_it(tmp_path):
    text = "source fluidr3: there is no .*apt-get install fluid-soundfont-gm .*leave it out of --sources"
    with pytest.raises(DataError, match=text):
        starter.make_starter(tmp_path / "out", sources=["formula", "fluidr3"], packages=tmp_path, **SMALL)
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="no sound of class tuba in the sources formula"):
        starter.make_starter(tmp_path / "out", sources=["formula"], classes=["tuba"], **SMALL)


# --- the lists


def test_lists_hold_free_clips_of_esc10_and_say_where_all_comes_from(tmp_path, esc50, capsys):
    options = "--clips 2 --formula_clips 2 --valid_clips 1 --clip_seconds 1 --num_workers 1 --classes stream bell"
    data, where = tmp_path / "data", ["--sounds", str(tmp_path / "sounds"), "--esc50", str(esc50)]
    command.prepare(["starter", "--sources", "esc10", "formula", *where, "--data_dir", str(data), *options.split()])
    assert "train: 6 clips, valid: 4 clips, test: 1 clips" in capsys.readouterr().out
    sets = {name: {c.id for c in read_clips(data / name / "clips.tsv")} for name in ("train", "valid", "test")}
    real = {name: {i for i in ids if i[0].isdigit()} for name, ids in sets.items()}
    assert real["test"] == {"4-6-A-0"} and len(real["valid"]) == 2 and len(real["train"]) == 2
    assert "2-3-A-0" not in set().union(*sets.values()), "CC Sampling+ is not a free licence"
    labels = {v.mid: v for v in read_labels(data / "labels.tsv")}
    assert labels["stream"].index in labels["rain"].related and labels["bell"].index not in labels["rain"].related
    first, second = read_json(data / "sources.json")
    assert first["clips"] == {"train": 2, "valid": 2, "test": 1} and second["clips"] == {"train": 4, "valid": 2}
    assert "2-4-A: d.wav by Di D., CC0, http://f.org/4/" in first["credits"] and len(first["credits"]) == 5
    assert "3-5-A: e (by the sea).wav by Ed, CC0, http://f.org/5/" in first["credits"]
    assert second["licence"] == "Apache-2.0"
    lines = (data / "sources.md").read_text().splitlines()
    assert lines[0] == "|source|licence|author|train|valid|test|" and lines[1] == "|---|---|---|---:|---:|---:|"
    assert (
        lines[3].endswith("|Apache-2.0|this project|4|2||") and "- 4-6-A: f.wav by Flo, CC BY, http://f.org/6/" in lines
    )


def test_what_lists_refuse(tmp_path, esc50):
    out = ["--data_dir", str(tmp_path / "data"), "--sounds", str(tmp_path / "sounds")]
    with pytest.raises(DataError, match="source esc10: where is it"):
        command.prepare(["starter", *out])
    with pytest.raises(DataError, match="a data folder of their own"):
        command.prepare(["starter", "--sources", "formula", "scratch", *out])
    (esc50 / "LICENSE-ESC-10.md").write_text("all rights reserved")
    with pytest.raises(DataError, match="LICENSE-ESC-10.md: credits no clip"):
        command.prepare(["starter", "--sources", "esc10", "--esc50", str(esc50), *out])
