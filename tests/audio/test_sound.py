"""The opener of sound: read to its end whatever its header says, refused with the reason, limits."""

import contextlib
import os
import re
import struct
import sys
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
from sounds import noise, write

import espnet2_ext
from espnet2_ext.audio.files import SUFFIXES, sound_files
from espnet2_ext.audio.read import MissingAudio, open_sound, read_audio
from espnet2_ext.audio.sound import scale_note
from espnet2_ext.audio.streams import open_source
from espnet2_ext.data.bank.shards import Limits, examine
from espnet2_ext.data.tables import Clip
from espnet2_ext.errors import DataError

FS = 16000
X = noise(2 * FS)


def encoded(path: Path, fs: int = FS, x: np.ndarray = X, **how) -> bytes:
    soundfile.write(path, x, fs, **how)
    return path.read_bytes()


def without_xing(data: bytes) -> bytes:
    """An MP3 of 16 or 22.05 kHz without its first frame, which counts the others."""
    rate = (22050, 24000, 16000)[data[2] >> 2 & 3]
    kbits = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)[data[2] >> 4]
    size = 72000 * kbits // rate + (data[2] >> 1 & 1)
    assert b"Xing" in data[:size] or b"Info" in data[:size]
    return data[size:]


def scan(path: Path):
    return examine(Clip("x", (), str(path)), Limits())


def put(data: bytes, at: int, code: str, value: int) -> bytes:
    return data[:at] + struct.pack(code, value) + data[at + struct.calcsize(code) :]


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> dict[str, bytes]:
    """Files as encoders leave them."""
    top = tmp_path_factory.mktemp("whole")
    return {
        "wav": encoded(top / "a.wav"),
        "flac": encoded(top / "a.flac"),
        "ogg": encoded(top / "a.ogg"),
        "mp3": encoded(top / "a.mp3", bitrate_mode="VARIABLE", compression_level=0.4),
        "cbr": encoded(top / "b.mp3", bitrate_mode="CONSTANT", compression_level=0.6),
        "aiff": encoded(top / "a.aiff"),
        "au": encoded(top / "a.au"),
        "caf": encoded(top / "a.caf"),
        "rf64": encoded(top / "b.wav", format="RF64"),
        "adpcm": encoded(top / "c.wav", subtype="IMA_ADPCM"),
        "slow.ogg": encoded(top / "b.ogg", 8000),
    }


def test_what_was_read_rightly_is_read_as_libsndfile_does(sounds, tmp_path):
    for name in ("wav", "flac", "ogg", "mp3", "cbr", "aiff", "au", "caf", "rf64", "adpcm"):
        path = tmp_path / f"a.{'mp3' if name == 'cbr' else name}"
        path.write_bytes(sounds[name])
        sound = open_sound(path)
        with soundfile.SoundFile(path) as f:
            want = f.read(dtype="float32", always_2d=True)
        assert sound.notes == [] and sound.frames == len(want), name
        assert np.array_equal(read_audio(path)[0], want), name
        assert scan(path).detail == ""


def cases(sounds: dict[str, bytes]) -> dict[str, tuple[bytes, int, str]]:
    """Name -> bytes, samples that they hold, and what is noted."""
    wav, flac, ogg, mp3 = (sounds[k] for k in ("wav", "flac", "ogg", "mp3"))
    n, data = len(X), wav.find(b"data") + 4
    bare, id3 = without_xing(mp3), b"ID3\x03\0\0\0\0\x01\0" + bytes(128)
    frames = -(-(n + 1105) // 576) * 576
    caf = sounds["caf"].find(b"data") + 4
    end = sounds["ogg"].rfind(b"OggS")
    return {
        "bare.mp3": (bare, frames, ""),
        "bare_cbr.mp3": (without_xing(sounds["cbr"]), frames, ""),
        "joined.mp3": (mp3 + mp3, 2 * n, "holds"),
        "joined_bare.mp3": (bare + bare, 2 * frames, ""),
        "joined_tags.mp3": (id3 + mp3 + bytes(500) + id3 + bare + b"TAG" + bytes(125), 2 * n, "holds"),
        "junk.mp3": (bytes(5000) + bare, frames, ""),
        "cut.mp3": (bare[: len(bare) // 2], frames * 2 // 5, "truncated"),
        "chained.ogg": (ogg + ogg, 2 * n, "joined of 2"),
        "cut.ogg": (ogg[:end], n * 4 // 5, "truncated"),
        "joined.flac": (flac + flac, 2 * n, "joined of 2"),
        "unknown.flac": (put(flac, 22, ">I", 0), n, ""),
        "few.flac": (put(flac, 22, ">I", 9999), n, "its last frame ends"),
        "zero.wav": (put(wav, data, "<I", 0), n, ""),
        "endless.wav": (put(wav, data, "<I", 0xFFFFFFFF), n, ""),
        "small.wav": (put(wav, data, "<I", 40000), 20000, "24000 bytes that"),
        "cut.wav": (wav[: len(wav) // 2], n // 2 - 22, "truncated"),
        "chunk.wav": (wav + b"LIST\x04\0\0\0abcd", n, ""),
        "id3.wav": (id3 + put(wav, data, "<I", 0), n, ""),
        "zero.rf64": (put(sounds["rf64"], sounds["rf64"].find(b"ds64") + 16, "<q", 0), n, ""),
        "zero.au": (put(sounds["au"], 8, ">I", 0), n, ""),
        "streamed.au": (put(sounds["au"], 8, ">I", 0x7FFFFFFF), n, ""),
        "endless.caf": (put(sounds["caf"], caf, ">q", -1), n, ""),
        "cut.caf": (sounds["caf"][:-20000], n - 10000, "truncated"),
        "zero.adpcm": (put(sounds["adpcm"], sounds["adpcm"].find(b"data") + 4, "<I", 0), n, ""),
        "small.aiff": (put(sounds["aiff"], sounds["aiff"].find(b"SSND") + 4, ">I", 40008), 20000, "follow the sound"),
    }


def test_sound_is_read_to_its_end_or_told(sounds, tmp_path):
    for name, (data, least, note) in cases(sounds).items():
        path = tmp_path / name
        path.write_bytes(data)
        x, fs = read_audio(path)
        assert fs == FS and least <= len(x) <= least * 1.1 + 5000, (name, len(x), least)
        sound = open_sound(path)
        assert np.array_equal(np.concatenate(list(sound.blocks())), x), name
        assert sound.frames == len(x), name
        assert np.array_equal(read_audio(path, len(x) - 500, 900)[0], x[-500:]) or path.suffix == ".mp3", name
        assert note in " ".join(sound.notes) if note else not sound.notes, (name, sound.notes)
        entry = scan(path)
        assert (entry.status, entry.samples, entry.detail) == ("ok", len(x), "; ".join(sound.notes)), name


def test_the_same_sound_comes_out_of_a_mended_header(sounds, tmp_path):
    for name in ("few.flac", "unknown.flac", "zero.wav", "zero.rf64", "zero.au", "streamed.au", "endless.caf"):
        (tmp_path / name).write_bytes(cases(sounds)[name][0])
        assert np.array_equal(read_audio(tmp_path / name)[0][:, 0], X), name
    (tmp_path / "j.flac").write_bytes(sounds["flac"] * 2)
    assert np.array_equal(read_audio(tmp_path / "j.flac")[0][:, 0], np.tile(X, 2))


def test_notes_are_logged_with_the_file(sounds, tmp_path, caplog):
    (tmp_path / "cut.wav").write_bytes(sounds["wav"][:30000])
    open_source(tmp_path / "cut.wav")
    assert "cut.wav: header and file size disagree" in caplog.text and "0.94 s are read" in caplog.text


@pytest.mark.parametrize("sizes", [(1 << 32) + 80000, (1 << 32) + 71])
def test_a_wav_above_4_gb_is_read_to_its_end(tmp_path, sizes):
    """Its sizes have wrapped, or say that there is no end. The file is sparse."""
    path = Path(write(tmp_path / "a.wav", X[:100]))
    for claimed in (sizes % (1 << 32), 0xFFFFFFFF):
        path.write_bytes(put(path.read_bytes(), 40, "<I", claimed))
        with open(path, "r+b") as f:
            f.truncate(44 + sizes)
            f.seek(44 + sizes // 2 * 2 - 200)
            f.write((X[:100] * 32768).astype("<i2").tobytes())
        sound = open_sound(path)
        assert sound.frames == sizes // 2
        assert np.array_equal(sound.read(sound.frames - 100)[:, 0], X[:100])
        with open(path, "r+b") as f:
            f.truncate(244)


def refused(sounds: dict[str, bytes]) -> dict[str, tuple[bytes, str]]:
    wav, rate = sounds["wav"], 24
    return {
        "slow1.wav": (put(wav, rate, "<I", 1), "its header says 1 Hz; sound of 1000 to 768000 Hz"),
        "slow2.wav": (put(wav, rate, "<I", 2), "its header says 2 Hz"),
        "slow10.wav": (put(wav, rate, "<I", 10), "its header says 10 Hz"),
        "fast.wav": (put(wav, rate, "<I", 2**31 - 1), "its header says 2147483647 Hz"),
        "wide.wav": (put(put(wav, 22, "<H", 300), 32, "<H", 600), "its header says 300 channels; 1 to 256"),
        "none.wav": (put(wav, 22, "<H", 0), "cannot be decoded"),
        "long.flac": (put(sounds["flac"], 21, ">B", sounds["flac"][21] | 15), "up to 7 days"),
        "cut.flac": (sounds["flac"][:20000], "damaged at"),
        "cut_xing.mp3": (sounds["mp3"][:5000], "it ends there; its header says 2.00 s"),
        "kinds.ogg": (sounds["ogg"] + sounds["slow.ogg"], "different rates"),
        "empty.wav": (b"", "is empty"),
        "noise.mp3": (np.random.default_rng(0).bytes(9000), "not a known format"),
        "zeros.mp3": (bytes(100000) + wav, "not a known format"),
        "noise.m4a": (np.random.default_rng(0).bytes(9000), "not a known format"),
        "cut.m4a": (b"\0\0\0\x18ftypM4A \0\0\0\0", "cannot be decoded"),
        "text.raw": (b"no sound", "cannot be decoded"),
        "playlist.m4a": (b"#EXTM3U\n/etc/passwd\n", "not a known format"),
    }


def test_refused_with_the_reason_by_scan_and_separate_alike(sounds, tmp_path):
    for name, (data, reason) in refused(sounds).items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(DataError, match=f"{name}: .*{reason}") as error:
            list(open_source(path).blocks())
        assert "exist" not in str(error.value)
        entry = scan(path)
        assert entry.status == "corrupt" and reason in entry.detail and name in entry.detail, (name, entry)


@pytest.mark.parametrize("start", [0, 100, 8000])
def test_a_part_of_a_damaged_file_is_refused_by_its_place(sounds, tmp_path, start):
    """Libsndfile cannot find the sample either, in a FLAC of zeros from its first fifth on."""
    data, path = sounds["flac"], tmp_path / "a.flac"
    path.write_bytes(data[: len(data) // 5] + bytes(len(data) * 4 // 5))
    with pytest.raises(DataError, match=rf"a.flac: damaged at .*\(sample {start or ''}"):
        list(open_sound(path).blocks(start=start))


def test_what_is_no_file_is_named(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link.wav").symlink_to("nowhere")
    for path, error, reason in (
        (tmp_path, DataError, "is a folder"),
        (tmp_path / "pipe", DataError, "is a pipe.*save it to a file"),
        ("/dev/null", DataError, "is a device"),
        (tmp_path / "link.wav", MissingAudio, "no such file"),
        (tmp_path / "link.wav" / "x", MissingAudio, "no such file"),
        (tmp_path / ("x" * 300), DataError, "File name too long"),
        ("a\0b.wav", DataError, "null byte"),
    ):
        with pytest.raises(error, match=reason):
            read_audio(path)
    write(tmp_path / "a.wav", X)
    monkeypatch.setattr(
        "builtins.open", lambda *a, **k: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    with pytest.raises(DataError, match="a.wav: cannot be read: Permission denied"):
        open_source(tmp_path / "a.wav")


def test_a_name_that_looks_like_a_reference(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("tar:x#y.wav", "x.ark:0", "caf\udce9.wav"):
        write(Path("a.wav"), X)
        os.rename(os.fsencode("a.wav"), os.fsencode(name))
        assert np.array_equal(read_audio(name)[0][:, 0], X)


# ---- MP4, WebM and others ------------------------------------------------------------------------


def make_av(path: Path, codec: str | None, fs: int = 48000, video: bool = False, form: str | None = None) -> str:
    """A second of a tone, stereo, by PyAV's encoder."""
    import av

    with av.open(str(path), "w", format=form) as file:
        packets = []
        if video:
            pictures = file.add_stream("mpeg4", rate=25, width=64, height=64, pix_fmt="yuv420p")
        if codec:
            sound = file.add_stream(codec, rate=fs, layout="stereo")
            x = np.tile(0.3 * np.sin(2 * np.pi * 440 * np.arange(fs) / fs), (2, 1)).astype("f4")
            frame = av.AudioFrame.from_ndarray(x, format="fltp", layout="stereo")
            frame.sample_rate = fs
            turn = av.AudioResampler(sound.format, "stereo", fs, sound.frame_size or 1024)
            frames = [*turn.resample(frame), *turn.resample(None), None]
            packets = [p for frame in frames for p in sound.encode(frame)]
        if video:
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), "u1"), format="rgb24")
            packets += [p for frame in (frame, None) for p in pictures.encode(frame)]
        file.mux(packets)
    return str(path)


@pytest.mark.parametrize(
    "name, codec, form",
    [("a.m4a", "aac", None), ("a.webm", "libopus", None), ("a.mkv", "aac", None), ("a.aac", "aac", "adts")]
    + [("a.mov", "pcm_s16le", None), ("a.mp3", "libopus", "webm"), ("a.avi", "mp2", None), ("a.flv", "aac", None)]
    + [("a.mpg", "mp2", "mpeg"), ("a.mts", "aac", "mpegts"), ("alac.m4a", "alac", None)],
)
def test_other_containers_are_read_by_their_bytes(tmp_path, name, codec, form):
    ref = make_av(tmp_path / name, codec, 44100 if form != "webm" and codec != "libopus" else 48000, form=form)
    x, fs = read_audio(ref)
    assert x.shape[1] == 2 and abs(len(x) - fs) < 3000 and 0.1 < np.abs(x[3000:-3000]).max() < 0.4
    assert np.array_equal(read_audio(ref, 1000, 20000)[0], x[1000:21000])
    source = open_source(ref)
    assert source.frames == len(x) and np.array_equal(np.concatenate(list(source.blocks("float64"))), x)
    assert (scan(ref).status, scan(ref).samples) == ("ok", len(x))
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(ref, name)
    assert np.array_equal(read_audio(f"tar:{tmp_path}/s.tar#{name}")[0], x)


def test_the_sound_of_a_video(tmp_path):
    assert read_audio(make_av(tmp_path / "v.mp4", "aac", video=True))[0].shape[1] == 2
    with pytest.raises(DataError, match=r"silent.mp4: holds no sound, only 1 other stream"):
        read_audio(make_av(tmp_path / "silent.mp4", None, video=True))


def test_a_truncated_mp4_is_refused(tmp_path):
    for name, codec in (("a.mkv", "aac"), ("a.avi", "mp2")):
        data = Path(make_av(tmp_path / name, codec)).read_bytes()
        assert open_sound(tmp_path / name).notes == []
        (tmp_path / f"cut.{name}").write_bytes(data[: len(data) // 2])
        assert "truncated" in open_sound(tmp_path / f"cut.{name}").notes[0]
    data = Path(make_av(tmp_path / "a.m4a", "aac")).read_bytes()
    (tmp_path / "cut.m4a").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"cut.m4a: "):
        read_audio(tmp_path / "cut.m4a")


def test_without_the_package_av_the_message_says_so(tmp_path, monkeypatch):
    ref = make_av(tmp_path / "a.m4a", "aac")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match=r"a.m4a: .*package av.*pip install av"):
        read_audio(ref)


def test_suffixes_of_a_folder_are_counted(tmp_path, caplog):
    for name in ("a.wav", "b.M4A", "c.webm", "notes.txt", "d.jpg", "e.jpg", ".hidden", "README"):
        (tmp_path / name).touch()
    (tmp_path / "gone.wav").symlink_to("nowhere")
    assert [p.name for p in sound_files(tmp_path)] == ["a.wav", "b.M4A", "c.webm"]
    assert "left out" in caplog.text and "2 .jpg, 1 .txt, 1 README, 1 broken link" in caplog.text
    assert {".wav", ".flac", ".mp3", ".m4a", ".mp4", ".webm"} <= SUFFIXES


def test_floats_in_the_scale_of_integers(tmp_path):
    ref = write(tmp_path / "a.wav", X * 32768, FS, "FLOAT")
    assert scan(ref).status == "corrupt" and "integers written as floats" in scan(ref).detail
    loud = write(tmp_path / "b.wav", X * 20, FS, "FLOAT")
    assert scan(loud).status == "ok" and not scale_note(2.0) and not scale_note(np.inf)


# ---- archives and packed files -------------------------------------------------------------------


@pytest.mark.parametrize("held", [0, 1 << 24])
def test_members_that_are_not_held_in_memory(tmp_path, monkeypatch, held):
    monkeypatch.setattr("espnet2_ext.audio.sound._HELD", held)
    write(tmp_path / "a.flac", X)
    (tmp_path / "b.flac").write_bytes((tmp_path / "a.flac").read_bytes() * 2)
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(tmp_path / "a.flac", "a.flac")
        tar.add(tmp_path / "b.flac", "b.flac")
    assert np.array_equal(read_audio(f"tar:{tmp_path}/s.tar#a.flac", 5000, 9000)[0][:, 0], X[5000:14000])
    assert np.array_equal(read_audio(f"tar:{tmp_path}/s.tar#b.flac")[0][:, 0], np.tile(X, 2))


def test_sizes_in_references_are_checked_against_the_file(tmp_path):
    write(tmp_path / "a.flac", X)
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(tmp_path / "a.flac", "a.flac")
    with pytest.raises(DataError, match="has changed"):
        read_audio(f"tar:{tmp_path}/s.tar#a.flac@512+{10**15}")
    (tmp_path / "a.ark").write_bytes(b"k AUDIO\x08" + struct.pack("<Q", 1 << 60) + b"fLaC")
    with pytest.raises(DataError, match="a.ark: ends before byte"):
        read_audio(f"{tmp_path}/a.ark:2")


def packed(path: Path, make) -> str:
    with h5py.File(path, "w") as f:
        f["audio_name"] = [b"a.wav", b"b.wav"]
        f.attrs["sample_rate"] = FS
        make(f)
    return f"hdf5:{path}#0"


def test_what_a_packed_file_may_not_do(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(range(200)))
    outside = [(str(tmp_path / "secret"), 0, 200)]
    packed(tmp_path / "other.h5", lambda f: f.create_dataset("waveform", data=np.ones((2, 50), "i2")))
    layout = h5py.VirtualLayout((2, 50), "i2")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "waveform", (2, 50))
    for n, (make, reason) in enumerate(
        (
            (lambda f: f.create_dataset("waveform", (2, 50), "i2", external=outside), "another file"),
            (lambda f: f.__setitem__("waveform", h5py.ExternalLink("other.h5", "waveform")), "another file"),
            (lambda f: f.__setitem__("waveform", h5py.SoftLink("/elsewhere")), "another file"),
            (lambda f: f.create_virtual_dataset("waveform", layout), "another file"),
            (lambda f: f.create_dataset("waveform", (2, 1 << 40), "i2"), "more than a file of"),
            (lambda f: f.create_dataset("waveform", (2, 1 << 33), "i2", chunks=(1, 1 << 20)), "more than"),
            (lambda f: f.create_dataset("waveform", data=np.ones((2, 50), "f8")), "waveform is float64"),
            (lambda f: f.create_dataset("waveform", data=[b"x"]), "not a dataset of 2"),
            (lambda f: f.create_group("waveform"), "not a dataset of 2"),
            (lambda f: None, "not a packed file"),
            (lambda f: f.attrs.__setitem__("sample_rate", "fast"), "not a packed file"),
            (
                lambda f: (f.create_dataset("waveform", data=np.ones((2, 50), "i2")), f.attrs.modify("sample_rate", 3)),
                "3 Hz",
            ),
        )
    ):
        with pytest.raises(DataError, match=f"p{n}.h5.*{reason}"):
            read_audio(packed(tmp_path / f"p{n}.h5", make))
    ref = packed(
        tmp_path / "z.h5", lambda f: f.create_dataset("waveform", data=np.zeros((2, 99999), "i2"), compression=9)
    )
    assert read_audio(ref, 9, 40)[0].shape == (40, 1) and scan(ref).status == "silent"


def test_nothing_else_opens_a_sound():
    root = Path(espnet2_ext.__file__).parent
    opens = re.compile(
        r"soundfile\.(read|blocks|info|SoundFile)\b|\bav\.open\(|h5py\.File\(|wave\.open\(|torchaudio\.load"
    )
    found = {str(p.relative_to(root)) for p in root.rglob("*.py") if opens.search(p.read_text(encoding="utf-8"))}
    others = {"bench/data.py", "data/synth/embedded.py"}  # libsndfile alone is measured; a synthesiser's output
    assert {p for p in found if not p.startswith("audio/")} <= others


def test_an_mp3_cut_off_anywhere_in_its_first_frames_is_judged(tmp_path):
    path = tmp_path / "a.mp3"
    soundfile.write(path, noise(16000), 16000, format="MP3")
    data = path.read_bytes()
    for size in range(0, 1200, 13):
        path.write_bytes(data[:size])
        with contextlib.suppress(DataError):
            assert open_sound(str(path)).frames >= 0
