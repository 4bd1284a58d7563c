"""What the files of an experiment say of its training: configuration, size, curves and cost."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_EPOCH = re.compile(r"(\d+)epoch results: (.*)")
_STAGE = re.compile(r"\[(\w+)\] ([^\[]*)")
_VALUE = re.compile(r"(\w+)=(-?(?:[\d.]+(?:e[+-]?\d+)?|nan|inf))(?=,|\s*$)")
_PARAMETERS = re.compile(r"Total Number of model parameters: (.+)")
_TIME = re.compile(r"\btime=((?:[\d.]+ (?:hours?|minutes?|seconds?)(?:, | and |, and )?)+)")
_PART = re.compile(r"([\d.]+) (hour|minute|second|day)")
_SECONDS = {"day": 86400, "hour": 3600, "minute": 60, "second": 1}
CLIPS_PER_MIXTURE = 2  # of query-based separation: a pair


class Training(NamedTuple):
    """What a training cost; None for what the files do not say.

    parameters: as ESPnet prints them; seconds: of the training steps; steps: taken; clips: seen.
    """

    parameters: str | None
    seconds: float | None
    steps: int | None
    clips: int | None


def config_of(exp_dir: str | Path) -> dict:
    """`config.yaml` of an experiment; empty without one."""
    import yaml

    path = Path(exp_dir) / "config.yaml"
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}


def facts(exp_dir: str | Path) -> dict[str, str]:
    """Configuration, seed, epochs and parameters of a trained model, as far as its files say.

    Where a model is scored that was trained elsewhere, `model.json` says which.
    """
    exp_dir, found = Path(exp_dir), {}
    if (exp_dir / "config.yaml").is_file():
        values = config_of(exp_dir)
        found["config"] = str(values.get("config") or exp_dir / "config.yaml")
        found |= {k: str(values[k]) for k in ("seed", "max_epoch") if k in values}
    for text in _logs(exp_dir):
        if match := _PARAMETERS.search(text):
            found["parameters"] = match[1].strip()
    model = exp_dir / "model.json"
    if model.is_file():
        found |= json.loads(model.read_text(encoding="utf-8"))["facts"]
    return found


def training_curves(exp_dir: str | Path) -> dict[str, dict[str, dict[int, float]]]:
    """Name -> stage (train, valid) -> epoch -> value, from the epochs' results in train*.log.

    An epoch that was run twice, after a stop, counts as it was run last.
    """
    curves: dict = {}
    for epoch, stage, text in _results(Path(exp_dir)):
        for name, value in _VALUE.findall(text):
            curves.setdefault(name, {}).setdefault(stage, {})[epoch] = float(value)
    return {
        name: {stage: dict(sorted(values.items())) for stage, values in stages.items()}
        for name, stages in curves.items()
    }


def training_of(exp_dir: str | Path) -> Training:
    """The cost of an experiment's training; an epoch that ran twice counts as it ran last."""
    exp_dir = Path(exp_dir)
    counts = training_curves(exp_dir).get("total_count", {}).get("train", {})
    steps = int(max(counts.values())) if counts else None
    times: dict[int, float] = {}
    for epoch, stage, text in _results(exp_dir):
        if stage == "train" and (match := _TIME.search(text)):
            times[epoch] = seconds_of(match[1])
    config, clips = config_of(exp_dir), None
    if steps is not None and "batch_size" in config:
        pairs = "extractor" in config
        clips = steps * int(config["batch_size"]) * (CLIPS_PER_MIXTURE if pairs else 1)
    return Training(facts(exp_dir).get("parameters"), sum(times.values()) if times else None, steps, clips)


def seconds_of(text: str) -> float:
    """`1 hour, 2 minutes and 3.5 seconds`, as ESPnet's log writes time, in seconds."""
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))


def _results(exp_dir: Path) -> Iterator[tuple[int, str, str]]:
    """Epoch, stage and results, as the log has them, in the order they were logged."""
    for text in _logs(exp_dir):
        for line in text.splitlines():
            if result := _EPOCH.search(line):
                for stage, values in _STAGE.findall(result[2]):
                    yield int(result[1]), stage, values


def _logs(exp_dir: Path) -> Iterator[str]:
    """train.log and its rotated predecessors, the oldest first."""
    for path in sorted(exp_dir.glob("train*.log"), key=lambda f: (f.stat().st_mtime, f.name)):
        yield path.read_text(encoding="utf-8", errors="replace")
