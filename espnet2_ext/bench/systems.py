"""Every query system side by side: what one query costs, in parameters, operations, time, memory.

The systems are those of the CaRE-SEP paper's tables: one network that embeds and separates, two
networks (a tagger's embedding asks a U-Net), and the taggers alone.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from espnet2_ext.bench.configs import Options, apart, build, kind_of, name_of, noise
from espnet2_ext.bench.measure import gflop, interleaved, parameters, peak_mb, reset_peak
from espnet2_ext.bench.query import ANCHOR, passes
from espnet2_ext.errors import DataError
from espnet2_ext.infer.chunks import is_out_of_memory

QUERIES = {"short": "embed_anchor", "long": "embed"}  # of 2 s, and as long as the mixture


class System(NamedTuple):
    """A model: its name, its YAML, and options of the task put behind the YAML's own."""

    name: str
    yaml: str
    more: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


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
        raise DataError(
            f"--only {' '.join(parts or [])}: no such system; there is: {', '.join(s.name for s in systems)}"
        )
    return chosen


def bench_system(system: System, options: Options) -> dict:
    """Measure in this process.

    Returns:
        a row: `query_m` (parameters of a query network of its own, or of a tagger; None where the
        separator embeds), `separator_m` (None for a tagger), `start_mb` (before there was a
        model); `time` and `gflop` by pass (`embed_anchor`: query of 2 s, `embed`: of
        `options.seconds`, `mask`: mixture of `options.seconds`); `peak_mb` of a query `short` and
        `long`, with its mask pass.
    """
    device = options.start()
    start = peak_mb(device)
    model, _ = build(system.yaml, device, *system.more)
    tagger = kind_of(system.yaml) == "tag"
    row = {"system": system.name, "start_mb": start, **_sizes(model, tagger), "peak_mb": {}}
    reset_peak(device)
    with torch.no_grad():
        calls = (listen if tagger else passes)(model, options.seconds, device)
        for query, name in QUERIES.items():  # the long one needs more: the process's peak goes on
            for call in (calls[name], calls.get("mask")):
                _ = call and call()
            row["peak_mb"][query] = peak_mb(device)
        row["time"] = interleaved(calls, options.repeats, device, warmup=0)
        row["gflop"] = {name: gflop(call) for name, call in calls.items()}
    return row


def listen(model: nn.Module, seconds: float, device: torch.device) -> dict[str, Callable]:
    """The passes of a tagger: a clip of `seconds`, and one of 2 s."""
    long, short = (noise(1, s, model.fs, device) for s in (seconds, ANCHOR))
    return {"embed": lambda: model.net(long), "embed_anchor": lambda: model.net(short)}


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
        logging.info("%s", system.name)
        try:
            rows.append(apart(bench_system, system, options, prepare=prepare))
        except Exception as e:
            if not isinstance(e, DataError) and not is_out_of_memory(e):
                raise
            rows.append({"system": system.name, "failed": str(e)})
    return rows


def header(seconds: float) -> list[str]:
    """Of the table; a query's figures hold its embedding and one mask pass."""
    queries = [f"query of {length:g} s" for length in (ANCHOR, seconds)]
    return [
        "system",
        "M param. query network",
        "separator",
        *(f"{query}: {what}" for query in queries for what in ("GFLOP", "s", "peak MB")),
        "a further query, embedding at hand: GFLOP",
        "s",
        "before the model MB",
        "cores lost",
    ]


def table_row(row: dict) -> list:
    """The cells below `header`."""
    if "failed" in row:
        return [row["system"] + " (failed)", *[None] * 12]
    time, ops = {k: t["s"] for k, t in row["time"].items()}, row["gflop"]
    query = "shared" if row["query_m"] is None else row["query_m"]
    cells = [row["system"], query, row["separator_m"]]
    for length, name in QUERIES.items():
        cells += [ops[name] + ops.get("mask", 0.0), time[name] + time.get("mask", 0.0), row["peak_mb"][length]]
    return [*cells, ops.get("mask"), time.get("mask"), row["start_mb"], max(t["lost"] for t in row["time"].values())]
