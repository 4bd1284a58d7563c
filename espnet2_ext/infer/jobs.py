"""The jobs of `separate`: what is written where, and what each output was made of.

An output says of itself what it was made of: a JSON mapping with the hashes of the model, the query and the mixture is
the comment of a WAV or FLAC file, and lies in `NAME.w64.json` beside a W64 file, which has no comments.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from espnet2_ext import __version__
from espnet2_ext.audio.streams import FORMATS, comment_of, open_source
from espnet2_ext.errors import DataError, explain
from espnet2_ext.infer.queries import query_digests, query_files, sound_files
from espnet2_ext.infer.vectors.class_queries import class_of
from espnet2_ext.util.documents import parse_json
from espnet2_ext.util.files import digest, file_digest

COMPARED = {"model": "model", "query_hash": "query", "output": "output", "mixture_hash": "mixture"}  # and their words


class Job(NamedTuple):
    """One mixture: an output per query or class, and perhaps the residual."""

    mix: Path
    outs: list[Path]
    rest: Path | None

    @property
    def paths(self) -> list[Path]:
        """All that is written."""
        return [*self.outs, *([self.rest] if self.rest else [])]


# ---- what is written where -----------------------------------------------------------------------


def plan_jobs(
    mixes: Sequence[str],
    names: Sequence[str | None],
    output: str,
    residual: str | None,
    queries: Sequence[str] = (),
    others: Iterable[str] = (),
) -> list[Job]:
    """What is written where.

    Args:
        mixes: files or folders.
        names: of the outputs, or `[None]` for the only one.
        output: a file for one mixture and one output, else a folder, which is made.
        residual: the same for the residuals.
        queries, others: further inputs: files or folders of queries; files.

    Raises:
        DataError: a file name where a folder is needed, two outputs of one name, an output that is an input.
    """
    files = [f for mix in mixes for f in sound_files(mix)]
    jobs = []
    for mix in files:
        stems = [mix.stem if name is None else f"{mix.stem}.{name}" for name in names]
        outs = [_place(output, s, len(files) * len(names), "-o") for s in stems]
        rest = None if residual is None else _place(residual, f"{mix.stem}.rest", len(files), "--residual")
        jobs.append(Job(mix, outs, rest))
    outputs = [path for job in jobs for path in job.paths]
    keep_inputs(outputs, [*files, *(f for q in queries for f in query_files(q)), *others])
    seen = set()
    for path in outputs:
        if path.resolve() in seen:
            raise DataError(f"{path}: two outputs would have this name; rename an input, or run the command for each")
        seen.add(path.resolve())
    return jobs


def keep_inputs(outputs: Iterable[str | Path], inputs: Iterable[str | Path]) -> None:
    """Refuse (DataError) outputs that are inputs, under whatever name: a link, or another case of letters."""
    known = {_identity(path) for path in inputs} - {None}
    for path in outputs:
        if _identity(path) in known:
            raise DataError(f"{path}: is an input; choose another name for the output")


def _identity(path: str | Path) -> tuple[int, int] | None:
    """What file a name stands for; None: none yet."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _place(target: str, stem: str, count: int, option: str) -> Path:
    path = Path(target)
    if path.is_dir() or target.endswith(os.sep) or not path.suffix:
        if path.exists() and not path.is_dir():
            raise DataError(f"{option} {target}: is a file, a folder is needed")
        return path / f"{stem}.wav"
    if count > 1:
        raise DataError(f"{option} {target}: there are {count} outputs, so it must be a folder")
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"{option} {target}: must end in {', '.join(FORMATS)}, or be a folder")
    return path


def model_name(separator, temperature: float | None = None) -> str:
    """What comments call a `Separator` or `WeakSeparator`: its hash, its precision where that is not fp32, and the
    temperature of its masks where that is not its own."""
    words = [separator.precision] * (separator.precision != "fp32")
    return " ".join([separator.model_hash, *words, *([] if temperature is None else [f"temperature {temperature:g}"])])


# ---- what an output was made of ------------------------------------------------------------------


class Origin(NamedTuple):
    """What the outputs of a command are made of, but for the mixture: `outputs` has facts of each in their order."""

    model: str
    outputs: list[dict]

    @classmethod
    def of_queries(
        cls,
        model: str,
        groups: Sequence[Sequence[str]],
        amount: float | None = None,
        others: Sequence[str] = (),
        nearest: bool = False,
        gate: float | None = None,
    ) -> "Origin":
        """Of one output for each group of queries, against `others`; with `amount` of one, the mixture less so much of
        all of them."""
        marks = [*(["not", *query_digests(others)] if others else []), *(["nearest"] if nearest else [])]
        marks += [] if gate is None else [f"gate {gate:g}"]
        outputs = []
        for group in groups:
            names = [query if class_of(query) else Path(query).name for query in group]
            outputs.append({"query": names[:9], "query_hash": digest(*query_digests(group), *marks)})
        if amount is not None:
            names, hashes = [name for o in outputs for name in o["query"]], [o["query_hash"] for o in outputs]
            output = f"the mixture less {amount:g} of it"
            outputs = [{"query": names[:9], "query_hash": digest(*hashes), "output": output}]
        return cls(model, outputs)

    @classmethod
    def of_classes(cls, model: str, names: Sequence[str], gate: float | None = None) -> "Origin":
        """Of one output for each class."""
        marks = {} if gate is None else {"query_hash": digest(f"gate {gate:g}")}
        return cls(model, [{"output": name, **marks} for name in names])

    def notes(self, job: Job) -> list[dict]:
        """The facts of each of `job.paths`."""
        mixture = {"mixture": job.mix.name, "mixture_hash": file_digest(job.mix)}
        facts = {"espnet2_ext": __version__, "model": self.model}
        rest = {"output": "residual", "query_hash": digest(*(o.get("query_hash") for o in self.outputs))}
        return [{**facts, **output, **mixture} for output in [*self.outputs, *([rest] if job.rest else [])]]


def _is_done(job: Job, notes: Sequence[dict]) -> bool:
    """Whether the outputs exist and are not known to be made of something else; both are logged."""
    if not all(path.exists() for path in job.paths):
        return False
    for path, note in zip(job.paths, notes):
        found = _note_of(path)
        if found is None:
            logging.warning("%s: exists, without a note of what it was made of; kept", path)
            continue
        if other := [word for key, word in COMPARED.items() if found.get(key) != note.get(key)]:
            logging.warning("%s: was made of another %s; made again", path, " and ".join(other))
            return False
    logging.info("%s: exists, skipped", job.outs[0])
    return True


def _note_of(path: Path) -> dict | None:
    """What an output says it was made of; None where it does not say."""
    try:
        found = parse_json(comment_of(path), path)
    except (DataError, OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "espnet2_ext" in found else None


# ---- the work ------------------------------------------------------------------------------------


def run_jobs(jobs: Sequence[Job], fs: int, origin: Origin, work: Callable, skip_existing: bool = False) -> None:
    """Do `work(source, job, comments)` for each job; one that fails does not keep the others from being done.

    Args:
        fs: the model's rate in Hz.
        skip_existing: leave out jobs whose outputs exist and were made of the same.

    Raises:
        DataError: at the end, naming those that failed.
    """
    failed, written = [], set()
    for job in jobs:
        try:
            notes = origin.notes(job) if job.mix.is_file() else []
            if skip_existing and _is_done(job, notes):
                continue
            if taken := [path for path in job.paths if _identity(path) in written]:
                raise DataError(f"{taken[0]}: is the output of another mixture as well in this folder; rename an input")
            _run_job(job, fs, work, [json.dumps(note) for note in notes])
            written |= {_identity(path) for path in job.paths}
        except Exception as e:
            text = explain(e)
            if text is None or len(jobs) == 1:
                raise
            logging.error("%s", text)
            failed.append(job.mix.name)
    if failed:
        raise DataError(f"{len(failed)} of {len(jobs)} files failed: {', '.join(failed)}")


def _run_job(job: Job, fs: int, work: Callable, comments: list[str]) -> None:
    source = open_source(job.mix)
    seconds = source.frames / source.fs
    resampled = "" if source.fs == fs else f"; resampled to the model's {fs} Hz and back"
    about = f"{seconds:.2f} s, {source.fs} Hz, {source.channels} channel(s), {source.subtype}"
    logging.info("%s: %s%s", job.mix, about, resampled)
    if source.fs > fs:
        logging.info(
            "%s: sound above %d Hz is outside the model's bandwidth, it goes to the residual", job.mix, fs // 2
        )
    begin = time.monotonic()
    done = work(source, job, comments)
    took = time.monotonic() - begin
    for path, presence in zip(job.outs * (len(done.presence) // len(job.outs)), done.presence):
        logging.info("%s: presence %.2f", path, presence)
    files = ", ".join(map(str, job.paths))
    logging.info("%s written: %d chunk(s), %.1f s, %.3f of real time", files, done.chunks, took, took / seconds)
