"""Training from weak labels against its plain version: memory apart, time in turns."""

import os
from collections.abc import Callable

import torch

from espnet2_ext.bench.configs import Options, apart, build, name_of
from espnet2_ext.bench.measure import QUIET, gflop, interleaved, peak_mb, reset_peak
from espnet2_ext.bench.plain_weak import plain_of
from espnet2_ext.bench.weak import training_batch, training_step


def compare(paths: list, options: Options, prepare: Callable) -> dict:
    """Time each model's step and its plain version's, one of each in every turn.

    Models for which there is no plain version (see `plain_of`) take their turns all the same.

    Args:
        prepare: called first in a process that measures memory, and in this one by the caller.

    Returns:
        a row a model: `ours`, and where there is a plain version `plain` (times); `loss` (before
        the first step) and `gflop` of each; `plain_apart` and `plain_untouched` (see
        `bench_plain`): in a process with our settings of memory, and with PyTorch's own.
    """
    device = options.start()
    calls, rows = {}, {}
    for path in paths:  # processes of their own first: this one keeps the memory that it takes
        name, (ours, plain) = name_of(path), _steps(path, options, options.batch, device)
        rows[name], calls[name, "ours"] = {}, ours
        if plain is not None:
            calls[name, "plain"] = plain
            rows[name] = {
                "plain_apart": apart(bench_plain, str(path), options, prepare=prepare),
                "plain_untouched": apart(bench_plain, str(path), options, prepare=leave_memory),
            }
    first = {key: call() for key, call in calls.items()}
    took = interleaved(calls, options.repeats, device, warmup=0)
    for path in paths:
        name, row = name_of(path), rows[name_of(path)]
        for which, step in zip(("ours", "plain"), _steps(path, options, 1, device)):
            if step is not None:
                row[which] = took[name, which]
                row.setdefault("loss", {})[which] = first[name, which]
                row.setdefault("gflop", {})[which] = options.batch * gflop(step)
    return rows


def _steps(path, options: Options, batch: int, device: torch.device) -> tuple:
    """Our step, and the plain one or None, from the same weights, on the same batch."""
    model = build(path, device)[0].train()
    given, plain = training_batch(model, batch, options.clip, device), plain_of(model)
    return training_step(model, given), plain and training_step(plain, given)


def leave_memory() -> None:
    """Undo what a parent process with `keep_memory` hands down."""
    os.environ.pop("THP_MEM_ALLOC_ENABLE", None)


def bench_plain(path: str, options: Options) -> dict:
    """A step of the plain version, in this process: `start_mb`, `peak_mb`, `time` of one run."""
    device = options.start()
    start = peak_mb(device)
    model = build(path, device)[0].train()
    plain = plain_of(model)
    given = training_batch(model, options.batch, options.clip, device)
    del model
    reset_peak(device)
    step = training_step(plain, given)
    step()
    return {
        "start_mb": start,
        "peak_mb": peak_mb(device),
        "time": interleaved({"step": step}, 1, device, warmup=0)["step"],
    }


def verdicts(rows: dict, training: list[dict]) -> list[str]:
    """Lines that say how each model compares with its plain version.

    Args:
        training: rows of `weak.bench_training`, for the memory of ours.
    """
    peaks = {row["model"]: row["peak_mb"] for row in training}
    lines = []
    for name, row in rows.items():
        if "plain" not in row:
            lines.append(
                f"{name}: no plain version; it is of the paper's default alone (BLSTM "
                "masker, 2D-CRNN on the linear magnitude, frame labels, fixed)."
            )
            continue
        ours, plain, loss = row["ours"]["s"], row["plain"]["s"], row["loss"]
        memory = ""
        if name in peaks:
            theirs = row["plain_apart"]["peak_mb"]
            memory = f"; peak {peaks[name]:.0f} MB against {theirs:.0f} MB: ratio 1/{theirs / peaks[name]:.1f}"
        alone = row["plain_untouched"]
        lines.append(
            f"{name}: a step takes {ours:.2f} s, plain {plain:.2f} s: ratio 1/{plain / ours:.1f}"
            f"{memory}. Plain with PyTorch's own settings of memory: {alone['time']['s']:.2f} s, "
            f"{alone['peak_mb']:.0f} MB. Loss {loss['ours']:.6g} and {loss['plain']:.6g}."
        )
    lost = max(t["lost"] for row in rows.values() for k, t in row.items() if k in ("ours", "plain"))
    return (
        lines
        if lost <= QUIET
        else [
            *lines,
            (
                f"NOT VALID: other processes took up to {lost:.1f} cores meanwhile; measure again when "
                "the machine is quiet."
            ),
        ]
    )


HEADER = ["training step", "GFLOP", "s", "lowest", "highest", "cores lost"]


def table_rows(rows: dict) -> list[list]:
    """The cells below `HEADER`: in turns in one process."""
    return [
        [f"{name}, {which}", row.get("gflop", {}).get(which), *(row[which][k] for k in ("s", "low", "high", "lost"))]
        for name, row in rows.items()
        for which in ("ours", "plain")
        if which in row
    ]
