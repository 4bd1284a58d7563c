"""The archive step: what it stores, how it resumes, what a kill or a full disk leaves."""

import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from sounds import corpus, noise, snapshot, write

from espnet2_ext.audio.flac import to_int16
from espnet2_ext.audio.read import read_audio, read_mono, resample
from espnet2_ext.cli import data as command
from espnet2_ext.cli.data import archive as main
from espnet2_ext.data.bank import archive as module
from espnet2_ext.data.bank import shards
from espnet2_ext.data.bank.archive import archive, scan
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.bank.shards import Settings, envelope_db, scan_part
from espnet2_ext.data.tables import Clip, read_clips, read_manifest, write_clips
from espnet2_ext.errors import DataError
from espnet2_ext.util.tables import read_scp

SMALL = Settings(16000, "flac", 3)


def scanned(top, num=12, **kw):
    data = corpus(top, num, **kw)
    scan(data, num_workers=1, max_bad_share=1)
    return data


def go(data, out, settings=SMALL, **kw):
    return archive(data, out, settings=settings, **{"num_workers": 1} | kw)


def contents(folder):
    return {name: data for name, (_, data) in snapshot(folder).items()}


@pytest.mark.parametrize("fs", [8000, 16000, 44100, 48000])
def test_resampled_mono_and_16_bit(tmp_path, fs):
    data = corpus(tmp_path, 2, fs=fs, seconds=1)
    both = np.stack([noise(fs, 5), noise(fs, 6)], 1)
    write(tmp_path / "audio" / "c001.wav", both, fs)
    scan(data, num_workers=1)
    go(data, tmp_path / "bank", Settings(32000))
    bank = ClipBank(tmp_path / "bank")
    want = to_int16(resample(both.mean(axis=1), fs, 32000))
    assert np.abs(bank.read(1) * 32768 - want).max() <= 1
    assert abs(bank.num_samples(1) - 32000) <= 1 and bank.fs == 32000


def test_info_and_only_good_clips(tmp_path):
    data = corpus(tmp_path, 5)
    (tmp_path / "audio" / "c002.wav").unlink()
    found = scan(data, num_workers=1)
    info = go(data, tmp_path / "bank")
    assert (
        info.items()
        >= {
            "fs": 16000,
            "format": "flac",
            "clips": 4,
            "classes": 3,
            "max_samples": 9600 + 68,
            "manifest_hash": found["manifest_hash"],
            "version": 1,
            "clipped": 0,
        }.items()
    )
    assert info["seconds"] == round((4 * 9600 + 17 * (0 + 1 + 3 + 4)) / 16000, 3)
    bank = ClipBank(tmp_path / "bank")
    assert [bank.id(i) for i in range(4)] == ["c000", "c001", "c003", "c004"]


def test_rows_are_in_order_of_the_ids_bytes(tmp_path):
    data = corpus(tmp_path, 4)
    ids = ["é", "-b", "_a", "B"]
    clips = [c._replace(id=i) for c, i in zip(read_clips(data / "clips.tsv"), ids, strict=True)]
    write_clips(data / "clips.tsv", clips)
    scan(data, num_workers=1)
    go(data, tmp_path / "bank")
    bank = ClipBank(tmp_path / "bank")
    assert [bank.id(i) for i in range(4)] == ["-b", "B", "_a", "é"]
    assert np.array_equal(bank.read(bank.index_of("é")), noise(9600, 0))


def test_table_is_read_by_espnet_and_by_us(tmp_path):
    from espnet2.train.dataset import kaldi_loader

    go(scanned(tmp_path), tmp_path / "bank")
    table = read_scp(tmp_path / "bank" / "wav.scp")
    bank = ClipBank(tmp_path / "bank")
    theirs = kaldi_loader(str(tmp_path / "bank" / "wav.scp"), float_dtype="float32")
    assert list(table) == [bank.id(i) for i in range(12)] == sorted(table)
    for i, (key, ref) in enumerate(table.items()):
        assert np.array_equal(theirs[key], bank.read(i)) and theirs.rate == 16000
        assert np.array_equal(read_audio(ref, 50, 99)[0][:, 0], bank.read(i, 50, 99))
        assert np.array_equal(read_mono(ref), bank.read(i))


def test_full_scale_is_clipped_and_counted(tmp_path):
    data = corpus(tmp_path, 2)
    write(tmp_path / "audio" / "c001.wav", np.full(9600, 1.5, np.float32) * noise(9600, level=1), subtype="FLOAT")
    scan(data, num_workers=1)
    assert go(data, tmp_path / "bank")["clipped"] == 1
    assert np.abs(ClipBank(tmp_path / "bank").read(1)).max() <= 1


def test_envelope_by_hand():
    pcm = np.zeros(450, np.int16)
    pcm[100:200] = 16384  # -6.02 dB
    pcm[400:] = 32767
    assert envelope_db(pcm, 1000).tolist() == [0, 114, 0, 0, 120]
    assert len(envelope_db(np.ones(11026, np.int16), 11025)) == 11  # segments of 1102.5 samples


def test_second_run_does_nothing_and_changes_start_anew(tmp_path):
    data, out = scanned(tmp_path), tmp_path / "bank"
    info = go(data, out)
    before = snapshot(out)
    assert go(data, out) == info and snapshot(out) == before
    assert go(data, out, Settings(16000, "flac")) == info and snapshot(out) == before
    assert not any(name.startswith(".parts") for name in before)
    pcm = go(data, out, Settings(16000, "pcm16", 6))
    names = set(snapshot(out))
    assert pcm["format"] == "pcm16" and {"audio.00000.pcm", "audio.00001.pcm"} <= names
    assert not any(n.endswith(".ark") or n == "wav.scp" for n in names)
    assert np.array_equal(ClipBank(out).read(7), noise(9600 + 119, 7))
    clips = list(read_clips(data / "clips.tsv"))
    write_clips(data / "clips.tsv", clips[:4])
    scan(data, num_workers=1)
    assert go(data, out)["clips"] == 4 and len(ClipBank(out)) == 4


def test_shard_sizes():
    sizes = {n: Settings().sized(n).clips_per_shard for n in (1, 1000, 20_000, 2_000_000)}
    assert sizes == {1: 16, 1000: 16, 20_000: 313, 2_000_000: 4096}
    assert Settings(clips_per_shard=7).sized(10**6).clips_per_shard == 7


def test_number_of_workers_does_not_matter(tmp_path):
    data = scanned(tmp_path)
    go(data, tmp_path / "a")
    go(data, tmp_path / "b", num_workers=3)
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert a.pop("wav.scp") != b.pop("wav.scp")  # the paths in it
    assert a == b


@pytest.mark.parametrize("format", ["flac", "pcm16"])
def test_one_pass_is_scan_and_archive(tmp_path, format, monkeypatch):
    """The same manifest and bank, each clip decoded once; of bad clips some fill a whole shard."""
    data, settings = corpus(tmp_path), Settings(16000, format, 3)
    clips = list(read_clips(data / "clips.tsv"))
    write_clips(data / "clips.tsv", clips[7:] + clips[:7])  # not in order of the ids
    for n, x in ((1, noise(100)), (6, noise(100)), (7, 0 * noise(9600))):
        write(tmp_path / "audio" / f"c{n:03d}.wav", x)
    (tmp_path / "audio" / "c008.wav").unlink()
    found = scan(data, num_workers=1, max_bad_share=1)
    manifest, record = (data / "manifest.tsv").read_bytes(), (data / "manifest.json").read_bytes()
    assert [e.id for e in read_manifest(data / "manifest.tsv")] == [c.id for c in clips[7:] + clips[:7]]
    info = go(data, tmp_path / "two" / "set", settings)
    assert info["clips"] == 8 and not (tmp_path / "two" / "set" / ".parts").exists()
    opened = []
    monkeypatch.setattr(shards, "open_sound", lambda ref, real=shards.open_sound: opened.append(ref) or real(ref))
    out = tmp_path / "one" / "set"
    assert scan(data, num_workers=1, max_bad_share=1, redo=True, bank=out, settings=settings) == found
    out = out.rename(tmp_path / "moved")  # what the scan has stored lies in it
    assert go(data, out, settings) == info and sorted(opened) == sorted(c.source for c in clips)
    assert (data / "manifest.tsv").read_bytes() == manifest and (data / "manifest.json").read_bytes() == record
    one, two = contents(out), contents(tmp_path / "two" / "set")
    for bank in (one, two):
        bank.pop("bank.json"), bank.pop("wav.scp", None)  # the paths in it
    assert one == two
    bank = ClipBank(out)
    assert [bank.id(i) for i in range(8)] == [f"c{n:03d}" for n in (0, 2, 3, 4, 5, 9, 10, 11)]
    assert all(np.array_equal(bank.read(i), noise(9600 + 17 * n, n)) for i, n in ((1, 2), (5, 9)))


def test_too_many_bad_clips_leave_no_bank_and_are_not_decoded_again(tmp_path, monkeypatch):
    data, out = scanned(tmp_path), tmp_path / "bank"
    go(data, out)
    for n in (3, 5):
        (tmp_path / "audio" / f"c{n:03d}.wav").unlink()
    one_pass = {"num_workers": 1, "bank": out, "settings": SMALL}
    with pytest.raises(DataError, match="2 of 12 clips"):
        scan(data, max_bad_share=0.1, redo=True, **one_pass)
    with pytest.raises(DataError, match="bank.json: no such file"):
        ClipBank(out)
    monkeypatch.setattr(shards, "examine", None)  # a call would fail
    scan(data, max_bad_share=0.2, **one_pass)
    assert go(data, out)["clips"] == 10 and not [n for n in contents(out) if n.startswith(".")]
    with pytest.raises(TypeError):
        scan(data, max_bad_share=0.2, redo=True, **one_pass)


def test_another_rate_than_that_of_the_scan_is_made_anew(tmp_path):
    data = corpus(tmp_path, 4)
    scan(data, num_workers=1, bank=tmp_path / "bank", settings=Settings(8000, "flac"))
    assert go(data, tmp_path / "bank")["fs"] == 16000
    assert np.array_equal(ClipBank(tmp_path / "bank").read(0), noise(9600, 0))


@pytest.mark.parametrize("step", ["scan", "archive"])
def test_kill_in_the_middle_then_again(tmp_path, step):
    """Killed (no clean-up) within a shard: no bank is there; the next run is bit-identical."""
    data = scanned(tmp_path)
    go(data, tmp_path / "bank")
    whole = contents(tmp_path / "bank")
    (tmp_path / "bank").rename(tmp_path / "whole")
    made, call = ".scan", f"scan({str(data)!r}, redo=True, bank={str(tmp_path / 'bank')!r}"
    if step == "archive":
        made, call = ".parts", f"archive({str(data)!r}, {str(tmp_path / 'bank')!r}"
    code = f"""
        import os, signal, sys
        from espnet2_ext.data.bank import shards as module
        from espnet2_ext.data.bank.archive import archive, scan
        from espnet2_ext.data.bank.shards import Settings
        real, calls = module.examine, []
        def examine(*args):
            calls.append(args)
            if len(calls) == 8:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args)
        module.examine = examine
        {call}, num_workers=1, settings=Settings(16000, "flac", 3))
    """
    child = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.DEVNULL)
    assert child.returncode == -signal.SIGKILL
    with pytest.raises(DataError, match="bank.json: no such file"):
        ClipBank(tmp_path / "bank")
    left = snapshot(tmp_path / "bank")
    assert {"audio.00000.ark", "audio.00001.ark", f"{made}/000001"} <= set(left)
    assert any(".tmp-" in name for name in left)
    scan(data, num_workers=1, bank=tmp_path / "bank", settings=SMALL)
    go(data, tmp_path / "bank")
    assert contents(tmp_path / "bank") == whole
    after = snapshot(tmp_path / "bank")
    assert after["audio.00001.ark"] == left["audio.00001.ark"]  # not made twice
    go(data, tmp_path / "bank")
    assert snapshot(tmp_path / "bank") == after


def test_a_damaged_part_is_made_anew_by_the_next_run(tmp_path):
    data, out = corpus(tmp_path), tmp_path / "bank"
    scan(data, num_workers=1, bank=out, settings=SMALL)
    part = out / ".parts" / "000001"
    part.write_bytes(bytes([*part.read_bytes()[:-60]]))
    with pytest.raises(DataError, match=r"000001: is not a whole .npz file .*run again"):
        go(data, out)
    assert go(data, out)["clips"] == 12


def slow_part(items, path, **kw):
    time.sleep(0.2)
    scan_part(items, path, **kw)


def test_dask_cluster_that_loses_a_worker(tmp_path, monkeypatch):
    """Two workers, one killed in the middle: nothing lost, nothing twice, bit-identical."""
    distributed = pytest.importorskip("distributed")
    data, out = scanned(tmp_path), tmp_path / "bank"
    go(data, out)
    whole = contents(out)
    out.rename(tmp_path / "whole")
    monkeypatch.setattr(shards, "scan_part", slow_part)
    monkeypatch.chdir(tmp_path)  # the workers are elsewhere; relative paths must still hold
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        victim = next(iter(cluster.workers.values())).pid
        killer = threading.Thread(target=kill_when_busy, args=(victim, out))
        killer.start()
        info = go(data, "bank", Settings(16000, "flac", 1), scheduler=cluster.scheduler_address)
        killer.join()
    assert info["clips"] == 12
    bank = ClipBank(out)
    assert [bank.id(i) for i in range(12)] == [f"c{n:03d}" for n in range(12)]
    assert all(np.array_equal(bank.read(n), noise(9600 + 17 * n, n)) for n in range(12))
    assert sorted(p.name for p in out.glob("audio.*")) == [f"audio.{n:05d}.ark" for n in range(12)]
    for name in ("ids.npy", "envelope.npy", "clips.indices.npy"):
        assert contents(out)[name] == whole[name]


def kill_when_busy(pid, out):
    while not list(out.glob("audio.*")):
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)


def test_full_disk(tmp_path, monkeypatch):
    """The write fails in the third shard: the error names it, two shards stay, no bank is there."""
    data = scanned(tmp_path)
    real, calls = shards.encode_flac, []

    class Full(bytes):
        def __radd__(self, head):
            raise OSError(errno.ENOSPC, "No space left on device")

    def encode(pcm, fs):
        calls.append(fs)
        return Full() if len(calls) == 8 else real(pcm, fs)

    monkeypatch.setattr(shards, "encode_flac", encode)
    with pytest.raises(OSError, match="No space left"):
        go(data, tmp_path / "bank")
    left = {n for n in snapshot(tmp_path / "bank") if "lock" not in n and "plan" not in n}
    assert left == {"audio.00000.ark", "audio.00001.ark", ".parts/000000", ".parts/000001"}
    monkeypatch.undo()
    go(data, tmp_path / "bank")
    assert len(ClipBank(tmp_path / "bank")) == 12


def test_file_size_limit_ends_the_command_plainly(tmp_path):
    """The system itself refuses the write, in worker processes: message, status 1, nothing half."""
    data = scanned(tmp_path)
    out = tmp_path / "bank"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "espnet2_ext",
            "archive",
            str(data),
            str(out),
            *"--fs 16000 --clips_per_shard 6 --num_workers 2".split(),
        ],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)),
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert ": File too large" in done.stderr and "audio.0000" in done.stderr
    assert not [n for n in snapshot(out) if "lock" not in n and "plan" not in n]


def test_a_sound_that_changed_since_the_scan(tmp_path):
    data = scanned(tmp_path)
    write(tmp_path / "audio" / "c004.wav", noise(9600, 77))
    with pytest.raises(DataError, match="c004.*changed since the scan: scan again"):
        go(data, tmp_path / "bank")
    (tmp_path / "audio" / "c004.wav").unlink()
    with pytest.raises(DataError, match="c004.wav: no such file"):
        go(data, tmp_path / "bank")
    scan(data, num_workers=1, redo=True)
    assert go(data, tmp_path / "bank")["clips"] == 11


def test_a_shard_taken_away_is_made_anew(tmp_path, monkeypatch):
    data, out = scanned(tmp_path), tmp_path / "bank"

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_write_classes", stop)
    with pytest.raises(KeyboardInterrupt):
        go(data, out)
    monkeypatch.undo()
    (out / "audio.00002.ark").unlink()
    with pytest.raises(DataError, match="audio.00002.ark: was removed"):
        go(data, out)
    assert go(data, out)["clips"] == 12 and len(ClipBank(out)) == 12


def test_bad_input_names_the_file(tmp_path):
    with pytest.raises(DataError, match="manifest.tsv: no such file"):
        go(tmp_path, tmp_path / "bank")
    data = corpus(tmp_path, 2)
    write_clips(data / "clips.tsv", [Clip("a", ("/m/dog",), "")])
    scan(data, num_workers=1, max_bad_share=1)
    with pytest.raises(DataError, match="manifest.tsv: no clip is ok"):
        go(data, tmp_path / "bank")
    corpus(tmp_path, 2)
    clips = [c._replace(labels=("/m/cat",)) for c in read_clips(data / "clips.tsv")]
    write_clips(data / "clips.tsv", clips)
    scan(data, num_workers=1)
    with pytest.raises(DataError, match="labels.tsv: clip c000 has the unknown class /m/cat"):
        go(data, tmp_path / "bank")
    with pytest.raises(DataError, match="mp3"):
        Settings(format="mp3")


def test_entry_point(tmp_path):
    data = scanned(tmp_path, 3)
    storage = ["--fs", "8000", "--format", "pcm16", "--num_workers", "1"]
    main([str(data), str(tmp_path / "bank"), *storage])
    assert ClipBank(tmp_path / "bank").fs == 8000
    command.scan([str(data), "--redo", "--dump", str(tmp_path / "dump"), *storage])
    assert (tmp_path / "dump" / "set" / ".parts" / "000000").exists()
    main([str(data), str(tmp_path / "dump" / "set"), *storage])
    assert ClipBank(tmp_path / "dump" / "set").fs == 8000
