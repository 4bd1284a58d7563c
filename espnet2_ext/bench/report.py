"""The benchmark's parts in order, printed as they are done."""

import argparse
import logging
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from torch import nn

from espnet2_ext.bench import data, plain_query, plain_weak, query, turns, weak
from espnet2_ext.bench.configs import Options, apart, kind_of
from espnet2_ext.bench.measure import Columns, machine, markdown, not_valid
from espnet2_ext.core.layers.precision import PRECISIONS, lower
from espnet2_ext.errors import DataError
from espnet2_ext.util.names import shipped


def bench(args: argparse.Namespace, prepare: Callable) -> dict:
    """Measure what the options of `espnet2-ext bench` ask for.

    Args:
        prepare: called first in each process that measures a model.

    Returns:
        `machine`, and as the options say `costs` (rows of `bench_system`), `models` (rows of
        `bench_model`), `against`, `data`, `weak` (see `_bench_weak`) and `rendering`.

    Raises:
        DataError: an option that cannot be, a missing file.
    """
    options = _options(args)
    device = options.start()
    for variant in set(args.variants or ()) & set(PRECISIONS):
        lower(nn.Identity(), variant, device)  # refused before minutes of measuring
    result = {"machine": machine(device), "seconds": options.seconds}
    _say(result["machine"], options)
    kinds = {path: kind_of(path) for path in args.yaml}
    weak_ones = [path for path, kind in kinds.items() if kind == "weak"]
    queries = [path for path in kinds if path not in weak_ones]
    if args.against not in (None, "plain"):
        if weak_ones or not queries:
            raise DataError("--against a commit: name YAMLs of separation by query")
        result["turns"] = turns.compare(queries, args.against, options)
        _print(turns.COLUMNS, result["turns"])
        return result
    if args.costs:
        systems = query.system_of(queries) or query.all_systems(args.conf or shipped("conf"))
        chosen = [s._replace(precision=v) for s in query.only(systems, args.only) for v in args.variants or ["fp32"]]
        result["costs"] = _costs(chosen, options, prepare)
    elif queries:
        result |= _bench_queries(queries, args, options, prepare)
    if args.data:
        result["data"] = _bench_data(args, result.get("models", []))
    if weak_ones:
        result["weak"] = _bench_weak(weak_ones, args, options, prepare)
    if args.rendering is not None:
        training = result.get("weak", {}).get("training", [])
        result["rendering"] = _bench_rendering(args.rendering, training)
    return result


def _options(args: argparse.Namespace) -> Options:
    for name in ("seconds", "repeats", "threads", "batch", "clip", "song"):
        if getattr(args, name) <= 0:
            raise DataError(f"--{name} must be above 0, not {getattr(args, name)}")
    if unknown := [v for v in args.variants or () if v not in query.VARIANTS]:
        raise DataError(f"unknown variant {unknown[0]!r}; available: {', '.join(query.VARIANTS)}")
    if args.costs and any(v.endswith("compiled") for v in args.variants or ()):
        raise DataError("--costs takes the variants fp32, bf16 and int8")
    if args.rendering is not None and len(args.rendering) not in (0, 2):
        raise DataError("--rendering takes the folder of a table and its clip bank, or nothing")
    if args.only and not args.costs:
        raise DataError("--only chooses rows of --costs, which was not given")
    for path in args.yaml:
        if kind_of(path) == "tag" and not args.costs:
            raise DataError(f"{path}: a tagger is measured with --costs")
    return Options(
        args.seconds, args.repeats, args.threads, args.device, not args.no_train, args.batch, args.clip, args.song
    )


def _say(m: dict, options: Options) -> None:
    print(
        f"{m['device']}, {m['threads']} threads, PyTorch {m['torch']}; load {m['load']}; fp32 "
        f"matrix product {m['matmul_gflops']} GFLOP/s. Median of {options.repeats}.",
        flush=True,
    )


def _bench_queries(paths: list, args: argparse.Namespace, options: Options, prepare: Callable) -> dict:
    print(
        f"Mixture of {options.seconds:g} s, batch 1; training step on {query.TRAIN_BATCH} x {query.ANCHOR:g} s.",
        flush=True,
    )
    device = options.start()
    variants = args.variants or ([v for v in query.VARIANTS if v != "int8"] if device.type == "cuda" else ["fp32"])
    result = {"models": []}
    for path in paths:
        for variant in variants:
            logging.info("%s, %s", path, variant)
            result["models"].append(apart(query.bench_model, str(path), variant, options, prepare=prepare))
    _print(query.MODELS, result["models"])
    if args.against:
        logging.info("against the plain two-network route")
        result["against"] = found = plain_query.compare(paths, options)
        found["verdicts"] = plain_query.verdicts(found)
        _print(plain_query.AGAINST, plain_query.table_rows(found), found["verdicts"])
    return result


def _costs(chosen: list[query.System], options: Options, prepare: Callable) -> list[dict]:
    rows = query.costs(chosen, options, prepare)
    print(f"One query on a mixture of {options.seconds:g} s, batch 1, each system in a process of its own.")
    _print(query.columns(options.seconds), rows)
    for row in rows:
        if "failed" in row:
            print(f"FAILED: {row['system']}: {row['failed']}", flush=True)
    for line in not_valid(t for row in rows for t in row.get("time", {}).values()):
        print(line, flush=True)
    return rows


def _bench_data(args: argparse.Namespace, rows: list[dict]) -> dict:
    found = data.bench_data(args.data)
    print(
        f"\n{found['bank']} ({found['format']}): {found['clips']['a_core']:.0f} crops of "
        f"{data.CROP:g} s and {found['pairs']['a_core']:.0f} rendered pairs per second and core"
    )
    found["need"] = data.pairs_needed(found, rows, query.TRAIN_BATCH, args.steps_per_second)
    _print(data.PAIRS_NEEDED, found["need"])
    with tempfile.TemporaryDirectory() as folder:
        found["files"] = data.bench_files(folder)
    _print(data.FILES, found["files"])
    return found


def _bench_weak(paths: list, args: argparse.Namespace, options: Options, prepare: Callable) -> dict:
    """`training` and `inference` (rows of `bench.weak`), `against` and its `verdicts`."""
    result = {"training": []}
    if options.train:
        for path in paths:
            logging.info("%s, training", path)
            result["training"].append(apart(weak.bench_training, str(path), options, prepare=prepare))
        print(
            f"\nTraining step on {options.batch} x {options.clip:g} s; classes: the "
            "classifier's terms alone, forward and backward."
        )
        _print(weak.TRAINING, result["training"])
    if args.against:
        logging.info("against the plain version")
        result["against"] = found = plain_weak.compare(paths, options, prepare)
        result["verdicts"] = plain_weak.verdicts(found, result["training"])
        _print(plain_weak.AGAINST, plain_weak.table_rows(found), result["verdicts"])
    result["inference"] = []
    for path in paths:
        logging.info("%s, inference", path)
        result["inference"].append(apart(weak.bench_inference, str(path), options, prepare=prepare))
    print(
        f"\nInference of a clip of {options.seconds:g} s and of a song of {options.song:g} s, "
        "as weak_inference does it; activity: the classifier's output."
    )
    _print(weak.INFERENCE, result["inference"])
    return result


def _bench_rendering(given: list[str], training: list[dict]) -> dict:
    if given:
        rows = data.bench_rendering(*given)
    else:
        with tempfile.TemporaryDirectory() as folder:
            rows = data.bench_embedded(Path(folder))
    _print(data.RENDERING, rows)
    result = {"rows": rows, "need": data.mixtures_needed(rows, training)}
    if training:
        _print(data.MIXTURES_NEEDED, result["need"])
    return result


def _print(columns: Columns, rows: Iterable, lines: Iterable[str] = ()) -> None:
    print("\n" + markdown(columns, rows), flush=True)
    if lines:
        print("\n" + "\n".join(lines), flush=True)
