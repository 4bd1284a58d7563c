"""Stage `scan`: decode every clip of a list once, write down what it is, and store it where there is to be a bank."""

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
from espnet2_ext.audio.read import MissingAudio, open_sound, to_mono
from espnet2_ext.audio.sound import scale_note
from espnet2_ext.data.bank.bank import shard_path
from espnet2_ext.data.bank.shards import DEFAULT, Settings, Shard
from espnet2_ext.data.tables import MANIFEST, STATUSES, Clip, ClipRows, Entry, read_clips, read_manifest
from espnet2_ext.errors import DataError
from espnet2_ext.util.arrays import read_npz, write_npz
from espnet2_ext.util.files import atomic_path, file_digest, make_once
from espnet2_ext.util.locks import hold
from espnet2_ext.util.parallel import map_parts, part_of
from espnet2_ext.util.tables import tsv_line

VERSION = 1
SCAN, PARTS = ".scan", ".parts"  # folders of parts: of a scan under way, and those that a bank is made of
LINES = "lines"  # array of a part: its lines of the manifest, as bytes


@dataclass(frozen=True)
class Limits:
    """When a clip is bad. min_seconds: shorter is `short`. silence_db: `silent` is what stays below
    this level (dB of full scale, mean square without its mean) in each 100 ms of the mono sound."""

    min_seconds: float = 0.5
    silence_db: float = -60.0


def scan(
    data_dir: str | os.PathLike,
    *,
    limits: Limits = Limits(),
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
    key = {"version": VERSION, "clips_digest": file_digest(clips_tsv), **asdict(limits)}
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
            f"{data_dir / 'manifest.tsv'}: {sum(bad.values())} of {info['clips']} clips cannot be"
            f" used ({named}), more than the share {max_bad_share:g} (--max_bad_share); mend"
            " the sounds and run again, or raise the share"
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


def make_parts(
    rows: ClipRows, folder: Path, limits: Limits, settings: Settings | None, *, part_size=None, **work
) -> list[Path]:
    """The parts of a scan, in `folder`; with settings those of the bank that `folder` lies in, one for each shard."""
    fn, size = functools.partial(scan_part, limits=limits), part_size or part_of(len(rows), 128, 8, 512)
    if settings:
        settings = settings.sized(len(rows))
        fn, size = functools.partial(fn, settings=settings), settings.clips_per_shard
    return map_parts(fn, rows, folder, part_size=size, **work)


def scan_part(clips: ClipRows, path: Path, *, limits: Limits, settings: Settings | None = None) -> None:
    """Write the manifest's lines of `clips` to `BANK/FOLDER/path`; with settings their shard before, and its tables."""
    if settings is None:
        return write_npz(path, {LINES: _lines(examine(clip, limits) for clip in clips)})
    bank, number, entries = path.parent.parent, clips.first // settings.clips_per_shard, []
    with atomic_path(shard_path(bank, number, settings.format)) as audio, open(audio, "wb") as f:
        shard = Shard(f, number, settings)
        for clip in clips:
            mono: list[np.ndarray] = []
            entries.append(examine(clip, limits, mono))
            if entries[-1].status == "ok":
                shard.add(clip.id, np.concatenate(mono), entries[-1].rate)
    write_npz(path, {LINES: _lines(entries), **shard.tables()})


def read_part(part: Path, names: Sequence[str] = (LINES,)) -> dict[str, np.ndarray]:
    """The arrays of a part; one that is damaged is removed (DataError), so that the next run makes it anew."""
    try:
        return read_npz(part, names)
    except DataError as e:
        part.unlink(missing_ok=True)
        raise DataError(f"{e}; removed, run again to make it anew") from None


def _lines(entries: Iterable[Entry]) -> np.ndarray:
    text = "".join(tsv_line((*e[:6], ",".join(e.labels), *e[7:])) for e in entries)
    return np.frombuffer(text.encode(), np.uint8)


def summarise(entries: Iterable[Entry]) -> tuple[dict[str, int], str]:
    """Counts by status, and the manifest's hash: of all it says but where the sounds lie."""
    counts, h = Counter(), hashlib.blake2b(digest_size=16)
    for e in entries:
        counts[e.status] += 1
        h.update(tsv_line((*e[:6], ",".join(e.labels))).encode())
    return {s: counts[s] for s in STATUSES}, h.hexdigest()


def examine(clip: Clip, limits: Limits, mono: list[np.ndarray] | None = None) -> Entry:
    """Decode one clip and say what it is; never raises for what the sound is like.

    Args:
        mono: takes the mean of its channels, block by block: float32 [T].
    """

    def entry(status, detail="", rate=0, shape=(0, 0), digest=""):
        detail = " ".join(detail.split())
        return Entry(clip.id, status, rate, shape[1], shape[0], digest, clip.labels, clip.source, detail)

    if not clip.source:
        return entry("missing", "not found among the audio given")
    rate, shape = 0, (0, 0)
    try:
        sound = open_sound(clip.source)
        level, digest, channels = Level(sound.fs, limits.silence_db), SoundHash(), sound.channels
        for x in sound.blocks():
            block = level.add(x)
            if np.isfinite(level.peak):
                digest.add(x)
            if mono is not None:
                mono.append(block)
        rate, shape = sound.fs, (level.samples, channels)
    except MissingAudio as e:
        return entry("missing", str(e))
    except DataError as e:
        return entry("corrupt", str(e))
    if not level.samples:
        return entry("corrupt", "holds no samples", rate, shape)
    if not np.isfinite(level.peak):
        return entry("corrupt", "holds NaN or infinity", rate, shape)
    if note := scale_note(level.peak):
        return entry("corrupt", note, rate, shape)
    found = rate, shape, digest.hex()
    if level.samples < limits.min_seconds * rate:
        status, details = "short", [f"{level.samples / rate:.3f} s"]
    elif not level.is_loud and (loudest := level.loudest_db()) < limits.silence_db:
        status, details = "silent", [f"loudest 100 ms at {loudest:.1f} dB"]
    else:
        status, details = "ok", []
    return entry(status, "; ".join([*details, *sound.notes]), *found)


class SoundHash:
    """blake2b-128 of float samples as int16, channels interleaved, block by block."""

    def __init__(self):
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, x: np.ndarray) -> None:
        """Add `[T, C]`."""
        self._hash.update(to_int16(x).data)

    def hex(self) -> str:
        """32 hex digits."""
        return self._hash.hexdigest()


class Level:
    """Level of a recording that is added block by block: the sums of each 100 ms of its mono sound are kept.

    Attributes:
        samples: of a channel. peak: highest absolute sample, NaN or infinity where there is one.
        is_loud: `loudest_db` is above `enough`, whatever follows; from there on no sums are kept.
    """

    def __init__(self, fs: int, enough: float = np.inf):
        self.hop, self.samples, self.peak, self.is_loud = max(1, fs // 10), 0, 0.0, False
        self._enough = 2 * self.hop * 10 ** (enough / 10)  # with room for rounding
        self._sums: list[np.ndarray] = []  # [2, N]: of the samples, and of their squares
        self._rest = np.zeros(0)

    def add(self, x: np.ndarray) -> np.ndarray:
        """Add `[T, C]`; returns the mean of the channels, float32 [T]."""
        self.samples += len(x)
        self.peak = float(np.maximum(self.peak, np.maximum(x.max(initial=0), -x.min(initial=0))))  # NaN stays
        mono = to_mono(x)
        if self.is_loud or not np.isfinite(self.peak):
            return mono
        joined = np.concatenate([self._rest, mono])
        whole = joined[: len(joined) // self.hop * self.hop].reshape(-1, self.hop)
        sums = _sums(whole)
        self._sums.append(sums)
        self._rest = joined[whole.size :]
        # the mean of all leaves no less of 100 ms than their own mean does
        self.is_loud = bool((sums[1] - sums[0] ** 2 / self.hop).max(initial=0) > self._enough)
        return mono

    def loudest_db(self) -> float:
        """Level of the loudest 100 ms in dB of full scale (mean square, mean of all removed)."""
        sums = np.concatenate([*self._sums, _sums(self._rest[None])], axis=1)
        mean = np.float32(sums[0].sum() / max(self.samples, 1)).astype(np.float64)
        lengths = np.full(sums.shape[1], self.hop)
        lengths[-1] = len(self._rest)
        power = (sums[1] - 2 * mean * sums[0] + lengths * mean**2).max()
        return float(10 * np.log10(max(power, 0.0) / max(min(self.hop, self.samples), 1) + 1e-12))


def _sums(rows: np.ndarray) -> np.ndarray:
    return np.stack([rows.sum(1), np.einsum("nt,nt->n", rows, rows)])
