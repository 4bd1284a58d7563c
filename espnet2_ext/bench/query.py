"""Separation by query: what one model costs in each variant, and what every query system costs.

The systems are those of the CaRE-SEP paper's tables: one network that embeds and separates, two
networks (a tagger's embedding asks a U-Net), and the taggers alone.
"""

import contextlib
import functools
import gc
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from espnet2_ext.bench.configs import Options, apart, build, kind_of, name_of, noise
from espnet2_ext.bench.measure import Columns, at, gflop, interleaved, lost, parameters, peak_mb, reset_peak
from espnet2_ext.core.layers.precision import lower
from espnet2_ext.core.metrics import sdr
from espnet2_ext.errors import DataError
from espnet2_ext.infer.chunks import is_out_of_memory

ANCHOR = 2.0  # seconds of a short query, and of what a training item mixes
TRAIN_BATCH = 2
VARIANTS = ("fp32", "bf16", "int8", "fp32 compiled", "bf16 compiled")
QUERIES = {"short": "embed_anchor", "long": "embed"}  # of 2 s, and as long as the mixture


def passes(model: nn.Module, seconds: float, device: torch.device) -> dict[str, Callable]:
    """What answering takes: `mask` of a mixture, `two` queries on it, `embed` of a query as long, and of an anchor.

    A tagger has no `mask`.
    """
    mix, anchor = noise(1, seconds, model.fs, device), noise(1, ANCHOR, model.fs, device)
    if not hasattr(model, "separate"):
        return {"embed": lambda: model.net(mix), "embed_anchor": lambda: model.net(anchor)}
    with torch.no_grad():
        query = model.embed(anchor).embedding[:, None]
    return {
        "mask": lambda: model.separate(mix, query=query),
        "two": lambda: model.separate(mix, query=query.repeat(1, 2, 1)),
        "embed": lambda: model.embed(mix),
        "embed_anchor": lambda: model.embed(anchor),
    }


def training_step(model: nn.Module, device: torch.device, cast: Callable) -> Callable:
    """A step on `TRAIN_BATCH` mixtures of 2 s with their queries: forward, backward, AdamW."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6)
    spks = range(1, model.num_spk + 1)
    refs = [noise(TRAIN_BATCH, ANCHOR, model.fs, device, seed=s) for s in spks]
    batch = {"speech_mix": sum(refs)}
    classes = model.num_classes
    for s, ref in zip(spks, refs):
        batch |= {f"speech_ref{s}": ref, f"enroll_ref{s}": ref}
    if classes:
        batch |= {f"label{s}": torch.zeros(TRAIN_BATCH, classes, device=device) for s in (*spks, "_mix")}

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with cast():
            loss = model(**batch)[0]
        loss.backward()
        optimiser.step()

    return step


def bench_model(path: str, variant: str, options: Options) -> dict:
    """Measure in this process.

    Returns:
        a row: `parameters_m`, `gflop` and `time` by pass (see `passes`), `real_time` (seconds of work in the mask pass
        for a second of sound), `train` (time of a step), `peak_mb` and `train_peak_mb`; in other precisions than fp32
        `snr_db`, of the mask pass to that of fp32. For compiled variants that PyTorch could not compile, `failed`.
    """
    device = options.start()
    model, args = build(path, device)
    row = {"model": name_of(path), "variant": variant, "parameters_m": parameters(model), "batch_size": args.batch_size}
    precision = variant.split()[0]
    cast = contextlib.nullcontext if precision == "fp32" else (lambda: torch.autocast(device.type, torch.bfloat16))
    try:
        with torch.no_grad():
            calls = passes(model, options.seconds, device)
            row["gflop"] = {name: gflop(call) for name, call in calls.items()}
            plain = calls["mask"]()
            lower(model, precision, device)
            if precision != "fp32":
                row["snr_db"] = float(sdr(est=calls["mask"]().flatten(0, -2), ref=plain.flatten(0, -2)).mean())
            if variant.endswith("compiled"):
                compile_passes(model)
            reset_peak(device)
            row["time"] = interleaved(calls, options.repeats, device)
        row["real_time"] = row["time"]["mask"]["s"] / options.seconds
        row["peak_mb"] = peak_mb(device)
        if options.train and precision != "int8":
            del calls
            gc.collect()
            reset_peak(device)
            if precision != "fp32":
                model = build(path, device)[0]
                if variant.endswith("compiled"):
                    compile_passes(model)
            step = {"step": training_step(model.train(), device, cast)}
            row["train"] = interleaved(step, options.repeats, device)["step"]
            row["train_peak_mb"] = peak_mb(device)
    except Exception as e:
        if not variant.endswith("compiled"):
            raise
        row["failed"] = f"{type(e).__name__}: {str(e).strip().splitlines()[0]}"
    return row


def compile_passes(model: nn.Module) -> None:
    """Compile what the networks do; spectra stay outside."""
    net = model.extractor.net
    net.mask = torch.compile(net.mask)
    if model.query_net is None:
        net.embed = torch.compile(net.embed)
    else:
        model.query_net.compile()


MODELS: Columns = {
    "model": at("model"),
    "variant": lambda row: row["variant"] + (f" ({row['failed']})" if "failed" in row else ""),
    "M param.": at("parameters_m"),
    "GFLOP mask": at("gflop", "mask"),
    "embed": at("gflop", "embed"),
    "embed 2 s": at("gflop", "embed_anchor"),
    "mask s": at("time", "mask", "s"),
    "mask CPU s": at("time", "mask", "cpu"),
    "embed s": at("time", "embed", "s"),
    "embed 2 s s": at("time", "embed_anchor", "s"),
    "second query CPU s": lambda row: _further("time", row, "cpu"),
    "SNR to fp32 dB": at("snr_db"),
    "real-time factor": at("real_time"),
    "training step s": at("train", "s"),
    "peak MB": at("peak_mb"),
    "training peak MB": at("train_peak_mb"),
    "cores lost": lambda row: lost({"time": row.get("time", {}) | ({"train": row["train"]} if "train" in row else {})}),
}


# ---- every query system side by side ---------------------------------------------------------------


class System(NamedTuple):
    """A model: its name, its YAML, options of the task put behind the YAML's own, and the precision of inference."""

    name: str
    yaml: str
    more: tuple[str, ...] = ()
    precision: str = "fp32"

    def __str__(self) -> str:
        return self.name + f" {self.precision}" * (self.precision != "fp32")


def all_systems(conf: Path) -> list[System]:
    """Every query system and tagger that a folder of YAMLs holds.

    Systems that differ in training alone (rows B, D, E and F of table 2) cost the same. Row G,
    CaRE-SEP with a query network of its own, is an option away from CaRE-SEP.
    """
    found = system_of(sorted(conf.glob("train_qsep_*.yaml")))
    if (base := conf / "train_qsep_care_sep_768.yaml").is_file():
        found.append(System("care_sep_768 + hts_at (G)", str(base), ("--query_net", "hts_at")))
    return found + system_of(sorted(conf.glob("train_tag_*.yaml")))


def system_of(paths: list[Path]) -> list[System]:
    """Systems as their YAMLs are."""
    return [System(name_of(path), str(path)) for path in paths]


def only(systems: list[System], parts: list[str] | None) -> list[System]:
    """Those whose name holds one of `parts`. Raises DataError where none does."""
    chosen = [s for s in systems if parts is None or any(p in s.name for p in parts)]
    if not chosen:
        known = ", ".join(s.name for s in systems)
        raise DataError(f"--only {' '.join(parts or [])}: no such system; available: {known}")
    return chosen


def bench_system(system: System, options: Options) -> dict:
    """Measure in this process.

    Returns:
        a row: `query_m` (parameters of a query network of its own, or of a tagger; None where the separator embeds),
        `separator_m` (None for a tagger), `start_mb` (before there was a model); `time` and `gflop` by pass
        (`embed_anchor`: query of 2 s, `embed`: of `options.seconds`, `mask`: mixture of `options.seconds`); `peak_mb`
        of a query `short` and `long`, with its mask pass.
    """
    device = options.start()
    start = peak_mb(device)
    model, _ = build(system.yaml, device, *system.more)
    row = {"system": str(system), "start_mb": start, **_sizes(model, kind_of(system.yaml) == "tag"), "peak_mb": {}}
    reset_peak(device)
    with torch.no_grad():
        calls = passes(model, options.seconds, device)
        if system.precision != "fp32":
            row["gflop"] = {name: gflop(call) for name, call in calls.items()}  # fewer bits are not counted
            lower(model, system.precision, device)
        for query, name in QUERIES.items():  # the long one needs more: the process's peak goes on
            for call in (calls[name], calls.get("mask")):
                _ = call and call()
            row["peak_mb"][query] = peak_mb(device)
        row["time"] = interleaved(calls, options.repeats, device, warmup=0)
        row["gflop"] = row.get("gflop") or {name: gflop(call) for name, call in calls.items()}
    return row


def _sizes(model: nn.Module, tagger: bool) -> dict[str, float | None]:
    if tagger:
        return {"query_m": parameters(model.net), "separator_m": None}
    net = model.query_net
    query = None if net is None else parameters(net)
    return {"query_m": query, "separator_m": parameters(model) - (query or 0.0)}


def costs(systems: list[System], options: Options, prepare: Callable) -> list[dict]:
    """Rows of `bench_system`, each from a process of its own.

    A system that cannot be built, or for which there is no memory, has `failed` in its row: the
    others are still worth having.
    """
    rows = []
    for system in systems:
        logging.info("%s", system)
        try:
            rows.append(apart(bench_system, system, options, prepare=prepare))
        except Exception as e:
            if not isinstance(e, DataError) and not is_out_of_memory(e):
                raise
            rows.append({"system": str(system), "failed": str(e)})
    return rows


def columns(seconds: float) -> Columns:
    """Of the table of systems; a query's figures hold its embedding and one mask pass."""
    found: Columns = {
        "system": lambda row: row["system"] + (" (failed)" if "failed" in row else ""),
        "M param. query network": _query_network,
        "separator": at("separator_m"),
    }
    for length, query in zip((ANCHOR, seconds), QUERIES):
        found |= {
            f"query of {length:g} s: GFLOP": functools.partial(_query, query, "gflop"),
            f"query of {length:g} s: s": functools.partial(_query, query, "time"),
            f"query of {length:g} s: peak MB": at("peak_mb", query),
        }
    return found | {
        "a further query, embedding at hand: GFLOP": functools.partial(_further, "gflop"),
        "s": functools.partial(_further, "time"),
        "before the model MB": at("start_mb"),
        "cores lost": lost,
    }


def _query(query: str, what: str, row: dict) -> float | None:
    """Operations or seconds of a query with its mask pass."""
    if "failed" in row:
        return None
    both = [row[what].get(name, 0.0) for name in (QUERIES[query], "mask")]
    return sum(x["s"] if isinstance(x, dict) else x for x in both)


def _further(what: str, row: dict, clock: str = "s") -> float | None:
    """Operations or seconds that a second query adds to a mask pass."""
    one, two = (row.get(what, {}).get(name) for name in ("mask", "two"))
    if one is None:
        return None
    return two[clock] - one[clock] if isinstance(one, dict) else two - one


def _query_network(row: dict) -> float | str | None:
    if "failed" in row:
        return None
    return "shared" if row["query_m"] is None else row["query_m"]
