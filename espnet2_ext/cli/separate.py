"""`espnet2-ext separate`, `find`, `embed` and `adapt`: the use of one model."""

import argparse
import logging
from array import array
from pathlib import Path

from espnet2_ext.cli.options import DEFAULT, add_bundle, add_device, add_model, bundle_path, log_starter
from espnet2_ext.errors import DataError
from espnet2_ext.util.names import Parser

UNCALIBRATED = 0.4  # score of `find` from which a sound is there, of a model without calibration
MOST_SECONDS = 300  # of a sound that `adapt` learns from
SUBTYPES = ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")


# ---- separate ------------------------------------------------------------------------------------


def separate(argv: list[str] | None = None) -> None:
    """Separate what sounds like the queries; weak-label models: one file per class."""
    p = Parser(description=separate.__doc__)
    _separate_options(p)
    args = p.parse_args(argv)
    if args.amount is not None and not (args.remove and 0 <= args.amount <= 1):
        raise DataError(f"--amount {args.amount:g}: from 0 to 1, together with --remove")
    if args.threshold is not None and not args.gate:
        raise DataError("--threshold: is of --gate")
    if args.train_config or args.model_file:
        if not (args.train_config and args.model_file):
            raise DataError("--train_config and --model_file are given together, or --bundle")
        _separate_classes(args, "from_exp", args.train_config, args.model_file)
        return
    from espnet2_ext.infer.bundle import open_bundle

    with open_bundle(bundle_path(args.bundle)) as bundle:
        if bundle.info["task"] == "weak":
            _separate_classes(args, "from_open", bundle)
        else:
            _separate_queries(args, bundle)


def _separate_classes(args: argparse.Namespace, how: str, *where) -> None:
    """One output for each class, and for the residual output where the model has one."""
    if given := [name for name in ("query", "not", "remove") if getattr(args, name)]:
        raise DataError(f"--{given[0]}: this model knows classes and takes no query")
    from espnet2_ext.core.nets.masking import set_temperature
    from espnet2_ext.infer.class_separator import WeakSeparator
    from espnet2_ext.infer.jobs import Origin, model_name, plan_jobs, run_jobs
    from espnet2_ext.util.names import file_name, unique

    separator = getattr(WeakSeparator, how)(*where, args.device, args.precision)
    set_temperature(separator.model, args.temperature)
    about = separator.info["path"], separator.fs, separator.device, ", ".join(separator.outputs)
    logging.info("model %s, %d Hz, on %s; classes: %s", *about)
    names = unique(map(file_name, separator.outputs))
    jobs = plan_jobs(args.mix, names, args.output, args.residual, others=_model_files(args))
    plan = separator.plan(**_given(args, "chunk", "context"))
    gate = _gate(args, separator, "has no classifier, so nothing says how likely its classes are")

    def work(source, job, comments):
        return separator.separate_to(source, job.outs, job.rest, plan, args.subtype, comments, gate)

    origin = Origin.of_classes(model_name(separator, args.temperature), separator.outputs, gate)
    run_jobs(jobs, separator.fs, origin, work, args.skip_existing)


def _gate(args: argparse.Namespace, separator, lacks: str) -> float | None:
    """The threshold of --gate; None without it."""
    from espnet2_ext.infer.vectors.presence import gate_of

    return gate_of(separator.threshold, args.threshold, f"{separator.info['path']} {lacks}") if args.gate else None


def _separate_queries(args: argparse.Namespace, bundle) -> None:
    """One output for all queries, or one for each."""
    if not args.query:
        more = "; --not only keeps sounds out of what it asks for" if getattr(args, "not") else ""
        raise DataError(f"--query: this model answers queries; give a sound of the wanted kind{more}")
    from espnet2_ext.core.nets.masking import set_temperature
    from espnet2_ext.infer.jobs import Origin, model_name, plan_jobs, run_jobs
    from espnet2_ext.infer.queries import query_name, query_parts
    from espnet2_ext.infer.query_separator import Separator
    from espnet2_ext.util.names import file_name

    groups = [[q] for q in args.query] if args.mode == "each" else [args.query]
    others = getattr(args, "not")
    for query in [*args.query, *others]:  # before a model is loaded
        query_parts(query)
    stems = [query_name(query) for query in args.query]
    one = [file_name("+".join(stems)) if args.name_query else None]
    names = stems if args.mode == "each" and not args.remove else one
    amount = None if not args.remove else 1.0 if args.amount is None else args.amount
    jobs = plan_jobs(args.mix, names, args.output, args.residual, args.query + others, _model_files(args))
    separator = Separator.from_open(bundle, args.device, args.precision)
    set_temperature(separator.model, args.temperature)
    _log_model(separator)
    plan = separator.plan(**_given(args, "chunk", "context"))
    gate = _gate(args, separator, "holds no calibration of presence; `espnet2-ext calibrate` puts one into it")
    ask = separator.ask(args.query, others, args.mode)

    def work(source, job, comments):
        return separator.separate_to(source, job.outs, ask, job.rest, plan, args.subtype, comments, amount, gate)

    origin = Origin.of_queries(model_name(separator, args.temperature), groups, amount, others, ask.nearest, gate)
    run_jobs(jobs, separator.fs, origin, work, args.skip_existing)


def _model_files(args: argparse.Namespace) -> list[str]:
    """The files of the model: inputs as well."""
    given = [args.train_config, args.model_file]
    return given if all(given) else [bundle_path(args.bundle)]


def _log_model(separator) -> None:
    about = separator.info.get("name"), separator.info["path"], separator.fs, separator.device
    logging.info("model %s (%s), %d Hz, on %s", *about)
    log_starter(separator.info)


def _given(args: argparse.Namespace, *names: str) -> dict:
    """Options that were given; the model has its own defaults for the others."""
    return {name: value for name in names if (value := getattr(args, name)) is not None}


# ---- find ----------------------------------------------------------------------------------------


def find(argv: list[str] | None = None) -> None:
    """Print where in a recording a sound occurs: a table of start, end (seconds) and score (0 to 1)."""
    p = Parser(description=find.__doc__)
    p.add_argument("recording", help="sound file of any length")
    text = "what is looked for, as in `separate`; repeatable; of a weak-label model class:NAME"
    p.add_argument("--query", action="append", required=True, help=text)
    text = "score from which it is there (default: 2 %% of absent sounds reach it; uncalibrated 0.4, weak labels 0.5)"
    p.add_argument("--threshold", type=float, help=text)
    text = "csv, or audacity: its label tracks, for File > Import > Labels (%(default)s)"
    p.add_argument("--format", choices=("csv", "audacity"), default="csv", help=text)
    p.add_argument("-o", "--output", help="a file; default: standard output")
    add_bundle(p)
    add_device(p, precision=True)
    args = p.parse_args(argv)
    if args.threshold is not None and not 0 < args.threshold <= 1:
        raise DataError(f"--threshold {args.threshold:g}: above 0, up to 1")
    from espnet2_ext.audio.streams import open_source
    from espnet2_ext.infer.bundle import open_bundle
    from espnet2_ext.infer.jobs import keep_inputs
    from espnet2_ext.infer.queries import query_files, query_name
    from espnet2_ext.infer.vectors import find as finding
    from espnet2_ext.util.files import write_text

    path = bundle_path(args.bundle)
    inputs = [args.recording, path, *(file for query in args.query for file in query_files(query))]
    keep_inputs([args.output] if args.output else [], inputs)
    source = open_source(args.recording)
    with open_bundle(path) as bundle:
        scores, own = _scores(bundle, args, source)
    threshold, length = args.threshold or own or UNCALIBRATED, source.frames / source.fs
    scores = array("d", scores)
    found = list(finding.stretches(scores, length, threshold))
    if args.format == "csv":
        lines = ["start,end,score", *(f"{x.start:.3f},{x.end:.3f},{x.score:.3f}" for x in found)]
    else:
        name = " ".join("+".join(map(query_name, args.query)).split())
        lines = [f"{x.start:.3f}\t{x.end:.3f}\t{name} {x.score:.2f}" for x in found]
    text = "".join(f"{line}\n" for line in lines)
    if args.output:
        write_text(args.output, text)
    else:
        print(text, end="")
    seconds = sum(one.end - one.start for one in found)
    text = "%s: found %d times, %.1f s of %.1f s (highest score %.2f, found from %.2f on)"
    logging.info(text, args.recording, len(found), seconds, length, max(scores, default=0), threshold)


def _scores(bundle, args: argparse.Namespace, source):
    """The scores of a recording, and the model's own threshold."""
    from espnet2_ext.infer.class_separator import WeakSeparator
    from espnet2_ext.infer.queries import class_of
    from espnet2_ext.infer.query_separator import Separator
    from espnet2_ext.infer.vectors import find as finding
    from espnet2_ext.infer.vectors.presence import scale_of

    if bundle.info["task"] == "weak":
        if len(args.query) > 1 or (name := class_of(args.query[0])) is None:
            raise DataError("--query: this model knows classes; give one, class:NAME")
        separator = WeakSeparator.from_open(bundle, args.device, args.precision)
        return finding.class_scores(separator, source, name), separator.threshold
    separator = Separator.from_open(bundle, args.device, args.precision)
    _log_model(separator)
    scores = finding.query_scores(separator, source, separator.ask(args.query))
    return (float(x) for (x,) in scores), getattr(scale_of(separator), "rare", None)


# ---- embed, adapt --------------------------------------------------------------------------------


def embed(argv: list[str] | None = None) -> None:
    """Save the average query vector of some sounds, as a `.npy` file."""
    p = Parser(description=embed.__doc__)
    p.add_argument("files", nargs="+", help="sound files, spans of them (FILE@START-END) or folders of them")
    p.add_argument("-o", "--output", required=True, help="a .npy file")
    add_bundle(p)
    add_device(p)
    args = p.parse_args(argv)
    if Path(args.output).suffix != ".npy":
        raise DataError(f"-o {args.output}: must end in .npy")
    from espnet2_ext.infer.jobs import keep_inputs
    from espnet2_ext.infer.queries import query_files, save_query
    from espnet2_ext.infer.query_separator import Separator

    keep_inputs([args.output], [file for query in args.files for file in query_files(query)])
    separator = Separator.from_bundle(bundle_path(args.bundle), args.device)
    _log_model(separator)
    vector, agreement = separator.embed_queries(args.files)
    save_query(args.output, vector, separator.model_hash)
    logging.info("%s: %d numbers; lowest cosine between the sounds %.2f", args.output, len(vector), agreement)


def adapt(argv: list[str] | None = None) -> None:
    """Tune the query of some examples on mixtures of them with other sounds; the network stays as it is."""
    p = Parser(description=adapt.__doc__)
    text = "examples: a folder, a file or a span; repeatable; five or more"
    p.add_argument("--query", action="append", required=True, help=text)
    text = "other sounds, best those around the wanted one, without it: a folder or a file; repeatable"
    p.add_argument("--mixtures", action="append", required=True, help=text)
    p.add_argument("-o", "--output", required=True, help="a .npy file, for `separate --query`")
    p.add_argument("--steps", type=int, default=300, help="steps of the optimiser, four mixtures each (%(default)s)")
    p.add_argument("--seed", type=int, default=0, help="of all that is drawn (%(default)s)")
    add_bundle(p)
    add_device(p)
    args = p.parse_args(argv)
    if Path(args.output).suffix != ".npy":
        raise DataError(f"-o {args.output}: must end in .npy")
    if args.steps < 1:
        p.error("--steps must be 1 or more")
    from espnet2_ext.infer.jobs import keep_inputs
    from espnet2_ext.infer.queries import query_files, query_parts, read_query, save_query
    from espnet2_ext.infer.query_separator import Separator
    from espnet2_ext.infer.vectors import adapt as adapting

    given = (args.query, args.mixtures)
    examples, others = ([part for path in paths for part in query_parts(path, sounds=True)] for paths in given)
    path = bundle_path(args.bundle)
    keep_inputs([args.output], [*(file for part in examples + others for file in query_files(part)), path])
    separator = Separator.from_bundle(path, args.device)
    _log_model(separator)
    sounds = [[read_query(f, separator.fs, most=MOST_SECONDS) for f in files] for files in (examples, others)]
    logging.info("%d examples, %d other sounds; up to %d s of each", *map(len, sounds), MOST_SECONDS)
    found = adapting.adapt(separator, *sounds, steps=args.steps, seed=args.seed)
    save_query(args.output, found.query, separator.model_hash)
    better = f"after step {found.step}" if found.step else "no step was better: it is the mean query"
    text = "%s: SDR on held-out sounds %.2f dB, of the mean query %.2f dB (%s)"
    logging.info(text, args.output, found.sdr, found.mean_sdr, better)


# ---- options -------------------------------------------------------------------------------------


def _separate_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("mix", nargs="+", help="sound files or folders of them")
    text = (
        "a sound of the wanted kind; a span of one, FILE@START-END in seconds, which may be the mixture; a folder of "
        "sounds; a saved .npy; class:NAME; repeatable"
    )
    p.add_argument("--query", action="append", default=[], help=text)
    text = "a .wav, .w64 or .flac file; a folder for several outputs, named after query or class: mix.dog_bark.wav"
    p.add_argument("-o", "--output", required=True, help=text)
    text = "file or folder for the residual: mixture minus outputs (with --remove: what was taken out)"
    p.add_argument("--residual", help=text)
    p.add_argument("--remove", action="store_true", help="write the mixture without what sounds like the queries")
    p.add_argument("--amount", type=float, help="with --remove: how much of it is taken out, 0 to 1 (default: 1)")
    text = "a sound of a kind to keep out, as --query; repeatable; --query says what is wanted"
    p.add_argument("--not", action="append", default=[], help=text)
    text = (
        "mean: one output for the average of all queries; each: one for every --query (a folder is one); nearest: one, "
        "each chunk answered with the query that is nearest to it"
    )
    p.add_argument("--mode", choices=("mean", "each", "nearest"), default="mean", help=text)
    p.add_argument("--gate", action="store_true", help="mute an output where its sound is unlikely, in windows of 5 s")
    text = "of --gate: presence, 0 to 1, from which it is there (default: of the model's calibration)"
    p.add_argument("--threshold", type=float, help=text)
    text = (
        "of the masks: above 1 softer, more of the sound and of the rest is left; below 1 harder (default: the model's)"
    )
    p.add_argument("--temperature", type=float, help=text)
    text = "add the query's name to the file names, as with several outputs: mix.dog_bark.wav"
    p.add_argument("--name_query", action="store_true", help=text)
    text = "seconds the model sees at once, without context; 0: everything (default: 20; weak-label models: 60)"
    p.add_argument("--chunk", type=float, help=text)
    text = "seconds on both sides of a chunk, computed and discarded (default: 2.5; weak-label models: 5)"
    p.add_argument("--context", type=float, help=text)
    p.add_argument("--subtype", choices=SUBTYPES, help="sample type of the outputs; default: as the input, else PCM_16")
    text = "skip outputs that exist and were made of the same model, query and mixture, by their comments"
    p.add_argument("--skip_existing", action="store_true", help=text)
    add_model(p, default=DEFAULT)
    add_device(p, precision=True)
