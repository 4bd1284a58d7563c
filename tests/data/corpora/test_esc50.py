"""ESC-50's layout: folds, classes, what is missing or broken."""

import pytest
from sounds import noise, write

from espnet2_ext.cli import data as command
from espnet2_ext.data.corpora.esc50 import prepare_esc50
from espnet2_ext.data.tables import read_clips, read_labels
from espnet2_ext.errors import DataError

HEAD = "filename,fold,target,category,esc10,src_file,take\n"
LINES = [
    "1-100-A-0.ogg,1,0,dog,True,100,A",
    "2-101-A-12.wav,2,12,crackling_fire,True,101,A",
    "3-102-B-12.wav,3,12,crackling_fire,True,102,B",
    "4-103-A-0.wav,4,0,dog,True,103,A",
]


def esc50(top, lines=LINES, head=HEAD):
    (top / "meta").mkdir(parents=True)
    (top / "meta" / "esc50.csv").write_text(head + "\n".join(lines) + "\n")
    for line in LINES[:-1]:
        write(top / "audio" / line.split(",")[0], noise(800), subtype=None)
    return top


def test_sets_by_fold(tmp_path):
    root = esc50(tmp_path / "esc")
    out = tmp_path / "data"
    command.prepare(
        ["esc50", "--esc50", str(root), "--set", "train", "1", "2", "--set", "test", "4", "--data_dir", str(out)]
    )
    labels = [(v.index, v.mid, v.name, v.related) for v in read_labels(out / "labels.tsv")]
    assert labels == [(0, "dog", "dog", ()), (1, "crackling_fire", "crackling fire", ())]
    train = list(read_clips(out / "train" / "clips.tsv"))
    assert [c.id for c in train] == ["1-100-A-0", "2-101-A-12"]
    assert train[0].source == str(root / "audio" / "1-100-A-0.ogg")
    assert train[1].labels == ("crackling_fire",)
    [test] = read_clips(out / "test" / "clips.tsv")
    assert test.source == ""  # listed, not there: the scan calls it missing


@pytest.mark.parametrize(
    "sets, message",
    [
        ({"train": [1], "test": [1]}, "fold 1 is in the sets train and test"),
        ({"train": [5]}, "fold 5 of set train"),
        ({"train": []}, "set train: no folds"),
    ],
)
def test_folds_are_checked(tmp_path, sets, message):
    with pytest.raises(DataError, match=message):
        prepare_esc50(esc50(tmp_path / "esc"), tmp_path / "data", sets)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "line, message",
    [
        ("1-1-A-0.wav,x,0,dog,True,1,A", "esc50.csv:3: fold must be a whole number"),
        ("1-1-A-0.wav,1", "esc50.csv:3: 2 fields where 7"),
        (",1,0,dog,True,1,A", "esc50.csv:3: no filename or no category"),
        ("1-1-A-0.wav,1,0,cat,True,1,A", "esc50.csv:3: target 0 has two names"),
        ("1-1-A-0.wav,1,0,dog,True,1,A,more", "esc50.csv:3: 8 fields where 7"),
    ],
)
def test_broken_line_is_named(tmp_path, line, message):
    root = esc50(tmp_path / "esc", [LINES[0], line])
    with pytest.raises(DataError, match=message):
        prepare_esc50(root, tmp_path / "data", {"train": [1]})


def test_folders_that_are_not_there(tmp_path):
    with pytest.raises(DataError, match="esc50.csv: no such file"):
        prepare_esc50(tmp_path / "none", tmp_path / "data", {"train": [1]})
    root = esc50(tmp_path / "esc")
    (root / "audio").rename(root / "sounds")
    with pytest.raises(DataError, match="audio: no such folder"):
        prepare_esc50(root, tmp_path / "data", {"train": [1]})
    with pytest.raises(DataError, match="no column category"):
        prepare_esc50(esc50(tmp_path / "b", head="filename,fold,target\n"), tmp_path / "d", {})
    with pytest.raises(DataError, match="lists no clips"):
        prepare_esc50(esc50(tmp_path / "c", lines=[]), tmp_path / "d", {})
