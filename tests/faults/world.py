"""A tiny project with everything that the product reads and writes, made by its own commands; paths are relative.

`STAGES` are the commands in their order, with what each writes: what is left out is what a rerun makes again.
"""

import csv
import importlib.util
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import yaml
from children import ROOT, Child

FS = 8000
CLASSES = {"bell": 440.0, "dog": 900.0, "rain": 1500.0}  # Hz
STFT = {"sample_rate": FS, "n_fft": 256, "hop_length": 80, "num_bands": 32}
CARE = dict(num_bands=32, dim=8, image_channels=4, depths=[1, 1], heads=[1, 2], connector_depth=1, connector_heads=2)
CARE |= {"window": 4, "num_classes": 3, "drop_path": 0.0}
SHORT = {"batch_size": 2, "num_iters_per_epoch": 2, "max_epoch": 2, "keep_nbest_models": 2, "num_workers": 0}
PLAIN = "--ngpu 0 --use_tensorboard false --use_matplotlib false --resume true"
Q_MODEL = "--train_config exp/qsep/config.yaml --model_file exp/qsep/valid.loss.best.pth"
W_MODEL = "--train_config exp/weak/config.yaml --model_file exp/weak/valid.loss.best.pth"
T_MODEL = "--train_config exp/tag/config.yaml --model_file exp/tag/valid.loss.best.pth"
FRAMES = "--n_fft 128 --hop 64"
DRAWN = f"--classes bell,dog --background_classes rain --seconds 0.5 --event_seconds 0.1 0.4 --mean_events 2 {FRAMES}"


class Stage(NamedTuple):
    """command: words; `WORKERS` stands for a number of processes. makes: patterns of what it writes."""

    name: str
    command: str
    makes: str

    def words(self, workers: int = 1) -> list[str]:
        return self.command.replace("WORKERS", f"--num_workers {workers}").split()


STAGES = [
    Stage("prepare", "prepare own sounds --data_dir made --valid_share 0.25 --test_share 0.25", "made"),
    Stage("scan", "scan data/train data/valid data/test WORKERS", "data/*/manifest.*"),
    Stage("archive", f"archive data/train dump/train --fs {FS} --clips_per_shard 5 WORKERS", "dump/train"),
    Stage(
        "archive-pcm", f"archive data/train dump/pcm --fs {FS} --format pcm16 --clips_per_shard 5 WORKERS", "dump/pcm"
    ),
    Stage("archive-valid", f"archive data/valid dump/valid --fs {FS} WORKERS", "dump/valid"),
    Stage("archive-test", f"archive data/test dump/test --fs {FS} WORKERS", "dump/test"),
    Stage(
        "draw-lists", "draw-lists --bank dump/valid --out lists/valid.tsv --num_pairs 4 --segment 0.25", "lists/valid.*"
    ),
    Stage("draw-test", "draw-lists --bank dump/test --out lists/test.tsv --num_pairs 4", "lists/test.*"),
    Stage("render-lists", "render-lists --list lists/test.tsv --bank dump/test --out dump/pairs WORKERS", "dump/pairs"),
    Stage(
        "draw-mixtures", f"draw-mixtures --bank dump/train --out mix/train --mixtures 8 WORKERS {DRAWN}", "mix/train"
    ),
    Stage("draw-valid", f"draw-mixtures --bank dump/valid --out mix/valid --mixtures 4 WORKERS {DRAWN}", "mix/valid"),
    Stage("draw-mix", f"draw-mixtures --bank dump/test --out mix/test --mixtures 4 WORKERS {DRAWN}", "mix/test"),
    Stage("render-mixtures", "render-mixtures --table mix/test --bank dump/test --out dump/mix WORKERS", "dump/mix"),
    Stage(
        "qsep-train",
        f"qsep-train --config conf/qsep.yaml --output_dir exp/qsep --train_bank dump/train --valid_bank dump/valid"
        f" --valid_pairs lists/valid.tsv {PLAIN}",
        "exp/qsep",
    ),
    Stage(
        "weak-train",
        "weak-train --config conf/weak.yaml --output_dir exp/weak --part separator --strategy joint --train_table mix/train"
        f" --train_bank dump/train --valid_table mix/valid --valid_bank dump/valid {PLAIN}",
        "exp/weak",
    ),
    Stage(
        "tag-train",
        f"tag-train --config conf/tag.yaml --output_dir exp/tag --train_bank dump/train --valid_bank dump/valid {PLAIN}",
        "exp/tag",
    ),
    Stage(
        "qsep-inference",
        f"qsep-inference --data_dir dump/pairs --output_dir exp/qsep/inference_test {Q_MODEL} WORKERS",
        "exp/qsep/inference_test",
    ),
    Stage(
        "weak-inference",
        f"weak-inference --data_dir dump/mix --output_dir exp/weak/inference_test {W_MODEL} WORKERS",
        "exp/weak/inference_test",
    ),
    Stage(
        "tag-inference",
        f"tag-inference --bank dump/test --output_dir exp/tag/tagging_test --frames {T_MODEL} WORKERS",
        "exp/tag/tagging_test",
    ),
    Stage(
        "tag-anchors",
        f"tag-anchors --bank dump/train --out exp/anchors.npz --segment 0.25 {T_MODEL} WORKERS",
        "exp/anchors.npz",
    ),
    Stage(
        "qsep-scoring",
        "qsep-scoring --data_dir dump/pairs --inference_dir exp/qsep/inference_test --espnet_keys 0 WORKERS",
        "exp/qsep/inference_test/scores",
    ),
    Stage(
        "weak-scoring",
        "weak-scoring --data_dir dump/mix --inference_dir exp/weak/inference_test --espnet_keys 0 WORKERS",
        "exp/weak/inference_test/scores",
    ),
    Stage(
        "tag-scoring",
        "tag-scoring --bank dump/test --tags_dir exp/tag/tagging_test",
        "exp/tag/tagging_test/scores.json",
    ),
    Stage("qsep-report", "qsep-report --exp_dir exp/qsep", "exp/qsep/RESULTS.md exp/qsep/report"),
    Stage("weak-report", "weak-report --output_dir exp/page --experiment a=exp/weak --test_set test", "exp/page"),
    Stage("tag-report", "tag-report --exp_dir exp/tag --tags_dir exp/tag/tagging_test", "exp/tag/RESULTS.md"),
    Stage(
        "qsep-pack",
        "qsep-pack --exp_dir exp/qsep --model_file exp/qsep/valid.loss.best.pth --train_bank dump/train"
        " --inference_dir exp/qsep/inference_test -o q.zip",
        "q.zip",
    ),
    Stage("weak-pack", "weak-pack exp/weak --test_set test", "exp/weak/weak.zip"),
    Stage("embed", "embed sounds/dog --bundle q.zip -o dog.npy", "dog.npy*"),
    Stage(
        "separate",
        "separate in --query sounds/bell/0.wav --bundle q.zip -o out/ --residual rest/ --chunk 0.3",
        "out rest",
    ),
    Stage("separate-classes", "separate in --bundle exp/weak/weak.zip -o classes/ --skip_existing", "classes"),
    Stage("make-mini", "make-mini urbansound8k --out mini --recordings 1 WORKERS", "mini"),
]
BY_NAME = {stage.name: stage for stage in STAGES}


def sound(seconds: float, fs: int, hz: float, seed: int) -> np.ndarray:
    """A tone in noise, float32 [T]."""
    rng, t = np.random.default_rng(seed), np.arange(int(seconds * fs)) / fs
    return (0.3 * np.sin(2 * np.pi * hz * t) * (1 + np.sin(18 * t)) / 2 + 0.03 * rng.standard_normal(len(t))).astype(
        "f4"
    )


def write_sources(top: Path) -> None:
    """What a user brings: sounds, tables and lists in the layouts of all corpora, and the configurations."""
    for k, (name, hz) in enumerate(CLASSES.items()):
        for n in range(8):
            write(top / f"sounds/{name}/{n}.wav", sound(0.5 + 0.03 * n, FS, hz, 10 * k + n))
    for n in range(3):
        write(top / f"in/{n}.wav", sound(0.8, FS, 500.0 * n + 300, n), FS)
    files = [(f"sounds/{name}/{n}.wav", name) for name in CLASSES for n in range(8)]
    table(top / "own.csv", [("path", "labels"), *files])
    table(top / "marks.csv", [("path", "onset", "offset", "label"), *((p, 0.1, 0.3, name) for p, name in files)])
    _audioset(top / "audioset", files, top)
    slices = [(f"{10 + n}-3-0-{n}.wav", 10 + n, 0, 0.5, 1, 1 + n % 3, 3, "dog_bark") for n in range(6)]
    head = ("slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class")
    table(top / "us8k/metadata/UrbanSound8K.csv", [head, *slices])
    for row in slices:
        write(top / f"us8k/audio/fold{row[5]}/{row[0]}", sound(0.5, FS, 900, row[1]))
    rows = [(f"{1 + n % 3}-{n}-A-0.wav", 1 + n % 3, 0, "dog", "x", n, "A") for n in range(6)]
    table(
        top / "esc50/meta/esc50.csv", [("filename", "fold", "target", "category", "esc10", "src_file", "take"), *rows]
    )
    for row in rows:
        write(top / "esc50/audio" / row[0], sound(0.5, FS, 900, row[5]))
    for part, song in (("train", "a"), ("train", "b"), ("train", "c"), ("test", "d")):
        for n, stem in enumerate(("mixture", "bass", "drums", "vocals", "other")):
            write(top / f"musdb/{part}/{song}/{stem}.wav", sound(0.6, FS, 300 + 200 * n, n))
    package = importlib.util.find_spec("stempeg")
    shutil.copy(next(Path(package.submodule_search_locations[0], "data").glob("*.stem.mp4")), top / "song.stem.mp4")
    _configurations(top / "conf")


def write(path: Path, x: np.ndarray, fs: int = FS, **how) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, x, fs, **how)


def table(path: Path, rows: list[tuple]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows(rows)


def _audioset(top: Path, files: list[tuple[str, str]], world: Path) -> None:
    import h5py

    table(top / "classes.csv", [("index", "mid", "display_name"), *((i, f"/m/{n}", n) for i, n in enumerate(CLASSES))])
    ids = [f"{n:03d}ABCDEFGH" for n in range(len(files))]
    rows = [f'{i}, 0.000, 10.000, "/m/{name}"\n' for i, (_, name) in zip(ids, files)]
    (top / "train.csv").write_text("# Segments\n# YTID, start_seconds, end_seconds, positive_labels\n" + "".join(rows))
    (top / "ontology.json").write_text(json.dumps([{"id": "/m/dog", "name": "x", "child_ids": ["/m/bell"]}]))
    waves = np.zeros((4, 4000), "i2")
    with tarfile.open(top / "x.tar", "w") as tar:
        for n, (i, (path, _)) in enumerate(zip(ids[:4], files)):
            tar.add(world / path, f"{i}.wav")
            waves[n] = soundfile.read(world / path, dtype="i2")[0][:4000]
    with h5py.File(top / "x.h5", "w") as f:
        f["audio_name"] = np.array([f"{i}.wav" for i in ids[:4]], "S32")
        f["waveform"] = waves
        f.attrs["sample_rate"] = FS


def _configurations(conf: Path) -> None:
    from espnet2_ext.util.config import read_config

    conf.mkdir()
    care = {"encoder_conf": STFT, "decoder_conf": STFT, "extractor_conf": {**CARE, "mask_type": "magnitude"}}
    pairs = {"segment": 0.25, "anchor": "random", "query_from": "mixed"}
    qsep = read_config(ROOT / "conf/debug/train_qsep_care_sep.yaml") | care | SHORT | {"pair_conf": pairs}
    stft = {"sample_rate": FS, "n_fft": 128, "hop_length": 64}
    weak = read_config(ROOT / "conf/debug/train_weak.yaml") | SHORT | {"encoder_conf": stft, "decoder_conf": stft}
    weak |= {"sample_rate": FS}
    tag = read_config(ROOT / "conf/debug/train_tag.yaml") | SHORT | {"tag_conf": {"segment": 0.25}}
    tag["query_net_conf"] = {**STFT, **CARE}
    for name, content in (("qsep", qsep), ("weak", weak), ("tag", tag)):
        (conf / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def build(top: Path, only: tuple[str, ...] = ()) -> dict[str, float]:
    """Make the project in `top`; returns the seconds that each stage takes."""
    (top / "logs").mkdir(parents=True)
    write_sources(top)
    took = {}
    for stage in STAGES:
        if only and stage.name not in only:
            continue
        child = Child(stage.words(), top, top / "logs" / stage.name)
        outcome = child.outcome(300)
        if outcome.what != "accepted":
            raise SystemExit(
                f"the project for the tests: {stage.name}: {outcome.text}\n{child.log.read_text()[-3000:]}"
            )
        took[stage.name] = outcome.seconds
        if stage.name == "prepare":  # the same lists with paths that hold wherever the project is copied to
            shutil.copytree(top / "made", top / "data")
            for path in top.glob("data/*/clips.tsv"):
                path.write_text(path.read_text().replace(f"{top.resolve()}/", ""))
    shutil.rmtree(top / "logs")
    return took


def copy(world: Path, to: Path, stage: Stage | None = None) -> Path:
    """A copy of the project, without what `stage` makes."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(world, to, symlinks=True)
    for pattern in stage.makes.split() if stage else ():
        for path in to.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return to


def zip_bytes(members: dict[str, bytes]) -> bytes:
    """An uncompressed zip."""
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as z:
        for name, data in members.items():
            z.writestr(name, data)
    return buffer.getvalue()
