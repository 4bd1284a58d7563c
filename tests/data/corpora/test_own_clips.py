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
        ({".": 9}, "'s' is the only class; .* --background FOLDER"),
        ({"dog": 2, "cat": 2}, "no sound is left for valid, test"),
        ({"dog": 5, "cat": 2}, r"two classes, but valid has 1; .* \(sounds for train, valid, test: cat 2, 0, 0\)"),
    ],
)
def test_folders_that_will_not_do(tmp_path, counts, words):
    sounds = folder(tmp_path / "s", counts)
    sounds.mkdir(exist_ok=True)
    with pytest.raises(DataError, match=words):
        prepare(sounds, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_one_class_and_a_background(tmp_path, caplog):
    """A flat folder is a class; all that lies below the other is the background."""
    sounds = folder(tmp_path / "rex", {".": 12})
    folder(tmp_path / "noise", {".": 3, "street/a": 7})
    prepare(sounds, tmp_path / "data", background=tmp_path / "noise")
    assert [v.name for v in read_labels(tmp_path / "data/labels.tsv")] == ["background", "rex"]
    sets = {name: clips(tmp_path / "data", name) for name in ("train", "valid", "test")}
    for label, train in (("background", 8), ("rex", 10)):
        assert [sum(c.labels == (label,) for c in v) for v in sets.values()] == [train, 1, 1]
    assert len({c.id for v in sets.values() for c in v}) == 22
    prepare(folder(tmp_path / "s", {"dog": 5, "cat": 2}), tmp_path / "d", background=tmp_path / "noise")
    assert "classes that a set lacks (sounds for train, valid, test): cat 2, 0, 0" in caplog.text
    for name, words in (("none", "no such folder"), ("s/empty", "no sound file in this folder")):
        (tmp_path / "s/empty").mkdir(exist_ok=True)
        with pytest.raises(DataError, match=words):
            prepare(sounds, tmp_path / "d", background=tmp_path / name)


def test_missing_folder_and_impossible_shares(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        prepare(tmp_path / "nowhere", tmp_path / "data")
    with pytest.raises(DataError, match="leave none for training"):
        prepare(folder(tmp_path, {"dog": 3, "cat": 3}), tmp_path / "data", shares=(0.5, 0.5))


def found(top):
    return {(str(s.path.relative_to(top)), *s.labels, s.set) for s in read_folder(top)}


def test_folders_named_as_sets(tmp_path, caplog):
    caplog.set_level("INFO")
    top = folder(tmp_path / "s", {f"{s}/{c}": 2 for s in ("Train", "dev", "eval") for c in ("dog", "cat")})
    prepare(top, tmp_path / "data")
    assert [v.mid for v in read_labels(tmp_path / "data/labels.tsv")] == ["cat", "dog"]
    assert [c.id for c in clips(tmp_path / "data", "valid")] == [
        f"dev-{c}-00{i}" for c in ("cat", "dog") for i in (0, 1)
    ]
    assert "sets, with a folder for each class: Train (train), dev (valid), eval (test)" in caplog.text
    (top / "dev/loose.wav").touch()
    with pytest.raises(
        DataError, match=r"loose.wav: .* holds sets \(Train, dev, eval\), and this sound is in no class"
    ):
        read_folder(top)


def test_a_set_that_no_folder_gives_is_drawn(tmp_path, caplog):
    caplog.set_level("INFO")
    top = folder(tmp_path / "s", {"train/dog": 10, "train/cat": 10, "test/dog": 3, "test/cat": 3})
    prepare(top, tmp_path / "data")
    counts = [len(clips(tmp_path / "data", name)) for name in ("train", "valid", "test")]
    assert counts == [18, 2, 6] and "no set valid, drawn from train" in caplog.text


def test_a_class_may_be_called_as_a_set(tmp_path, caplog):
    top = folder(tmp_path / "s", {"train": 2, "bus": 2})
    assert {s.labels for s in read_folder(top)} == {("train",), ("bus",)} and not caplog.text
    folder(top, {"test/x": 1})
    assert ("test/x/000.wav", "test", "") in found(top) and "test is a class here" in caplog.text


def test_links_are_followed(tmp_path, caplog):
    away, top = folder(tmp_path / "away", {"a": 1, "b": 1}), folder(tmp_path / "s", {"dog": 1, "cat": 1})
    (top / "dog/session").symlink_to(away / "a")
    (top / "bell").symlink_to(away / "b")
    (top / "cat/one.wav").symlink_to(away / "a/000.wav")
    (top / "cat/again.wav").symlink_to(away / "a/000.wav")
    (top / "cat/gone.wav").symlink_to(away / "c")
    want = {("dog/000.wav", "dog", ""), ("dog/session/000.wav", "dog", ""), ("bell/000.wav", "bell", "")}
    assert found(top) == want | {("cat/000.wav", "cat", ""), ("cat/again.wav", "cat", "")}
    groups = {str(s.path.relative_to(top)): s.group for s in read_folder(top)}
    assert groups["dog/session/000.wav"] == groups["cat/again.wav"] != groups["dog/000.wav"]
    assert "'broken link': 1" in caplog.text
    (away / "a/up").symlink_to(top)
    with pytest.raises(DataError, match="up: is a link to a folder that it lies in"):
        read_folder(top)


@pytest.mark.parametrize("name, good", [("dog,animal", False), ("Bell, church", True), ("1,000 Hz", True)])
def test_a_comma_in_a_class(tmp_path, name, good):
    folder(tmp_path / "s", {name: 3, "cat": 3})
    if good:
        prepare(tmp_path / "s", tmp_path / "data")
        assert name in [v.name for v in read_labels(tmp_path / "data/labels.tsv")]
        return
    with pytest.raises(DataError, match="'dog,animal' is one class or several"):
        prepare(tmp_path / "s", tmp_path / "data")
    rows = "".join(f'{i}.wav,"{name}"\n{i}.flac,cat\n' for i in range(3))
    with pytest.raises(DataError, match="is one class or several"):
        prepare(table(tmp_path, f"path,labels\n{rows}"), tmp_path / "data")


def test_names_that_are_not_utf8(tmp_path):
    top = folder(tmp_path / "s", {"dog": 3, "cat": 3})
    (top / "dog" / "caf\udce9.wav").touch()
    with pytest.raises(DataError, match="caf.*is not UTF-8: rename the file"):
        prepare(top, tmp_path / "data")
