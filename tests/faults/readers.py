"""Every reader of the product as a kind of fuzzed input: the file that is damaged, and the command that reads it.

The command runs in a copy of the project of `world`; `FILE` in it stands for the damaged file, so that its name can be
odd as well. `audio`: whether what is written is sound that must be whole.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from children import ROOT
from mutate import form_of
from world import FS, PLAIN, Q_MODEL, T_MODEL, W_MODEL, sound, write


class Kind(NamedTuple):
    """file: what is damaged. work: words of a command, or a function of the file. form: of the damage."""

    name: str
    file: str
    work: str | Callable[[Path], None]
    form: str
    odd_names: bool = False


CODINGS = {
    "wav": dict(format="WAV", subtype="PCM_16"),
    "24.wav": dict(format="WAVEX", subtype="PCM_24"),
    "float.wav": dict(format="WAV", subtype="FLOAT"),
    "ima.wav": dict(format="WAV", subtype="IMA_ADPCM"),
    "ulaw.wav": dict(format="WAV", subtype="ULAW"),
    "rf64": dict(format="RF64", subtype="PCM_16"),
    "flac": dict(format="FLAC", subtype="PCM_16"),
    "ogg": dict(format="OGG", subtype="VORBIS"),
    "opus": dict(format="OGG", subtype="OPUS"),
    "mp3": dict(format="MP3", subtype="MPEG_LAYER_III"),
    "aiff": dict(format="AIFF", subtype="PCM_16"),
    "au": dict(format="AU", subtype="PCM_16"),
    "caf": dict(format="CAF", subtype="PCM_16"),
    "w64": dict(format="W64", subtype="PCM_16"),
}
CONTAINERS = {"m4a": ("mp4", "aac"), "aac": ("adts", "aac"), "webm": ("webm", "libopus"), "mkv": ("matroska", "ac3")}
SEPARATE = "separate FILE --query sounds/bell/0.wav --bundle q.zip -o new/"
QSEP = f"--train_bank dump/train --valid_bank dump/valid --valid_pairs lists/valid.tsv {PLAIN}"
WEAK = f"--train_table mix/train --train_bank dump/train --valid_table mix/valid --valid_bank dump/valid {PLAIN}"
WEAK_CHECK = f"weak-train --output_dir new --part separator --strategy joint --dry_run true {WEAK}"
Q_SCORE = "qsep-scoring --data_dir dump/pairs --inference_dir exp/qsep/inference_test --espnet_keys 0 --num_workers 1"
W_SCORE = "weak-scoring --data_dir dump/mix --inference_dir exp/weak/inference_test --espnet_keys 0 --num_workers 1"
Q_INFER = f"qsep-inference --data_dir dump/pairs --output_dir new {Q_MODEL}"
W_INFER = f"weak-inference --data_dir dump/mix --output_dir new {W_MODEL}"
T_INFER = f"tag-inference --bank dump/test --output_dir new --frames {T_MODEL}"
AUDIOSET = "prepare audioset --data_dir new --audio audioset/x.tar audioset/x.h5 --class_labels audioset/classes.csv"
AUDIOSET += " --set train audioset/train.csv --ontology audioset/ontology.json"
REPORT = "qsep-report --exp_dir exp/qsep"


def write_seeds(top: Path) -> None:
    """What only fuzzing reads: sounds of all codings, saved vectors, checkpoints of others, and whole sweeps."""
    import av
    import torch

    for suffix, how in CODINGS.items():
        fs = 48000 if how["subtype"] == "OPUS" else 16000
        write(top / f"coded/x.{suffix}", np.stack([sound(0.5, fs, 440, 1)] * (1 + (suffix == "flac")), 1), fs, **how)
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
    (top / "sweep.yaml").write_text((ROOT / "conf/sweeps/side_by_side.yaml").read_text())
    (top / "weak_sweep.yaml").write_text((ROOT / "conf/sweeps/weak_table_x.yaml").read_text())


# ---- readers that are called, not run --------------------------------------------------------------


def judge_sound(path: Path) -> None:
    """The scan and `separate` judge a file alike, and hold the same samples of it."""
    from espnet2_ext.audio.streams import open_source
    from espnet2_ext.data.bank.scan import Limits, examine
    from espnet2_ext.data.tables import Clip
    from espnet2_ext.errors import DataError

    entry = examine(Clip("x", (), str(path)), Limits())
    source = open_source(path)
    blocks = [len(x) for x in source.blocks() if np.isfinite(x).all() or entry.status == "corrupt"]
    if entry.status in ("missing", "corrupt"):
        if "NaN" in entry.detail or "finite" in entry.detail:
            raise DataError(entry.detail)  # a sample of a sound that is whole otherwise
        raise AssertionError(f"scan: {entry.detail}; separate reads {sum(blocks)} samples")
    if (sum(blocks), source.fs, source.channels) != (entry.samples, entry.rate, entry.channels):
        raise AssertionError(f"scan: {entry[1:5]}; separate: {sum(blocks)} {source.fs} {source.channels}")


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
    from espnet2_ext.audio.stems import read_mono_stems

    lengths = {len(x) for x in read_mono_stems(path, FS, ("drums", "vocals")).values()}
    assert max(lengths) - min(lengths) < FS, f"stems of different lengths: {lengths}"


def run_options(path: Path) -> None:
    """The words of a recipe's command line."""
    import shlex

    from espnet2_ext.cli.main import main
    from espnet2_ext.errors import DataError

    try:
        words = shlex.split(path.read_bytes().decode("utf-8", "surrogateescape").replace("\0", " "))
    except ValueError as e:
        raise DataError(str(e)) from None  # a shell would refuse it
    main(["recipe-qsep", *words, "--stop_stage", "0"])


# ---- kinds ---------------------------------------------------------------------------------------


def _all() -> list[Kind]:
    coded = [Kind(f"sound {v}", f"coded/x.{v}", judge_sound, "sound", True) for v in (*CODINGS, *CONTAINERS)]
    for v in ("wav", "flac", "mp3", "m4a"):
        coded.append(Kind(f"separate {v}", f"coded/x.{v}", SEPARATE, "sound", True))
    lines = {
        "separate in/0.wav --query FILE --bundle q.zip -o new/": "coded/x.flac coded/x.ogg dog.npy",
        "separate in/0.wav --query sounds/bell/0.wav --bundle FILE -o new/": "q.zip",
        "separate in/0.wav --bundle FILE -o new/": "exp/weak/weak.zip",
        "info FILE": "q.zip exp/weak/weak.zip",
        "prepare own FILE --data_dir new": "own.csv",
        "validate-data FILE --num_workers 1": "own.csv marks.csv",
        "prepare own-weak lists FILE --data_dir new": "marks.csv",
        AUDIOSET: "audioset/classes.csv audioset/train.csv audioset/ontology.json audioset/x.tar audioset/x.h5",
        "prepare esc50 --esc50 esc50 --set train 1 2 --set test 3 --data_dir new": "esc50/meta/esc50.csv",
        "prepare urbansound8k --urbansound8k us8k --splits train:1 test:2-3 --classes dog_bark --data_dir new": (
            "us8k/metadata/UrbanSound8K.csv"
        ),
        "scan data/train --num_workers 1": "data/train/clips.tsv data/train/manifest.json",
        f"archive data/train new --fs {FS} --num_workers 1": "data/train/manifest.tsv data/labels.tsv",
        "draw-lists --bank dump/valid --out new/l.tsv --segment 0.25": " ".join(
            f"dump/valid/{v}" for v in ("bank.json", "labels.tsv", "index.npy", "clips.indices.npy", "envelope.npy")
        ),
        "draw-lists --bank dump/train --out new/l.tsv --segment 0.25 --anchor_file FILE": "exp/anchors.npz",
        "render-lists --list FILE --bank dump/test --out new --num_workers 1": "lists/test.tsv",
        "render-lists --list lists/test.tsv --bank dump/test --out new --num_workers 1": "lists/test.json",
        "draw-mixtures --bank dump/test --out new --mixtures 2 --seconds 0.5 --event_seconds 0.1 0.4 --classes bell,dog"
        " --num_workers 1": "dump/test/loudness.npy dump/test/loudness.json",
        "render-mixtures --table mix/test --bank dump/test --out new --num_workers 1": (
            "mix/test/events.tsv mix/test/mixtures.tsv mix/test/table.json mix/test/ids"
        ),
        f"qsep-check --config FILE --output_dir new {QSEP}": "conf/qsep.yaml",
        f"qsep-check --config conf/qsep.yaml --output_dir new {QSEP}": "lists/valid.tsv lists/valid.json",
        f"tag-check --config FILE --output_dir new --train_bank dump/train --valid_bank dump/valid {PLAIN}": "conf/tag.yaml",
        f"{WEAK_CHECK} --config FILE": "conf/weak.yaml",
        f"{WEAK_CHECK} --config conf/weak.yaml": "mix/train/table.json mix/train/events.tsv",
        f"{WEAK_CHECK} --config conf/weak.yaml --init_param FILE": "exp/weak/valid.loss.best.pth",
        f"qsep-train --config conf/qsep.yaml --output_dir exp/qsep --max_epoch 3 {QSEP}": "exp/qsep/checkpoint.pth",
        Q_INFER: "exp/qsep/config.yaml exp/qsep/valid.loss.best.pth dump/pairs/wav.scp dump/pairs/absent.scp"
        " dump/pairs/enroll_self.scp dump/pairs/utt2class dump/pairs/utt2labels dump/pairs/list.json dump/pairs/labels.tsv"
        " dump/pairs/audio.00000.ark",
        W_INFER: "exp/weak/config.yaml exp/weak/valid.loss.best.pth dump/mix/wav.scp dump/mix/list.json",
        "weak-inference --data_dir dump/mix --output_dir new --train_config exp/weak/config.yaml --model_file FILE": "weak.ckpt",
        T_INFER: "dump/test/bank.json dump/test/ids.npy dump/test/index.npy dump/test/seek.npy exp/tag/config.yaml",
        Q_SCORE + " --inference_dir exp/qsep/inference_test": "exp/qsep/inference_test/self/mixture/spk1.scp"
        " exp/qsep/inference_test/self/mixture/spk1.00000.ark exp/qsep/inference_test/self/mixture/about.json"
        " exp/qsep/inference_test/scores/scores.jsonl dump/pairs/spk1.scp",
        W_SCORE: "exp/weak/inference_test/activity.npz exp/weak/inference_test/spk1.scp exp/weak/inference_test/about.json"
        " dump/mix/rest.scp dump/mix/classes.tsv dump/mix/utt2labels",
        "tag-scoring --bank dump/test --tags_dir exp/tag/tagging_test": "exp/tag/tagging_test/tags.npz exp/tag/tagging_test/about.json",
        "tag-report --exp_dir exp/tag --tags_dir exp/tag/tagging_test": "exp/tag/tagging_test/scores.json exp/tag/config.yaml",
        REPORT: "exp/qsep/inference_test/scores/summary.json exp/qsep/inference_test/scores/scores.jsonl",
        "weak-report --output_dir new --experiment a=exp/weak --test_set test": "exp/weak/inference_test/scores/summary.json",
        "qsep-pack --exp_dir exp/qsep --model_file exp/qsep/valid.loss.best.pth --train_bank dump/train --inference_dir"
        " exp/qsep/inference_test -o new.zip": "exp/qsep/config.yaml dump/train/bank.json exp/qsep/inference_test/scores/summary.json",
        "pack --train_config exp/weak/config.yaml --model_file exp/weak/valid.loss.best.pth --info FILE -o n.zip": "conf/tag.yaml",
        "convert --network cnn14 FILE -o new.pth": "public.pth",
        "convert --network hts_at FILE -o new.pth": "public.pth",
        "sweep FILE --dry_run": "sweep.yaml weak_sweep.yaml",
        "recipe-weak --config FILE --stop_stage 0": "conf/weak.yaml",
    }
    commands = [
        Kind(f"{c.split()[0]} {f}", f, c, form_of(f), "FILE" in c) for c, fs in lines.items() for f in fs.split()
    ]
    banks = [
        f"dump/{b}/{f}"
        for b in ("train", "pcm")
        for f in ("index.npy", "envelope.npy", "labels.indptr.npy", "bank.json")
    ]
    banks += [
        "dump/train/audio.00000.ark",
        "dump/pcm/audio.00000.pcm",
        "dump/train/seek.npy",
        "dump/train/clips.indices.npy",
    ]
    called = [Kind(f"bank {f}", f, read_bank, form_of(f)) for f in banks]
    called += [Kind(f"audioset {f}", f"audioset/{f}", read_references, "bytes", True) for f in ("x.tar", "x.h5")]
    called += [Kind("stem file", "song.stem.mp4", read_stem_file, "sound", True)]
    called += [Kind("recipe options", "options.txt", run_options, "text")]
    return coded + commands + called


KINDS = _all()
