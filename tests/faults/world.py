"""A tiny project with everything that the product reads and writes, made by its own commands; paths are relative.

`STAGES` are the commands in their order, with what each writes: what is left out is what a rerun makes again.
"""

import csv
import importlib.util
import json
import re
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
COMMANDS = yaml.safe_load(Path(__file__).with_name("commands.yaml").read_text(encoding="utf-8"))


def words(command: str, workers: int = 1) -> list[str]:
    """A line of commands.yaml as words."""
    for name, text in COMMANDS["words"].items():
        command = re.sub(rf"\b{name}\b", text, command)
    return command.replace("WORKERS", f"--num_workers {workers}").split()


class Stage(NamedTuple):
    """A command of the project. makes: patterns of what it writes. kept: whether that is a part of the project."""

    name: str
    command: str
    makes: str
    kept: bool = True


STAGES = [Stage(name, **facts) for name, facts in COMMANDS["stages"].items()]


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
    song = next(Path(package.submodule_search_locations[0], "data").glob("*.stem.mp4"))
    for to in ("song.stem.mp4", "musdb/test/e.stem.mp4"):
        shutil.copy(song, top / to)
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


def build(top: Path) -> None:
    """Make the project in `top`."""
    (top / "logs").mkdir(parents=True)
    write_sources(top)
    for stage in (s for s in STAGES if s.kept):
        child = Child(words(stage.command), top, top / "logs" / stage.name)
        outcome = child.outcome(300)
        if outcome.what != "accepted":
            raise SystemExit(
                f"the project for the tests: {stage.name}: {outcome.text}\n{child.log.read_text()[-3000:]}"
            )
        if stage.name == "prepare":
            shutil.copytree(top / "made", top / "data")
        for path in top.glob("*/*/clips.tsv") if stage.name in ("prepare", "own-weak") else ():
            path.write_text(path.read_text().replace(f"{top.resolve()}/", ""))  # holds wherever the project is copied
    shutil.rmtree(top / "logs")
