"""What a training cost: parameters, time, steps and clips, from an experiment's own files."""

import re
from pathlib import Path
from typing import NamedTuple

from espnet2_ext.report.experiment import facts, training_curves
from espnet2_ext.report.weak_sets import config_of

_TRAIN = re.compile(r"(\d+)epoch results: \[train\] ([^\[]*)")
_TIME = re.compile(r"\btime=((?:[\d.]+ (?:hours?|minutes?|seconds?)(?:, | and |, and )?)+)")
_PART = re.compile(r"([\d.]+) (hour|minute|second|day)")
_SECONDS = {"day": 86400, "hour": 3600, "minute": 60, "second": 1}
CLIPS_A_MIXTURE = 2  # of query-based separation: a pair


class Training(NamedTuple):
    """parameters: as ESPnet prints them; seconds: of the training steps; steps: taken; clips: seen.

    None for what the files do not tell.
    """

    parameters: str | None
    seconds: float | None
    steps: int | None
    clips: int | None


def training_of(exp_dir: str | Path) -> Training:
    """The facts of an experiment's folder; an epoch that ran twice counts as it ran last."""
    exp_dir = Path(exp_dir)
    counts = training_curves(exp_dir).get("total_count", {}).get("train", {})
    steps = int(max(counts.values())) if counts else None
    times: dict[int, float] = {}
    for log in sorted(exp_dir.glob("train*.log"), key=lambda f: (f.stat().st_mtime, f.name)):
        for epoch, text in _TRAIN.findall(log.read_text(encoding="utf-8", errors="replace")):
            if match := _TIME.search(text):
                times[int(epoch)] = seconds_of(match[1])
    config, clips = config_of(exp_dir), None
    if steps is not None and "batch_size" in config:
        pairs = "extractor" in config
        clips = steps * int(config["batch_size"]) * (CLIPS_A_MIXTURE if pairs else 1)
    return Training(facts(exp_dir).get("parameters"), sum(times.values()) if times else None, steps, clips)


def seconds_of(text: str) -> float:
    """`1 hour, 2 minutes and 3.5 seconds`, as ESPnet's log tells time, in seconds."""
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
