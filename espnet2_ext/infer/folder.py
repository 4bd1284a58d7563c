"""Inference over a data folder.

A rendered test folder (see `data.mixtures.folder`) is answered as scoring wants it: each protocol (which
query) and each pass (which input) into a folder of its own, in shards of 16-bit FLAC. A user's own
folder with `wav.scp` and `enroll_spk1.scp`, ESPnet's names, gives `spk1.scp` and sound files.
"""

import functools
import json
import logging
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np

from espnet2_ext.audio.read import FlacArkWriter, read_audio, read_mono, read_scp
from espnet2_ext.data.tables import file_digest, read_labels
from espnet2_ext.errors import DataError
from espnet2_ext.infer.own_folder import infer_own_folder
from espnet2_ext.infer.work import VERSION, ModelFiles, digest_of, is_done, read_table
from espnet2_ext.util.files import atomic_path, write_text
from espnet2_ext.util.parallel import map_parts

INPUTS = {"mixture": "wav.scp", "clean": "spk1.scp", "silence": "absent.scp"}
PROTOCOLS = ("self", "other")


def infer_folder(
    data_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    model: ModelFiles,
    *,
    protocols: Sequence[str] = PROTOCOLS,
    passes: Sequence[str] = tuple(INPUTS),
    batch_size: int = 8,
    tags: bool = True,
    num_workers: int = 1,
    scheduler: str | None = None,
) -> None:
    """Answer every key of a data folder; what is there already, of the same model and data, stays.

    Args:
        data_dir: a rendered folder, or one with `wav.scp` and `enroll_spk1.scp`.
        protocols, passes: for a rendered folder: names of PROTOCOLS and INPUTS.
        batch_size: clips of one length that go through the network together.
        tags: write tags, unless the model's own list of classes is another than the folder's.
        num_workers: processes with a model each; 1 works here, on all cores.
        scheduler: address of a Dask scheduler.

    Writes:
        `PROTOCOL/PASS/spk1.scp` with its archives; `PROTOCOL/queries.npz` (keys, embedding);
        `self/tags.npz` (keys, clipwise probabilities of the target clip) when the model tags the
        folder's classes. Or `spk1.scp` and `wavs/KEY.wav`.

    Raises:
        DataError: an unknown name, a missing table, a sound that cannot be read; keys are named.
    """
    data_dir, output_dir = Path(data_dir), Path(output_dir)
    run = {"num_workers": num_workers, "scheduler": scheduler}
    if not data_dir.is_dir():
        raise DataError(f"{data_dir}: no such folder")
    model_digest = model.digest()
    if not any((data_dir / f"enroll_{p}.scp").exists() for p in PROTOCOLS):
        infer_own_folder(data_dir, output_dir, model, model_digest, run)
        return
    for what, names, known in (("protocol", protocols, PROTOCOLS), ("pass", passes, INPUTS)):
        for name in names:
            if name not in known:
                raise DataError(f"unknown {what} {name!r}; there is: {', '.join(known)}")
    if batch_size < 1:
        raise DataError(f"batch_size must be 1 or more, not {batch_size}")
    stamp = [VERSION, model_digest, folder_digest(data_dir)]
    inputs = {p: read_table(data_dir / INPUTS[p]) for p in passes}
    enrolls = _queries_of(data_dir, protocols)
    settings = {"model": asdict(model), "batch_size": batch_size}
    classes = _classes_of(data_dir) if tags else None
    _embed_protocols(output_dir, enrolls, stamp, {**settings, "classes": classes}, run)
    _separate_passes(output_dir, enrolls, inputs, stamp, settings, run)


def _queries_of(data_dir: Path, protocols: Sequence[str]) -> dict[str, dict[str, str]]:
    """Protocol to key to query; a protocol without any is left out."""
    tables = {p: read_scp(data_dir / f"enroll_{p}.scp") for p in protocols}
    for protocol in [p for p, table in tables.items() if not table]:
        logging.warning("%s: no key has a query, protocol %s is left out", data_dir, protocol)
        del tables[protocol]
    if not tables:
        raise DataError(f"{data_dir}: holds no query for any of the protocols asked for")
    return tables


def _classes_of(data_dir: Path) -> list[str]:
    """Identifiers of the classes of a rendered folder; empty where it has no table of them."""
    table = data_dir / "labels.tsv"
    return [label.mid for label in read_labels(table)] if table.exists() else []


def folder_digest(data_dir: Path) -> str:
    """What the references do not tell of the sounds: `list.json`, where there is one."""
    path = data_dir / "list.json"
    return file_digest(path) if path.exists() else ""


def parts_of(n: int) -> int:
    """Clips in a part: a 32nd of all, but 8 to 64; on the number alone, so that parts stay."""
    return min(max(-(-n // 32), 8), 64)


# ---- queries -------------------------------------------------------------------------------------


def _embed_protocols(output_dir: Path, enrolls: dict[str, dict], stamp: list, settings: dict, run: dict) -> None:
    """Make `PROTOCOL/queries.npz` and `self/tags.npz` where they are not there."""
    what = "queries" if settings["classes"] is not None else "queries alone"
    digests = {p: digest_of(what, *stamp, table) for p, table in enrolls.items()}
    todo = [
        p for p in enrolls if not is_done(output_dir / p / "queries.json", digests[p], output_dir / p / "queries.npz")
    ]
    items = [(key, ref) for p in todo for key, ref in enrolls[p].items()]
    if not items:
        return
    for protocol in todo:
        (output_dir / protocol / "queries.json").unlink(missing_ok=True)
    fn = functools.partial(embed_part, **settings, stamp=stamp)
    parts = map_parts(fn, items, output_dir / "queries.parts", part_size=parts_of(len(items)), desc="queries", **run)
    loaded = []
    for part in parts:
        with np.load(part) as z:
            loaded.append(dict(z))
    arrays = {name: np.concatenate([part[name] for part in loaded]) for name in loaded[0]}
    for protocol in todo:
        folder, keys = output_dir / protocol, list(enrolls[protocol])
        own = {"keys": np.array(keys)} | {k: v[: len(keys)] for k, v in arrays.items()}
        arrays = {k: v[len(keys) :] for k, v in arrays.items()}
        _save(folder / "queries.npz", keys=own["keys"], embedding=own["embedding"])
        (folder / "tags.npz").unlink(missing_ok=True)
        if protocol == "self" and "clipwise" in own:  # where the query is the target itself
            _save(folder / "tags.npz", keys=own["keys"], clipwise=own["clipwise"])
        write_text(folder / "queries.json", json.dumps({"digest": digests[protocol]}) + "\n")
    shutil.rmtree(output_dir / "queries.parts")


def embed_part(
    items: Sequence[tuple[str, str]],
    path: Path,
    *,
    model: dict,
    batch_size: int,
    classes: list[str] | None,
    stamp: list,
) -> None:
    """Embed queries (key, reference) into an npz: embedding `[N, E]`, clipwise `[N, K]`.

    classes: of the folder, if it tells them; None: no tags. A model of other classes writes no
    `clipwise`, nor does a bundle that tells none: what could its tags be of?
    """
    separator = ModelFiles(**model).load()
    own = [label.mid for label in separator.classes]
    tags = classes is not None and (own == classes or not (classes and (own or model["bundle"])))
    waves = [_read(key, ref, separator.fs) for key, ref in items]
    rows: list = [None] * len(items)
    for group in equal_lengths(waves, batch_size):
        embedding, logits = separator.embed_batch(np.stack([waves[i] for i in group]))
        for at, i in enumerate(group):
            if not np.isfinite(embedding[at]).all():
                raise DataError(f"key {items[i][0]}: {items[i][1]}: the embedding is not finite")
            rows[i] = embedding[at], None if logits is None else logits[at]
    arrays = {"embedding": np.stack([r[0] for r in rows])}
    if tags and rows[0][1] is not None:
        arrays["clipwise"] = 1 / (1 + np.exp(-np.stack([r[1] for r in rows]).clip(-80, 80)))
    with open(path, "wb") as f:
        np.savez(f, **arrays)


def _read(key: str, ref: str, fs: int) -> np.ndarray:
    """Mono sound `[T]` at the model's rate."""
    try:
        x = read_mono(ref, fs)
    except DataError as e:
        raise DataError(f"key {key}: {e}") from e
    if not len(x):
        raise DataError(f"key {key}: {ref}: holds no sound (0 samples)")
    return x


def equal_lengths(waves: Sequence[np.ndarray], batch_size: int) -> list[list[int]]:
    """Rows of `waves` in groups of one shape, at most `batch_size` each."""
    by_shape: dict[tuple, list[int]] = {}
    for i, wave in enumerate(waves):
        by_shape.setdefault(wave.shape, []).append(i)
    return [rows[i : i + batch_size] for rows in by_shape.values() for i in range(0, len(rows), batch_size)]


def _save(path: Path, **arrays: np.ndarray) -> None:
    with atomic_path(path) as part, open(part, "wb") as f:
        np.savez(f, **arrays)


# ---- passes --------------------------------------------------------------------------------------


def _separate_passes(
    output_dir: Path, enrolls: dict[str, dict], inputs: dict[str, dict], stamp: list, settings: dict, run: dict
) -> None:
    """Make `PROTOCOL/PASS/spk1.scp` where it is not there, with one pool for all."""
    items, todo = [], []
    for (protocol, enroll), (name, table) in product(enrolls.items(), inputs.items()):
        out = output_dir / protocol / name
        digest = digest_of("pass", *stamp, enroll, table)
        if is_done(out / "about.json", digest, out / "spk1.scp"):
            logging.info("%s: is there", out / "spk1.scp")
            continue
        for old in ("about.json", "spk1.scp"):
            (out / old).unlink(missing_ok=True)
        archives = _archives(out, table, enroll)
        todo.append((out, digest, len(items), len(archives)))
        items += [(str(out), f"spk1.{n:05d}", str(out.parent / "queries.npz"), rows) for n, rows in enumerate(archives)]
    if not items:
        return
    fn = functools.partial(separate_part, **settings, stamp=stamp)
    parts = map_parts(fn, items, output_dir / "parts", part_size=1, desc="separation", **run)
    for out, digest, first, number in todo:
        told = [json.loads(p.read_text()) for p in parts[first : first + number]]
        merge_scps(out, [t["archive"] for t in told], parts[first : first + number])
        about = {
            "digest": digest,
            "keys": sum(t["keys"] for t in told),
            "fs": told[0]["fs"],
            "clipped": sum(t["clipped"] for t in told),
        }
        write_text(out / "about.json", json.dumps(about) + "\n")
    shutil.rmtree(output_dir / "parts")


def _archives(out: Path, table: dict[str, str], enroll: dict[str, str]) -> list[list[tuple]]:
    """(key, input, row of its query) of each archive; keys without a query are left out."""
    at = {key: row for row, key in enumerate(enroll)}
    rows = [(key, ref, at[key]) for key, ref in table.items() if key in at]
    if not rows:
        raise DataError(f"{out}: no key of the inputs has a query")
    if len(rows) < len(table):
        logging.warning("%s: %d of %d keys have no query and are left out", out, len(table) - len(rows), len(table))
    size = parts_of(len(rows))
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def separate_part(
    items: Sequence[tuple[str, str, str, list]], path: Path, *, model: dict, batch_size: int, stamp: list
) -> None:
    """Separate the clips of one archive; JSON of what was written in `path`.

    The one item: folder and name of the archive, the queries' npz, and (key, input, row) of each.
    """
    [(out_dir, name, queries, clips)] = items
    separator = ModelFiles(**model).load()
    with np.load(queries) as z:
        vectors = z["embedding"][[row for *_, row in clips]]
    mixes = [_read_mix(key, ref) for key, ref, _ in clips]
    fs = mixes[0][1]
    for (key, ref, _), (_, other) in zip(clips, mixes):
        if other != fs:
            raise DataError(f"key {key}: {ref}: has {other} Hz, the clips before it {fs} Hz")
    outs = _answer(separator, [x for x, _ in mixes], fs, vectors, batch_size)
    # A clean input comes back so nearly unchanged that 16 bits would round the difference away.
    bits = 24 if Path(out_dir).name == "clean" else 16
    with FlacArkWriter(out_dir, name, fs, bits) as archive:
        for (key, _, _), est in zip(clips, outs):
            archive.write(key, est)
    path.write_text(
        json.dumps(
            {
                "archive": name,
                "bytes": archive.ark.stat().st_size,
                "keys": len(clips),
                "fs": fs,
                "clipped": archive.clipped,
            }
        )
    )


def _answer(separator, waves: list[np.ndarray], fs: int, vectors: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Estimates of `waves`, each with its row of `vectors`, in their order."""
    longest = separator.plan().core
    outs: list = [None] * len(waves)
    for group in equal_lengths(waves, batch_size):
        shape = waves[group[0]].shape
        if fs == separator.fs and len(shape) == 1 and shape[0] <= longest:
            est = separator.separate_batch(np.stack([waves[i] for i in group]), vectors[group])
        else:  # another rate, several channels, or long: one by one, in chunks
            est = [separator.separate(waves[i], fs, vectors[[i]])[0] for i in group]
        for i, e in zip(group, est):
            outs[i] = e
    return outs


def _read_mix(key: str, ref: str) -> tuple[np.ndarray, int]:
    try:
        x, fs = read_audio(ref)
    except DataError as e:
        raise DataError(f"key {key}: {e}") from e
    if not len(x) or not np.isfinite(x).all():
        raise DataError(f"key {key}: {ref}: " + ("holds NaN or infinity" if len(x) else "holds no sound (0 samples)"))
    return (x[:, 0] if x.shape[1] == 1 else x), fs


def merge_scps(out: Path, archives: Sequence[str], parts: Sequence[Path]) -> None:
    """Join the tables of the archives into `spk1.scp`; remove archives of an earlier run."""
    text = ""
    for name, part in zip(archives, parts, strict=True):
        ark, size = out / f"{name}.ark", json.loads(part.read_text())["bytes"]
        if not ark.is_file() or ark.stat().st_size != size:
            part.unlink()
            raise DataError(f"{ark}: was taken away or changed; start again to make it anew")
        text += (out / f"{name}.scp").read_text(encoding="utf-8")
    write_text(out / "spk1.scp", text)
    for path in out.glob("spk1.*.*"):
        if re.fullmatch(r"spk1\.\d{5}\.(ark|scp)", path.name) and not (path.stem in archives and path.suffix == ".ark"):
            path.unlink()
