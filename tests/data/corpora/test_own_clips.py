"""A user's own sounds: folders and tables, how they are split, and what is refused."""

import pytest

from espnet2_ext.cli import data as command
from espnet2_ext.data.corpora.own_clips import prepare, read_folder, read_sounds, split
from espnet2_ext.data.tables import read_clips, read_labels
from espnet2_ext.errors import DataError


def folder(top, counts):
    for name, n in counts.items():
        (top / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            (top / name / f"{i:03d}.wav").touch()
    return top


def table(top, text, name="list.csv"):
    (top / name).write_text(text, encoding="utf-8")
    return top / name


def clips(datadir, name):
    return list(read_clips(datadir / name / "clips.tsv"))


def test_folder_of_classes(tmp_path):
    sounds = folder(tmp_path / "s", {"dog": 20, "door bell": 10, "rain/light": 3})
    (sounds / "dog/notes.txt").touch()
    command.prepare(["own", str(sounds), "--data_dir", str(tmp_path / "data")])
    labels = read_labels(tmp_path / "data/labels.tsv")
    assert [(v.mid, v.name) for v in labels] == [("dog", "dog"), ("door_bell", "door bell"), ("rain", "rain")]
    sets = {name: clips(tmp_path / "data", name) for name in ("train", "valid", "test")}
    count = {k: [c.labels for c in v].count(("dog",)) for k, v in sets.items()}
    assert count == {"train": 16, "valid": 2, "test": 2}
    assert {len([c for c in v if c.labels == ("rain",)]) for v in sets.values()} == {1}
    ids = [c.id for v in sets.values() for c in v]
    assert len(set(ids)) == 33 and "rain-light-000" in ids and "door-bell-001" in ids
    assert len({c.source for v in sets.values() for c in v}) == 33


def test_choice_depends_on_neither_place_nor_other_classes(tmp_path):
    one = split(read_folder(folder(tmp_path / "a", {"x": 30, "y": 5})), (0.2, 0.2), 0)
    two = split(read_folder(folder(tmp_path / "b", {"x": 30, "y": 9, "z": 4})), (0.2, 0.2), 0)
    names = [{s.group for s in sets["test"] if s.labels == ("x",)} for sets in (one, two)]
    assert names[0] == names[1] and len(names[0]) == 6
    other = split(read_folder(tmp_path / "a"), (0.2, 0.2), 1)
    assert {s.group for s in other["test"] if s.labels == ("x",)} != names[0]


def test_table_with_labels_sets_and_groups(tmp_path):
    text = "path,labels,set,group\n"
    text += "".join(f"a{i}.wav,dog;bark,,g{i % 5}\n" for i in range(20))
    text += "b1.wav,cat,train,\nb2.wav,cat,valid,\n\nb3.wav,cat,test,\n"
    prepare(table(tmp_path, text), tmp_path / "data", shares=(0.2, 0.2))
    where = {c.id: (name, c) for name in ("train", "valid", "test") for c in clips(tmp_path / "data", name)}
    assert len(where) == 23
    assert [where[f"b{i}"][0] for i in (1, 2, 3)] == ["train", "valid", "test"]
    assert where["a0"][1].labels == ("dog", "bark")
    assert where["a0"][1].source == str(tmp_path / "a0.wav")
    for g in range(5):
        assert len({where[f"a{i}"][0] for i in range(g, 20, 5)}) == 1
    assert {name for name, _ in where.values()} == {"train", "valid", "test"}


def test_tab_separated_and_equal_names(tmp_path):
    rows = [f"{d}/x y.wav\t{c}" for c in ("k,1", "k 1", "k2") for d in (c + "1", c + "2", c + "3")]
    prepare(table(tmp_path, "path\tlabels\n" + "\n".join(rows), "l.tsv"), tmp_path / "data")
    assert [v.mid for v in read_labels(tmp_path / "data/labels.tsv")] == ["k_1", "k_1-2", "k2"]
    ids = [c.id for name in ("train", "valid", "test") for c in clips(tmp_path / "data", name)]
    assert len(set(ids)) == 9 and not any(" " in i for i in ids)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "list.csv:1: no column path, labels; the columns are missing"),
        ("file,labels\n", "list.csv:1: no column path; the columns are file, labels"),
        ("path,labels,colour\n", "list.csv:1: the columns are path, labels, colour; expected each once, of path,"),
        ("path,labels\na.wav\n", "list.csv:2: 1 fields where 2"),
        ("path,labels\na.wav,\n", "list.csv:2: no labels"),
        ("path,labels\n,dog\n", "list.csv:2: no path"),
        ('path,labels\n"a.wav,dog\n', "list.csv:"),
        ("path,labels,set\na.wav,dog,dev\n", "list.csv:2: set 'dev'"),
        ("path,labels\n", "no sound is named"),
        ("path,labels\na.wav,dog\na.wav,cat\n", "list.csv: duplicated path: .*a.wav"),
    ],
)
def test_broken_table_is_named_with_its_line(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        read_sounds(table(tmp_path, text))


def test_table_that_is_not_text(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"path,labels\n\xff\xfe,dog\n")
    with pytest.raises(DataError, match="x.csv: is not UTF-8"):
        read_sounds(tmp_path / "x.csv")


def test_group_in_two_sets(tmp_path):
    text = "path,labels,set,group\na.wav,dog,train,g\nb.wav,dog,test,g\n"
    with pytest.raises(DataError, match="group 'g': its sounds are in two sets, train and test"):
        split(read_sounds(table(tmp_path, text)), (0.1, 0.1), 0)


@pytest.mark.parametrize(
    "counts, words",
    [
        ({}, "no sound files in its subfolders"),
        ({"dog": 9}, "'dog' is the only class"),
        ({"dog": 2, "cat": 2}, "no sound is left for valid, test"),
    ],
)
def test_folders_that_will_not_do(tmp_path, counts, words):
    sounds = folder(tmp_path / "s", counts)
    sounds.mkdir(exist_ok=True)
    with pytest.raises(DataError, match=words):
        prepare(sounds, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_missing_folder_and_impossible_shares(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        prepare(tmp_path / "nowhere", tmp_path / "data")
    with pytest.raises(DataError, match="leave none for training"):
        prepare(folder(tmp_path, {"dog": 3, "cat": 3}), tmp_path / "data", shares=(0.5, 0.5))
