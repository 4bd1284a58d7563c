"""What every corpus gets: its commands, lists, and clips held out for validation."""

import textwrap

import pytest

from espnet2_ext.cli import data as command
from espnet2_ext.cli import main as main_command
from espnet2_ext.data import corpora
from espnet2_ext.data.corpora import corpus as module
from espnet2_ext.data.corpora.corpus import CORPORA, find_corpus, hold_out, position, write_lists
from espnet2_ext.data.tables import Clip, read_clips, read_labels, write_clips
from espnet2_ext.errors import DataError


def whole(top, ids):
    write_clips(top / "whole/clips.tsv", [Clip(i, ("/m/1",), f"{i}.wav") for i in ids])
    return top / "whole", top / "train", top / "valid"


def ids(folder):
    return [c.id for c in read_clips(folder / "clips.tsv")]


def test_every_clip_is_on_one_side_in_the_order_of_the_list(tmp_path):
    names = [f"clip{i}" for i in range(400)]
    folders = whole(tmp_path, names)
    command.hold_out([*map(str, folders), "--share", "0.25"])
    train, held = map(ids, folders[1:])
    assert sorted(train + held) == sorted(names) and not set(train) & set(held)
    assert 70 < len(held) < 130 and train == [n for n in names if n in set(train)]


def test_segments_of_a_recording_stay_together():
    assert position("--4gqARaEJE") == position("--4gqARaEJE_30000") != position("--4gqARaEJF")
    assert position("abcde_12345") == position("abcde_12345_30000") != position("abcde_67890")
    assert position("abc", seed=1) != position("abc")


def test_a_clip_stays_on_its_side_when_the_list_grows(tmp_path):
    folders = whole(tmp_path, [f"c{i}" for i in range(100)])
    hold_out(*folders, share=0.2)
    before = set(ids(folders[2]))
    folders = whole(tmp_path, [f"c{i}" for i in range(150)])
    hold_out(*folders, share=0.2)
    assert before == {i for i in ids(folders[2]) if int(i[1:]) < 100}


def test_at_most_so_many(tmp_path):
    folders = whole(tmp_path, [f"c{i}" for i in range(1000)])
    assert hold_out(*folders, share=0.5, most=50)[1] < 80


def test_bad_input(tmp_path):
    folders = whole(tmp_path, ["one"])
    with pytest.raises(DataError, match="it must lie between 0 and 1"):
        hold_out(*folders, share=1.0)
    with pytest.raises(DataError, match="whole/clips.tsv: of its 1 clips none is left for"):
        hold_out(*folders, share=0.5)
    with pytest.raises(DataError, match="nothing/clips.tsv: no such file"):
        hold_out(tmp_path / "nothing", *folders[1:], share=0.5)


# --- a new corpus


# the code in the module's docstring, as a file of its own
NEW = """
from pathlib import Path
from espnet2_ext.data.corpora.corpus import Corpus, Step, counted, named_labels, write_lists
from espnet2_ext.data.tables import Clip
from espnet2_ext.util.tables import read_table

""" + textwrap.dedent("\n".join(v for v in module.__doc__.splitlines() if v.startswith("    ") or not v))


def test_a_new_corpus_is_one_file_and_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "new_corpus.py").write_text(NEW)
    rows = [f"c{n}.wav,{('dog', 'rain_drops')[n % 2]},{'test' if n % 5 == 0 else 'train_all'}" for n in range(50)]
    (tmp_path / "meta.csv").write_text("file,class,set\n" + "\n".join(rows) + "\n")
    monkeypatch.setattr(corpora, "__path__", [*corpora.__path__, str(tmp_path)])
    monkeypatch.setitem(CORPORA, "new", "new_corpus")
    data = tmp_path / "data"
    command.prepare(["new", "--root", str(tmp_path), "--data_dir", str(data), "--hold_out", "0.3"])
    told = capsys.readouterr().out.splitlines()
    train, valid = ids(data / "train"), ids(data / "valid")
    assert told == [
        "train_all: 40 clips, test: 10 clips",
        f"{data / 'train'}: {len(train)} clips, {data / 'valid'}: {len(valid)} clips",
    ]
    assert sorted(train + valid) == sorted(ids(data / "train_all")) and len(ids(data / "test")) == 10
    assert [(v.mid, v.name) for v in read_labels(data / "labels.tsv")] == [("dog", "dog"), ("rain_drops", "rain drops")]
    (tmp_path / "meta.csv").write_text("file,class\nc0.wav,dog\n")
    with pytest.raises(DataError, match="meta.csv:1: no column set; the columns are file, class"):
        command.prepare(["new", "--root", str(tmp_path), "--data_dir", str(data)])
    with pytest.raises(DataError, match="corpus new: nothing is embedded in its layout"):
        command.make_mini(["new"])


@pytest.mark.parametrize("name", CORPORA)
def test_every_corpus_has_commands_with_help(name, capsys):
    with pytest.raises(SystemExit) as end:
        command.prepare([name, "--help"])
    told = capsys.readouterr().out
    assert end.value.code == 0 and f"usage: espnet2-ext prepare {name}" in told
    assert main_command.find(f"prepare-{name}") == f"espnet2_ext.cli.data:prepare {name}"
    if find_corpus(name).embedded:
        with pytest.raises(SystemExit):
            command.make_mini([name, "--help"])
        assert f"--out OUT             folder (downloads/mini_{name})" in capsys.readouterr().out


def test_unknown_corpus(capsys):
    with pytest.raises(SystemExit):
        command.prepare(["esc", "--esc50", "x"])
    assert "invalid choice: 'esc'" in capsys.readouterr().err


def test_a_set_without_clips_writes_nothing(tmp_path):
    with pytest.raises(DataError, match="set test: no clip is in it"):
        write_lists(tmp_path / "data", [], {"train": [Clip("a", (), "a.wav")], "test": []})
    assert not (tmp_path / "data").exists()
