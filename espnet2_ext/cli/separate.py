"""`espnet2-ext separate`, `embed` and `info`: the use of one model."""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from espnet2_ext.cli.options import add_device, add_model
from espnet2_ext.errors import DataError
from espnet2_ext.util.options import Parser

SUBTYPES = ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
BUNDLE_VARIABLE = "ESPNET2_EXT_BUNDLE"
PARTS = ("encoder", "extractor", "query_net", "query_grad", "separator", "decoder", "classifier", "label_type")
SHOWN = 50  # names of classes that `info` prints


def bundle_path(given: str | None) -> str:
    """The bundle named on the command line, else by the environment; DataError without either."""
    path = given or os.environ.get(BUNDLE_VARIABLE)
    if not path:
        raise DataError(
            f"which model? Name a bundle with --bundle MODEL.zip, or set {BUNDLE_VARIABLE} to its path; "
            "`espnet2-ext pack` makes one from a training"
        )
    return path


def _end_on_sigterm() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that unfinished files are removed


# ---- separate ------------------------------------------------------------------------------------


class Job(NamedTuple):
    """One mixture: an output per query or class, and perhaps the residual."""

    mix: Path
    outs: list[Path]
    rest: Path | None


def separate(argv: list[str] | None = None) -> None:
    """Separate what sounds like the queries; weak-label models: one file per class."""
    p = Parser(description=separate.__doc__)
    _separate_options(p)
    args = p.parse_args(argv)
    _end_on_sigterm()
    if args.train_config or args.model_file:
        if not (args.train_config and args.model_file):
            raise DataError("--train_config and --model_file are given together, or --bundle")
        from espnet2_ext.infer.class_separator import WeakSeparator

        _separate_classes(args, lambda: WeakSeparator.from_exp(args.train_config, args.model_file, args.device))
        return
    from espnet2_ext.infer.bundle import open_bundle

    with open_bundle(bundle_path(args.bundle)) as bundle:
        if bundle.info["task"] == "weak":
            from espnet2_ext.infer.class_separator import WeakSeparator

            _separate_classes(args, lambda: WeakSeparator.from_open(bundle, args.device))
        else:
            _separate_queries(args, bundle)


def _separate_classes(args: argparse.Namespace, load: Callable) -> None:
    """One output for each class, and for the residual output where the model has one."""
    if args.query:
        raise DataError("--query: this model knows classes and takes no query")
    separator = load()
    classes = ", ".join(separator.outputs)
    path = separator.info["path"]
    logging.info("model %s, %d Hz, on %s; classes: %s", path, separator.fs, separator.device, classes)
    jobs = plan_jobs(args.mix, separator.outputs, args.output, args.residual)
    plan = separator.plan(**_given(args, "chunk", "context"))
    _run_jobs(jobs, args, separator.fs, lambda s, job: separator.separate_to(s, job.outs, job.rest, plan, args.subtype))


def _separate_queries(args: argparse.Namespace, bundle) -> None:
    """One output for all queries, or one for each."""
    from espnet2_ext.infer.query_separator import Separator

    if not args.query:
        raise DataError("--query: this model answers queries; give a sound of the wanted kind")
    groups = [args.query] if args.mode == "mean" else [[q] for q in args.query]
    counts = [sum(len(query_files(q)) for q in group) for group in groups]  # before a model is loaded
    names = [None] if args.mode == "mean" else [Path(q).stem or Path(q).name for q in args.query]
    jobs = plan_jobs(args.mix, names, args.output, args.residual, args.query)
    separator = Separator.from_open(bundle, args.device)
    _log_model(separator)
    plan = separator.plan(**_given(args, "chunk", "context"))
    queries = []
    for group, count in zip(groups, counts):
        vector, agreement = separator.embed_queries(group)
        queries.append(vector)
        mean = f"mean of {count} sounds, which agree to a cosine of {agreement:.2f} at least"
        logging.info("query %s: %s", ", ".join(map(str, group)), "1 sound" if count == 1 else mean)
    _run_jobs(
        jobs,
        args,
        separator.fs,
        lambda source, job: separator.separate_to(source, job.outs, queries, job.rest, plan, args.subtype),
    )


def _log_model(separator) -> None:
    name, path = separator.info.get("name"), separator.info["path"]
    logging.info("model %s (%s), %d Hz, on %s", name, path, separator.fs, separator.device)


def _given(args: argparse.Namespace, *names: str) -> dict:
    """Options that were given; the model has its own defaults for the others."""
    return {name: value for name in names if (value := getattr(args, name)) is not None}


def query_files(query: str) -> list[Path]:
    """Sound files and saved vectors of a query. Raises a DataError where there are none."""
    from espnet2_ext.infer.queries import sound_files

    return sound_files(query, more=(".npy",))


def plan_jobs(
    mixes: Sequence[str], names: Sequence[str | None], output: str, residual: str | None, queries: Sequence[str] = ()
) -> list[Job]:
    """What is written where.

    Args:
        mixes: files or folders.
        names: of the outputs, or `[None]` for the only one.
        output: a file for one mixture and one output, else a folder, which is made.
        residual: the same for the residuals.
        queries: further inputs, which must not be overwritten.

    Raises:
        DataError: a file name where a folder is needed, two outputs of one name, an output that is an input.
    """
    from espnet2_ext.infer.queries import sound_files

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
            raise DataError(f"{path}: two outputs would have this name; rename an input, or run the command for each")
        seen.add(path.resolve())
    return jobs


def _place(target: str, stem: str, count: int, option: str) -> Path:
    from espnet2_ext.audio.streams import FORMATS

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


def _run_jobs(jobs: Sequence[Job], args: argparse.Namespace, fs: int, work: Callable) -> None:
    """Do `work(source, job)` for each job; one that fails does not keep the others from being done.

    Args:
        fs: the model's rate in Hz.

    Raises:
        DataError: at the end, naming those that failed.
    """
    failed = []
    for job in jobs:
        if args.skip_existing and all(p.exists() for p in [*job.outs, job.rest] if p):
            logging.info("%s: exists, skipped", job.outs[0])
            continue
        try:
            _run_job(job, fs, work)
        except DataError as e:
            if len(jobs) == 1:
                raise
            logging.error("%s", e)
            failed.append(job.mix.name)
    if failed:
        raise DataError(f"{len(failed)} of {len(jobs)} files failed: {', '.join(failed)}")


def _run_job(job: Job, fs: int, work: Callable) -> None:
    from espnet2_ext.audio.streams import open_source

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
    done = work(source, job)
    took = time.monotonic() - begin
    files = ", ".join(str(p) for p in [*job.outs, job.rest] if p)
    logging.info("%s written: %d chunk(s), %.1f s, %.3f of real time", files, done.chunks, took, took / seconds)


# ---- embed, info ---------------------------------------------------------------------------------


def embed(argv: list[str] | None = None) -> None:
    """Save the average query vector of some sounds, as a `.npy` file."""
    p = Parser(description=embed.__doc__)
    p.add_argument("files", nargs="+", help="sound files or folders of them")
    p.add_argument("-o", "--output", required=True, help="a .npy file")
    p.add_argument("--bundle", help=f"model bundle (.zip); default: ${BUNDLE_VARIABLE}")
    add_device(p)
    args = p.parse_args(argv)
    _end_on_sigterm()
    if Path(args.output).suffix != ".npy":
        raise DataError(f"-o {args.output}: must end in .npy")
    from espnet2_ext.infer.queries import sound_files
    from espnet2_ext.infer.query_separator import Separator
    from espnet2_ext.util.arrays import write_npy

    for query in args.files:
        sound_files(query)
    separator = Separator.from_bundle(bundle_path(args.bundle), args.device)
    _log_model(separator)
    vector, agreement = separator.embed_queries(args.files)
    write_npy(args.output, vector)
    logging.info("%s: %d numbers; lowest cosine between the sounds %.2f", args.output, len(vector), agreement)


def info(argv: list[str] | None = None) -> None:
    """Describe a bundle, on standard output."""
    p = Parser(description=info.__doc__)
    p.add_argument("bundle", nargs="?", help=f"default: ${BUNDLE_VARIABLE}")
    path = bundle_path(p.parse_args(argv).bundle)
    from espnet2_ext.infer.bundle import open_bundle
    from espnet2_ext.util.documents import dump_yaml

    with open_bundle(path) as bundle:
        sizes, model_hash = bundle.sizes(), bundle.model_hash
    weights = (
        f"{sizes.tensors} tensors, {sizes.numbers:,} numbers, {sizes.size / 1e6:.1f} MB" if sizes else "not counted"
    )
    parts = {k: bundle.config[k] for k in PARTS if k in bundle.config}
    shown = {"bundle": path, **bundle.info, **parts, "weights": weights, "model_hash": model_hash}
    print(dump_yaml(shown), end="")
    names = [label.name for label in bundle.labels]
    more = f"; and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    print("labels: " + ("; ".join(names[:SHOWN]) or "none") + more)


# ---- options -------------------------------------------------------------------------------------


def _separate_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("mix", nargs="+", help="sound files or folders of them")
    text = "a sound of the wanted kind, a folder of them, or a saved .npy; repeatable"
    p.add_argument("--query", action="append", default=[], help=text)
    text = "a .wav, .w64 or .flac file; a folder for several outputs, named after query or class: mix.dog_bark.wav"
    p.add_argument("-o", "--output", required=True, help=text)
    p.add_argument("--residual", help="file or folder for the residual: mixture minus outputs")
    text = "mean: one output for the average of all queries; each: one for every --query (a folder is one)"
    p.add_argument("--mode", choices=("mean", "each"), default="mean", help=text)
    text = "seconds the model sees at once, without context; 0: everything (default: 20; weak-label models: 60)"
    p.add_argument("--chunk", type=float, help=text)
    text = "seconds on both sides of a chunk, computed and discarded (default: 2.5; weak-label models: 5)"
    p.add_argument("--context", type=float, help=text)
    p.add_argument("--subtype", choices=SUBTYPES, help="sample type of the outputs; default: as the input, else PCM_16")
    p.add_argument("--skip_existing", action="store_true", help="skip outputs that exist")
    add_model(p, default=f"${BUNDLE_VARIABLE}")
    add_device(p)
