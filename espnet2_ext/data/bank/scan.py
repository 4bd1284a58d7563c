"""Stage `scan`: decode every clip of a list once and write down what it is."""

import functools
import hashlib
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from espnet2_ext.audio.flac import to_int16
from espnet2_ext.audio.read import MissingAudio, read_audio, to_mono
from espnet2_ext.data.tables import MANIFEST, STATUSES, Clip, Entry, read_clips, read_manifest
from espnet2_ext.errors import DataError
from espnet2_ext.util.files import atomic_path, file_digest, make_once
from espnet2_ext.util.parallel import map_parts, part_of
from espnet2_ext.util.tables import tsv_line

VERSION = 1


@dataclass(frozen=True)
class Limits:
    """When a clip is bad. min_seconds: shorter is `short`. silence_db: `silent` is what stays below
    this level (dB of full scale, mean square without its mean) in each 100 ms of the mono sound."""

    min_seconds: float = 0.5
    silence_db: float = -60.0


def scan(
    data_dir: str | os.PathLike, *, limits: Limits = Limits(), max_bad_share: float = 0.2, redo: bool = False, **work
) -> dict:
    """Decode the clips of `data_dir/clips.tsv`; write `manifest.tsv` and `manifest.json`.

    For the same list and limits it is up to date; a call that was stopped resumes.

    Args:
        max_bad_share: at most this share of the clips may be other than `ok`.
        redo: decode again although the list has not changed (the sounds have).
        work: `part_size`, clips of a part (None: 8 to 512, by their number), and `num_workers` and `scheduler` of
            `map_parts`.

    Returns:
        `manifest.json`: counts by status, clips, digest of the list, limits, manifest_hash.

    Raises:
        DataError: a broken or empty list; too many bad clips (the manifest is written before).
    """
    data_dir = Path(data_dir)
    clips_tsv = data_dir / "clips.tsv"
    if not clips_tsv.is_file():
        raise DataError(f"{clips_tsv}: no such file")
    key = {"version": VERSION, "clips_digest": file_digest(clips_tsv), **asdict(limits)}
    make = functools.partial(_scan_all, data_dir, limits, **work)
    info = make_once(data_dir / "manifest.json", key, make, [data_dir / "manifest.tsv"], redo=redo)
    shutil.rmtree(data_dir / ".scan", ignore_errors=True)
    counts = info["counts"]
    logging.info("%s: %s", data_dir, ", ".join(f"{counts[s]} {s}" for s in STATUSES))
    bad = {s: counts[s] for s in STATUSES if s != "ok" and counts[s]}
    if sum(bad.values()) > max_bad_share * info["clips"]:
        named = ", ".join(f"{s} {n}" for s, n in bad.items())
        raise DataError(
            f"{data_dir / 'manifest.tsv'}: {sum(bad.values())} of {info['clips']} clips cannot be"
            f" used ({named}), more than the share {max_bad_share:g} (--max_bad_share); mend"
            " the sounds and run again, or raise the share"
        )
    return info


def _scan_all(data_dir: Path, limits: Limits, *, part_size: int | None = None, **work) -> dict:
    clips = list(read_clips(data_dir / "clips.tsv"))
    if not clips:
        raise DataError(f"{data_dir / 'clips.tsv'}: no clips in the list")
    parts = map_parts(
        functools.partial(scan_part, limits=limits),
        clips,
        data_dir / ".scan",
        part_size=part_size or part_of(len(clips), 128, 8, 512),
        desc=f"scan {data_dir.name}",
        **work,
    )
    with atomic_path(data_dir / "manifest.tsv") as tmp, open(tmp, "wb") as out:
        out.write(("\t".join(MANIFEST) + "\n").encode())
        for part in parts:
            out.write(part.read_bytes())
    counts, digest = summarise(read_manifest(data_dir / "manifest.tsv"))
    return {"clips": len(clips), "counts": counts, "manifest_hash": digest}


def summarise(entries: Iterable[Entry]) -> tuple[dict[str, int], str]:
    """Counts by status, and the manifest's hash: of all it says but where the sounds lie."""
    counts, h = Counter(), hashlib.blake2b(digest_size=16)
    for e in entries:
        counts[e.status] += 1
        h.update(tsv_line((*e[:6], ",".join(e.labels))).encode())
    return {s: counts[s] for s in STATUSES}, h.hexdigest()


def scan_part(clips: Sequence[Clip], path: Path, *, limits: Limits) -> None:
    """Write the manifest's lines of `clips` to `path`."""
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        for clip in clips:
            entry = examine(clip, limits)
            f.write(tsv_line((*entry[:6], ",".join(entry.labels), *entry[7:])))


def examine(clip: Clip, limits: Limits) -> Entry:
    """Decode one clip and say what it is; never raises for what the sound is like."""

    def entry(status, detail="", rate=0, shape=(0, 0), digest=""):
        detail = " ".join(detail.split())
        return Entry(clip.id, status, rate, shape[1], shape[0], digest, clip.labels, clip.source, detail)

    if not clip.source:
        return entry("missing", "not found among the audio given")
    try:
        x, rate = read_audio(clip.source)
    except MissingAudio as e:
        return entry("missing", str(e))
    except DataError as e:
        return entry("corrupt", str(e))
    if not len(x):
        return entry("corrupt", "holds no samples", rate, x.shape)
    if not np.isfinite(x).all():
        return entry("corrupt", "holds NaN or infinity", rate, x.shape)
    found = rate, x.shape, sound_hash(x)
    if len(x) < limits.min_seconds * rate:
        return entry("short", f"{len(x) / rate:.3f} s", *found)
    level = loudest_db(to_mono(x), rate)
    if level < limits.silence_db:
        return entry("silent", f"loudest 100 ms at {level:.1f} dB", *found)
    return entry("ok", "", *found)


def sound_hash(x: np.ndarray) -> str:
    """blake2b-128 of float samples [T, C] as int16, channels interleaved, as hex digits."""
    return hashlib.blake2b(to_int16(x).data, digest_size=16).hexdigest()


def loudest_db(x: np.ndarray, fs: int) -> float:
    """Level of the loudest 100 ms of [T] in dB of full scale (mean square, mean of all removed)."""
    x = x - x.mean(dtype=np.float64).astype(x.dtype)
    hop = min(max(1, fs // 10), len(x))
    whole = x[: len(x) // hop * hop].reshape(-1, hop)
    rest = x[whole.size :]
    power = max(np.einsum("nt,nt->n", whole, whole).max(), rest @ rest)
    return float(10 * np.log10(float(power) / hop + 1e-12))
