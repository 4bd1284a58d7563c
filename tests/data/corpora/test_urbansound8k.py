"""UrbanSound8K's layout: folds and shares of them, classes, what is missing or broken."""

import logging

import numpy as np
import pytest
from sounds import noise, write

from espnet2_ext.cli import data as command
from espnet2_ext.data.bank.archive import scan
from espnet2_ext.data.corpora.urbansound8k import Part, parse_sets, prepare_urbansound8k, read_meta
from espnet2_ext.data.tables import read_clips, read_labels, read_manifest
from espnet2_ext.errors import DataError

HEAD = "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
CLASSES = ["car_horn", "siren"]


def line(fsid, fold, name, slice_=0):
    number = {"car_horn": 1, "siren": 8, "street_music": 9}[name]
    return f"{fsid}-{number}-0-{slice_}.wav,{fsid},0.0,4.0,1,{fold},{number},{name}"


LINES = [
    line(10, 1, "car_horn"),
    line(10, 1, "car_horn", 1),
    line(11, 1, "siren"),
    line(12, 2, "siren"),
    line(13, 2, "car_horn"),
    line(14, 10, "street_music"),
    line(15, 10, "siren"),
]
LAYOUTS = [
    (8000, 1, "PCM_16"),
    (22050, 2, "PCM_16"),
    (44100, 1, "FLOAT"),
    (48000, 2, "PCM_24"),
    (96000, 1, "PCM_U8"),
    (11025, 2, "PCM_16"),
]


def corpus(top, lines=LINES, head=HEAD, files=None):
    (top / "metadata").mkdir(parents=True)
    (top / "metadata" / "UrbanSound8K.csv").write_text(head + "\n".join(lines) + "\n")
    for n, text in enumerate(lines if files is None else files):
        name, _, _, _, _, fold, *_ = text.split(",")
        rate, channels, subtype = LAYOUTS[n % len(LAYOUTS)]
        x = np.stack([noise(rate, n + c, 0.5) for c in range(channels)], axis=1)
        write(top / "audio" / f"fold{fold}" / name, x, rate, subtype)
    return top


def ids(data_dir, name):
    return [c.id for c in read_clips(data_dir / name / "clips.tsv")]


# --- sets


def test_sets_are_read():
    assert parse_sets(["train:1-3,5", "test:10"]) == {"train": [Part(1), Part(2), Part(3), Part(5)], "test": [Part(10)]}
    halves = parse_sets(["v:2/1of2,3", "t:2/2of2"])
    assert halves == {"v": [Part(2, 0, 2), Part(3)], "t": [Part(2, 1, 2)]}
    for text in ("train", "train:", ":1", "a/b:1", "a:x", "a:3-1", "a:1/3of2", "a:1/0of2", "a:1/2"):
        with pytest.raises(DataError, match=f"set '{text}'"):
            parse_sets([text])
    with pytest.raises(DataError, match="set 'a:2': a name is missing or duplicated"):
        parse_sets(["a:1", "a:2"])


def test_sets_by_fold(tmp_path, capsys):
    root, out = corpus(tmp_path / "u"), tmp_path / "data"
    command.prepare(
        [
            "urbansound8k",
            "--urbansound8k",
            str(root),
            "--data_dir",
            str(out),
            *"--splits train:1-2 test:10 --classes siren,car_horn --background_classes street_music".split(),
        ]
    )
    labels = [(v.index, v.mid, v.name, v.related) for v in read_labels(out / "labels.tsv")]
    assert labels == [
        (0, "siren", "siren", ()),
        (1, "car_horn", "car horn", ()),
        (2, "street_music", "street music", ()),
    ]
    assert ids(out, "train") == ["10-1-0-0", "10-1-0-1", "11-8-0-0", "12-8-0-0", "13-1-0-0"]
    assert ids(out, "test") == ["14-9-0-0", "15-8-0-0"]
    first = next(read_clips(out / "train" / "clips.tsv"))
    assert first.labels == ("car_horn",)
    assert first.source == str(root / "audio" / "fold1" / "10-1-0-0.wav")
    assert "train: 5 slices of 4 recordings, 0 without a file" in capsys.readouterr().out


def test_slices_of_any_rate_and_channels_are_ready_to_use(tmp_path):
    sets = {"all": [Part(1), Part(2)]}
    prepare_urbansound8k(corpus(tmp_path / "u"), tmp_path / "data", sets, CLASSES)
    scan(tmp_path / "data" / "all", num_workers=1)
    entries = list(read_manifest(tmp_path / "data" / "all" / "manifest.tsv"))
    assert [e.status for e in entries] == ["ok"] * 5
    assert [(e.rate, e.channels) for e in entries] == [v[:2] for v in LAYOUTS[:5]]


def test_a_fold_is_cut_by_recording(tmp_path):
    lines = [line(n, 2, CLASSES[n % 2], i) for n in range(100, 121) for i in range(1 + n % 7)]
    root = corpus(tmp_path / "u", lines, files=lines[:1])
    sets = parse_sets(["valid:2/1of2", "test:2/2of2"])
    about = prepare_urbansound8k(root, tmp_path / "data", sets, CLASSES)
    halves = [[v.split("-")[:2] for v in ids(tmp_path / "data", n)] for n in sets]
    valid, test = ({fsid for fsid, _ in half} for half in halves)
    assert not valid & test and len(valid | test) == 21
    assert about["valid"]["recordings"] + about["test"]["recordings"] == 21
    for number in "18":  # each class is halved
        sizes = [sum(k == number for _, k in half) for half in halves]
        assert abs(sizes[0] - sizes[1]) <= 1 and sum(sizes) > 30
    # neither the order of the list, nor what else is in it or asked for, moves a recording
    again = corpus(tmp_path / "again", [*reversed(lines), *LINES[:3]], files=lines[:1])
    prepare_urbansound8k(again, tmp_path / "other", sets, ["siren"])
    want = [v for v in ids(tmp_path / "data", "valid") if "-8-" in v]
    assert ids(tmp_path / "other", "valid") == want


def test_missing_files_are_counted(tmp_path, caplog):
    root = corpus(tmp_path / "u", files=[LINES[0], LINES[2], LINES[6]])
    with caplog.at_level(logging.INFO):
        sets = parse_sets(["a:1,2", "b:10"])
        about = prepare_urbansound8k(root, tmp_path / "data", sets, CLASSES)
    assert about == {
        "a": {"slices": 5, "missing": 3, "recordings": 4},
        "b": {"slices": 1, "missing": 0, "recordings": 1},
    }
    assert "set a: 3 listed clips have no file (car_horn 2, siren 1)" in caplog.text
    with pytest.raises(DataError, match="missing 3"):
        scan(tmp_path / "data" / "a", num_workers=1)


def test_nan_is_refused_by_the_scan(tmp_path):
    root = corpus(tmp_path / "u")
    write(root / "audio" / "fold1" / "11-8-0-0.wav", np.array([0.1, np.nan] * 8000), 16000, "FLOAT")
    prepare_urbansound8k(root, tmp_path / "data", {"all": [Part(1)]}, CLASSES)
    scan(tmp_path / "data" / "all", max_bad_share=0.5, num_workers=1)
    bad = [e for e in read_manifest(tmp_path / "data" / "all" / "manifest.tsv") if e.status != "ok"]
    found = [(e.id, e.status, e.detail) for e in bad]
    assert found == [("11-8-0-0", "corrupt", "holds NaN or infinity")]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"classes": ["car_horn", "horn"]}, "no slice of class 'horn'; it has car_horn, siren, st"),
        ({"classes": ["siren", "siren"]}, "class siren is named twice"),
        ({"classes": ["siren"], "background": ["siren"]}, "class siren is named twice"),
        ({"sets": ["train:1-3"]}, "fold 3 of set train has no clips"),
        ({"sets": ["a:1", "b:1"]}, "fold 1 is in the sets a and b"),
        ({"sets": ["a:1/1of2", "b:1/1of3"]}, "fold 1 is cut into 2 and into 3 parts"),
        ({"sets": ["a:1/1of2", "b:1"]}, "fold 1 is cut into 2 and into 1 parts"),
        ({"sets": ["a:10"], "classes": ["car_horn"]}, "set a: no slice of these classes"),
    ],
)
def test_what_is_asked_for_is_checked(tmp_path, change, message):
    change = {"classes": CLASSES, **change}
    sets = parse_sets(change.pop("sets", ["train:1"]))
    with pytest.raises(DataError, match=message):
        prepare_urbansound8k(corpus(tmp_path / "u"), tmp_path / "data", sets, **change)


@pytest.mark.parametrize(
    "text, message",
    [
        (LINES[0], "csv:3: slice 10-1-0-0.wav is listed twice"),
        (line(10, 2, "car_horn", 5), "csv:3: recording 10 is in two folds"),
        ("a.wav,1,0.0,4.0,1,one,1,siren", "csv:3: fold must be a whole number"),
        ("a.wav,1,0.0,4.0,1,1,1", "csv:3: 7 fields where 8"),
        ("a.wav,1,0.0,4.0,1,1,1,siren,x", "csv:3: 9 fields where 8"),
        (",1,0.0,4.0,1,1,1,siren", "csv:3: no slice_file_name or no class"),
    ],
)
def test_broken_lines(tmp_path, text, message):
    root = corpus(tmp_path / "u", [LINES[0], text], files=[])
    with pytest.raises(DataError, match=message):
        read_meta(root)


def test_broken_folders(tmp_path):
    with pytest.raises(DataError, match="UrbanSound8K.csv: no such file"):
        read_meta(tmp_path)
    root = corpus(tmp_path / "a", head=HEAD.replace("fsID", "id"), files=[])
    with pytest.raises(DataError, match="csv:1: no column fsID"):
        read_meta(root)
    with pytest.raises(DataError, match="lists no slices"):
        read_meta(corpus(tmp_path / "b", [], files=[]))
    with pytest.raises(DataError, match="audio: no such folder"):
        root = corpus(tmp_path / "c", files=[])
        prepare_urbansound8k(root, tmp_path / "d", {"a": [Part(1)]}, CLASSES)
