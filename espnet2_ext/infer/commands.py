"""What the subcommands of `espnet2-ext` do."""

import argparse
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from espnet2_ext.audio.streams import FORMATS, Source
from espnet2_ext.errors import DataError
from espnet2_ext.infer.bundle import read_bundle
from espnet2_ext.infer.class_separator import CHUNK, CONTEXT, WeakSeparator
from espnet2_ext.infer.pack import write_bundle
from espnet2_ext.infer.queries import open_source, sound_files
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.infer.stream import Done
from espnet2_ext.infer.weak_bundle import write_weak_bundle
from espnet2_ext.infer.weak_weights import read_config
from espnet2_ext.util.files import atomic_path

BUNDLE_VARIABLE = "ESPNET2_EXT_BUNDLE"
KINDS = ("encoder", "extractor", "query_net", "query_grad", "separator", "decoder", "classifier", "label_type")
SHOWN = 50  # names of classes that `info` prints


class Job(NamedTuple):
    """One mixture: an output a query, and perhaps the residual."""

    mix: Path
    outs: list[Path]
    rest: Path | None


def bundle_path(given: str | None) -> str:
    """The bundle named on the command line, else by the environment; DataError without either."""
    path = given or os.environ.get(BUNDLE_VARIABLE)
    if not path:
        raise DataError(
            f"which model? Name a bundle with --bundle MODEL.zip, or set "
            f"{BUNDLE_VARIABLE} to its path; `espnet2-ext pack` makes one from a "
            "training"
        )
    return path


def load(args: argparse.Namespace) -> Separator:
    path = bundle_path(args.bundle)
    separator = Separator.from_bundle(path, args.device)
    logging.info("model %s (%s), %d Hz, on %s", separator.info.get("name"), path, separator.fs, separator.device)
    return separator


# ---- separate ------------------------------------------------------------------------------------


def separate(args: argparse.Namespace) -> None:
    """`espnet2-ext separate`: by queries or, with a model that knows classes, one file a class."""
    if (
        args.train_config
        or args.model_file
        or read_bundle(bundle_path(args.bundle), weights=False).info["task"] == "weak"
    ):
        separate_classes(args)
    else:
        separate_queries(args)


def separate_classes(args: argparse.Namespace) -> None:
    """One output for each class, and for the residual output where the model has one."""
    if args.query:
        raise DataError("--query: this model knows classes and takes no query")
    given = (args.train_config, args.model_file)
    if any(given):
        if not all(given):
            raise DataError("--train_config and --model_file are given together, or --bundle")
        separator = WeakSeparator.from_exp(*given, device=args.device)
    else:
        separator = WeakSeparator.from_bundle(bundle_path(args.bundle), args.device)
    logging.info(
        "model %s, %d Hz, on %s; classes: %s",
        separator.info["path"],
        separator.fs,
        separator.device,
        ", ".join(separator.outputs),
    )
    jobs = plan_jobs(args.mix, separator.outputs, args.output, args.residual)
    plan = separator.plan(
        CHUNK if args.chunk is None else args.chunk, CONTEXT if args.context is None else args.context
    )
    run_jobs(
        jobs,
        args,
        lambda source, job: separator.separate_to(source, job.outs, job.rest, plan, args.subtype),
        separator.fs,
    )


def separate_queries(args: argparse.Namespace) -> None:
    """One output for all queries, or one for each."""
    if not args.query:
        raise DataError("--query: this model answers queries; give a sound of the wanted kind")
    groups = [args.query] if args.mode == "mean" else [[q] for q in args.query]
    for query in args.query:  # refuse what is not there before a model is loaded
        sound_files(query, more=(".npy",))
    names = [None] if args.mode == "mean" else [Path(q).stem or Path(q).name for q in args.query]
    jobs = plan_jobs(args.mix, names, args.output, args.residual, args.query)
    separator = load(args)
    vectors = []
    for group in groups:
        vector, agreement = separator.embed_queries(group)
        vectors.append(vector)
        count = sum(len(sound_files(q, more=(".npy",))) for q in group)
        logging.info(
            "query %s: %s",
            ", ".join(map(str, group)),
            "1 sound" if count == 1 else f"mean of {count} sounds, which agree to a cosine of {agreement:.2f} at least",
        )
    queries = np.stack(vectors)
    plan = separator.plan(20.0 if args.chunk is None else args.chunk, 2.5 if args.context is None else args.context)
    run_jobs(
        jobs,
        args,
        lambda source, job: separator.separate_to(source, job.outs, queries, job.rest, plan, args.subtype),
        separator.fs,
    )


def run_jobs(jobs: Sequence[Job], args: argparse.Namespace, work: Callable[[Source, Job], Done], fs: int) -> None:
    """Do `work` for each job; one that fails does not keep the others from being done.

    Raises:
        DataError: at the end, naming those that failed.
    """
    failed = []
    for job in jobs:
        if args.skip_existing and all(p.exists() for p in [*job.outs, job.rest] if p):
            logging.info("%s: is there already, left as it is", job.outs[0])
            continue
        try:
            run_job(job, work, fs)
        except DataError as e:
            if len(jobs) == 1:
                raise
            logging.error("%s", e)
            failed.append(job.mix.name)
    if failed:
        raise DataError(f"{len(failed)} of {len(jobs)} files failed: {', '.join(failed)}")


def run_job(job: Job, work: Callable[[Source, Job], Done], fs: int) -> None:
    """Do `work` for one job; fs: the model's rate in Hz."""
    source = open_source(job.mix)
    seconds = source.frames / source.fs
    logging.info(
        "%s: %.2f s, %d Hz, %d channel(s), %s%s",
        job.mix,
        seconds,
        source.fs,
        source.channels,
        source.subtype,
        "" if source.fs == fs else f"; resampled to the model's {fs} Hz and back",
    )
    if source.fs > fs:
        logging.info("%s: sound above %d Hz goes to the residual, the model does not hear it", job.mix, fs // 2)
    begin = time.monotonic()
    done = work(source, job)
    took = time.monotonic() - begin
    logging.info(
        "%s written: %d chunk(s), %.1f s, %.3f of real time",
        ", ".join(str(p) for p in [*job.outs, job.rest] if p),
        done.chunks,
        took,
        took / seconds,
    )


def plan_jobs(
    mixes: Sequence[str], names: Sequence[str | None], output: str, residual: str | None, queries: Sequence[str] = ()
) -> list[Job]:
    """What is written where.

    Args:
        mixes: files or folders.
        names: of the queries (`each`), or `[None]` (`mean`).
        output: a file for one mixture and one output, else a folder, which is made.
        residual: the same for the residuals.
        queries: further inputs, which must not be overwritten.

    Raises:
        DataError: a file name where a folder is needed, two outputs of one name, an output that
            is an input.
    """
    files = [f for mix in mixes for f in sound_files(mix)]
    jobs = []
    for mix in files:
        stems = [mix.stem if name is None else f"{mix.stem}.{name}" for name in names]
        outs = [_place(output, s, len(files) * len(names), "-o") for s in stems]
        rest = None if residual is None else _place(residual, f"{mix.stem}.rest", len(files), "--residual")
        jobs.append(Job(mix, outs, rest))
    inputs = {p.resolve() for p in files} | {Path(q).resolve() for q in queries}
    seen = set()
    for path in (p for job in jobs for p in [*job.outs, job.rest] if p is not None):
        if path.resolve() in inputs:
            raise DataError(f"{path}: is an input; choose another name for the output")
        if path.resolve() in seen:
            raise DataError(f"{path}: two outputs would have this name; rename an input or run twice")
        seen.add(path.resolve())
    return jobs


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


# ---- the others ----------------------------------------------------------------------------------


def embed(args: argparse.Namespace) -> None:
    """`espnet2-ext embed`: average query vector of sounds, as a `.npy` file."""
    if Path(args.output).suffix != ".npy":
        raise DataError(f"-o {args.output}: must end in .npy")
    for query in args.files:
        sound_files(query)
    vector, agreement = load(args).embed_queries(args.files)
    with atomic_path(args.output) as part, open(part, "wb") as f:
        np.save(f, vector)
    logging.info("%s: %d numbers; lowest cosine between the sounds %.2f", args.output, len(vector), agreement)


def info(args: argparse.Namespace) -> None:
    """`espnet2-ext info`: what a bundle is, on standard output."""
    path = bundle_path(args.bundle)
    bundle = read_bundle(path)
    kinds = {k: bundle.config[k] for k in KINDS if k in bundle.config}
    tensors = list(bundle.state.values())
    shown = {
        "bundle": path,
        **bundle.info,
        **kinds,
        "weights": f"{len(tensors)} tensors, {sum(t.numel() for t in tensors):,} numbers, "
        f"{sum(t.numel() * t.element_size() for t in tensors) / 1e6:.1f} MB",
    }
    print(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=100), end="")
    names = [label.name for label in bundle.labels]
    more = f"; and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    print("labels: " + ("; ".join(names[:SHOWN]) or "none") + more)


def pack(args: argparse.Namespace) -> None:
    """`espnet2-ext pack`: a bundle from a training."""
    extra = {} if args.info is None else yaml.safe_load(Path(args.info).read_text("utf-8"))
    if not isinstance(extra, dict):
        raise DataError(f"{args.info}: should hold `key: value` lines")
    if args.name:
        extra["name"] = args.name
    if "label_type" in read_config(args.train_config):  # its configuration names the classes
        told = write_weak_bundle(args.train_config, args.model_file, args.output, extra)
    elif args.labels is None:
        raise DataError("--labels: the labels.tsv of the training data is needed for this model")
    else:
        told = write_bundle(args.train_config, args.model_file, args.labels, args.output, extra)
    logging.info(
        "%s: %s, %d parameters, %d classes, %d Hz",
        args.output,
        told["name"],
        told["parameters"],
        told["classes"],
        told["fs"],
    )
