import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet2_ext.cli import data as command
from espnet2_ext.data.corpora.audioset import prepare_audioset
from espnet2_ext.data.synth import audioset as mini
from espnet2_ext.data.synth import embedded, score
from espnet2_ext.data.synth.audioset import all_voices, branches
from espnet2_ext.data.tables import read_clips, read_labels
from espnet2_ext.errors import DataError

VOICES, BRANCHES = all_voices(), branches()
CLASSES = ["Piano", "/m/01qbl", "Hi-hat", "Gunshot, gunfire"]
SMALL = {"train_clips": 2, "eval_clips": 1, "clip_seconds": 1.5, "classes": CLASSES}


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("mini") / "corpus"
    return mini.make_mini_audioset(root, **SMALL, num_workers=1)


def scores(voice, split, count):
    for i in range(count):
        yield score.compose(voice, split, 5.0, np.random.default_rng([i, split == "eval"]))


# --- scores


@pytest.mark.parametrize("voice", VOICES, ids=lambda v: v.name)
def test_no_motif_is_in_both_splits(voice):
    found = {split: set().union(*(score.motifs(s) for s in scores(voice, split, 6))) for split in mini.SPLITS}
    assert min(map(len, found.values())) > 10
    assert not found["train"] & found["eval"]


def test_motif_does_not_change_with_the_key_and_pitched_ones_not_with_rhythm():
    tune = tuple(score.Beat((k,), s) for k, s in ((60, 1), (64, 2), (67, 1), (65, 3)))
    higher = tuple(score.Beat((b.keys[0] + 5,), 1) for b in tune)
    intervals = ((0,), (4,), (7,), (5,))
    assert score.motif_code(tune, False) == score.motif_code(higher, False) == intervals
    assert score.motif_code(tune, True) != score.motif_code(higher, True)


def test_motifs_of_a_score_are_windows_within_phrases():
    beats = [score.Beat((k,), 1) for k in (60, 62, 64, 65, 67, 60)]
    one = score.Score(0, False, (tuple(beats[:5]), tuple(beats[3:])), (), (), 0.0)
    assert score.motifs(one) == {((0,), (2,), (4,), (5,)), ((0,), (2,), (3,), (5,))}


@pytest.mark.parametrize("voice", VOICES, ids=lambda v: v.name)
def test_scores_stay_in_range_keep_sounding_and_differ(voice):
    made = list(scores(voice, "train", 4))
    for s in made:
        keys = {n.key for n in s.notes}
        allowed = set(voice.keys) if voice.drum else set(range(voice.keys[0], voice.keys[1] + 1))
        assert keys <= allowed and s.program in voice.programs and abs(s.cents) <= voice.cents
        assert all(0 <= n.start < n.end <= 5.0 and 30 <= n.velocity <= 127 for n in s.notes)
        assert all(0 <= c.value <= 127 for c in s.controls) and s.controls[-1].time == 5.0
        starts = [0.0, *sorted(n.start for n in s.notes), 5.0]
        assert max(np.diff(starts)) < 1.05  # the longest gap and a rest
        for key in keys:  # one note a key at a time
            times = [t for n in s.notes if n.key == key for t in (n.start, n.end)]
            assert times == sorted(times)
    assert len({s.notes for s in made}) == len(made)


# --- classes and ontology


def test_voices_are_distinct_and_under_one_tree():
    mids = [v.mid for v in VOICES]
    assert len(VOICES) >= 20 and len(set(mids)) == len({v.name for v in VOICES}) == len(mids)
    assert all(v.mid in {m for _, _, below in BRANCHES for m in below} for v in VOICES)
    assert {v.also for v in VOICES} - {""} <= set(mids)
    known = {"/m/05r5c": "Piano", "/m/03qtq": "Hi-hat", "/m/032s66": "Gunshot, gunfire"}
    assert known.items() <= {v.mid: v.name for v in VOICES}.items()


def test_ontology_holds_the_classes_asked_for_and_what_is_above():
    nodes = {n["id"]: n for n in mini.ontology([v for v in VOICES if v.name == "Hi-hat"])}
    assert {n["name"] for n in nodes.values()} == {"Hi-hat", "Cymbal", "Percussion", "Musical instrument", "Music"}
    assert nodes["/m/01qbl"]["child_ids"] == ["/m/03qtq"] and nodes["/m/03qtq"]["child_ids"] == []
    whole = {n["id"]: n for n in mini.ontology(VOICES)}
    assert set(whole) == {v.mid for v in VOICES} | {m for m, _, _ in BRANCHES}
    assert all(c in whole for n in whole.values() for c in n["child_ids"])


# --- sounds


@pytest.mark.parametrize("name", ["Piano", "Drum kit", "Helicopter"])
def test_clip_has_its_length_and_level_and_depends_on_its_place_only(name):
    mid = next(v.mid for v in VOICES if v.name == name)
    x = mini.make_clip(mini.Clip("eval", mid, 3), 1.25, 7)
    level = 10 * np.log10(np.mean(x**2))
    assert x.shape == (40000,) and x.dtype == np.float32
    assert -31 < level < -11.9 and np.abs(x).max() <= embedded.PEAK + 1e-6
    np.testing.assert_array_equal(x, mini.make_clip(mini.Clip("eval", mid, 3), 1.25, 7))
    for other in (("eval", mid, 4, 7), ("train", mid, 3, 7), ("eval", mid, 3, 8)):
        assert not np.array_equal(x, mini.make_clip(mini.Clip(*other[:3]), 1.25, other[3]))


def test_ids_look_like_youtubes_and_half_of_the_files_have_the_extra_letter():
    clips = [mini.Clip(s, v.mid, n) for s in mini.SPLITS for v in VOICES for n in range(60)]
    ids = [mini.clip_id(c, 0) for c in clips]
    assert len(set(ids)) == len(ids) and {len(i) for i in ids} == {11}
    share = np.mean([len(mini.file_name(i)) == 17 for i in ids])
    assert 0.4 < share < 0.6
    assert {mini.file_name(i).removesuffix(".flac")[-11:] for i in ids} == set(ids)


# --- corpus


def test_layout_and_tables(corpus):
    names = {p.name for p in corpus.iterdir()}
    assert names == {
        *"audio balanced_train_segments.csv class_labels_indices.csv done.json eval_segments.csv".split(),
        *"ontology.json settings.json".split(),
    }
    lines = (corpus / "eval_segments.csv").read_text().splitlines()
    assert lines[1] == "# num_ytids=4, num_segs=4, num_unique_labels=4, num_positive_labels=5"
    assert [line.startswith("#") for line in lines] == [True] * 3 + [False] * 4
    rows = list(csv.reader(lines[3:], skipinitialspace=True))
    assert Counter(r[3] for r in rows) == Counter(["/m/05r5c", "/m/01qbl", "/m/01qbl,/m/03qtq", "/m/032s66"])
    for name, start, end, _ in rows:
        file = corpus / "audio" / "eval_segments" / mini.file_name(name)
        info = soundfile.info(file)
        assert (info.samplerate, info.channels, info.subtype) == (32000, 1, "PCM_16")
        assert info.frames == 48000 and (start, end) == ("0.000", "1.500")
    labels = list(csv.DictReader((corpus / "class_labels_indices.csv").open()))
    assert [(r["index"], r["display_name"]) for r in labels] == [
        ("0", "Piano"),
        ("1", "Cymbal"),
        ("2", "Hi-hat"),
        ("3", "Gunshot, gunfire"),
    ]


def test_reader_of_audioset_reads_it(corpus, tmp_path):
    lists = {s: [corpus / f"{n}.csv"] for s, n in mini.SPLITS.items()}
    counts = prepare_audioset(
        tmp_path, lists, corpus / "class_labels_indices.csv", [corpus / "audio"], ontology=corpus / "ontology.json"
    )
    assert counts == {"train": 8, "eval": 4}
    assert all(c.source for s in lists for c in read_clips(tmp_path / s / "clips.tsv"))
    related = {v.name: v.related for v in read_labels(tmp_path / "labels.tsv")}
    assert related == {"Piano": (), "Cymbal": (2,), "Hi-hat": (1,), "Gunshot, gunfire": ()}


def test_second_run_does_nothing_and_other_settings_make_it_anew(corpus, tmp_path, monkeypatch):
    root = mini.make_mini_audioset(tmp_path / "c", **SMALL, num_workers=2)
    made = contents(root)
    assert made == contents(corpus)  # however many workers
    monkeypatch.setattr(embedded, "map_parts", None)  # nobody asks for it
    mini.make_mini_audioset(root, **SMALL)
    assert contents(root) == made
    monkeypatch.undo()
    mini.make_mini_audioset(root, **{**SMALL, "classes": ["Piano"]}, num_workers=1)
    assert len(list(root.rglob("*.flac"))) == 3  # clips of the other classes are gone
    kept = {k: v for k, v in contents(root).items() if k.endswith(".flac")}
    assert kept.items() <= made.items()  # a clip does not depend on the other classes


def test_goes_on_after_a_stop(corpus, tmp_path, monkeypatch):
    whole, count = mini.make_clip, []

    def stop(*args):
        count.append(args)
        if len(count) > 5:
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(mini, "make_clip", stop)
    with pytest.raises(KeyboardInterrupt):
        mini.make_mini_audioset(tmp_path / "c", **SMALL, num_workers=1)
    assert not (tmp_path / "c" / "done.json").exists()
    again = []
    monkeypatch.setattr(mini, "make_clip", lambda *a: again.append(a) or whole(*a))
    mini.make_mini_audioset(tmp_path / "c", **SMALL, num_workers=1)
    assert len(again) == 12 - 5 and contents(tmp_path / "c") == contents(corpus)


# --- bad input


def test_refuses_a_folder_with_other_files(tmp_path):
    (tmp_path / "class_labels_indices.csv").write_text("mine")
    with pytest.raises(DataError, match=f"{tmp_path}: holds files that are not from here"):
        mini.make_mini_audioset(tmp_path, **SMALL)
    assert (tmp_path / "class_labels_indices.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"classes": ["Piano", "Vuvuzela"]}, "unknown class 'Vuvuzela'"),
        ({"train_clips": 0}, "train_clips 0"),
        ({"clip_seconds": 0.5}, "clip_seconds 0.5"),
    ],
)
def test_refuses_impossible_options(tmp_path, option, text):
    with pytest.raises(DataError, match=text):
        mini.make_mini_audioset(tmp_path / "c", **option)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("package", ["midirenderer", "pretty_midi"])
def test_names_the_package_that_is_missing(tmp_path, monkeypatch, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    embedded.load_synthesizer.cache_clear()
    with pytest.raises(DataError, match=f"pip install {package}"):
        mini.make_mini_audioset(tmp_path / "c", **SMALL)
    assert not (tmp_path / "c").exists()


def test_names_the_sound_font_that_is_missing(monkeypatch, tmp_path):
    import pretty_midi

    monkeypatch.setattr(pretty_midi, "__file__", str(tmp_path / "__init__.py"))
    embedded.load_synthesizer.cache_clear()
    with pytest.raises(DataError, match="TimGM6mb.sf2: no sound font; pip install"):
        embedded.load_synthesizer()


def test_broken_settings_file_is_named(tmp_path):
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(DataError, match="settings.json: not JSON"):
        mini.make_mini_audioset(tmp_path, **SMALL)


def test_command(tmp_path):
    cmd = f"--out {tmp_path}/c --train_clips 1 --eval_clips 1 --clip_seconds 1 --num_workers 1"
    command.make_mini(["audioset", *cmd.split(), "--classes", "Waves, surf"])
    done = json.loads((tmp_path / "c" / "done.json").read_text())
    assert done["classes"] == ["/m/034srq"] and len(list((tmp_path / "c").rglob("*.flac"))) == 2
