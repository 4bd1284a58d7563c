"""Clocks and counters: operations, interleaved wall times, peak memory, the machine itself."""

import contextlib
import math
import operator
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

Call = Callable[[], object]
Cell = Callable[[dict], object]
Columns = dict[str, Cell]  # of a printed table: what stands above a column, and its cell of a row
QUIET = 0.25  # cores that others may take while a call is timed
_seen = {"peak_mb": 0.0}


def gflop(call: Call) -> float:
    """Operations of `call` in 1e9, two for a multiply-add.

    Matrix products, convolutions, LSTMs and attention count; the Fourier transform, norms and element-wise work do not.
    Fused attention kernels are taken apart, for the counter does not know all of them.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_lstm_kernels())
    counter.mod_tracker = _OneModule()
    with sdpa_kernel(SDPBackend.MATH), counter:
        call()
    return counter.get_total_flops() / 1e9


class _OneModule(contextlib.nullcontext):
    """In place of the counter's record of modules, whose hooks do not bear `autograd.grad`."""

    parents = frozenset({"Global"})


def _lstm_kernels() -> dict:
    """The fused LSTMs of oneDNN and cuDNN, which the counter does not know either."""

    def forward(x, *args, **_) -> int:
        weights = args[0] if isinstance(args[0], list) else args[:2]  # all layers, or one
        return 2 * math.prod(x[:-1]) * sum(math.prod(w) for w in weights if len(w) == 2)

    def backward(*args, **_) -> int:  # of the input and of the weights, needed or not
        return 2 * forward(*args)

    names = {
        "mkldnn_rnn_layer": forward,
        "mkldnn_rnn_layer_backward": backward,
        "_cudnn_rnn": forward,
        "_cudnn_rnn_backward": backward,
    }
    return {getattr(torch.ops.aten, name): count for name, count in names.items()}


def interleaved(
    calls: dict[str, Call], repeats: int, device: torch.device, warmup: int = 1
) -> dict[str, dict[str, float]]:
    """Wall time of each call, in turns, so that what else the machine does falls on all alike.

    A call during which others took cores that it could have used is made again, some times.

    Returns:
        for each name `s` (median in seconds), `low`, `high`, `cpu` (median of the CPU time of all threads, which others
        change less), and `lost` (median), the cores that others kept from the call: with more than `QUIET` the wall
        times are not valid.
    """
    runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in calls}
    for turn in range(-warmup, repeats):
        for name, call in calls.items():
            if turn < 0:
                call()
            else:
                runs[name].append(_timed(call, device))
    found = {}
    for name, both in runs.items():
        walls, lost, cpu = zip(*both, strict=True)
        found[name] = {
            "s": statistics.median(walls),
            "low": min(walls),
            "high": max(walls),
            "cpu": statistics.median(cpu),
            "lost": statistics.median(lost),
        }
    return found


def _timed(call: Call, device: torch.device, tries: int = 4) -> tuple[float, float, float]:
    """Seconds of the least disturbed of some tries, the cores that others kept from it, and its CPU seconds."""
    best = None
    for _ in range(tries):
        synchronize(device)
        start, cpu, everyone = time.perf_counter(), time.process_time(), _machine_seconds()
        call()
        synchronize(device)
        wall = time.perf_counter() - start
        cpu = time.process_time() - cpu
        others = _machine_seconds() - everyone - cpu
        free = (os.cpu_count() or 1) - torch.get_num_threads()
        lost = max(0.0, (others - 0.03) / wall - free)  # the kernel counts in steps of 10 ms
        if best is None or lost < best[1]:
            best = wall, lost, cpu
        if lost <= QUIET:
            break
    return best


def _machine_seconds() -> float:
    """CPU time that all processes have taken, or a hypervisor has kept; 0 where none can say."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return time.process_time()
    user, nice, system, _, _, irq, soft, steal = map(int, stat.read_text().split(None, 9)[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished."""
    getattr(torch, device.type).synchronize()


def parameters(model: torch.nn.Module) -> float:
    """Parameters in millions, frozen ones too."""
    return sum(p.numel() for p in model.parameters()) / 1e6


def reset_peak(device: torch.device) -> None:
    """Reset the device's memory counter; the memory of a process cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_mb(device: torch.device) -> float:
    """Highest memory so far in MB: allocated on the GPU, else resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    _seen["peak_mb"] = max(_seen["peak_mb"], _resident_peak_mb())
    return _seen["peak_mb"]


def _resident_peak_mb() -> float:
    """As the system counts it: Linux in parts per core, so that it may read a little lower later."""
    status = Path("/proc/self/status")  # getrusage would count the parent's memory at the start
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def machine(device: torch.device) -> dict:
    """What the figures were measured on, with a yardstick: a square fp32 matrix product."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    size = 1536
    x = torch.rand(size, size, device=device)
    took = interleaved({"matmul": lambda: x @ x}, 5, device)["matmul"]
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
        "matmul_gflops": round(2 * size**3 / took["s"] / 1e9, 1),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# ---- tables --------------------------------------------------------------------------------------


def at(*keys: str) -> Cell:
    """The cell of a row's value at nested keys; None where there is none."""

    def cell(row: dict) -> object:
        for key in keys:
            row = row.get(key) if isinstance(row, dict) else None
        return row

    return cell


def listed(*names: str) -> Columns:
    """Columns of rows that are lists."""
    return {name: operator.itemgetter(i) for i, name in enumerate(names)}


def lost(row: dict) -> float | None:
    """The most cores that others kept from a call of a row's `time`."""
    return max((t["lost"] for t in row.get("time", {}).values()), default=None)


TIMES: Columns = {"s": at("s"), "lowest": at("low"), "highest": at("high"), "cores lost": at("lost")}


def markdown(columns: Columns, rows: Iterable[dict]) -> str:
    """A table; floats with three significant digits, None as a dash."""

    def show(x) -> str:
        if x is None:
            return "-"
        if isinstance(x, float):
            return f"{x:.0f}" if abs(x) >= 1000 else f"{x:.3g}"
        return str(x)

    lines = [list(columns), ["---"] * len(columns), *([cell(row) for cell in columns.values()] for row in rows)]
    return "\n".join("| " + " | ".join(map(show, line)) + " |" for line in lines)


def not_valid(times: Iterable[dict]) -> list[str]:
    """A line that says so where others took cores while one of the times was measured."""
    most = max((t["lost"] for t in times), default=0.0)
    text = f"NOT VALID: other processes took up to {most:.1f} cores meanwhile; measure again when the machine is quiet."
    return [text] if most > QUIET else []
