"""References to sounds, resampling, the archive writer."""

import errno
import tarfile

import h5py
import numpy as np
import pytest
import soundfile
from sounds import noise, write

from espnet2_ext.audio.flac import encode_flac, to_int16
from espnet2_ext.audio.read import FlacArkWriter, MissingAudio, read_audio, read_mono, resample, tar_members
from espnet2_ext.errors import DataError
from espnet2_ext.util.tables import read_scp


def test_path_whole_and_crop(tmp_path):
    x = noise(2000).reshape(1000, 2)
    ref = write(tmp_path / "a.wav", x, 8000)
    y, fs = read_audio(ref)
    assert fs == 8000 and y.dtype == np.float32 and np.array_equal(y, x)
    assert np.array_equal(read_audio(ref, 100, 50)[0], x[100:150])
    assert np.array_equal(read_audio(ref, 990, 50)[0], x[990:])  # fewer, not padded
    assert read_audio(ref, 5000)[0].shape == (0, 2)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_formats(tmp_path, suffix):
    x = noise(16000)
    soundfile.write(tmp_path / f"a.{suffix}", x, 16000)
    y, fs = read_audio(tmp_path / f"a.{suffix}")
    assert fs == 16000 and y.shape == (16000, 1)


def test_mono_is_the_mean(tmp_path):
    x = noise(3000).reshape(1000, 3)
    y = read_mono(write(tmp_path / "a.wav", x))
    assert np.allclose(y, x.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("fs", [8000, 16000, 32000, 44100, 48000])
def test_resampled_tone_keeps_pitch_and_level(fs):
    x = np.sin(2 * np.pi * 440 * np.arange(fs) / fs).astype(np.float32)
    y = resample(x, fs, 32000)
    want = np.sin(2 * np.pi * 440 * np.arange(32000) / 32000)
    assert y.dtype == np.float32 and abs(len(y) - 32000) <= 1
    assert np.abs(y[2000:30000] - want[2000:30000]).max() < 1e-3
    both = resample(np.stack([x, -x], 1), fs, 32000)
    assert np.array_equal(both[:, 0], y) and np.array_equal(both[:, 1], -y)


def test_tar_by_name_and_by_place(tmp_path):
    x = noise(1600)
    write(tmp_path / "a.flac", x)
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(tmp_path / "a.flac", "x/a.flac")
    [(name, offset, size)] = tar_members(tmp_path / "s.tar")
    for ref in (f"tar:{tmp_path}/s.tar#x/a.flac", f"tar:{tmp_path}/s.tar#{name}@{offset}+{size}"):
        assert np.array_equal(read_audio(ref)[0][:, 0], x)
    with pytest.raises(MissingAudio, match="x/b.flac"):
        read_audio(f"tar:{tmp_path}/s.tar#x/b.flac")
    with pytest.raises(DataError, match="s.tar.*changed"):
        read_audio(f"tar:{tmp_path}/s.tar#{name}@{offset + 512}+{size}")
    with pytest.raises(MissingAudio, match="none.tar"):
        read_audio(f"tar:{tmp_path}/none.tar#x")


def test_compressed_tar_is_refused(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w:gz"):
        pass
    with pytest.raises(DataError, match="s.tar: not an uncompressed tar"):
        tar_members(tmp_path / "s.tar")


def test_hdf5_rows(tmp_path):
    x = to_int16(noise(2000).reshape(2, 1000))
    with h5py.File(tmp_path / "p.h5", "w") as f:
        f["waveform"], f["audio_name"] = x, [b"Ya.wav", b"Yb.wav"]
    with pytest.raises(DataError, match="p.h5.*sample_rate"):
        read_audio(f"hdf5:{tmp_path}/p.h5#0")
    y, fs = read_audio(f"hdf5:{tmp_path}/p.h5#1@16000", 100, 200)
    assert fs == 16000 and np.array_equal(y[:, 0] * 32768, x[1, 100:300])
    with pytest.raises(MissingAudio, match="has 2 rows"):
        read_audio(f"hdf5:{tmp_path}/p.h5#2@16000")


def test_what_cannot_be_read_names_the_file(tmp_path):
    with pytest.raises(MissingAudio, match="none.wav: no such file"):
        read_audio(tmp_path / "none.wav")
    (tmp_path / "bad.wav").write_bytes(b"RIFF nothing that follows is sound")
    with pytest.raises(DataError, match="bad.wav: cannot be decoded"):
        read_audio(tmp_path / "bad.wav")
    data = encode_flac(to_int16(noise(50000)), 16000)
    (tmp_path / "cut.flac").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="cut.flac"):
        read_audio(tmp_path / "cut.flac")
    nan = write(tmp_path / "nan.wav", np.array([0, np.nan], np.float32), subtype="FLOAT")
    with pytest.raises(DataError, match="nan.wav: holds NaN"):
        read_mono(nan)


def test_flac_stream_without_length_is_read_to_its_end(tmp_path):
    x = noise(9000)
    data = bytearray(encode_flac(to_int16(x), 16000))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(data)
    assert np.array_equal(read_audio(tmp_path / "a.flac")[0][:, 0], x)


def test_archive_writer_and_table(tmp_path, caplog):
    sounds = {"a": noise(500, 1), "b": noise(700, 2), "c": np.array([0.5, 1.5, -2], np.float32)}
    with FlacArkWriter(tmp_path, "spk1", 16000) as w:
        for key, x in sounds.items():
            w.write(key, x)
        assert not list(tmp_path.glob("spk1*"))  # nothing under the final names before the end
    assert w.clipped == 1 and "1 sounds clipped" in caplog.text
    table = read_scp(tmp_path / "spk1.scp")
    assert list(table) == list(sounds)
    for key in "ab":
        y, fs = read_audio(table[key])
        assert fs == 16000 and np.array_equal(y[:, 0], sounds[key])
    assert np.array_equal(read_audio(table["b"], 100, 50)[0][:, 0], sounds["b"][100:150])
    with pytest.raises(DataError, match="no sound at this offset"):
        read_audio(f"{tmp_path}/spk1.ark:3")


def test_archive_is_read_by_espnet(tmp_path):
    from espnet2.train.dataset import kaldi_loader

    with FlacArkWriter(tmp_path, "spk1", 16000) as w:
        w.write("a", noise(500, 1))
        w.write("b", noise(700, 2))
    loader = kaldi_loader(str(tmp_path / "spk1.scp"), float_dtype="float32")
    assert np.array_equal(loader["a"], noise(500, 1)) and np.array_equal(loader["b"], noise(700, 2))
    assert loader.rate == 16000


@pytest.mark.parametrize("key, x", [("a", [0.1]), ("x y", [0.1]), ("", [0.1]), ("n", [np.nan])])
def test_archive_writer_refuses_and_leaves_nothing(tmp_path, key, x):
    with pytest.raises(DataError, match="spk1.ark"), FlacArkWriter(tmp_path, "spk1", 16000) as w:
        w.write("a", noise(100))
        w.write(key, np.array(x, np.float32))
    assert not list(tmp_path.iterdir())


def test_broken_table_names_the_line(tmp_path):
    (tmp_path / "x.scp").write_text("a 1.wav\nb\n")
    with pytest.raises(DataError, match="x.scp:2"):
        read_scp(tmp_path / "x.scp")
    (tmp_path / "x.scp").write_text("a 1.wav\na 2.wav\n")
    with pytest.raises(DataError, match="x.scp:2"):
        read_scp(tmp_path / "x.scp")
    with pytest.raises(DataError, match="none.scp"):
        read_scp(tmp_path / "none.scp")


def test_archive_of_24_bits_keeps_what_16_bits_round_away(tmp_path):
    x = (np.random.default_rng(0).uniform(-0.01, 0.01, 4000)).astype("f4")
    errors = {}
    for bits in (16, 24):
        with FlacArkWriter(tmp_path / str(bits), "spk1", 16000, bits) as w:
            w.write("a", x)
        got, fs = read_audio(read_scp(tmp_path / str(bits) / "spk1.scp")["a"])
        assert fs == 16000
        errors[bits] = np.abs(got[:, 0] - x).max()
    assert errors[16] > 2.0**-17 and errors[24] <= 2.0**-24


def test_too_many_open_files_are_no_fault_of_a_sound(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    soundfile.write(tmp_path / "a.wav", np.zeros(800), 8000)
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(OSError, match="Too many"):
        read_audio(tmp_path / "a.wav")
