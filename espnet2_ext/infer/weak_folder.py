"""Class-wise separation of a data folder: `wav.scp` to `spk1.scp` ... `spkS.scp`.

Output s is class s of the model, in every recording; nothing is permuted. Recordings may have any
rate, length and number of channels, and keep them.
"""

import contextlib
import functools
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from espnet2_ext.audio.read import FlacArkWriter, ark_header, read_scp
from espnet2_ext.audio.streams import ArraySource, Source, measure
from espnet2_ext.data.outputs import join_activity, save_activity
from espnet2_ext.errors import DataError
from espnet2_ext.infer.chunks import Plan
from espnet2_ext.infer.class_separator import CHUNK, CONTEXT, Activity, WeakSeparator
from espnet2_ext.infer.folder import equal_lengths, folder_digest
from espnet2_ext.infer.queries import open_source
from espnet2_ext.infer.weak_files import WeakFiles
from espnet2_ext.infer.work import VERSION, digest_of, is_done, read_table
from espnet2_ext.util.files import write_text
from espnet2_ext.util.parallel import map_parts

# A quiet class must not be rounded to silence, which has no SI-SDR and would leave the means.
BITS = 24
SHORT = 30.0  # seconds; longer recordings are handed out one by one


def infer_weak_folder(
    data_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    model: WeakFiles,
    *,
    batch_size: int = 8,
    chunk: float = CHUNK,
    context: float = CONTEXT,
    num_workers: int = 1,
    scheduler: str | None = None,
) -> None:
    """Separate every recording of a folder; what is there already, of the same model, stays.

    Args:
        data_dir: holds `wav.scp`.
        batch_size: recordings of one length, not longer than a chunk, that go through together.
        chunk, context: seconds, see `WeakSeparator.plan`.
        num_workers: processes with a model each; 1 works here, on all cores.
        scheduler: address of a Dask scheduler.

    Writes:
        `spk1.scp` ... `spkS.scp` with archives (24-bit FLAC); `activity.npz`, where the model has
        a classifier (see `weak_activity`); `about.json`, with the outputs' names, last.

    Raises:
        DataError: no table, a recording that cannot be read; keys are named.
    """
    if batch_size < 1:
        raise DataError(f"batch_size must be 1 or more, not {batch_size}")
    data_dir, output_dir = Path(data_dir), Path(output_dir)
    table = read_table(data_dir / "wav.scp")
    digest = digest_of(VERSION, model.digest(), folder_digest(data_dir), table, chunk, context)
    about = output_dir / "about.json"
    if is_done(about, digest, output_dir / "spk1.scp"):
        logging.info("%s: is there", output_dir / "spk1.scp")
        return
    _remove(output_dir, r"about\.json|activity\.npz|spk\d+\.scp")
    fn = functools.partial(
        separate_part,
        model=asdict(model),
        batch_size=batch_size,
        chunk=chunk,
        context=context,
        out_dir=str(output_dir),
        stamp=digest,
    )
    parts = map_parts(
        fn,
        archives_of(table),
        output_dir / "parts",
        part_size=1,
        desc="separation",
        num_workers=num_workers,
        scheduler=scheduler,
    )
    told = join_activity(parts, output_dir / "activity.npz")
    arks = told.pop("archives")
    join_scps(output_dir, table, len(told["outputs"]), arks, parts)
    write_text(about, json.dumps({"digest": digest, "keys": len(table), **told}) + "\n")
    _remove(output_dir, r"spk\d+\.\d{5}\.(ark|scp)", keep=arks)
    shutil.rmtree(output_dir / "parts")


def _remove(folder: Path, pattern: str, keep: Container[str] = ()) -> None:
    for path in folder.iterdir() if folder.is_dir() else ():
        if re.fullmatch(pattern, path.name) and path.name not in keep:
            path.unlink()


def archives_of(table: dict[str, str]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Number of each archive and what goes into it: (key, reference).

    A 32nd of all recordings makes an archive; 8 to 64 short ones, or 1 to 4 long ones.
    """
    items = list(table.items())
    first = _open(*items[0])
    least, most = (8, 64) if first.frames <= SHORT * first.fs else (1, 4)
    size = min(max(-(-len(items) // 32), least), most)
    return [(f"{n // size:05d}", items[n : n + size]) for n in range(0, len(items), size)]


def separate_part(
    items: Sequence[tuple[str, list]],
    path: Path,
    *,
    model: dict,
    batch_size: int,
    chunk: float,
    context: float,
    out_dir: str,
    stamp: str,
) -> None:
    """Separate the recordings of one archive; `path` gets their activity and what was written.

    The one item: number of the archive, and (key, reference) of each recording.
    """
    [(number, rows)] = items
    separator = WeakFiles(**model).load()
    plan = separator.plan(chunk, context)
    keys = [key for key, _ in rows]
    sources = [_open(key, ref) for key, ref in rows]
    heard: list = [None] * len(rows)
    with contextlib.ExitStack() as files:
        writers = [
            files.enter_context(ArkFiles(out_dir, f"spk{s}.{number}", separator.fs, BITS))
            for s in range(1, len(separator.outputs) + 1)
        ]
        waves = [_whole(source, separator, plan) for source in sources]
        for group in equal_lengths(waves, batch_size):
            if waves[group[0]].size:
                batch = np.stack([waves[i] for i in group])
                found = _batch(separator, batch, writers, [keys[i] for i in group])
            else:
                found = [_stream(separator, sources[i], plan, writers, keys[i]) for i in group]
            for i, activity in zip(group, found):
                heard[i] = activity
    told = {
        "outputs": separator.outputs,
        "fs": separator.fs,
        "hop": separator.hop,
        "n_fft": separator.n_fft,
        "time_pool": separator.time_pool,
        "clipped": sum(w.clipped for w in writers),
        "archives": {w.ark.name: w.ark.stat().st_size for w in writers},
    }
    save_activity(path, keys, heard, told)


def _whole(source: Source, separator: WeakSeparator, plan: Plan) -> np.ndarray:
    """The samples `[T]` of a recording that can go through as it is; of another one none."""
    fits = isinstance(source, ArraySource) and source.channels == 1 and source.frames <= plan.core
    return source.x[:, 0] if fits and source.fs == separator.fs else np.zeros(0)


def _open(key: str, ref: str) -> Source:
    """The recording, checked whole. Entries of archives and short files are held in memory."""
    try:
        source = open_source(ref)
        if not isinstance(source, ArraySource) and source.frames <= SHORT * source.fs:
            x = np.concatenate(list(source.blocks()))
            source = ArraySource(x, source.fs, source.name)
        measure(source)
    except DataError as e:
        raise DataError(f"key {key}: {e}") from e
    return source


def _batch(separator: WeakSeparator, waves: np.ndarray, writers: list, keys: list) -> list:
    """Separate whole recordings of one length `[B, T]`; a silent one gives silence."""
    estimates = separator.separate_batch(waves)
    estimates[~waves.any(1)] = 0
    for key, outs in zip(keys, estimates):
        for writer, est in zip(writers, outs):
            writer.write(key, est)
    return separator.classify_batch(waves) if separator.tags else [None] * len(keys)


def _stream(separator: WeakSeparator, source: Source, plan: Plan, writers: list, key: str) -> Activity | None:
    """Separate one recording chunk by chunk, through files beside the archives."""
    with tempfile.TemporaryDirectory(dir=writers[0].ark.parent, prefix=".tmp-") as folder:
        files = [Path(folder) / f"{s}.flac" for s in range(len(writers))]
        try:
            done = separator.separate_to(source, files, plan=plan, subtype=f"PCM_{BITS}")
            heard = separator.classify(source, plan) if separator.tags else None
        except DataError as e:
            raise DataError(f"key {key}: {e}") from e
        writers[0].clipped += bool(done.clipped)
        for writer, file in zip(writers, files):
            writer.add(key, file)
    return heard


class ArkFiles(FlacArkWriter):
    """`FlacArkWriter` that takes FLAC files too, of any rate and number of channels."""

    def add(self, key: str, file: Path) -> None:
        """Copy the FLAC `file` into the archive under `key`."""
        if key in self._places:
            raise DataError(f"{self.ark}: key {key!r} is there twice")
        self._places[key] = self._file.tell() + len(key.encode()) + 1
        self._file.write(ark_header(key, file.stat().st_size))
        with open(file, "rb") as f:
            shutil.copyfileobj(f, self._file, 1 << 20)


def join_scps(out: Path, keys: Iterable[str], outputs: int, archives: dict[str, int], parts: Sequence[Path]) -> None:
    """Join the tables of the archives into `spk1.scp` ...

    Args:
        keys: their order in the tables.
        archives: name (`spk1.00000.ark`, ...) to size in bytes.
        parts: of `separate_part`, by the archives' numbers.

    Raises:
        DataError: an archive that is not there as it was written.
    """
    for name, size in archives.items():
        if not (out / name).is_file() or (out / name).stat().st_size != size:
            parts[int(name.split(".")[1])].unlink()
            raise DataError(f"{out / name}: was taken away or changed; start again to make it anew")
    for s in range(outputs, 0, -1):  # spk1.scp last: it stands for all
        table: dict[str, str] = {}
        for name in archives:
            if name.startswith(f"spk{s}."):
                table |= read_scp(out / f"{Path(name).stem}.scp")
        write_text(out / f"spk{s}.scp", "".join(f"{key} {table[key]}\n" for key in keys))
