"""One model, built from its YAML, measured in a process of its own."""

import contextlib
import gc
from collections.abc import Callable

import torch
from torch import nn

from espnet2_ext.bench.configs import Options, build, name_of, noise
from espnet2_ext.bench.measure import gflop, interleaved, parameters, peak_mb, reset_peak

ANCHOR = 2.0  # seconds of a short query, and of what a training item mixes
TRAIN_BATCH = 2
VARIANTS = ("fp32", "bf16", "fp32 compiled", "bf16 compiled")


def passes(model: nn.Module, seconds: float, device: torch.device) -> dict[str, Callable]:
    """What answering takes: `mask` of a mixture, `embed` of a query as long, and of an anchor."""
    mix, anchor = noise(1, seconds, model.fs, device), noise(1, ANCHOR, model.fs, device)
    with torch.no_grad():
        query = model.embed(anchor).embedding[:, None]
    return {
        "mask": lambda: model.separate(mix, query=query),
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
            batch[f"label{s}"] = torch.zeros(TRAIN_BATCH, classes, device=device)

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
        a row: `parameters_m`, `gflop` and `time` by pass (see `passes`), `real_time` (seconds of
        work in the mask pass for a second of sound), `train` (time of a step), `peak_mb` and
        `train_peak_mb`. For compiled variants that PyTorch could not compile, `failed`.
    """
    device = options.start()
    model, args = build(path, device)
    row = {"model": name_of(path), "variant": variant, "parameters_m": parameters(model), "batch_size": args.batch_size}
    dtype = torch.bfloat16 if variant.startswith("bf16") else None
    cast = contextlib.nullcontext if dtype is None else (lambda: torch.autocast(device.type, dtype))
    try:
        with torch.no_grad():
            calls = passes(model, options.seconds, device)
            row["gflop"] = {name: gflop(call) for name, call in calls.items()}
            if variant.endswith("compiled"):
                compile_passes(model)
            reset_peak(device)
            with cast():
                row["time"] = interleaved(calls, options.repeats, device)
        row["real_time"] = row["time"]["mask"]["s"] / options.seconds
        row["peak_mb"] = peak_mb(device)
        if options.train:
            gc.collect()
            reset_peak(device)
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


HEADER = [
    "model",
    "variant",
    "M param.",
    "GFLOP mask",
    "embed",
    "embed 2 s",
    "mask s",
    "embed s",
    "embed 2 s s",
    "real-time factor",
    "training step s",
    "peak MB",
    "training peak MB",
    "cores lost",
]


def table_row(row: dict) -> list:
    """The cells below `HEADER`."""
    names = ("mask", "embed", "embed_anchor")
    took = row.get("time", {})
    lost = [t["lost"] for t in (*took.values(), *([row["train"]] if "train" in row else []))]
    return [
        row["model"],
        row["variant"] + (f" ({row['failed']})" if "failed" in row else ""),
        row["parameters_m"],
        *(row.get("gflop", {}).get(n) for n in names),
        *(took[n]["s"] if n in took else None for n in names),
        row.get("real_time"),
        row.get("train", {}).get("s"),
        row.get("peak_mb"),
        row.get("train_peak_mb"),
        max(lost, default=None),
    ]
