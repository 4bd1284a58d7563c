"""What a scan says of good and bad sounds, when it stops, and when it has nothing to do."""

import functools
import hashlib
import json
import pickle

import numpy as np
import pytest
from sounds import LABELS, corpus, noise, snapshot, write

from espnet2_ext.audio.flac import encode_flac, to_int16
from espnet2_ext.cli.data import scan as main
from espnet2_ext.data.bank import shards as module
from espnet2_ext.data.bank.archive import scan
from espnet2_ext.data.bank.shards import Level, Limits, examine
from espnet2_ext.data.tables import Clip, ClipRows, read_manifest, write_clips, write_labels
from espnet2_ext.errors import DataError

ONE = functools.partial(scan, num_workers=1)


def look(ref, **limits):
    return examine(Clip("id", ("/m/dog",), str(ref)), Limits(**limits))


@pytest.mark.parametrize("fs", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_good_clip_of_any_rate_and_channels(tmp_path, fs, channels):
    x = noise(fs * channels).reshape(fs, channels)
    e = look(write(tmp_path / "a.wav", x, fs))
    assert (e.status, e.rate, e.channels, e.samples) == ("ok", fs, channels, fs)
    pcm = to_int16(x).astype("<i2").tobytes()
    assert e.hash == hashlib.blake2b(pcm, digest_size=16).hexdigest()
    assert e.labels == ("/m/dog",) and e.detail == ""


def test_bad_clips(tmp_path):
    x, tiny = noise(16000), noise(16000, level=1e-3)
    nan = x.copy()
    nan[777] = np.nan
    inf = x.copy()
    inf[777] = np.inf
    flac = encode_flac(to_int16(x), 16000)
    (tmp_path / "cut.flac").write_bytes(flac[: len(flac) // 2])
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("not a sound\twith a tab\n")
    cases = {
        "missing": ["", tmp_path / "none.wav", f"tar:{tmp_path}/none.tar#a"],
        "corrupt": [
            tmp_path / "cut.flac",
            tmp_path / "empty.wav",
            tmp_path / "text.wav",
            write(tmp_path / "nan.wav", nan, subtype="FLOAT"),
            write(tmp_path / "inf.wav", inf, subtype="FLOAT"),
            write(tmp_path / "none_in_it.wav", x[:0]),
        ],
        "short": [write(tmp_path / "short.wav", x[:7999])],
        "silent": [
            write(tmp_path / "zeros.wav", 0 * x),
            write(tmp_path / "dc.wav", 0 * x + 0.5),
            write(tmp_path / "tiny.wav", tiny * 0.1),
            write(tmp_path / "against.wav", np.stack([x, -x], 1)),
        ],
    }
    for status, refs in cases.items():
        for ref in refs:
            e = look(ref)
            assert e.status == status, (ref, e)
            assert e.detail and "\t" not in e.detail
    assert look(tmp_path / "short.wav", min_seconds=0.4).status == "ok"
    assert look(tmp_path / "tiny.wav", silence_db=-120).status == "ok"


def test_a_short_sound_in_a_long_silence_is_not_silent(tmp_path):
    x = np.zeros(160000, np.float32)
    x[-900:] = noise(900)
    assert look(write(tmp_path / "a.wav", x)).status == "ok"


def loudest_db(x, fs):
    level = Level(fs)
    assert np.array_equal(level.add(x[:, None]), x)
    return level.loudest_db()


def test_level_by_hand():
    x = np.zeros(1000, np.float32)
    x[:100:2], x[1:100:2] = 0.5, -0.5
    assert loudest_db(x, 1000) == pytest.approx(10 * np.log10(0.25), abs=1e-4)
    assert loudest_db(x[:101], 1000) == pytest.approx(10 * np.log10(0.25), abs=1e-3)
    assert loudest_db(np.ones(5, np.float32), 1000) == pytest.approx(-120)


@pytest.mark.parametrize("offset", [0, 0.3, -0.99])
@pytest.mark.parametrize("samples", [30, 100, 12345, 200000])
def test_level_by_blocks_is_that_of_the_whole(samples, offset):
    x = (offset + noise(2 * samples, samples, 0.01)).astype(np.float32).reshape(-1, 2)
    level = Level(1000)
    for block in np.array_split(x, 7):
        level.add(block)
    mono = (x[:, 0] + x[:, 1]) / np.float32(2)
    mono = mono - mono.mean(dtype=np.float64).astype("f4")
    hop = min(100, samples)
    rows = np.pad(mono, (0, -samples % hop)).reshape(-1, hop).astype(np.float64)
    want = 10 * np.log10((rows**2).sum(1).max() / hop + 1e-12)
    assert level.loudest_db() == pytest.approx(want, abs=1e-4)
    assert level.samples == samples and level.peak == np.abs(x).max()
    for margin in (2.9, -0.1, -3.1):  # dB above the limit: what is called loud is above it
        level = Level(1000, want - margin)
        for block in np.array_split(x, 7):
            level.add(block)
        assert margin > 0 or not level.is_loud


def test_a_sound_is_loud_whatever_follows():
    x = np.zeros((300, 1), np.float32)
    x[100:200:2], x[101:200:2] = 0.5, -0.5
    level = Level(1000, -10)
    level.add(x[:150])
    assert not level.is_loud  # no whole 100 ms of it yet
    level.add(x[150:])
    assert level.is_loud and Level(1000, -10).is_loud is False
    level.add(np.full((100, 1), 0.9, np.float32))
    assert level.samples == 400 and level.peak == np.float32(0.9)
    steady = Level(1000, -10)
    steady.add(x * 0 + np.float32(0.9))
    assert not steady.is_loud  # 100 ms have no level without their mean


def test_manifest_and_second_run(tmp_path, monkeypatch):
    data = corpus(tmp_path, 6)
    info = ONE(data)
    assert info["counts"] == {"ok": 6, "missing": 0, "short": 0, "silent": 0, "corrupt": 0}
    rows = list(read_manifest(data / "manifest.tsv"))
    assert [e.id for e in rows] == [f"c{n:03d}" for n in range(6)]
    assert rows[1].labels == ("/m/dog", "/m/pet") and rows[2].samples == 9634
    before = snapshot(data)
    monkeypatch.setattr(module, "map_parts", None)  # a call would fail
    assert ONE(data) == info and snapshot(data) == before
    assert set(before) == {"clips.tsv", "manifest.tsv", "manifest.json"}


def test_changed_list_limits_and_redo_scan_again(tmp_path):
    data = corpus(tmp_path, 6)
    first = ONE(data)["manifest_hash"]
    assert ONE(data, limits=Limits(min_seconds=0.602), max_bad_share=1)["counts"]["short"] == 2
    write(tmp_path / "audio" / "c003.wav", noise(16000, 99))
    assert ONE(data)["manifest_hash"] != first  # limits went back to the default: scanned again
    write(tmp_path / "audio" / "c004.wav", noise(16000, 99))
    second = ONE(data)["manifest_hash"]
    assert ONE(data, redo=True)["manifest_hash"] != second


def test_hash_does_not_depend_on_the_place(tmp_path):
    a, b = corpus(tmp_path / "a", 4), corpus(tmp_path / "b", 4)
    assert ONE(a)["manifest_hash"] == ONE(b)["manifest_hash"]
    assert (a / "manifest.tsv").read_text() != (b / "manifest.tsv").read_text()


def test_too_many_bad_clips_stop_it_after_the_manifest(tmp_path):
    data = corpus(tmp_path, 10)
    (tmp_path / "audio" / "c001.wav").unlink()
    (tmp_path / "audio" / "c002.wav").write_bytes(b"x")
    assert ONE(data)["counts"]["ok"] == 8
    (tmp_path / "audio" / "c003.wav").unlink()
    with pytest.raises(DataError, match="3 of 10 clips.*missing 2, corrupt 1.*0.2"):
        ONE(data, redo=True)
    assert [e.status for e in read_manifest(data / "manifest.tsv")].count("missing") == 2
    with pytest.raises(DataError, match="3 of 10"):  # not scanned again, and not forgotten
        ONE(data)
    assert ONE(data, max_bad_share=0.3)["counts"]["missing"] == 2


def test_goes_on_where_it_stopped(tmp_path, monkeypatch):
    data = corpus(tmp_path / "a", 6)
    looked = []

    def stop_at(clip, *how, at):
        if clip.id == at:
            raise KeyboardInterrupt
        looked.append(clip.id)
        return examine(clip, *how)

    monkeypatch.setattr(module, "examine", functools.partial(stop_at, at="c004"))
    with pytest.raises(KeyboardInterrupt):
        ONE(data, part_size=2)
    assert not (data / "manifest.tsv").exists() and looked == ["c000", "c001", "c002", "c003"]
    monkeypatch.setattr(module, "examine", functools.partial(stop_at, at=None))
    ONE(data, part_size=2)
    assert looked[4:] == ["c004", "c005"]
    whole = corpus(tmp_path / "b", 6)
    monkeypatch.undo()
    assert ONE(whole)["manifest_hash"] == json.loads((data / "manifest.json").read_text())["manifest_hash"]


def test_rows_are_places_in_their_file(tmp_path):
    clips = [Clip(f"{n * 7 % 100:03d}é", ("/m/dog",) * (n % 3), "x" * n) for n in range(100)]
    write_clips(tmp_path / "clips.tsv", clips)
    rows = ClipRows(tmp_path / "clips.tsv")
    assert len(rows) == 100 and list(rows) == sorted(clips)
    part = pickle.loads(pickle.dumps(rows[40:60]))
    assert part.first == 40 and list(part[5:7]) == sorted(clips)[45:47] and part[5:7].first == 45
    assert len(pickle.dumps(rows[:64])) - len(pickle.dumps(rows[:32])) == 32 * 8
    write_clips(tmp_path / "clips.tsv", clips[1:])
    with pytest.raises(DataError, match="clips.tsv: changed meanwhile; run again"):
        list(part)


def test_broken_lists_name_file_and_line(tmp_path):
    with pytest.raises(DataError, match="clips.tsv: no such file"):
        ONE(tmp_path)
    path = tmp_path / "clips.tsv"
    for text, message in [
        ("id\tlabels\n", "clips.tsv:1: expected the columns"),
        ("id\tlabels\tsource\na\t/m/dog\n", "clips.tsv:2: 2 fields"),
        ("id\tlabels\tsource\na\tm\tx\na\tm\ty\n", "clips.tsv:3: id 'a'"),
        ("id\tlabels\tsource\na b\tm\tx\n", "clips.tsv:2: id 'a b'"),
        ("id\tlabels\tsource\n", "clips.tsv: no clips"),
    ]:
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            ONE(tmp_path)


def test_entry_point(tmp_path):
    data = corpus(tmp_path, 3)
    main([str(data), "--num_workers", "1", "--min_seconds", "0.1"])
    assert (data / "manifest.json").exists()
    write_clips(tmp_path / "data" / "none" / "clips.tsv", [Clip("a", ("/m/dog",), "")])
    write_labels(tmp_path / "data" / "labels.tsv", LABELS)
    with pytest.raises(DataError, match="1 of 1 clips"):
        main([str(tmp_path / "data" / "none"), "--num_workers", "1"])
