"""Holding clips out for validation."""

import pytest

from espnet2_ext.bin.hold_out import main
from espnet2_ext.data.corpora.split import hold_out, position
from espnet2_ext.data.tables import Clip, read_clips, write_clips
from espnet2_ext.errors import DataError


def whole(top, ids):
    write_clips(top / "whole/clips.tsv", [Clip(i, ("/m/1",), f"{i}.wav") for i in ids])
    return top / "whole", top / "train", top / "valid"


def ids(folder):
    return [c.id for c in read_clips(folder / "clips.tsv")]


def test_every_clip_is_on_one_side_in_the_order_of_the_list(tmp_path):
    names = [f"clip{i}" for i in range(400)]
    folders = whole(tmp_path, names)
    main([*map(str, folders), "--share", "0.25"])
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
