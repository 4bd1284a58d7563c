"""Every reader of the product as a kind of fuzzed input: the file that is damaged, and the command that reads it.

The command runs in a copy of the project of `world`; `FILE` in it stands for the damaged file, so that its name can be
odd as well.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from children import ROOT
from mutate import form_of
from world import COMMANDS, FS, sound, write


class Kind(NamedTuple):
    """file: what is damaged. work: words of a command, or a function of the file. form: of the damage."""

    name: str
    file: str
    work: str | Callable[[Path], None]
    form: str
    odd_names: bool = False


CODINGS = """wav WAV PCM_16, 24.wav WAVEX PCM_24, float.wav WAV FLOAT, ima.wav WAV IMA_ADPCM, ulaw.wav WAV ULAW,
rf64 RF64 PCM_16, flac FLAC PCM_16, ogg OGG VORBIS, opus OGG OPUS, mp3 MP3 MPEG_LAYER_III, aiff AIFF PCM_16,
au AU PCM_16, caf CAF PCM_16, w64 W64 PCM_16"""
CODINGS = {suffix: (format, coding) for suffix, format, coding in map(str.split, CODINGS.split(","))}
ASKED = {"recording": "SOUND", "ask": [{"sound": "SOUND", "start": 0.1, "end": 0.4}], "against": [{"class": "bell"}]}
ASKED |= {"mode": "mean", "format": "wav", "gate": False}
CONTAINERS = {"m4a": ("mp4", "aac"), "aac": ("adts", "aac"), "webm": ("webm", "libopus"), "mkv": ("matroska", "ac3")}


def write_seeds(top: Path) -> None:
    """What only fuzzing reads: sounds of all codings, saved vectors, checkpoints of others, and whole sweeps."""
    import av
    import torch

    for suffix, (container, coding) in CODINGS.items():
        fs = 48000 if coding == "OPUS" else 16000
        x = np.stack([sound(0.5, fs, 440, 1)] * (1 + (suffix == "flac")), 1)
        write(top / f"coded/x.{suffix}", x, fs, format=container, subtype=coding)
    for suffix, (container, codec) in CONTAINERS.items():
        with av.open(str(top / f"coded/x.{suffix}"), "w", format=container) as f:
            stream = f.add_stream(codec, rate=48000)
            frame = av.AudioFrame.from_ndarray(sound(0.5, 48000, 440, 1)[None], format="fltp", layout="mono")
            frame.sample_rate = 48000
            resampler = av.AudioResampler(stream.format, "mono", 48000, stream.codec_context.frame_size or 1024)
            for part in [*resampler.resample(frame), *resampler.resample(None), None]:
                f.mux(stream.encode(part))
    weights = torch.load(top / "exp/weak/valid.loss.best.pth", weights_only=True)
    torch.save({"state_dict": {f"model.{k}": v for k, v in weights.items()}, "epoch": 1}, top / "weak.ckpt")
    torch.save({"model": {"bn0.weight": torch.ones(4), "fc.bias": torch.ones(3)}, "note": (1, "a")}, top / "public.pth")
    (top / "options.txt").write_text("--config conf/qsep.yaml --stage 5 --nj 2 --fs 8k --ngpu 0 --qsep_args '--seed 1'")
    (top / "ask.json").write_text(json.dumps(ASKED))
    (top / "sweep.yaml").write_text((ROOT / "conf/sweeps/side_by_side.yaml").read_text())
    (top / "weak_sweep.yaml").write_text((ROOT / "conf/sweeps/weak_table_x.yaml").read_text())


# ---- readers that are called, not run --------------------------------------------------------------


def judge_sound(path: Path) -> None:
    """The scan and `separate` judge a file alike, and hold the same samples of it."""
    from espnet2_ext.audio.streams import open_source
    from espnet2_ext.data.bank.shards import Limits, examine
    from espnet2_ext.data.tables import Clip
    from espnet2_ext.errors import DataError

    entry = examine(Clip("x", (), str(path)), Limits())
    source = open_source(path)
    parts = [x for x in source.blocks() if np.isfinite(x).all() or entry.status == "corrupt"]
    blocks = [len(x) for x in parts]
    if entry.status in ("missing", "corrupt"):
        if any(v in entry.detail for v in ("NaN", "finite", "full scale")):
            raise DataError(entry.detail)  # the sound can be decoded, its samples are of no use to training
        raise AssertionError(f"scan: {entry.detail}; separate reads {sum(blocks)} samples")
    if (sum(blocks), source.fs, source.channels) != (entry.samples, entry.rate, entry.channels):
        raise AssertionError(f"scan: {entry[1:5]}; separate: {sum(blocks)} {source.fs} {source.channels}")
    start = sum(blocks) // 3
    if not np.allclose(np.concatenate([*source.blocks(start=start)]), np.concatenate(parts)[start:], atol=1e-6):
        raise AssertionError(f"from sample {start} on it is another sound")


def read_bank(path: Path) -> None:
    """All that training takes from a bank."""
    from espnet2_ext.data.bank.bank import ClipBank

    bank = ClipBank(path.parent)
    for i in range(len(bank)):
        x, crop = bank.read(i), bank.read(i, 100, 900)
        assert len(x) == bank.num_samples(i) and np.isfinite(x).all() and np.isfinite(bank.envelope(i)).all()
        assert np.array_equal(crop[: len(x) - 100], x[100:1000]), "a crop differs from its clip"
        assert bank.index_of(bank.id(i)) == i and all(i in bank.clips_of(int(k)) for k in bank.labels(i))


def read_references(path: Path) -> None:
    """Everything in a tar or HDF5 file, by its references."""
    from espnet2_ext.audio.read import read_audio
    from espnet2_ext.data.corpora.audioset import find_audio

    for reference in find_audio([path]).values():
        x, _ = read_audio(reference)
        assert x.ndim == 2 and len(x) < 1 << 24


def read_stem_file(path: Path) -> None:
    from espnet2_ext.audio.optional import read_mono_stems

    lengths = {len(x) for x in read_mono_stems(path, FS, ("drums", "vocals")).values()}
    assert max(lengths) - min(lengths) < FS, f"stems of different lengths: {lengths}"


def send_to_page(path: Path) -> None:
    """What the page keeps can be listened to and dropped; of what it refuses, nothing is left."""
    from espnet2_ext.app.sounds import Limits, Sounds, Wav
    from espnet2_ext.errors import DataError

    if not path.is_file():
        raise DataError(f"{path}: a browser sends files")
    (folder := Path("page")).mkdir()
    sounds = Sounds(folder, Limits(1 << 30, 3600.0))
    try:
        with open(path, "rb") as f:
            kept, _ = sounds.take(f.read, path.stat().st_size, path.name)
        wav = Wav(kept.source)
        if (heard := sum(map(len, wav.blocks(0, wav.size)))) != wav.size:
            raise AssertionError(f"{heard} bytes to listen to, {wav.size} were promised")
        sounds.drop(kept.id)
    finally:
        if left := list(folder.iterdir()):
            raise AssertionError(f"left in the page's folder: {left}")


def ask_page(path: Path) -> None:
    """A request for a separation, of a sound that the page has."""
    from espnet2_ext.app.sounds import Limits, Sounds
    from espnet2_ext.app.work import Works
    from espnet2_ext.errors import DataError
    from espnet2_ext.util.documents import parse_json

    if not path.is_file():
        raise DataError(f"{path}: a browser sends text")
    (folder := Path("page")).mkdir()
    sounds, data = Sounds(folder, Limits(1 << 30, 3600.0)), Path("in/0.wav").read_bytes()
    kept, _ = sounds.take(io.BytesIO(data).read, len(data), "0.wav")
    Works(sounds, "qsep").ask(parse_json(path.read_bytes().replace(b"SOUND", kept.id.encode()), "the request"))


def run_options(path: Path) -> None:
    """The words of a recipe's command line."""
    import shlex

    from espnet2_ext.cli.main import main
    from espnet2_ext.errors import DataError

    if not path.is_file():
        raise DataError(f"{path}: no words")  # the harness's own file
    try:
        words = shlex.split(path.read_bytes().decode("utf-8", "surrogateescape").replace("\0", " "))
    except ValueError as e:
        raise DataError(str(e)) from None  # a shell would refuse it
    main(["recipe-qsep", *words, "--stop_stage", "0"])


# ---- kinds ---------------------------------------------------------------------------------------


def _all() -> list[Kind]:
    kinds = [Kind(f"sound {v}", f"coded/x.{v}", judge_sound, "sound", True) for v in (*CODINGS, *CONTAINERS)]
    for reader in COMMANDS["readers"]:
        command, odd = reader["command"], "FILE" in reader["command"]
        kinds += [Kind(f"{command.split()[0]} {f}", f, command, form_of(f), odd) for f in reader["files"].split()]
    tables = ("index.npy", "envelope.npy", "labels.indptr.npy", "bank.json")
    files = [f"dump/{bank}/{name}" for bank in ("train", "pcm") for name in tables]
    files += [f"dump/train/{v}" for v in ("audio.00000.ark", "seek.npy", "clips.indices.npy")]
    kinds += [Kind(f"bank {f}", f, read_bank, form_of(f)) for f in [*files, "dump/pcm/audio.00000.pcm"]]
    kinds += [Kind(f"audioset {f}", f"audioset/{f}", read_references, "bytes", True) for f in ("x.tar", "x.h5")]
    kinds += [Kind(f"page {v}", f"coded/x.{v}", send_to_page, "sound", True) for v in ("wav", "flac", "mp3", "webm")]
    kinds += [Kind("page request", "ask.json", ask_page, form_of("ask.json"))]
    stems = Kind("stem file", "song.stem.mp4", read_stem_file, "sound", True)
    return [*kinds, stems, Kind("recipe options", "options.txt", run_options, "text")]


KINDS = _all()
