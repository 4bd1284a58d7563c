"""`validate-data`: everything that is wrong with one's own tables, or with prepared folders."""

import numpy as np
import pytest
from own_tables import EVENTS, FRAMES, GOOD, table
from sounds import noise, write

from espnet2_ext.cli import data as command
from espnet2_ext.cli import main as cli
from espnet2_ext.data.mixtures.from_recordings import make_own_table
from espnet2_ext.errors import DataError


def validated(capsys, *args):
    """Exit status and lines of the command."""
    try:
        cli.main(["validate-data", *map(str, args), "--num_workers", "1"])
        status = 0
    except SystemExit as e:
        status = e.code
    out = capsys.readouterr()
    err = [line for line in out.err.splitlines() if line and "recordings: " not in line]
    return status, out.out.splitlines(), err


def test_good_tables(recordings, capsys):
    more = FRAMES + "r9.wav,0.2,1.605,cat,valid\nr10.wav,0,1,dog,test\n"
    status, out, err = validated(capsys, table(GOOD), table(more, "events.csv"))
    assert (status, err) == (0, [])
    assert out == [
        "9 recordings (5 with clip labels, 4 with frame labels), 14.4 s",
        "class cat: in 6 recordings, 2.2 s marked",
        "class dog: in 7 recordings, 3.0 s marked",
        "nothing is wrong with it",
    ]


def test_everything_that_is_wrong_is_said_at_once(recordings, capsys):
    x = noise(25600)
    x[100] = np.nan
    here = recordings
    write(here / "nan.wav", x, subtype="FLOAT")
    (here / "text.wav").write_text("no sound")
    write(here / "quiet.wav", np.zeros(25600))
    (here / "cut.wav").write_bytes((here / "r1.wav").read_bytes()[:-6000])
    clips = GOOD + "none.wav,dog,train\nnan.wav,cat,train\ntext.wav,cat,train\nr7.wav,cow,train\n"
    clips += "quiet.wav,cat,train\nr0.wav,dog,train\ncut.wav,dog,train\n"
    frames = FRAMES + "r9.wav,1.7,1.8,dog,train\nr9.wav,0.2,1.7,dog,train\n"
    status, out, err = validated(capsys, table(clips), table(frames, "events.csv"), "--classes", "dog", "cat", "mouse")
    assert status == 1 and err[-1] == "error: 8 problems, see above"
    said = "\n".join(err)
    for text in (
        "clips.csv:7: " + str(here / "none.wav") + ": no such file",
        "clips.csv:8: " + str(here / "nan.wav") + ": holds NaN or infinity",
        "clips.csv:9: " + str(here / "text.wav") + ": cannot be decoded",
        "clips.csv:10: unknown class 'cow'; the classes are dog, cat, mouse",
        "clips.csv:12: r0.wav is listed already, see clips.csv:2",
        "events.csv:5: onset 1.7 s is past the end of the recording, 1.600 s",
        "events.csv:6: offset 1.7 s is past the end of the recording, 1.600 s",
        "classes: class 'mouse' never occurs in the set train",
    ):
        assert text in said
    notes = [line for line in out if line.startswith("note: ")]
    assert any("clips.csv:11: " in n and "quiet.wav is silent" in n for n in notes)
    assert any("clips.csv:13: " in n and "cut.wav: header and file size disagree" in n for n in notes)
    assert any("class 'mouse' never occurs in the set test" in n for n in notes)


@pytest.mark.parametrize(
    "lines, words, fatal",
    [
        (
            "r0.wav,0,1,dog,train\nr0.wav,0.995,1.6,dog,train\nr1.wav,0,1.6,dog,valid\nr2.wav,0,1.595,dog,test\n",
            "class 'dog' is active all the time in every recording",
            True,
        ),
        (
            "r0.wav,0,1,dog,train\nr1.wav,0,1.6,dog,valid\nr2.wav,0,1.6,dog,test\n",
            "class 'dog' is in every recording, so that it cannot be learned from clip labels",
            False,
        ),
    ],
)
def test_classes_that_are_always_active(recordings, capsys, lines, words, fatal):
    status, out, err = validated(capsys, table(EVENTS + lines, "events.csv"))
    assert status == int(fatal) and any(words in line for line in (err if fatal else out))


def test_prepared_folders(banked, capsys):
    make_own_table("data/train", "dump/train", "data/train/mixtures")
    folders = ["data/train", "dump/train", "data/train/mixtures"]
    status, out, err = validated(capsys, *folders)
    assert (status, err) == (0, []) and out == [
        "data/train: 6 clips",
        "dump/train: a bank of 6 clips at 16000 Hz, 2 classes",
        "data/train/mixtures: 6 mixtures of cat, dog",
        "nothing is wrong with it",
    ]
    with open("data/train/clips.tsv", "a") as f:
        f.write("r0\tcow\tr0.wav\n")
    with open("data/train/mixtures/mixtures.tsv", "a") as f:
        f.write("r0.0000\t12800\tclip\n")
    status, out, err = validated(capsys, *folders, ".")
    assert status == 1 and len(err) == 4
    assert err[0].startswith("data/train/clips.tsv:8: id 'r0' is empty, has a blank, or is duplicated")
    assert err[1].startswith("data/train/mixtures/mixtures.tsv:8: id 'r0.0000'")
    assert err[2] == ".: holds none of bank.json, mixtures.tsv, clips.tsv"


def test_the_command_on_its_own(recordings, capsys):
    with pytest.raises(DataError, match="1 problem, see above"):
        command.validate_data([table(GOOD + "r7.wav,,train\n"), "--num_workers", "1"])
    assert "clips.csv:7: no label" in capsys.readouterr().err
