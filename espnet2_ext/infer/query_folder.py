"""Query separation of a data folder.

A rendered test folder (see `data.mixtures.render`) is answered as scoring wants it: each protocol (which query) and
each pass (which input) in a folder of its own, in archives of FLAC. A user's own folder with `wav.scp` and
`enroll_spk1.scp`, ESPnet's names, gives `spk1.scp` and sound files.
"""

import functools
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from espnet2_ext.audio.read import FlacArkWriter, read_audio, read_mono
from espnet2_ext.data import outputs
from espnet2_ext.data.tables import read_labels
from espnet2_ext.errors import DataError
from espnet2_ext.infer import folder
from espnet2_ext.infer.chunks import equal_lengths
from espnet2_ext.util.files import digest, made, write_record
from espnet2_ext.util.locks import holding
from espnet2_ext.util.names import file_name, unique
from espnet2_ext.util.tables import read_scp, write_scp


@holding("output_dir")
def infer_folder(
    data_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    model: folder.ModelFiles,
    *,
    protocols: Sequence[str] = outputs.PROTOCOLS,
    passes: Sequence[str] = tuple(outputs.INPUTS),
    batch_size: int = 8,
    tags: bool = True,
    workers: folder.Workers = folder.HERE,
) -> None:
    """Answer every key of a data folder; outputs of the same model and data are kept.

    Args:
        data_dir: a rendered folder, or one with `wav.scp` and `enroll_spk1.scp`.
        protocols, passes: for a rendered folder: names of `outputs.PROTOCOLS` and `outputs.INPUTS`.
        batch_size: clips of one length that go through the network together.
        tags: write tags, unless the model's own list of classes differs from the folder's.

    Writes:
        `PROTOCOL/PASS/spk1.scp` with its archives; `PROTOCOL/queries.npz`; `self/tags.npz` (of the target clip) when
        the model tags the folder's classes. Or `spk1.scp` and `wavs/KEY.wav`.

    Raises:
        DataError: an unknown name, a missing table, a sound that cannot be read; keys are named.
    """
    data_dir, output_dir = Path(data_dir), Path(output_dir)
    if not data_dir.is_dir():
        raise DataError(f"{data_dir}: no such folder")
    if not any((data_dir / f"enroll_{p}.scp").exists() for p in outputs.PROTOCOLS):
        _infer_own(data_dir, output_dir, model, workers)
        return
    for what, names, known in (("protocol", protocols, outputs.PROTOCOLS), ("pass", passes, outputs.INPUTS)):
        for name in names:
            if name not in known:
                raise DataError(f"unknown {what} {name!r}; known: {', '.join(known)}")
    folder.check_batch_size(batch_size)
    stamp = [folder.VERSION, model.digest(), folder.folder_digest(data_dir)]
    inputs = {p: folder.read_table(data_dir / outputs.INPUTS[p]) for p in passes}
    table = data_dir / "labels.tsv"
    classes = [label.mid for label in read_labels(folder.rendered(table))] if table.exists() else []
    enrolls = _queries_of(data_dir, protocols)
    run = functools.partial(folder.run_job, model=model, workers=workers, stamp=stamp)
    embed = EmbedQueries(batch_size, classes if tags else None, bool(model.bundle))
    _embed_protocols(output_dir, enrolls, stamp, functools.partial(run, embed), tags)
    _separate_passes(output_dir, enrolls, inputs, stamp, functools.partial(run, AnswerQueries(batch_size)))


def _queries_of(data_dir: Path, protocols: Sequence[str]) -> dict[str, dict[str, str]]:
    """Protocol to key to query; a protocol without any is left out."""
    tables = {p: read_scp(folder.rendered(data_dir / f"enroll_{p}.scp")) for p in protocols}
    for protocol in [p for p, table in tables.items() if not table]:
        logging.warning("%s: no key has a query, protocol %s is left out", data_dir, protocol)
        del tables[protocol]
    if not tables:
        raise DataError(f"{data_dir}: holds no query for any of the protocols asked for")
    return tables


# ---- queries -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EmbedQueries:
    """Embed queries (key, reference): `embedding` `[N, E]` and, where they are tags of the folder's classes,
    `clipwise` `[N, K]`.

    classes: of the folder, empty where it names none; None: no tags. A model of other classes gives no `clipwise`,
    nor does a bundle that names none: of what would its tags be?
    """

    desc = "queries"
    batch_size: int
    classes: list[str] | None
    from_bundle: bool

    def answer(self, separator, items: Sequence[tuple[str, str]]) -> tuple[dict, dict]:
        """See `folder.Job`."""
        own = [label.mid for label in separator.classes]
        known = own or self.from_bundle
        tags = self.classes is not None and (own == self.classes or not (self.classes and known))
        waves = [_read_query(key, ref, separator.fs) for key, ref in items]
        rows: list = [None] * len(items)
        for group in equal_lengths(waves, self.batch_size):
            embedding, logits = separator.embed_batch(np.stack([waves[i] for i in group]))
            for at, i in enumerate(group):
                if not np.isfinite(embedding[at]).all():
                    raise DataError(f"key {items[i][0]}: {items[i][1]}: the embedding is not finite")
                rows[i] = embedding[at], None if logits is None else logits[at]
        arrays = {"embedding": np.stack([r[0] for r in rows])}
        if tags and rows[0][1] is not None:
            arrays["clipwise"] = 1 / (1 + np.exp(-np.stack([r[1] for r in rows]).clip(-80, 80)))
        return {}, arrays


def _read_query(key: str, ref: str, fs: int) -> np.ndarray:
    """Mono sound `[T]` at the model's rate."""
    x = _read(key, ref, functools.partial(read_mono, fs=fs))
    if not len(x):
        raise DataError(f"key {key}: {ref}: holds no sound (0 samples)")
    return x


def _read(key: str, ref: str, read: Callable):
    try:
        return read(ref)
    except DataError as e:
        raise DataError(f"key {key}: {e}") from e


def _embed_protocols(output_dir: Path, enrolls: dict[str, dict], stamp: list, run: Callable, tags: bool) -> None:
    """Make `PROTOCOL/queries.npz` and `self/tags.npz` where they are missing, in one run for all protocols."""
    what = "queries" if tags else "queries alone"
    keys = {p: {"digest": digest(what, *stamp, table)} for p, table in enrolls.items()}
    marks = {p: output_dir / p / "queries.json" for p in enrolls}
    todo = [p for p in enrolls if not made(marks[p], keys[p], [marks[p].with_suffix(".npz")])]
    items = [(key, ref) for p in todo for key, ref in enrolls[p].items()]
    parts_dir = output_dir / "queries.parts"
    if not items:
        return folder.end_job(parts_dir)
    for protocol in todo:
        marks[protocol].unlink(missing_ok=True)
    parts = run(items, parts_dir, size=folder.part_size(len(items)))
    arrays = {name: outputs.joined(parts, name) for name in parts[0].arrays}
    for protocol in todo:
        names, n = list(enrolls[protocol]), len(enrolls[protocol])
        own, arrays = ({k: v[s] for k, v in arrays.items()} for s in (slice(n), slice(n, None)))
        outputs.write_queries(marks[protocol].with_suffix(".npz"), names, own["embedding"])
        (tags := output_dir / protocol / "tags.npz").unlink(missing_ok=True)
        if protocol == "self" and "clipwise" in own:  # where the query is the target itself
            outputs.write_tags(tags, names, own["clipwise"])
        ours = (marks[protocol].with_suffix(".npz"), tags)
        write_record(marks[protocol], keys[protocol], files=filter(Path.exists, ours))
    folder.end_job(parts_dir)


# ---- passes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AnswerQueries:
    """Separate the clips of one archive, each by its query.

    The one item: folder and name of the archive, the protocol's `queries.npz`, and (key, input, row of its query) of
    each clip.
    """

    desc = "separation"
    batch_size: int

    def answer(self, separator, items: Sequence[tuple[str, str, str, list]]) -> tuple[dict, dict]:
        """See `folder.Job`."""
        [(out_dir, name, queries, clips)] = items
        vectors = outputs.read_queries(Path(queries))[1][[row for *_, row in clips]]
        mixes = [_read_mix(key, ref) for key, ref, _ in clips]
        fs = mixes[0][1]
        for (key, ref, _), (_, other) in zip(clips, mixes):
            if other != fs:
                raise DataError(f"key {key}: {ref}: has {other} Hz, the clips before it {fs} Hz")
        outs = separator.separate_clips([x for x, _ in mixes], fs, vectors, self.batch_size)
        # A clean input comes back so nearly unchanged that 16 bits would round the difference away.
        bits = 24 if Path(out_dir).name == "clean" else 16
        with FlacArkWriter(out_dir, name, fs, bits) as archive:
            for (key, _, _), est in zip(clips, outs):
                archive.write(key, est)
        facts = {"keys": len(clips), "fs": fs, "clipped": archive.clipped, "archives": outputs.archive_sizes([archive])}
        return facts, {}


def _read_mix(key: str, ref: str) -> tuple[np.ndarray, int]:
    x, fs = _read(key, ref, read_audio)
    if not len(x) or not np.isfinite(x).all():
        raise DataError(f"key {key}: {ref}: " + ("holds NaN or infinity" if len(x) else "holds no sound (0 samples)"))
    return (x[:, 0] if x.shape[1] == 1 else x), fs


def _separate_passes(output_dir: Path, enrolls: dict, inputs: dict[str, dict], stamp: list, run: Callable) -> None:
    """Make `PROTOCOL/PASS/spk1.scp` where it is missing, in one run for all."""
    items, todo = [], []
    for (protocol, enroll), (name, table) in product(enrolls.items(), inputs.items()):
        out = output_dir / protocol / name
        key = {"digest": digest("pass", *stamp, enroll, table)}
        if folder.up_to_date(out / "about.json", key, out / "spk1.scp"):
            continue
        outputs.remove_old(out, r"about\.json|spk1\.scp")
        archives = _archives(out, table, enroll)
        todo.append((out, key, len(items), archives))
        queries = str(out.parent / "queries.npz")
        items += [(str(out), f"spk1.{n:05d}", queries, rows) for n, rows in enumerate(archives)]
    folders = [output_dir / protocol / name for protocol, name in product(enrolls, inputs)]
    parts_dir = output_dir / "parts"
    every = run(items, parts_dir, size=1) if items else []
    for out, key, first, archives in todo:
        parts = every[first : first + len(archives)]
        files = outputs.join_estimates(out, [key for rows in archives for key, *_ in rows], parts)
        total = {name: sum(p.facts[name] for p in parts) for name in ("keys", "clipped")}
        outputs.remove_old(out, outputs.ARCHIVES, keep=parts)
        write_record(out / "about.json", key, {"fs": parts[0].facts["fs"], **total}, files)
    folder.end_job(parts_dir, *folders)


def _archives(out: Path, table: dict[str, str], enroll: dict[str, str]) -> list[list[tuple]]:
    """(key, input, row of its query) of each archive; keys without a query are left out."""
    at = {key: row for row, key in enumerate(enroll)}
    rows = [(key, ref, at[key]) for key, ref in table.items() if key in at]
    if not rows:
        raise DataError(f"{out}: no key of the inputs has a query")
    if len(rows) < len(table):
        logging.warning("%s: %d of %d keys have no query and are left out", out, len(table) - len(rows), len(table))
    size = folder.part_size(len(rows))
    return [rows[i : i + size] for i in range(0, len(rows), size)]


# ---- a user's own folder ------------------------------------------------------------------------


def _infer_own(data_dir: Path, output_dir: Path, model: folder.ModelFiles, workers: folder.Workers) -> None:
    """`wav.scp` and `enroll_spk1.scp` to `spk1.scp` and `wavs/KEY.wav`, in the format of the inputs."""
    model_digest, items = model.digest(), _own_items(data_dir)
    key = {"digest": digest(folder.VERSION, model_digest, items)}
    about, scp, parts_dir = output_dir / "about.json", output_dir / "spk1.scp", output_dir / "parts"
    if folder.up_to_date(about, key, scp):
        return folder.end_job(parts_dir)
    outputs.remove_old(output_dir, r"about\.json|spk1\.scp")
    job = SeparateOwn(str(output_dir / "wavs"))
    parts = folder.run_job(job, items, parts_dir, size=8, model=model, stamp=key, workers=workers)
    write_scp(scp, {key: output_dir / "wavs" / name for key, _, _, name in items})
    write_record(about, key, {"keys": len(items), "clipped": sum(p.facts["clipped"] for p in parts)}, [scp])
    folder.end_job(parts_dir)


def _own_items(data_dir: Path) -> list[tuple[str, str, str, str]]:
    """(key, mixture, query, file name) of a user's folder.

    Raises:
        DataError: a missing table, a key without a query, two keys that need one file name.
    """
    files = [data_dir / name for name in ("wav.scp", "enroll_spk1.scp")]
    for file in files:
        if not file.is_file():
            raise DataError(
                f"{file}: no such file; a data folder needs wav.scp and enroll_spk1.scp (or the enroll_self.scp, "
                "enroll_other.scp of a rendered test set)"
            )
    mixes, queries = map(folder.read_table, files)
    if lacking := [key for key in mixes if key not in queries]:
        raise DataError(f"{files[1]}: has no query for {len(lacking)} keys of wav.scp, the first is {lacking[0]}")
    names = unique(file_name(key) for key in mixes)
    return [(key, mix, queries[key], f"{name}.wav") for (key, mix), name in zip(mixes.items(), names)]


@dataclass(frozen=True)
class SeparateOwn:
    """Separate (key, mixture, query, file name) into files; any rate, length and number of channels."""

    desc = "separation"
    out_dir: str

    def answer(self, separator, items: Sequence[tuple[str, str, str, str]]) -> tuple[dict, dict]:
        """See `folder.Job`."""
        vectors, clipped = {}, 0
        for key, mix, query, name in items:
            try:
                if query not in vectors:
                    vectors[query] = separator.embed_one(query)
                done = separator.separate_to(mix, [Path(self.out_dir) / name], vectors[query][None])
            except DataError as e:
                raise DataError(f"key {key}: {e}") from e
            clipped += done.clipped
        return {"clipped": clipped}, {}
