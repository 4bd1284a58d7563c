"""How fast a clip bank gives crops, pairs and rendered mixtures on one core, against what training needs."""

import functools
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from espnet2_ext.audio import mpeg
from espnet2_ext.audio.containers import survey
from espnet2_ext.audio.flac import encode_flac, to_int16
from espnet2_ext.audio.read import read_audio, resample
from espnet2_ext.bench.measure import Columns, at, listed
from espnet2_ext.core.mixing.events import KNOWN, EventDrawer, with_ids
from espnet2_ext.core.mixing.pair_drawer import PairDrawer
from espnet2_ext.data.bank.archive import archive, scan
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.bank.shards import DEFAULT, Limits, Settings, Shard, examine
from espnet2_ext.data.mixtures.event_table import MixtureTable, write_table
from espnet2_ext.data.tables import Clip, Label, write_clips, write_labels
from espnet2_ext.train.clip_data import QSepPreprocessor
from espnet2_ext.train.weak_data import WeakPreprocessor

CROP = 2.0  # seconds
FS, CLASSES, CLIPS = 16000, 5, 8  # of the sounds made here: Hz, classes, clips of each
FORMATS = ("flac", "pcm16")
PAIRS_NEEDED = listed("training of", "pairs/s needed", "pairs/s per core", "cores needed")
MIXTURES_NEEDED = listed("training of", "mixtures/s needed", "cores that render them")
FILES: Columns = {
    "10 s of noise": at("file"),
    "length, ms": at("survey_ms"),
    "libsndfile alone, ms": at("sndfile_ms"),
    "read to the end, ms": at("ms"),
    "decoded, resampled, encoded alone, ms": at("floor_ms"),
    "scanned and stored in a bank, ms": at("store_ms"),
}
RENDERING: Columns = {
    "mixtures of": at("table"),
    "format": at("format"),
    "seconds": at("seconds"),
    "events": at("events"),
    "labels": at("labels"),
    "mixtures/s per core": at("a_core"),
    "wall": at("wall"),
}


def bench_files(folder: str | Path, seconds: float = 0.5) -> list[dict]:
    """What it costs to find out the length of a sound file, to decode it, and to prepare it, on one core.

    Args:
        folder: an empty folder, for files of 10 s of coloured noise, mono, 44.1 kHz; `bare.mp3` has no header with its
            length, `joined.ogg` is two files in one.

    Returns:
        for each file: `file`, `survey_ms` (its bytes looked through), `sndfile_ms` (decoded by libsndfile alone, up to
        the length that it believes), `ms` (opened and decoded here, to the end), `floor_ms` (decoded by libsndfile,
        resampled and encoded for a bank, nothing else), `store_ms` (stages 2 and 3 in one pass).
    """
    rng, rows = np.random.default_rng(0), []
    x = np.convolve(0.1 * rng.standard_normal(441000), np.ones(5) / 5, "same")
    for name in ("a.wav", "a.flac", "a.ogg", "a.mp3"):
        soundfile.write(Path(folder, name), x, 44100)
    mp3, ogg = (Path(folder, name).read_bytes() for name in ("a.mp3", "a.ogg"))
    first = mpeg.frame_size(mp3)
    for name, data in (("bare.mp3", mp3[first:]), ("joined.ogg", ogg + ogg)):
        Path(folder, name).write_bytes(data)
    for path in sorted(Path(folder).iterdir()):
        with open(path, "rb") as f:
            looked = rate(functools.partial(survey, f, path.stat().st_size, path.name), seconds)["a_core"]
        alone = rate(functools.partial(soundfile.read, path, dtype="float32"), seconds)["a_core"]
        here = rate(functools.partial(read_audio, path), seconds)["a_core"]
        row = {"file": path.name, "survey_ms": 1e3 / looked, "sndfile_ms": 1e3 / alone, "ms": 1e3 / here}
        for name, work in (("floor_ms", _least), ("store_ms", _stored)):
            row[name] = 1e3 / rate(functools.partial(work, path), seconds)["a_core"]
        rows.append(row)
    return rows


def _least(path: Path) -> None:
    x, fs = soundfile.read(path, dtype="float32")
    encode_flac(to_int16(resample(x, fs, DEFAULT.fs)), DEFAULT.fs)


def _stored(path: Path) -> None:
    mono: list[np.ndarray] = []
    entry = examine(Clip("a", (), str(path)), Limits(), mono)
    Shard(io.BytesIO(), 0, DEFAULT).add("a", np.concatenate(mono), entry.rate)


def bench_data(path: str | Path, seconds: float = 3.0) -> dict:
    """Random 2 s crops, and training pairs as the loader's workers make them, on one core.

    Args:
        path: a clip bank.
        seconds: of CPU time for each of the two.

    Returns:
        `clips`, `pairs`: how many in a second of CPU time (`a_core`) and of wall time (`wall`).
    """
    bank = ClipBank(path)
    num, rng = round(CROP * bank.fs), np.random.default_rng(0)

    def crop() -> None:
        i = int(rng.integers(len(bank)))
        bank.read(i, int(rng.integers(max(1, bank.num_samples(i) - num + 1))), num)

    drawer, preprocess = PairDrawer(bank, segment=CROP), QSepPreprocessor(True, bank)

    def pair() -> None:
        preprocess("pair", {"pair": drawer.draw(rng)})

    return {
        "bank": str(path),
        "format": bank.info["format"],
        "bank_clips": len(bank),
        "clips": rate(crop, seconds),
        "pairs": rate(pair, seconds),
    }


def rate(call: Callable, seconds: float) -> dict[str, float]:
    """Calls in a second of CPU time (`a_core`) and of wall time (`wall`), over so many seconds."""
    for _ in range(5):
        call()
    count, wall, cpu = 0, time.perf_counter(), time.process_time()
    while count < 5 or time.process_time() - cpu < seconds:
        call()
        count += 1
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"a_core": count / cpu, "wall": count / wall}


def pairs_needed(data: dict, rows: list[dict], train_batch: int, steps: float | None) -> list[list]:
    """For each model: mixtures that its training takes in a second, and the cores that make them.

    Args:
        rows: of `bench_model`.
        train_batch: mixtures in a measured training step.
        steps: steps a second, of the YAML's own batch size; None: from the measured step.
    """
    given, table = data["pairs"]["a_core"], []
    for row in rows:
        if steps is not None or "train" in row:
            pairs = steps * row["batch_size"] if steps is not None else train_batch / row["train"]["s"]
            table.append([f"{row['model']} {row['variant']}", pairs, given, pairs / given])
    return table


# ---- mixtures of weak labels --------------------------------------------------------------------


def bench_rendering(table: str | Path, bank: str | Path, seconds: float = 3.0) -> list[dict]:
    """Render a table's mixtures at random, with what each label type allows, on one core.

    Args:
        table: folder of a mixture table. bank: the clip bank of its sounds.
        seconds: of CPU time for each label type.

    Returns:
        a row for each label type the table knows enough for: `table`, `format` of the bank, `seconds` and `events` of a
        mixture (means), `labels`, and mixtures a second `a_core` (of CPU time) and `wall`.
    """
    mixtures, clips = MixtureTable(table), ClipBank(bank)
    mixtures.check(clips)
    drawn = [mixtures.row(i) for i in range(len(mixtures))]
    facts = {
        "table": str(table),
        "format": clips.info["format"],
        "seconds": float(np.mean([m.samples for m in drawn])) / mixtures.fs,
        "events": float(np.mean([len(m.events) for m in drawn])),
    }
    least = max(KNOWN.index(m.known) for m in drawn)
    return [facts | {"labels": labels, **_rendered(mixtures, clips, labels, seconds)} for labels in KNOWN[least:]]


def _rendered(table: MixtureTable, bank: ClipBank, labels: str, seconds: float) -> dict:
    preprocess = WeakPreprocessor(
        True, table, bank, label_type=labels, n_fft=table.info["n_fft"], hop_length=table.info["hop"]
    )
    rng = np.random.default_rng(0)

    def mixture() -> None:
        name = table.id(int(rng.integers(len(table))))
        preprocess(name, {"mixture": name})

    return rate(mixture, seconds)


def bench_embedded(root: Path, seconds: float = 3.0) -> list[dict]:
    """`bench_rendering` of sounds made here, in each format of a bank.

    Mixtures as the paper's: 4 s at 16 kHz, five classes, lambda 5 (Pishdadian et al., "Finding
    Strength in Weakness", III-A). The sounds are tones that fade in noise, 1 to 4 s long.

    Args:
        root: an empty folder.
    """
    write_sounds(root)
    rows = []
    for name in FORMATS:
        bank, table = root / name, root / f"mixtures_{name}"
        archive(root / "sounds", bank, settings=Settings(fs=FS, format=name), num_workers=0)
        write_mixtures(table, ClipBank(bank))
        rows += [row | {"table": "sounds made here"} for row in bench_rendering(table, bank, seconds)]
    return rows


def write_sounds(root: Path) -> None:
    """`root/labels.tsv` and the data folder `root/sounds`, scanned."""
    rng, clips = np.random.default_rng(0), []
    write_labels(root / "labels.tsv", [Label(k, f"{k}", f"class {k}") for k in range(CLASSES)])
    (root / "audio").mkdir()
    for i in range(CLASSES * CLIPS):
        t = np.arange(round(FS * rng.uniform(1, 4))) / FS
        x = np.sin(2 * np.pi * rng.uniform(100, 4000) * t) * np.exp(-t)
        path = root / "audio" / f"{i}.wav"
        soundfile.write(path, 0.2 * x + 0.01 * rng.standard_normal(len(t)), FS)
        clips.append(Clip(f"clip{i}", (f"{i % CLASSES}",), str(path)))
    write_clips(root / "sounds" / "clips.tsv", clips)
    scan(root / "sounds", num_workers=0)


def write_mixtures(folder: Path, bank: ClipBank, number: int = 200) -> None:
    """A table of so many mixtures."""
    classes = [label.mid for label in bank.classes]
    drawer = EventDrawer(bank, np.full(len(bank), -20.0), classes)
    rng = np.random.default_rng(0)
    rows = [with_ids(drawer.draw(rng, f"mixture{i:05d}"), bank) for i in range(number)]
    write_table(folder, rows, fs=bank.fs, classes=classes, n_fft=512, hop=128)


def mixtures_needed(rows: list[dict], training: list[dict]) -> list[list]:
    """For each model: mixtures that its training takes in a second, and cores for the slowest row.

    Args:
        rows: of `bench_rendering`. training: rows of `weak.bench_training`.
    """
    slowest = min(row["a_core"] for row in rows)
    taken = {row["model"]: row["mixtures"] / row["time"]["step"]["s"] for row in training}
    return [[name, number, number / slowest] for name, number in taken.items()]
