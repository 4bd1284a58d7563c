"""Stages `scan` and `archive`: clips are decoded once and listed, the good ones become a clip bank (see `bank.py`)."""

import functools
import hashlib
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from espnet2_ext.audio.read import ark_header
from espnet2_ext.data.bank.bank import SUMMED, VERSION, shard_path, tables
from espnet2_ext.data.bank.shards import DEFAULT, LIMITS, LINES, Limits, Settings, make_parts, read_part
from espnet2_ext.data.tables import MANIFEST, STATUSES, ClipRows, Entry, read_clips, read_labels, read_manifest
from espnet2_ext.errors import DataError
from espnet2_ext.util.binary import write_npy, write_npy_rows
from espnet2_ext.util.documents import read_text
from espnet2_ext.util.files import atomic_path, file_digest, make_once, read_record, verified, write_text
from espnet2_ext.util.locks import hold
from espnet2_ext.util.tables import tsv_line, write_scp

SCANNED = 1  # version of the manifest
SCAN, PARTS = ".scan", ".parts"  # folders of parts: of a scan under way, and those that a bank is made of
_MARK_BYTES = len(ark_header("", 0)) - 1  # what precedes a FLAC file in the archive, less the key


def scan(
    data_dir: str | os.PathLike,
    *,
    limits: Limits = LIMITS,
    max_bad_share: float = 0.2,
    redo: bool = False,
    bank: str | os.PathLike | None = None,
    settings: Settings = DEFAULT,
    **work,
) -> dict:
    """Decode the clips of `data_dir/clips.tsv`; write `manifest.tsv` and `manifest.json`.

    For the same list and limits it is up to date; a call that was stopped resumes.

    Args:
        max_bad_share: at most this share of the clips may be other than `ok`.
        redo: decode again although the list has not changed (the sounds have).
        bank: folder of the clip bank that `archive` will make with the same `settings`: the good clips are stored
            there in the same pass, so that `archive` decodes nothing; a bank that is there is no longer valid.
        work: `part_size`, clips of a part without a bank (None: 8 to 512, by their number), and `num_workers` and
            `scheduler` of `map_parts`.

    Returns:
        `manifest.json`: counts by status, clips, digest of the list, limits, manifest_hash.

    Raises:
        DataError: a broken or empty list; too many bad clips (the manifest is written before).
    """
    data_dir = Path(data_dir)
    clips_tsv = data_dir / "clips.tsv"
    if not clips_tsv.is_file():
        raise DataError(f"{clips_tsv}: no such file")
    key = {"version": SCANNED, "clips_digest": file_digest(clips_tsv), **asdict(limits)}
    make = functools.partial(_scan_all, data_dir, limits, bank and Path(bank), settings, **work)
    info = make_once(data_dir / "manifest.json", key, make, [data_dir / "manifest.tsv"], redo=redo)
    if bank and (parts := Path(bank, SCAN)).is_dir():
        shutil.rmtree(parts.with_name(PARTS), ignore_errors=True)
        parts.rename(parts.with_name(PARTS))
    shutil.rmtree(data_dir / SCAN, ignore_errors=True)
    counts = info["counts"]
    logging.info("%s: %s", data_dir, ", ".join(f"{counts[s]} {s}" for s in STATUSES))
    bad = {s: counts[s] for s in STATUSES if s != "ok" and counts[s]}
    if sum(bad.values()) > max_bad_share * info["clips"]:
        named = ", ".join(f"{s} {n}" for s, n in bad.items())
        raise DataError(
            f"{data_dir / 'manifest.tsv'}: {sum(bad.values())} of {info['clips']} clips cannot be used ({named}), more "
            f"than the share {max_bad_share:g} (--max_bad_share); mend the sounds and run again, or raise the share"
        )
    return info


def _scan_all(data_dir: Path, limits: Limits, bank: Path | None, settings: Settings, **work) -> dict:
    num = sum(1 for _ in read_clips(data_dir / "clips.tsv"))
    if not num:
        raise DataError(f"{data_dir / 'clips.tsv'}: no clips in the list")
    with hold(*[bank] * bool(bank)):
        if bank:
            (bank / "bank.json").unlink(missing_ok=True)
            shutil.rmtree(bank / PARTS, ignore_errors=True)
        rows = ClipRows(data_dir / "clips.tsv")
        folder = (bank or data_dir) / SCAN
        parts = make_parts(rows, folder, limits, settings if bank else None, desc=f"scan {data_dir.name}", **work)
    lines = [line for part in parts for line in read_part(part)[LINES].tobytes().splitlines(keepends=True)]
    with atomic_path(data_dir / "manifest.tsv") as tmp, open(tmp, "wb") as out:
        out.write(("\t".join(MANIFEST) + "\n").encode())
        out.writelines(lines[n] for n in np.argsort(rows.starts))
    counts, digest = summarise(read_manifest(data_dir / "manifest.tsv"))
    return {"clips": num, "counts": counts, "manifest_hash": digest}


def summarise(entries: Iterable[Entry]) -> tuple[dict[str, int], str]:
    """Counts by status, and the manifest's hash: of all it says but where the sounds lie."""
    counts, h = Counter(), hashlib.blake2b(digest_size=16)
    for e in entries:
        counts[e.status] += 1
        h.update(tsv_line((*e[:6], ",".join(e.labels))).encode())
    return {s: counts[s] for s in STATUSES}, h.hexdigest()


# ---- the bank -------------------------------------------------------------------------------------


def archive(
    data_dir: str | os.PathLike,
    out_dir: str | os.PathLike,
    *,
    labels: str | os.PathLike | None = None,
    settings: Settings = DEFAULT,
    **work,
) -> dict:
    """Write the `ok` clips of `data_dir/manifest.tsv` as a clip bank into `out_dir`.

    Mono (mean of the channels), resampled once with soxr HQ, 16 bit. `bank.json` is written last. For the same manifest
    and settings it is up to date; a call that was stopped resumes with the first shard that is not whole. Where the
    scan has made the shards (its argument `bank`), nothing is decoded.

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
    for name in (PARTS, SCAN):
        shutil.rmtree(out_dir / name, ignore_errors=True)
    return info


def _others(out_dir: Path) -> list[Path]:
    """What a bank holds besides its tables. A folder that cannot be listed is an OSError; `glob` would find nothing."""
    return [out_dir / n for n in os.listdir(out_dir) if n in ("labels.tsv", "sums.npy") or re.match(r"audio\.\d", n)]


def _write_bank(manifest: Path, labels: Path, out_dir: Path, settings: Settings, **work) -> dict:
    record = manifest.with_suffix(".json")
    verified(manifest, record)
    entries = sorted(read_manifest(manifest), key=lambda e: e.id.encode())
    good = [e for e in entries if e.status == "ok"]
    if not good:
        raise DataError(f"{manifest}: no clip is ok")
    classes, num_classes = _class_rows(good, labels)
    settings = settings.sized(len(entries))
    found = read_record(record)
    limits = Limits(**{k: found.get(k, v) for k, v in asdict(Limits()).items()})
    rows, desc = ClipRows(manifest), f"archive {out_dir.name}"
    parts = make_parts(rows, out_dir / PARTS, limits, settings, desc=desc, **work)
    write_text(out_dir / "labels.tsv", read_text(labels))
    _write_classes(out_dir, classes, num_classes)
    index, facts = _merge_parts(out_dir, parts, entries, settings)
    _write_index(out_dir, good, index, settings.format)
    _remove_strangers(out_dir, len(parts), settings.format)
    if facts["clipped"]:
        logging.warning("%s: %d clips cut at full scale", out_dir, facts["clipped"])
    return {
        "clips_per_shard": settings.clips_per_shard,
        "clips": len(good),
        "classes": num_classes,
        "seconds": round(int(index["samples"].sum(dtype=np.int64)) / settings.fs, 3),
        "max_samples": int(index["samples"].max()),
        **facts,
        "manifest_hash": summarise(read_manifest(manifest))[1],
    }


def _key(manifest: Path, labels: Path, settings: Settings) -> dict:
    for path in (manifest, labels):
        if not path.is_file():
            raise DataError(f"{path}: no such file")
    digests = {"manifest_digest": file_digest(manifest), "labels_digest": file_digest(labels)}
    stored = {k: v for k, v in asdict(settings).items() if k != "clips_per_shard" or v}
    return {"version": VERSION, **stored, **digests}


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


def _merge_parts(
    out_dir: Path, parts: list[Path], entries: Sequence[Entry], settings: Settings
) -> tuple[np.ndarray, dict]:
    """Write `envelope.npy`, `seek.npy`, `sums.npy`; returns the index, and facts for `bank.json`."""
    index, sums, clipped, widths = [], [np.zeros(1, np.uint64)], 0, {"envelope": 0, "seek": 0}
    for n, part in enumerate(parts):
        first = n * settings.clips_per_shard
        shard = shard_path(out_dir, n, settings.format)
        t = _checked(part, shard, entries[first : first + settings.clips_per_shard])
        index.append(t["index"])
        sums.append(t["sums"])
        clipped += int(t["clipped"])
        widths = {k: max(w, t[k].shape[1]) for k, w in widths.items()}
    num = sum(map(len, index))
    for name, width in widths.items():
        if width:
            rows = (read_part(part)[name] for part in parts)
            write_npy_rows(out_dir / f"{name}.npy", (num, width), rows)
    if settings.format != "pcm16":
        return np.concatenate(index), {"clipped": clipped}
    write_npy(out_dir / "sums.npy", np.cumsum(np.concatenate(sums), dtype=np.uint64))
    return np.concatenate(index), {"clipped": clipped, "summed": SUMMED}


def _checked(part: Path, shard: Path, entries: Sequence[Entry]) -> dict[str, np.ndarray]:
    """The tables of a part; where its shard is not whole or its clips are not what the manifest says, a DataError."""
    t = read_part(part, (LINES, "index", "clipped", "envelope", "seek", "sums"))
    size = sum(t["index"][-1].item()[1:3]) if len(t["index"]) else 0
    if not shard.is_file() or shard.stat().st_size != size:
        part.unlink()
        raise DataError(f"{shard}: was removed or changed; run again to make it anew")
    for e, line in zip(entries, t[LINES].tobytes().splitlines(), strict=True):
        _, status, *_, digest, _, _, detail = line.decode().split("\t")
        if (e.status == "ok", e.hash) != (status == "ok", digest):
            part.unlink()
            why = detail and f" ({detail})"
            raise DataError(f"{e.source}: clip {e.id} has changed since the scan{why}: scan again")
    return t


def _write_index(out_dir: Path, good: list[Entry], index: np.ndarray, format: str) -> None:
    """Write `index.npy`, `ids.npy`, and `wav.scp` for ESPnet (type kaldi_ark): it points at the mark before a sound."""
    write_npy(out_dir / "index.npy", index)
    write_npy(out_dir / "ids.npy", np.array([e.id.encode() for e in good]))
    if format == "flac":
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
