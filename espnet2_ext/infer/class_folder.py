"""Class separation of a data folder: `wav.scp` to `spk1.scp` ... `spkS.scp`.

Output s is class s of the model, in every recording; nothing is permuted. Recordings may have any rate, length and
number of channels, and keep them.
"""

import contextlib
import os
from bisect import bisect
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from espnet2_ext.audio.read import FlacArkWriter
from espnet2_ext.audio.streams import ArraySource, Source, measure, open_source
from espnet2_ext.data import outputs
from espnet2_ext.data.mixtures.event_table import MixtureTable
from espnet2_ext.errors import DataError
from espnet2_ext.infer import folder
from espnet2_ext.infer.chunks import Plan, equal_lengths
from espnet2_ext.infer.class_separator import CHUNK, CONTEXT, AskedSeparator, WeakSeparator
from espnet2_ext.util.files import digest, write_record
from espnet2_ext.util.locks import holding, temporary

# A quiet class must not be rounded to silence, which has no SI-SDR and would leave the means.
BITS = 24
SHORT = 30.0  # seconds; longer recordings are handed out one by one


@holding("output_dir")
def infer_class_folder(
    data_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    model: folder.ModelFiles,
    *,
    queries: str | None = None,
    batch_size: int = 8,
    chunk: float = CHUNK,
    context: float = CONTEXT,
    workers: folder.Workers = folder.HERE,
) -> None:
    """Separate every recording of a folder; outputs of the same model and data are kept.

    Args:
        data_dir: holds `wav.scp`.
        queries: of a query model (`model.use` is `asked`), what it is asked for each class with: `class`, its mean
            query; of a rendered test set `self`, the class's isolated sound in the mixture, or `other`, that in the
            next mixture with other clips of the class. Where there is none: the mean query. With these the classes are
            those of the test set, whether the model knows them or not.
        batch_size: recordings of one length, not longer than a chunk, that go through together.
        chunk, context: seconds, see `WeakSeparator.plan`.

    Writes:
        `spk1.scp` ... `spkS.scp` with archives (24-bit FLAC); `activity.npz`, where the model has a classifier;
        `about.json`, with the outputs' names, last.

    Raises:
        DataError: no table, a recording that cannot be read; keys are named.
    """
    folder.check_batch_size(batch_size)
    data_dir, output_dir = Path(data_dir), Path(output_dir)
    table = folder.read_table(data_dir / "wav.scp")
    classes, asked = examples_of(data_dir, queries) if queries in ("self", "other") else ([], {})
    made_of = folder.VERSION, model.digest(), folder.folder_digest(data_dir), table, chunk, context
    key = {"digest": digest(*made_of, *([queries] if queries else []))}
    about, parts_dir = output_dir / "about.json", output_dir / "parts"
    if folder.up_to_date(about, key, output_dir / "spk1.scp"):
        return folder.end_job(parts_dir, output_dir)
    outputs.remove_old(output_dir, r"about\.json|activity\.npz|spk\d+\.scp")
    job = SeparateClasses(batch_size, chunk, context, str(output_dir), tuple(classes))
    items = [(n, [(key, ref, asked.get(key, {})) for key, ref in rows]) for n, rows in archives_of(table)]
    parts = folder.run_job(job, items, parts_dir, size=1, model=model, stamp=key, workers=workers)
    facts = {k: v for k, v in parts[0].facts.items() if k != "archives"}
    facts["clipped"] = sum(p.facts["clipped"] for p in parts)
    if "frame" in parts[0].arrays:
        keys = [key for _, rows in items for key, *_ in rows]
        outputs.write_activity(output_dir / "activity.npz", activity_of(parts, keys))
    files = outputs.join_estimates(output_dir, list(table), parts, len(facts["outputs"]))
    files += [f for f in [output_dir / "activity.npz"] if f.exists()]
    outputs.remove_old(output_dir, outputs.ARCHIVES, keep=parts)
    write_record(about, key, {"keys": len(table), **facts}, files)
    folder.end_job(parts_dir, output_dir)


def archives_of(table: dict[str, str]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Number of each archive and what goes into it: (key, reference).

    A 32nd of all recordings makes an archive; 8 to 64 short ones, or 1 to 4 long ones.
    """
    items = list(table.items())
    first = _open(*items[0])
    limits = (8, 64) if first.frames <= SHORT * first.fs else (1, 4)
    size = folder.part_size(len(items), *limits)
    return [(f"{n // size:05d}", items[n : n + size]) for n in range(0, len(items), size)]


def examples_of(data_dir: Path, queries: str) -> tuple[list[str], dict[str, dict[int, str]]]:
    """The classes of a test set, and key -> class -> place of the isolated sound that it is asked for with; see
    `infer_class_folder`.

    Raises:
        DataError: a folder that is no rendered test set with isolated sounds.
    """
    if not all((data_dir / name).exists() for name in ("mixtures", "spk1.scp")):
        raise DataError(f"{data_dir}: queries {queries} need a rendered test set with isolated sounds")
    table, found = MixtureTable(data_dir / "mixtures"), defaultdict(dict)
    clips = {}  # class -> key -> the clips that its sound is made of
    for mixture in map(table.row, range(len(table))):
        for event in mixture.events:
            if event.cls >= 0 and event.samples:
                clips.setdefault(event.cls, {}).setdefault(mixture.id, set()).add(event.clip)
    for k, of in clips.items():
        places, having = folder.read_table(data_dir / f"spk{k + 1}.scp"), sorted(of)
        for key in places:
            later = (o for o in having[bisect(having, key) :] + having if not of[o] & of.get(key, set()))
            if (place := places.get(key if queries == "self" and key in of else next(later, ""))) is not None:
                found[key][k] = place
    return list(table.classes), found


def activity_of(parts: Sequence[outputs.Part], keys: Sequence[str]) -> outputs.Activity:
    """outputs.Activity of all parts; `keys` in the order of their recordings."""
    facts, clip = parts[0].facts, outputs.joined(parts, "clip")
    sizes = {name: facts[name] for name in ("time_pool", "n_fft", "hop", "fs")}
    classes = np.array(facts["outputs"][: clip.shape[1]])
    return outputs.Activity(keys=np.array(keys), clip=clip, classes=classes, **outputs.frames_of(parts), **sizes)


@dataclass(frozen=True)
class SeparateClasses:
    """Separate the recordings of one archive. The one item: its number, and of each recording (key, reference, class ->
    reference of an example)."""

    desc = "separation"
    batch_size: int
    chunk: float
    context: float
    out_dir: str
    classes: tuple[str, ...] = ()  # of a query model: what it is asked for, its own by default

    def answer(self, separator: WeakSeparator, items: Sequence[tuple[str, list]]) -> tuple[dict, dict]:
        """See `folder.Job`."""
        [(number, rows)] = items
        plan = separator.plan(self.chunk, self.context)
        keys = [key for key, *_ in rows]
        sources = [_open(key, ref) for key, ref, _ in rows]
        tags: list = [None] * len(rows)
        if isinstance(separator, AskedSeparator):
            separator.asking(self.classes, [])
        with contextlib.ExitStack() as files:
            writers = [
                files.enter_context(FlacArkWriter(self.out_dir, f"spk{s}.{number}", separator.fs, BITS))
                for s in range(1, len(separator.outputs) + 1)
            ]
            waves = [_whole(source, separator, plan) for source in sources]
            for group in equal_lengths(waves, self.batch_size):
                if isinstance(separator, AskedSeparator):
                    separator.asking(self.classes, [_examples(*rows[i]) for i in group])
                if waves[group[0]].size:
                    batch = np.stack([waves[i] for i in group])
                    found = _batch(separator, batch, writers, [keys[i] for i in group])
                else:
                    found = [_stream(separator, sources[i], plan, writers, keys[i]) for i in group]
                for i, one in zip(group, found):
                    tags[i] = one
        facts = {
            "outputs": separator.outputs,
            "fs": separator.fs,
            "hop": separator.hop,
            "n_fft": separator.n_fft,
            "time_pool": separator.time_pool,
            "clipped": sum(w.clipped for w in writers),
            "archives": outputs.archive_sizes(writers),
        }
        return facts, outputs.tag_arrays(tags) if separator.tags else {}


def _whole(source: Source, separator: WeakSeparator, plan: Plan) -> np.ndarray:
    """The samples `[T]` of a recording that can go through as it is; of another one none."""
    fits = isinstance(source, ArraySource) and source.channels == 1 and source.frames <= plan.core
    return source.x[:, 0] if fits and source.fs == separator.fs else np.zeros(0)


def _open(key: str, ref: str) -> Source:
    """The recording, checked completely. Entries of archives and short files are held in memory."""
    try:
        source = open_source(ref)
        if source.frames <= SHORT * source.fs or source.path != Path(ref):
            x = np.concatenate(list(source.blocks()))
            source = ArraySource(x, source.fs, source.name)
        measure(source)
    except DataError as e:
        raise DataError(f"key {key}: {e}") from e
    return source


def _examples(key: str, _: str, examples: Mapping[int, str]) -> dict[int, np.ndarray]:
    """Class -> waveform, without silent ones."""
    waves = {k: np.concatenate(list(_open(key, ref).blocks()))[:, 0] for k, ref in examples.items()}
    return {k: x for k, x in waves.items() if x.any()}


def _batch(separator: WeakSeparator, waves: np.ndarray, writers: list, keys: list) -> list[outputs.Tags | None]:
    """Separate whole recordings of one length `[B, T]`; a silent one gives silence."""
    estimates = separator.separate_batch(waves)
    estimates[~waves.any(1)] = 0
    for key, outs in zip(keys, estimates):
        for writer, est in zip(writers, outs):
            writer.write(key, est)
    return separator.classify_batch(waves) if separator.tags else [None] * len(keys)


def _stream(separator: WeakSeparator, source: Source, plan: Plan, writers: list, key: str) -> outputs.Tags | None:
    """Separate one recording chunk by chunk, through files beside the archives."""
    with temporary(writers[0].ark, folder=True) as tmp:
        files = [tmp / f"{s}.flac" for s in range(len(writers))]
        try:
            done = separator.separate_to(source, files, plan=plan, subtype=f"PCM_{BITS}")
            tags = separator.classify(source, plan) if separator.tags else None
        except DataError as e:
            raise DataError(f"key {key}: {e}") from e
        writers[0].clipped += bool(done.clipped)
        for writer, file in zip(writers, files):
            writer.add(key, file)
    return tags
