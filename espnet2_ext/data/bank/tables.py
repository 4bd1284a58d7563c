"""The tables of a clip bank (see `bank.py`), out of the parts that the archive step has made."""

import logging
import os
from pathlib import Path

import numpy as np

from espnet2_ext.audio.read import ark_header
from espnet2_ext.data.bank.bank import SUFFIX
from espnet2_ext.data.tables import Entry
from espnet2_ext.errors import DataError
from espnet2_ext.util.files import atomic_path

_MARK_BYTES = len(ark_header("", 0)) - 1  # what precedes a FLAC file in the archive, less the key


def shard_path(out_dir: str | os.PathLike, n: int, format: str) -> Path:
    """Where shard `n` of a bank lies."""
    return Path(out_dir) / f"audio.{n:05d}.{SUFFIX[format]}"


def write_classes(out_dir: Path, lists: list[list[int]], num_classes: int) -> None:
    """Write the classes of each clip and the clips of each class, as rows in one long array."""
    indptr = np.concatenate([[0], np.cumsum([len(v) for v in lists])]).astype(np.int64)
    indices = np.fromiter((k for v in lists for k in v), np.int64, count=int(indptr[-1]))
    owner = np.repeat(np.arange(len(lists)), np.diff(indptr))
    counts = np.bincount(indices, minlength=num_classes)
    _save(out_dir, "labels.indptr", indptr)
    _save(out_dir, "labels.indices", indices.astype(np.int32))
    _save(out_dir, "clips.indptr", np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
    _save(out_dir, "clips.indices", owner[np.argsort(indices, kind="stable")].astype(np.int64))


def write_index(out_dir: Path, good: list[Entry], parts: list[Path], fs: int, format: str) -> dict:
    """Write what says where each clip lies; returns figures for `bank.json`."""
    index, clipped = _merge_parts(out_dir, parts, format)
    _save(out_dir, "ids", np.array([e.id.encode() for e in good]))
    if format == "flac":
        _write_scp(out_dir, good, index)
    _remove_strangers(out_dir, len(parts), format)
    if clipped:
        logging.warning("%s: %d clips cut at full scale", out_dir, clipped)
    return {
        "seconds": round(int(index["samples"].sum(dtype=np.int64)) / fs, 3),
        "max_samples": int(index["samples"].max()),
        "clipped": clipped,
    }


def _merge_parts(out_dir: Path, parts: list[Path], format: str) -> tuple[np.ndarray, int]:
    """Write `index.npy`, `envelope.npy`, `seek.npy`; returns index and number of clipped clips."""
    tables, clipped, widths = [], 0, {"envelope": 0, "seek": 0}
    for n, part in enumerate(parts):
        with np.load(part) as t:
            tables.append(t["index"])
            clipped += int(t["clipped"])
            widths = {k: max(w, t[k].shape[1]) for k, w in widths.items()}
        shard, last = shard_path(out_dir, n, format), tables[-1][-1]
        if not shard.is_file() or shard.stat().st_size != last["offset"] + last["nbytes"]:
            part.unlink()
            raise DataError(f"{shard}: was removed or changed; run again to make it anew")
    index = np.concatenate(tables)
    _save(out_dir, "index", index)
    for name, width in widths.items():
        if width:
            _join(out_dir / f"{name}.npy", parts, name, (len(index), width))
    return index, clipped


def _join(path: Path, parts: list[Path], name: str, shape: tuple[int, int]) -> None:
    """Write table `name` of all parts as one, without holding it."""
    row = 0
    with atomic_path(path) as tmp:
        for part in parts:
            with np.load(part) as t:
                table = t[name]
            if row == 0:
                out = np.lib.format.open_memmap(tmp, "w+", table.dtype, shape)
            out[row : row + len(table), : table.shape[1]] = table
            row += len(table)
        out.flush()
        del out


def _save(out_dir: Path, name: str, array: np.ndarray) -> None:
    with atomic_path(out_dir / f"{name}.npy") as tmp, open(tmp, "wb") as f:
        np.save(f, array)


def _write_scp(out_dir: Path, good: list[Entry], index: np.ndarray) -> None:
    """`wav.scp` for ESPnet (type kaldi_ark): its offsets point at the mark before each sound."""
    with atomic_path(out_dir / "wav.scp") as tmp, open(tmp, "w", encoding="utf-8") as f:
        for e, row in zip(good, index, strict=True):
            shard = shard_path(out_dir, row["shard"], "flac")
            f.write(f"{e.id} {shard}:{row['offset'] - _MARK_BYTES}\n")


def _remove_strangers(out_dir: Path, shards: int, format: str) -> None:
    """Remove shards of an earlier bank that this one does not have."""
    ours = {shard_path(out_dir, n, format) for n in range(shards)}
    for path in out_dir.glob("audio.[0-9]*"):
        if path not in ours:
            path.unlink()
    for name in ("wav.scp", "seek.npy") if format != "flac" else ():
        (out_dir / name).unlink(missing_ok=True)
