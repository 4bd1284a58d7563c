"""The bank against the sounds that it was made of."""

import json
import os
import pickle

import numpy as np
import pytest
import torch
from sounds import LABELS, corpus, noise

from espnet2_ext.data.bank.archive import archive, scan
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.bank.shards import Settings
from espnet2_ext.errors import DataError
from espnet2_ext.util.files import read_record, write_record

NUM, FS = 12, 16000


def make(top, format="flac", clips_per_shard=5):
    data = corpus(top, NUM, FS)
    scan(data, num_workers=1)
    settings = Settings(FS, format, clips_per_shard)
    archive(data, top / "bank", settings=settings, num_workers=1)
    return top / "bank"


@pytest.fixture(scope="module", params=["flac", "pcm16"])
def folder(request, tmp_path_factory):
    return make(tmp_path_factory.mktemp(request.param), request.param)


def clip(n):
    return noise(int(FS * 0.6) + 17 * n, n)


def test_tables(folder):
    bank = ClipBank(folder)
    assert (len(bank), bank.fs, bank.num_classes) == (NUM, FS, 3) and bank.classes == LABELS
    assert [bank.id(i) for i in range(NUM)] == [f"c{n:03d}" for n in range(NUM)]
    assert all(bank.index_of(bank.id(i)) == i for i in range(NUM))
    assert bank.num_samples(3) == 9600 + 51
    assert bank.labels(0).tolist() == [1] and bank.labels(1).tolist() == [0, 2]
    assert bank.clips_of(1).tolist() == [0, 3, 6, 9]
    assert bank.clips_of(0).tolist() == bank.clips_of(2).tolist() == [1, 2, 4, 5, 7, 8, 10, 11]
    want = np.eye(3, dtype=bool)
    want[0, 2] = want[2, 0] = True
    assert np.array_equal(bank.related, want)
    for name in ("c00", "c0000", "d000", "", "\0"):
        with pytest.raises(DataError, match="no clip"):
            bank.index_of(name)


def test_reads_are_exact(folder):
    bank, rng = ClipBank(folder), np.random.default_rng(0)
    for n in range(NUM):
        x = clip(n)
        assert np.array_equal(bank.read(n), x)
        start = int(rng.integers(0, len(x)))
        num = int(rng.integers(0, 2000))
        want = np.pad(x[start : start + num], (0, max(0, start + num - len(x))))
        y = bank.read(n, start, num)
        assert y.dtype == np.float32 and np.array_equal(y, want)
    assert np.array_equal(bank.read(0, 10**6, 7), np.zeros(7))
    assert np.array_equal(bank.read(-1), clip(NUM - 1))
    with pytest.raises(IndexError):
        bank.read(NUM)
    with pytest.raises(ValueError):
        bank.read(0, -1)


def test_envelope_within_half_a_db(folder):
    bank = ClipBank(folder)
    x = clip(5).astype(np.float64)
    want = [np.mean(x[k : k + 1600] ** 2) for k in range(0, len(x), 1600)]
    env = bank.envelope(5)
    assert env.dtype == np.float32 and len(env) == len(want) == 7
    assert np.abs(10 * np.log10(env / want)).max() <= 0.51


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_pickle_and_fork(folder):
    bank = ClipBank(folder)
    bank.read(0)
    other = pickle.loads(pickle.dumps(bank))
    assert len(pickle.dumps(bank)) < 2000
    assert np.array_equal(other.read(4, 100, 50), bank.read(4, 100, 50))
    pid = os.fork()
    if pid == 0:
        os._exit(0 if np.array_equal(bank.read(7), clip(7)) else 1)
    assert os.waitpid(pid, 0)[1] == 0 and np.array_equal(bank.read(0), clip(0))


class Crops(torch.utils.data.Dataset):
    def __init__(self, bank):
        self.bank = bank

    def __len__(self):
        return len(self.bank)

    def __getitem__(self, i):
        return torch.from_numpy(self.bank.read(i, 200, 3000))


def test_in_a_spawned_loader_worker(folder):
    if ClipBank(folder).info["format"] != "flac":
        pytest.skip("once is enough: a worker imports torch")
    loader = torch.utils.data.DataLoader(
        Crops(ClipBank(folder)), num_workers=1, batch_size=NUM, multiprocessing_context="spawn"
    )
    [batch] = list(loader)
    assert np.array_equal(batch.numpy(), np.stack([clip(n)[200:3200] for n in range(NUM)]))


def test_many_shards_do_not_exhaust_descriptors(folder, monkeypatch):
    monkeypatch.setattr("espnet2_ext.data.bank.bank._OPEN_SHARDS", 1)
    bank = ClipBank(folder)
    before = len(os.listdir("/proc/self/fd"))
    for n in range(NUM):
        assert np.array_equal(bank.read(n), clip(n))
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_memory_is_flat(folder):
    """What a process holds of its own are small tables; all others are maps of files."""
    bank = ClipBank(folder)
    assert all(not array.flags.owndata for array in bank._tables.values())
    assert all(not array.flags.writeable for array in bank._tables.values())


@pytest.fixture
def copy(tmp_path):
    return make(tmp_path)


def test_a_bank_that_is_not_whole_is_refused(copy):
    record, info = copy / "bank.json", read_record(copy / "bank.json")
    record.unlink()
    with pytest.raises(DataError, match="bank.json: no such file"):
        ClipBank(copy)
    record.write_text("{")
    with pytest.raises(DataError, match="bank.json"):
        ClipBank(copy)
    for broken in (info | {"version": 0}, info | {"format": "mp3"}, {"version": 1}):
        write_record(record, broken)
        with pytest.raises(DataError, match="bank.json"):
            ClipBank(copy)
    write_record(record, info | {"clips": 11})
    with pytest.raises(DataError, match="does not fit"):
        ClipBank(copy)


def flip(path, at=None, bit=3):
    """Flip one bit, in the middle by default; the time stays, as when a disk does it."""
    data, stat = bytearray(path.read_bytes()), path.stat()
    data[len(data) // 2 if at is None else at] ^= 1 << bit
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("format", ["flac", "pcm16"])
def test_a_flipped_bit_in_a_table_is_named(tmp_path, format):
    bank = make(tmp_path, format)
    names = [p.name for p in bank.glob("*.npy")] + ["labels.tsv", "bank.json"]
    assert ("seek.npy" if format == "flac" else "sums.npy") in names
    for name in names:
        whole = (bank / name).read_bytes()
        for at in (0, len(whole) // 2, len(whole) - 2):
            flip(bank / name, at)
            with pytest.raises(DataError, match=name):
                ClipBank(bank)
            (bank / name).write_bytes(whole)
    ClipBank(bank)


def test_a_flipped_bit_in_a_pcm16_shard_is_named_by_the_crops_that_hold_it(tmp_path):
    bank = ClipBank(make(tmp_path, "pcm16"))
    n, x = 7, bank.read(7)
    shard, offset, nbytes, samples = bank._index[n].item()
    path = tmp_path / f"bank/audio.{shard:05d}.pcm"
    for at in (0, 1, 5000, samples - 1):
        flip(path, offset + 2 * at + at % 2)
        for start, num in ((0, samples), (max(at - 50, 0), 60), (at, 1)):
            with pytest.raises(DataError, match=rf"{path.name}: clip c007: changed since .*bank.json first"):
                bank.read(n, start, num)
        far = 0 if at > 9000 else samples - 100
        assert np.array_equal(bank.read(n, far, 100), x[far : far + 100])
        flip(path, offset + 2 * at + at % 2)
    assert np.array_equal(bank.read(n), x)


def test_a_flipped_bit_in_a_flac_shard_is_named(tmp_path):
    bank = ClipBank(make(tmp_path))
    shard, offset, nbytes, samples = bank._index[7].item()
    x, silent = bank.read(7), []
    for at in [*range(8, 42), *range(130, nbytes, nbytes // 40)]:
        flip(tmp_path / f"bank/audio.{shard:05d}.ark", offset + at, at % 8)
        for start, num in ((0, samples), (5000, 3000)):
            try:
                silent += [at] * (not np.array_equal(bank.read(7, start, num), x[start : start + num]))
            except DataError as e:
                assert f"audio.{shard:05d}.ark: clip c007" in str(e)
        flip(tmp_path / f"bank/audio.{shard:05d}.ark", offset + at, at % 8)
    assert not silent


@pytest.mark.parametrize("format", ["flac", "pcm16"])
def test_a_bank_of_an_earlier_version_has_no_checksums(tmp_path, format):
    path = make(tmp_path, format)
    info = read_record(path / "bank.json")
    if format == "pcm16":
        assert info.pop("summed")
        (path / "sums.npy").unlink()
    (path / "bank.json").write_text(json.dumps(info))
    bank = ClipBank(path)
    assert np.array_equal(bank.read(3), clip(3)) and np.array_equal(bank.read(3, 4000, 900), clip(3)[4000:4900])
    before = (path / "bank.json").stat().st_mtime_ns
    archive(tmp_path / "data/set", path, settings=Settings(FS, format, 5), num_workers=1)
    assert (path / "bank.json").stat().st_mtime_ns == before  # it is up to date


def test_archive_makes_a_changed_table_again(copy, caplog):
    whole = (copy / "envelope.npy").read_bytes()
    flip(copy / "envelope.npy")
    archive(copy.parent / "data/set", copy, settings=Settings(FS, "flac", 5), num_workers=1)
    assert (copy / "envelope.npy").read_bytes() == whole and "envelope.npy: changed since" in caplog.text


@pytest.mark.parametrize("name", ["index.npy", "ids.npy", "envelope.npy", "clips.indices.npy"])
def test_a_missing_or_cut_table_is_named(copy, name):
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[:-9])
    with pytest.raises(DataError, match=name):
        ClipBank(copy)
    (copy / name).unlink()
    with pytest.raises(DataError, match=name):
        ClipBank(copy)


def test_a_cut_or_damaged_shard_is_named(copy):
    shard = copy / "audio.00001.ark"
    data = shard.read_bytes()
    shard.write_bytes(data[:-1])
    with pytest.raises(DataError, match="audio.00001.ark: missing or cut off"):
        ClipBank(copy)
    middle = len(data) // 10
    shard.write_bytes(data[:middle] + bytes(200) + data[middle + 200 :])
    with pytest.raises(DataError, match="audio.00001.ark: clip c005"):
        ClipBank(copy).read(5)
