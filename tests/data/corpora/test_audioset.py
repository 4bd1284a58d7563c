"""AudioSet's lists, and audio in every shape that it comes in."""

import json
import tarfile

import h5py
import numpy as np
import pytest
from sounds import noise, write

from espnet2_ext.audio.flac import to_int16
from espnet2_ext.audio.read import read_audio
from espnet2_ext.cli import data as command
from espnet2_ext.data.bank.archive import archive, scan
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.bank.shards import Settings
from espnet2_ext.data.corpora.audioset import find_audio, prepare_audioset, read_class_labels
from espnet2_ext.data.tables import read_clips, read_labels
from espnet2_ext.errors import DataError

CLASSES = """index,mid,display_name
0,/m/09x0r,"Speech"
1,/m/05zppz,"Male speech, man speaking"
2,/m/0bt9lr,"Dog"
3,/t/dd00003,"Bow-wow"
"""
SEGMENTS = """# Segments csv created Sun Mar  5 10:54:25 2017
# num_ytids=3, num_segs=3, num_unique_labels=4, num_positive_labels=5
# YTID, start_seconds, end_seconds, positive_labels
--aE2O5G5WE, 0.000, 10.000, "/m/09x0r,/m/05zppz"
Y-aO5cdqSAg, 30.000, 40.000, "/m/0bt9lr"
0xyz_ABCDE-, 10.500, 20.500, "/t/dd00003,/m/0bt9lr"
"""
IDS = ["--aE2O5G5WE", "Y-aO5cdqSAg", "0xyz_ABCDE-"]
ONTOLOGY = [
    {"id": "/m/human", "name": "Human voice", "child_ids": ["/m/09x0r"]},
    {"id": "/m/09x0r", "name": "Speech", "child_ids": ["/m/05zppz"]},
    {"id": "/m/05zppz", "name": "Male speech", "child_ids": []},
    {"id": "/m/0bt9lr", "name": "Dog", "child_ids": ["/m/bark"]},
    {"id": "/m/bark", "name": "Bark", "child_ids": ["/t/dd00003"]},
    {"id": "/t/dd00003", "name": "Bow-wow", "child_ids": ["/m/0bt9lr"]},
]


@pytest.fixture
def lists(tmp_path):
    (tmp_path / "classes.csv").write_text(CLASSES)
    (tmp_path / "seg.csv").write_text(SEGMENTS)
    (tmp_path / "ontology.json").write_text(json.dumps(ONTOLOGY))
    return tmp_path


def prepare(top, *audio, **kw):
    prepare_audioset(top / "data", {"train": [top / "seg.csv"]}, top / "classes.csv", audio, **kw)
    return list(read_clips(top / "data" / "train" / "clips.tsv"))


def test_labels_and_ontology(lists):
    plain = read_class_labels(lists / "classes.csv")
    assert [v.mid for v in plain] == ["/m/09x0r", "/m/05zppz", "/m/0bt9lr", "/t/dd00003"]
    assert plain[1].name == "Male speech, man speaking" and plain[1].related == ()
    tree = read_class_labels(lists / "classes.csv", lists / "ontology.json")
    # 0 and 1 directly; 2 and 3 through a class that is not in the list, and round a circle
    assert [v.related for v in tree] == [(1,), (0,), (3,), (2,)]


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "WAV"])
@pytest.mark.parametrize(
    "form",
    ["{id}", "Y{id}", "{id}_{s:.3f}", "Y{id}_{s:.3f}_{e:.3f}", "{id}_{s:g}_{e:g}", "{id}_{ms}", "Y{id}_{ms}_{me}"],
)
def test_folder_of_files_under_common_names(lists, form, suffix):
    times = [(0, 10), (30, 40), (10.5, 20.5)]
    want = {}
    for n, (id_, (s, e)) in enumerate(zip(IDS, times, strict=True)):
        stem = form.format(id=id_, s=s, e=e, ms=int(s * 1000), me=int(e * 1000))
        path = lists / "audio" / f"part{n}" / f"{stem}.{suffix}"
        want[id_] = write(path, noise(200), subtype=None)
    (lists / "audio" / f"{IDS[0]}.txt").write_text("no sound")
    clips = prepare(lists, lists / "audio")
    assert {c.id: c.source for c in clips} == want
    assert clips[0].labels == ("/m/09x0r", "/m/05zppz")


def test_what_is_not_found_has_no_source(lists):
    write(lists / "audio" / "Y0xyz_ABCDE-.wav", noise(8000))
    clips = prepare(lists, lists / "audio")
    assert [bool(c.source) for c in clips] == [False, False, True]
    info = scan(lists / "data" / "train", num_workers=1, max_bad_share=0.7)
    assert info["counts"]["missing"] == 2 and info["counts"]["ok"] == 1


def test_id_with_and_without_the_leading_letter_side_by_side(lists):
    """`Y-aO5cdqSAg` is an id of its own, not `-aO5cdqSAg` with a letter."""
    a = write(lists / "audio" / "Y-aO5cdqSAg.wav", noise(200))
    b = write(lists / "audio" / "Y--aE2O5G5WE.wav", noise(200))
    clips = {c.id: c.source for c in prepare(lists, lists / "audio")}
    assert clips["Y-aO5cdqSAg"] == a and clips["--aE2O5G5WE"] == b


def test_several_segments_of_a_recording(lists):
    (lists / "seg.csv").write_text("a, 0, 10, /m/09x0r\na, 30, 40, /m/0bt9lr\n")
    write(lists / "audio" / "a.wav", noise(200))
    late = write(lists / "audio" / "a_30.000.wav", noise(200))
    clips = prepare(lists, lists / "audio")
    assert [c.id for c in clips] == ["a", "a_30000"]
    assert clips[0].source.endswith("a.wav") and clips[1].source == late
    (lists / "audio" / "a_30.000.wav").unlink()
    assert prepare(lists, lists / "audio")[1].source == ""  # the whole file may be the other one


def pack(path, ids, first=0, fs=32000, **attrs):
    with h5py.File(path, "w") as f:
        f["audio_name"] = np.array([f"Y{i}.wav".encode() for i in ids])
        f["waveform"] = np.stack([to_int16(noise(fs, first + n)) for n in range(len(ids))])
        f["target"] = np.zeros((len(ids), 4), bool)
        f.attrs.update(attrs)


def test_packed_files_to_the_bank(lists):
    (lists / "packed").mkdir()
    pack(lists / "packed" / "a.h5", IDS[:2], 0, sample_rate=32000)
    pack(lists / "packed" / "b.h5", IDS[2:], 2)
    with pytest.raises(DataError, match="b.h5: has no attribute sample_rate"):
        prepare(lists, lists / "packed")
    prepare(lists, lists / "packed", hdf5_rate=32000)
    to_bank_and_compare(lists)


def test_tar_shards_to_the_bank(lists):
    for n, id_ in enumerate(IDS):
        write(lists / f"Y{id_}.flac", noise(32000, n), 32000)
        (lists / f"Y{id_}.json").write_text("{}")
        with tarfile.open(lists / f"shard{n}.tar", "w") as tar:
            for suffix in ("json", "flac"):
                tar.add(lists / f"Y{id_}.{suffix}", f"shard/Y{id_}.{suffix}")
    clips = prepare(lists, *(lists / f"shard{n}.tar" for n in range(3)))
    assert all(c.source.startswith("tar:") for c in clips)
    assert np.array_equal(read_audio(clips[1].source)[0][:, 0], noise(32000, 1))
    to_bank_and_compare(lists)


def to_bank_and_compare(top):
    data = top / "data" / "train"
    scan(data, num_workers=1)
    archive(data, top / "dump", settings=Settings(32000), num_workers=1)
    bank = ClipBank(top / "dump")
    for n, id_ in enumerate(IDS):
        assert np.array_equal(bank.read(bank.index_of(id_)), noise(32000, n))
    assert bank.labels(bank.index_of(IDS[2])).tolist() == [2, 3]


@pytest.mark.parametrize(
    "line, message",
    [
        ("abc, 0.0, 10.0", "seg.csv:7: expected YTID"),
        ('abc, zero, 10.0, "/m/0bt9lr"', "seg.csv:7: start must be a finite number"),
        ('abc, 0, inf, "/m/0bt9lr"', "seg.csv:7: end must be a finite number"),
        ('abc, 0.0, 10.0, "/m/0bt9lr', "seg.csv:7"),
        ('abc, 10.0, 10.0, "/m/0bt9lr"', "seg.csv:7: .*end"),
        ('abc, 0.0, 10.0, ""', "seg.csv:7: .*no class"),
        ('abc, 0.0, 10.0, "/m/0bt9lr,/m/nobody"', "seg.csv:7: unknown class /m/nobody"),
        ('--aE2O5G5WE, 0.000, 10.000, "/m/0bt9lr"', "seg.csv:7: --aE2O5G5WE.*twice"),
        ("abc, 0.0, 10.0, /m/0bt9lr, /m/09x0r", "seg.csv:7: expected YTID"),
    ],
)
def test_broken_segment_line_is_named(lists, line, message):
    (lists / "seg.csv").write_text(SEGMENTS + line + "\n")
    write(lists / "audio" / f"{IDS[0]}.wav", noise(200))
    with pytest.raises(DataError, match=message):
        prepare(lists, lists / "audio")
    assert not (lists / "data").exists()


@pytest.mark.parametrize(
    "text, message",
    [
        ("index,mid\n", "classes.csv:1: no column display_name; the columns are index, mid"),
        ("index,mid,display_name\n1,/m/a,A\n", "classes.csv:2: expected 0,MID,NAME"),
        ("index,mid,display_name\n0,/m/a,A\n1,/m/a,B\n", "classes.csv:3: /m/a is listed twice"),
        ("index,mid,display_name\n", "classes.csv: no classes"),
        ('index,mid,display_name\n0,/m/a,"A\n', "classes.csv:2"),
    ],
)
def test_broken_class_list_is_named(lists, text, message):
    (lists / "classes.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_class_labels(lists / "classes.csv")


def test_files_and_folders_that_are_not_what_is_needed(lists):
    (lists / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no sound files"):
        find_audio([lists / "empty"])
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        find_audio([lists / "nowhere"])
    (lists / "empty" / "x.h5").write_bytes(b"x")
    with pytest.raises(DataError, match="x.h5: not a packed file"):
        find_audio([lists / "empty"])
    write(lists / "other" / "zzz.wav", noise(200))
    with pytest.raises(DataError, match="none of its 3 clips.*zzz"):
        prepare(lists, lists / "other")
    with pytest.raises(DataError, match="seg2.csv: no such file"):
        prepare_audioset(lists / "d", {"a": [lists / "seg2.csv"]}, lists / "classes.csv", [])
    for text in ("{", "[1]", '[{"id": "a"}]'):
        (lists / "ontology.json").write_text(text)
        with pytest.raises(DataError, match="ontology.json: (is not valid JSON|key 0)"):
            read_class_labels(lists / "classes.csv", lists / "ontology.json")


def test_what_is_found_is_counted_and_libsndfile_is_preferred(lists, caplog):
    caplog.set_level("INFO")
    for name in ("a.m4a", "a.wav", "b.webm", "c.m4a", "c.webm", "notes.txt"):
        (lists / "mixed" / name).parent.mkdir(exist_ok=True)
        (lists / "mixed" / name).touch()
    found = find_audio([lists / "mixed"])
    assert {k: v.rsplit("/")[-1] for k, v in found.items()} == {"a": "a.wav", "b": "b.webm", "c": "c.m4a"}
    assert "mixed: 2 .m4a, 1 .wav, 2 .webm" in caplog.text and "left out" in caplog.text and "1 .txt" in caplog.text


def test_entry_point(lists):
    for id_ in IDS:
        write(lists / "audio" / f"{id_}.wav", noise(200))
    command.prepare(
        [
            "audioset",
            "--audio",
            str(lists / "audio"),
            "--class_labels",
            str(lists / "classes.csv"),
            "--ontology",
            str(lists / "ontology.json"),
            "--data_dir",
            str(lists / "data"),
            "--set",
            "train",
            str(lists / "seg.csv"),
            "--set",
            "eval",
            str(lists / "seg.csv"),
        ]
    )
    assert len(list(read_clips(lists / "data" / "eval" / "clips.tsv"))) == 3
    assert read_labels(lists / "data" / "labels.tsv")[2].related == (3,)
