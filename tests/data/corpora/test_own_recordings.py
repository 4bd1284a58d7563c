"""One's own labelled recordings: tables, what is refused and why, sets, mixture tables."""

import re

import numpy as np
import pytest
from own_tables import CLIPS, EVENTS, FRAMES, GOOD, table
from sounds import noise

from espnet2_ext.cli import data as command
from espnet2_ext.core.mixing.events import clip_activity, frame_activity, render
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.corpora.own_recordings import prepare_own_sounds, read_tables
from espnet2_ext.data.mixtures.event_table import MixtureTable
from espnet2_ext.data.mixtures.from_recordings import MARKS, cuts, make_own_table
from espnet2_ext.data.tables import read_clips, read_labels
from espnet2_ext.errors import DataError
from espnet2_ext.util.names import safe_id, unique
from espnet2_ext.util.tables import read_tsv


def problems(*tables, **kwargs):
    return [str(p) for p in read_tables(tables, **kwargs).problems]


# --- reading


def test_both_tables_and_their_recordings(here):
    own = read_tables([table(GOOD), table(FRAMES, "events.csv")])
    assert not own.problems and own.classes == ["cat", "dog"] and len(own.recordings) == 7
    r1, r5 = own.recordings[1], own.recordings[5]
    assert (r1.known, r1.labels, r1.where) == ("clip", ("cat", "dog"), "clips.csv:3")
    assert r1.set == "train"
    assert (r5.known, r5.labels, r5.name) == ("frame", ("dog", "cat"), "r5")
    assert [m[1:] for m in r5.marks] == [(0.1, 0.5, "events.csv:2"), (0.4, 1.2, "events.csv:3")]
    named = read_tables(["clips.csv"], classes=["dog", "cat"])
    assert named.classes == ["dog", "cat"] and not named.problems


def test_recordings_without_labels(here):
    clips = table(GOOD + "r7.wav,,train\n")
    frames = table(FRAMES + "r8.wav,,,,train\n", "events.csv")
    text = "no label; with --allow_unlabelled, all classes are inactive in it"
    assert problems(clips, frames) == [f"clips.csv:7: {text}", f"events.csv:5: {text}"]
    own = read_tables([clips, frames], allow_unlabelled=True)
    assert not own.problems
    assert {r.name: r.known for r in own.recordings if not r.marks} == {"r7": "clip", "r8": "frame"}


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "t.csv:1: the columns are missing; either path and labels"),
        ("path,label\n", "t.csv:1: the columns are path, label; either"),
        ("path,labels,onset\n", "t.csv:1: the columns are"),
        ("path,path,labels\n", "t.csv:1: the columns are"),
        ("path,labels\nr0.wav\n", "t.csv:2: 1 fields where 2 are expected"),
        ("path,labels\n,dog\n", "t.csv:2: no path"),
        ("path,labels\nr0.wav, ; \n", "t.csv:2: no label"),
        ('path,labels\n"r0.wav,dog\n', "t.csv:2: unexpected end"),
        ("path,labels,set\nr0.wav,dog,dev\n", "t.csv:2: set 'dev' is none of train, valid, test"),
        ("path,labels\nr0.wav,dog\nx/../r0.wav,cat\n", "t.csv:3: .*r0.wav is listed already, see"),
        ("path,labels\n", "t.csv: no recording is named in it"),
        ("path,labels\nr0.wav,cow\n", "t.csv:2: unknown class 'cow'; the classes are dog, cat"),
        ("path,onset,offset,label\nr0.wav,0.5,0.5,dog\n", "t.csv:2: onset 0.5 is not before offset"),
        ("path,onset,offset,label\nr0.wav,-1,0.5,dog\n", "t.csv:2: onset must be 0 or more"),
        ("path,onset,offset,label\nr0.wav,0,nan,dog\n", "t.csv:2: offset must be a finite number"),
        ("path,onset,offset,label\nr0.wav,0,1,\n", "t.csv:2: one label a line is expected, not ''"),
        ("path,onset,offset,label\nr0.wav,0,1,dog;cat\n", "t.csv:2: one label a line"),
        ("path,onset,offset,label\n" + "r0.wav,0,1,dog\n" * 2, "t.csv:3: duplicated line"),
        ("path,onset,offset,label\nr0.wav,0,1,dog\nr0.wav,,,\n", "t.csv:3: a line without a label for"),
        (
            "path,onset,offset,label,group\nr0.wav,0,1,dog,a\nr0.wav,1,2,dog,b\n",
            "t.csv:3: set or group is another one than in t.csv:2",
        ),
    ],
)
def test_each_refusal_names_file_and_line(here, text, words):
    (found,) = problems(table(text, "t.csv"), classes=["dog", "cat"])
    assert re.match(words, found), found


def test_refusals_of_tables_as_a_whole(here):
    (here / "bad.csv").write_bytes(b"path,labels\n\xff\xfe,dog\n")
    (here / "list.txt").touch()
    assert problems("none.csv", "list.txt", "bad.csv") == [
        "none.csv: no such file",
        "list.txt: a table's name ends in .csv or .tsv",
        problems("bad.csv")[0],
    ]
    assert "bad.csv: is not UTF-8 text" in problems("bad.csv")[0]
    both = problems(table(GOOD), table(FRAMES + "r0.wav,0,1,dog,train\n", "events.csv"))
    assert both == ["events.csv:5: r0.wav is listed already, see clips.csv:2"]
    assert problems("clips.csv", classes=["dog", "cat", "dog"]) == ["classes: 'dog' is named twice"]
    marked = table(EVENTS + "r0.wav,,,,\nr0.wav,0,1,dog,\n", "m.csv")
    text = "m.csv:3: m.csv:2 says that no class is in r0.wav"
    assert problems(marked, allow_unlabelled=True) == [text]


# --- lists


def test_lists_and_marks(here, capsys):
    frames = table(FRAMES + "r8.wav,,,,test\n", "events.csv")
    command.prepare(["own-weak", "lists", table(GOOD), frames, "--allow_unlabelled", "--classes", "dog", "cat"])
    told = capsys.readouterr().out
    assert told == "train: 5 recordings, valid: 1 recordings, test: 2 recordings\n"
    assert [(v.mid, v.index) for v in read_labels("data/labels.tsv")] == [("dog", 0), ("cat", 1)]
    clips = {c.id: c for c in read_clips("data/train/clips.tsv")}
    assert sorted(clips) == ["r0", "r1", "r2", "r5", "r6"]
    assert clips["r1"].labels == ("cat", "dog") and clips["r1"].source == str(here / "r1.wav")
    assert [row for _, row in read_tsv("data/test/marks.tsv", MARKS)] == [
        ["r4", "clip", "dog", "", "", "clips.csv:6"],
        ["r4", "clip", "cat", "", "", "clips.csv:6"],
        ["r8", "frame", "", "", "", "events.csv:5"],
    ]


def test_sets_are_drawn_where_none_is_named(here):
    text = "path,labels\n" + "".join(f"r{n}.wav,{('dog', 'cat')[n % 2]}\n" for n in range(12))
    counts = prepare_own_sounds([table(text)], "data", shares=(0.2, 0.2))
    assert counts == {"train": 8, "valid": 2, "test": 2}


@pytest.mark.parametrize(
    "text, kwargs, words",
    [
        (
            CLIPS + "r0.wav,dog,train\nr1.wav,,train\nr2.wav,,valid\n",
            {},
            r"clips.csv:3: no label.*\(and 1 more: validate-data lists them\)",
        ),
        (GOOD, {"classes": ["dog", "cat", "cow"]}, "class 'cow' never occurs in the set train"),
        (
            CLIPS + "r0.wav,a;b,train\nr1.wav,a,train\nr2.wav,b;a,valid\nr3.wav,a;b,test\n",
            {},
            r"class 'a' is in every training recording \(its prior is 1\)",
        ),
        (CLIPS + "r0.wav,a,train\nr1.wav,b,test\n", {}, "no recording is left for valid"),
        (GOOD, {"shares": (0.5, 0.5)}, "leave none for training"),
    ],
)
def test_lists_that_are_refused(here, text, kwargs, words):
    with pytest.raises(DataError, match=words):
        prepare_own_sounds([table(text)], "data", **kwargs)
    assert not (here / "data").exists()


def test_names():
    assert [safe_id(v) for v in ("a b/c", "It's, & so", "-x-", "ü1", "...", "")] == [
        "a-b-c",
        "It-s-so",
        "x",
        "ü1",
        "sound",
        "sound",
    ]
    assert unique(["a", "b", "a", "a-2", "a"]) == ["a", "b", "a-2", "a-2-2", "a-3"]


# --- mixture tables


def test_recordings_become_chunks_with_their_labels(banked, capsys, caplog):
    command.prepare(["own-weak", "tables", "data/train", "--bank", "dump/train", "--out", "t", "--seconds", "0.8"])
    made, bank = MixtureTable("t"), ClipBank("dump/train")
    assert "t: 12 mixtures; share with cat" in capsys.readouterr().out
    assert "3 recordings with clip labels are cut into chunks, which all get" in caplog.text
    rows = {m.id: m for m in (made.row(i) for i in range(len(made)))}
    assert made.classes == ["cat", "dog"] and {m.samples for m in rows.values()} == {12800}

    def events(name):
        return [tuple(e) for e in rows[name].events]

    assert events("r1.0001") == [
        (-1, "r1", 12800, 0, 12800, 1.0),
        (0, None, 0, 0, 12800, 1.0),
        (1, None, 0, 0, 12800, 1.0),
    ]
    assert events("r5.0000") == [
        (-1, "r5", 0, 0, 12800, 1.0),
        (1, None, 0, 1600, 6400, 1.0),
        (0, None, 0, 6400, 6400, 1.0),
    ]
    assert events("r5.0001") == [(-1, "r5", 12800, 0, 12800, 1.0), (0, None, 0, 0, 6400, 1.0)]
    assert events("r8.0000") == [(-1, "r8", 0, 0, 12800, 1.0)]
    assert {m.id: m.known for m in rows.values()} | {"r0.0000": "clip", "r8.0001": "frame"} == {
        m.id: m.known for m in rows.values()
    }
    out = render(rows["r5.0001"], bank, 2)
    np.testing.assert_array_equal(out["mix"], noise(25600, 5)[12800:])
    assert not out["sources"].any()
    assert clip_activity(rows["r5.0001"], 2).tolist() == [1.0, 0.0]
    active = frame_activity(rows["r5.0000"], 2, 512, 128)  # dog from frame (1600 - 256) / 128
    assert np.flatnonzero(active[:, 1])[[0, -1]].tolist() == [11, 64]


def test_clip_labels_of_whole_recordings(banked, caplog):
    command.prepare(
        ["own-weak", "tables", "data/train", "--bank", "dump/train", "--out", "t", "--seconds", "0.8", "--whole_clips"]
    )
    made = MixtureTable("t")
    assert made.row(made.index_of("r1.0000")).samples == 25600 and len(made) == 9
    assert "are cut" not in caplog.text


def test_lengths_of_chunks():
    assert cuts(10, 4) == [(0, 4), (4, 4), (8, 2)]
    assert cuts(9, 4) == [(0, 4), (4, 4)]
    assert cuts(1, 4) == [(0, 1)] and cuts(8, 4) == [(0, 4), (4, 4)]


def test_recordings_that_the_scan_left_out(banked, caplog):
    marks = banked / "data/train/marks.tsv"
    marks.write_text(marks.read_text() + "r99\tclip\tdog\t\t\tclips.csv:99\n")
    make_own_table("data/train", "dump/train", "t")
    assert "1 of 7 recordings are not in dump/train (see manifest.tsv)" in caplog.text


@pytest.mark.parametrize(
    "onset, offset, words",
    [
        ("1.6", "1.7", "events.csv:2: onset 1.6 s is past the end of the recording, 1.600 s"),
        ("0.5", "1.62", "events.csv:2: offset 1.62 s is past the end of the recording, 1.600 s"),
    ],
)
def test_labels_past_the_end_name_the_users_line(banked, onset, offset, words):
    marks = banked / "data/train/marks.tsv"
    marks.write_text(marks.read_text().replace("0.1\t0.5", f"{onset}\t{offset}"))
    with pytest.raises(DataError, match=words):
        make_own_table("data/train", "dump/train", "t")
