"""Small sounds and corpora for the tests of preparation."""

from pathlib import Path

import numpy as np
import soundfile

from espnet2_ext.audio.flac import to_int16
from espnet2_ext.data.bank.archive import archive, scan
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.bank.shards import Settings
from espnet2_ext.data.tables import Clip, Label, write_clips, write_labels

LABELS = [Label(0, "/m/dog", "Dog", (2,)), Label(1, "/m/rain", "Rain"), Label(2, "/m/pet", "Pets", (0,))]


def noise(num: int, seed: int = 0, level: float = 0.1) -> np.ndarray:
    """float32 [num], on the grid of 16 bits, coloured so that FLAC frames differ in size."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(num) * np.linspace(0.2, 1, num)
    return to_int16(level * np.clip(x, -3, 3) / 3) / np.float32(32768)


def write(path: Path, x: np.ndarray, fs: int = 16000, subtype: str = "PCM_16") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, x, fs, subtype=subtype)
    return str(path)


def corpus(top: Path, num: int = 12, fs: int = 16000, seconds: float = 0.6) -> Path:
    """`top/data/labels.tsv` and `top/data/set/clips.tsv` of good clips; returns `top/data/set`."""
    clips = []
    for n in range(num):
        ref = write(top / "audio" / f"c{n:03d}.wav", noise(int(fs * seconds) + 17 * n, n), fs)
        clips.append(Clip(f"c{n:03d}", ("/m/dog", "/m/pet") if n % 3 else ("/m/rain",), ref))
    write_labels(top / "data" / "labels.tsv", LABELS)
    write_clips(top / "data" / "set" / "clips.tsv", clips)
    return top / "data" / "set"


def bank_of(
    top: Path,
    waves: dict[str, tuple[np.ndarray, tuple[str, ...]]],
    labels: list[Label],
    fs=8000,
    name="set",
    dump: Path | None = None,
    **scanned,
) -> ClipBank:
    """The bank `dump` (None: `top/dump`) of the list `top/name` of clips: id -> (samples, labels)."""
    clips = [Clip(id_, mids, write(top / f"{id_}.wav", x, fs)) for id_, (x, mids) in waves.items()]
    write_labels(top / "labels.tsv", labels)
    write_clips(top / name / "clips.tsv", clips)
    scan(top / name, num_workers=0, **scanned)
    archive(top / name, dump or top / "dump", settings=Settings(fs=fs), num_workers=0)
    return ClipBank(dump or top / "dump")


def numbered(classes: int) -> list[Label]:
    """Labels /m/0, /m/1 and so on."""
    return [Label(k, f"/m/{k}", f"Class {k}") for k in range(classes)]


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Name -> (time of change, content) of every file below `folder`."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}
