"""Stage `archive`: the good clips of a manifest become a clip bank (see `bank.py`)."""

import functools
import logging
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from espnet2_ext.audio.flac import encode_flac, seek_points, to_int16
from espnet2_ext.audio.read import ark_header, open_sound, resample, to_mono
from espnet2_ext.data.bank.bank import INDEX, SUFFIX, SUMMED, VERSION, block_sums, shard_path, tables
from espnet2_ext.data.bank.scan import SoundHash, summarise
from espnet2_ext.data.tables import Entry, read_labels, read_manifest
from espnet2_ext.errors import DataError
from espnet2_ext.util.arrays import read_npz, write_npy, write_npy_rows, write_npz
from espnet2_ext.util.documents import read_text
from espnet2_ext.util.files import atomic_path, file_digest, make_once, verified, write_text
from espnet2_ext.util.parallel import map_parts, part_of
from espnet2_ext.util.tables import write_scp

_MARK_BYTES = len(ark_header("", 0)) - 1  # what precedes a FLAC file in the archive, less the key


class Item(NamedTuple):
    """A clip to store: its row in the bank, and of the manifest what is needed to read it."""

    row: int
    id: str
    source: str
    hash: str


@dataclass(frozen=True)
class Settings:
    """How a bank is stored. fs: rate in Hz; format: flac or pcm16; clips_per_shard: clips a file,
    which is also the unit of work; 0: a 64th of all, but 16 to 4096, so that a small set keeps
    many cores busy and a large one does not fall into many files."""

    fs: int = 32000
    format: str = "flac"
    clips_per_shard: int = 0

    def __post_init__(self):
        if self.format not in SUFFIX or self.fs <= 0 or self.clips_per_shard < 0:
            raise DataError(f"no such storage: {self}; formats are {', '.join(SUFFIX)}")

    def sized(self, clips: int) -> "Settings":
        """The same with a number of clips a shard that suits `clips` where none was given."""
        return replace(self, clips_per_shard=self.clips_per_shard or part_of(clips, 64, 16, 4096))


def archive(
    data_dir: str | os.PathLike,
    out_dir: str | os.PathLike,
    *,
    labels: str | os.PathLike | None = None,
    settings: Settings = Settings(),
    **work,
) -> dict:
    """Write the `ok` clips of `data_dir/manifest.tsv` as a clip bank into `out_dir`.

    Mono (mean of the channels), resampled once with soxr HQ, 16 bit. `bank.json` is written last. For the same manifest
    and settings it is up to date; a call that was stopped resumes with the first shard that is not whole.

    Args:
        labels: `labels.tsv`; None: the one beside `data_dir`.
        work: `num_workers` and `scheduler` of `map_parts`.

    Returns:
        `bank.json`.

    Raises:
        DataError: no manifest, no good clip in it, a class that `labels` lacks, a sound that changed since the scan.
        OSError: what the file system said, such as a full disk; nothing is left half-written.
    """
    data_dir, out_dir = Path(data_dir), Path(out_dir)
    manifest = data_dir / "manifest.tsv"
    labels = Path(labels) if labels else data_dir.parent / "labels.tsv"
    files = [out_dir / f"{name}.npy" for name in tables(settings.format)]
    key = _key(manifest, labels, settings)
    make = functools.partial(_write_bank, manifest, labels, out_dir, settings, **work)
    info = make_once(out_dir / "bank.json", key, make, files, more=lambda: _others(out_dir))
    shutil.rmtree(out_dir / ".parts", ignore_errors=True)
    return info


def _others(out_dir: Path) -> list[Path]:
    """What a bank holds besides its tables. A folder that cannot be listed is an OSError; `glob` would find nothing."""
    return [out_dir / n for n in os.listdir(out_dir) if n in ("labels.tsv", "sums.npy") or re.match(r"audio\.\d", n)]


def _write_bank(manifest: Path, labels: Path, out_dir: Path, settings: Settings, **work) -> dict:
    verified(manifest, manifest.with_suffix(".json"))
    good = sorted((e for e in read_manifest(manifest) if e.status == "ok"), key=_by_id)
    if not good:
        raise DataError(f"{manifest}: no clip is ok")
    rows, num_classes = _class_rows(good, labels)
    settings = settings.sized(len(good))
    out_dir.mkdir(parents=True, exist_ok=True)
    parts = map_parts(
        functools.partial(archive_part, out_dir=os.path.abspath(out_dir), settings=settings),
        [Item(row, e.id, e.source, e.hash) for row, e in enumerate(good)],
        out_dir / ".parts",
        part_size=settings.clips_per_shard,
        desc=f"archive {out_dir.name}",
        **work,
    )
    write_text(out_dir / "labels.tsv", read_text(labels))
    _write_classes(out_dir, rows, num_classes)
    info = {"clips_per_shard": settings.clips_per_shard, "clips": len(good), "classes": num_classes}
    info |= _write_index(out_dir, good, parts, settings.fs, settings.format)
    return info | {"manifest_hash": summarise(read_manifest(manifest))[1]}


def _by_id(e: Entry) -> bytes:
    return e.id.encode()


def _key(manifest: Path, labels: Path, settings: Settings) -> dict:
    for path in (manifest, labels):
        if not path.is_file():
            raise DataError(f"{path}: no such file")
    digests = {"manifest_digest": file_digest(manifest), "labels_digest": file_digest(labels)}
    stored = {k: v for k, v in asdict(settings).items() if k != "clips_per_shard" or v}
    return {"version": VERSION, **stored, **digests}


def archive_part(items: Sequence[Item], path: Path, *, out_dir: str, settings: Settings) -> None:
    """Write one shard, then its table to `path`: where that is, the shard is whole."""
    index = np.zeros(len(items), INDEX)
    shard = items[0].row // settings.clips_per_shard
    levels, seeks, clipped = [], [], 0
    sums, rest = [], b""
    target = shard_path(out_dir, shard, settings.format)
    with atomic_path(target) as audio, open(audio, "wb") as f:
        for n, item in enumerate(items):
            pcm, cut = prepare(item, settings.fs)
            clipped += cut
            offset, data, points = _put(f, item.id, pcm, settings)
            index[n] = shard, offset, len(data), len(pcm)
            seeks.append(points)
            levels.append(envelope_db(pcm, settings.fs))
            if settings.format == "pcm16":
                rest += data
                whole = len(rest) // SUMMED * SUMMED
                sums.append(block_sums(rest[:whole]))
                rest = rest[whole:]
    found = {"envelope": _padded(levels), "seek": _padded(seeks), "sums": np.concatenate([*sums, block_sums(rest)])}
    write_npz(path, {"index": index, "clipped": clipped} | found)


def _padded(rows: list[np.ndarray]) -> np.ndarray:
    """Stack rows of differing length; zeros behind the shorter ones."""
    table = np.zeros((len(rows), max(map(len, rows))), rows[0].dtype)
    for n, row in enumerate(rows):
        table[n, : len(row)] = row
    return table


def prepare(item: Item, fs: int) -> tuple[np.ndarray, bool]:
    """Read a clip as it is stored: int16 [T] at `fs` Hz, and whether samples had to be clipped.

    Raises:
        DataError: the sound is not the one that was scanned.
    """
    sound = open_sound(item.source)
    digest, parts = SoundHash(), []
    for x in sound.blocks(size=1 << 20):
        digest.add(x)
        parts.append(to_mono(x))
    if digest.hex() != item.hash:
        raise DataError(f"{item.source}: clip {item.id} has changed since the scan: scan again")
    x = resample(np.concatenate(parts), sound.fs, fs)
    return to_int16(x), bool(np.abs(x).max(initial=0) > 1)


def _put(f, key: str, pcm: np.ndarray, settings: Settings) -> tuple[int, bytes, np.ndarray]:
    """Append a clip; returns offset and content of the sound itself, and its seek points."""
    if settings.format == "pcm16":
        head, data, points = b"", pcm.tobytes(), np.zeros(0, np.uint32)
    else:
        data = encode_flac(pcm, settings.fs)
        head, points = ark_header(key, len(data)), seek_points(data, len(pcm), settings.fs)
    offset = f.tell() + len(head)
    f.write(head + data)
    return offset, data, points


def envelope_db(pcm: np.ndarray, fs: int) -> np.ndarray:
    """Mean square of each 100 ms of int16 [T] as uint8: dB of full scale + 120, floored at 0.

    Segment k is samples k fs / 10 to (k + 1) fs / 10 (rounded down); the last one may be shorter.
    """
    num = -(-len(pcm) * 10 // fs)
    edges = np.arange(num + 1) * fs // 10
    edges[-1] = len(pcm)
    power = np.add.reduceat((pcm / 32768.0) ** 2, edges[:-1]) / np.diff(edges)
    return np.clip(np.rint(10 * np.log10(power + 1e-12)) + 120, 0, 255).astype(np.uint8)


def _class_rows(good: list[Entry], labels: Path) -> tuple[list[list[int]], int]:
    """Class rows of each clip, and the number of classes."""
    rows = {c.mid: c.index for c in read_labels(labels)}
    for e in good:
        if unknown := [m for m in e.labels if m not in rows]:
            raise DataError(f"{labels}: clip {e.id} has the unknown class {unknown[0]}")
    return [sorted({rows[m] for m in e.labels}) for e in good], len(rows)


def _write_classes(out_dir: Path, lists: list[list[int]], num_classes: int) -> None:
    """Write the classes of each clip and the clips of each class, as rows in one long array."""
    indptr = np.concatenate([[0], np.cumsum([len(v) for v in lists])]).astype(np.int64)
    indices = np.fromiter((k for v in lists for k in v), np.int64, count=int(indptr[-1]))
    owner = np.repeat(np.arange(len(lists)), np.diff(indptr))
    counts = np.bincount(indices, minlength=num_classes)
    write_npy(out_dir / "labels.indptr.npy", indptr)
    write_npy(out_dir / "labels.indices.npy", indices.astype(np.int32))
    write_npy(out_dir / "clips.indptr.npy", np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
    write_npy(out_dir / "clips.indices.npy", owner[np.argsort(indices, kind="stable")].astype(np.int64))


def _write_index(out_dir: Path, good: list[Entry], parts: list[Path], fs: int, format: str) -> dict:
    """Write what says where each clip lies; returns figures for `bank.json`."""
    index, facts = _merge_parts(out_dir, parts, format)
    write_npy(out_dir / "ids.npy", np.array([e.id.encode() for e in good]))
    if format == "flac":
        _write_scp(out_dir, good, index)
    _remove_strangers(out_dir, len(parts), format)
    if facts["clipped"]:
        logging.warning("%s: %d clips cut at full scale", out_dir, facts["clipped"])
    return {
        "seconds": round(int(index["samples"].sum(dtype=np.int64)) / fs, 3),
        "max_samples": int(index["samples"].max()),
        **facts,
    }


def _merge_parts(out_dir: Path, parts: list[Path], format: str) -> tuple[np.ndarray, dict]:
    """Write `index.npy`, `envelope.npy`, `seek.npy`, `sums.npy`; returns the index, and facts for `bank.json`."""
    tables, sums, clipped, widths = [], [], 0, {"envelope": 0, "seek": 0}
    for n, part in enumerate(parts):
        t = read_npz(part, ("index", "clipped", *widths))
        tables.append(t["index"])
        sums.append(t.get("sums"))  # None: a part of an earlier version
        clipped += int(t["clipped"])
        widths = {k: max(w, t[k].shape[1]) for k, w in widths.items()}
        shard, last = shard_path(out_dir, n, format), tables[-1][-1]
        if not shard.is_file() or shard.stat().st_size != last["offset"] + last["nbytes"]:
            part.unlink()
            raise DataError(f"{shard}: was removed or changed; run again to make it anew")
    index = np.concatenate(tables)
    write_npy(out_dir / "index.npy", index)
    for name, width in widths.items():
        if width:
            rows = (read_npz(part)[name] for part in parts)
            write_npy_rows(out_dir / f"{name}.npy", (len(index), width), rows)
    if format != "pcm16" or any(s is None for s in sums):
        return index, {"clipped": clipped}
    write_npy(out_dir / "sums.npy", np.cumsum(np.concatenate([np.zeros(1, np.uint64), *sums]), dtype=np.uint64))
    return index, {"clipped": clipped, "summed": SUMMED}


def _write_scp(out_dir: Path, good: list[Entry], index: np.ndarray) -> None:
    """`wav.scp` for ESPnet (type kaldi_ark): its offsets point at the mark before each sound."""
    rows = zip(good, index, strict=True)
    write_scp(
        out_dir / "wav.scp",
        {e.id: f"{shard_path(out_dir, row['shard'], 'flac')}:{row['offset'] - _MARK_BYTES}" for e, row in rows},
    )


def _remove_strangers(out_dir: Path, shards: int, format: str) -> None:
    """Remove shards of an earlier bank that this one does not have."""
    ours = {shard_path(out_dir, n, format) for n in range(shards)}
    for path in out_dir.glob("audio.[0-9]*"):
        if path not in ours:
            path.unlink()
    for name in ("wav.scp", "seek.npy") if format != "flac" else ("sums.npy",):
        (out_dir / name).unlink(missing_ok=True)
