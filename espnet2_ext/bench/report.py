"""The benchmark's parts in order, printed as they are done."""

import argparse
import logging
from collections.abc import Callable

from espnet2_ext.bench import against, data, models
from espnet2_ext.bench.measure import machine, markdown
from espnet2_ext.errors import DataError


def bench(args: argparse.Namespace, prepare: Callable) -> dict:
    """Measure what the options of `espnet2_ext.bin.bench` ask for.

    Args:
        prepare: called first in each process that measures a model.

    Returns:
        `machine`, `models` (rows of `bench_model`), and when asked for `against` and `data`.

    Raises:
        DataError: an option that cannot be, a missing file.
    """
    options = _options(args)
    device = options.start()
    variants = args.variants or (models.VARIANTS if device.type == "cuda" else ("fp32",))
    result = {"machine": machine(device), "seconds": options.seconds}
    _say(result["machine"], options)
    result["models"] = []
    for path in args.yaml:
        for variant in variants:
            logging.info("%s, %s", path, variant)
            result["models"].append(models.bench_apart(path, variant, options, prepare))
    rows = [models.table_row(row) for row in result["models"]]
    print("\n" + markdown(models.HEADER, rows), flush=True)
    if args.against:
        logging.info("against the plain two-network route")
        result["against"] = found = against.compare(args.yaml, options)
        found["verdicts"] = against.verdicts(found)
        print("\n" + markdown(against.HEADER, against.table_rows(found)) + "\n")
        print("\n".join(found["verdicts"]), flush=True)
    if args.data:
        result["data"] = _bench_data(args, result["models"])
    return result


def _options(args: argparse.Namespace) -> models.Options:
    for name in ("seconds", "repeats", "threads"):
        if getattr(args, name) <= 0:
            raise DataError(f"--{name} must be above 0, not {getattr(args, name)}")
    if unknown := [v for v in args.variants or () if v not in models.VARIANTS]:
        raise DataError(f"unknown variant {unknown[0]!r}; there is: {', '.join(models.VARIANTS)}")
    if lost := [path for path in args.yaml if not path.is_file()]:
        raise DataError(f"{lost[0]}: no such file")
    return models.Options(args.seconds, args.repeats, args.threads, args.device,
                          not args.no_train)


def _say(m: dict, options: models.Options) -> None:
    print(f"{m['device']}, {m['threads']} threads, PyTorch {m['torch']}; load {m['load']}; fp32 "
          f"matrix product {m['matmul_gflops']} GFLOP/s. Mixture of "
          f"{options.seconds:g} s, batch 1, median of {options.repeats}; training step on "
          f"{models.TRAIN_BATCH} x {models.ANCHOR:g} s.", flush=True)


def _bench_data(args: argparse.Namespace, rows: list[dict]) -> dict:
    found = data.bench_data(args.data)
    print(f"\n{found['bank']} ({found['format']}): {found['clips']['a_core']:.0f} crops of "
          f"{data.CROP:g} s and {found['pairs']['a_core']:.0f} rendered pairs a second a core\n")
    found["need"] = data.need(found, rows, models.TRAIN_BATCH, args.steps_per_second)
    print(markdown(data.NEED_HEADER, found["need"]), flush=True)
    return found
