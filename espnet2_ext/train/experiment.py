"""What the files of an experiment say of its training: configuration, size, curves, cost; the best of several."""

import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from espnet2_ext.data.tables import Label
from espnet2_ext.errors import DataError
from espnet2_ext.util.documents import dump_yaml, mapping, read_fields, read_yaml, write_json
from espnet2_ext.util.files import read_record, write_text

_EPOCH = re.compile(r"(\d+)epoch results: (.*)")
_STAGE = re.compile(r"\[(\w+)\] ([^\[]*)")
_VALUE = re.compile(r"(\w+)=(-?(?:[\d.]+(?:e[+-]?\d+)?|nan|inf))(?=,|\s*$)")
_PARAMETERS = re.compile(r"Total Number of model parameters: (.+)")
_TIME = re.compile(r"\btime=((?:[\d.]+ (?:hours?|minutes?|seconds?)(?:, | and |, and )?)+)")
_PART = re.compile(r"([\d.]+) (hour|minute|second|day)")
_SECONDS = {"day": 86400, "hour": 3600, "minute": 60, "second": 1}
TRIALS = "trials.json"
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
    path = Path(exp_dir) / "config.yaml"
    return mapping(read_yaml(path) or {}, path) if path.is_file() else {}


def facts(exp_dir: str | Path) -> dict[str, str]:
    """Configuration, seed, epochs, parameters and presence score of a trained model, as far as its files say.

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
    model, heard = exp_dir / "model.json", exp_dir / "class_queries.json"
    if presence := read_record(heard).get("presence"):
        found["presence, on validation mixtures"] = presence
    if model.is_file():
        found |= read_fields(model, {"facts": {str: str}})["facts"]
    return found


PROTOCOL = (
    "mixture-SDR over both targets of each mixture, as S(c1 + c2, ej) against cj is defined; that "
    "of the first targets alone, each clip once, stands beside it"
)


def describe_model(
    exp_dir: str | Path, scored: str, config: dict, classes: Sequence[Label], info: dict, labels: Sequence[Label]
) -> dict:
    """Write into a folder of scores which model they are of: `config.yaml` and `model.json`, which `facts` reads.

    Args:
        scored: file of the model.
        config, classes, info: its configuration, classes (empty where it does not list them) and bundle.yaml.
        labels: classes of the test set.

    Returns:
        What `model.json` holds: `zero_shot` (True, False, or None where the model does not list its classes), the
        model's `name`, `trained_on`, and all of it in words, `facts`.
    """
    zero_shot, words = judge(classes, labels)
    found = {"scored model": scored}
    if "parameters" in info:
        found["parameters"] = f"{info['parameters'] / 1e6:.2f} M"
    if trained_on := info.get("trained_on"):
        pairs = trained_on.items() if isinstance(trained_on, dict) else ()  # else words, of `pack --info`
        found["trained on"] = ", ".join(f"{k} {v}" for k, v in pairs) or str(trained_on)
    found |= {"zero-shot": words, "scores": PROTOCOL}
    if [v.mid for v in classes] != [v.mid for v in labels]:
        found["mAP"] = "none: the model's tags are not the test set's classes"
    about = {"zero_shot": zero_shot, "name": info.get("name"), "trained_on": trained_on, "facts": found}
    write_text(Path(exp_dir) / "config.yaml", dump_yaml(config))
    write_json(Path(exp_dir) / "model.json", about)
    return about


def judge(classes: Sequence[Label], labels: Sequence[Label]) -> tuple[bool | None, str]:
    """Whether a model of `classes` meets a test set of `labels` unprepared, and that in words.

    A model whose classes hold all of the test set's was trained on that corpus, or one like it.
    Classes are told apart by their ids; other corpora's of the same name are counted besides.
    """
    if not classes:
        return None, "not known, as the model does not list its classes; nothing was trained here"
    ids, names = {v.mid for v in classes}, {v.name.casefold() for v in classes}
    shared = sum(v.mid in ids for v in labels)
    told = f"{shared} of the test set's {len(labels)} classes are among the model's {len(classes)}"
    if alike := [v.name for v in labels if v.mid not in ids and v.name.casefold() in names]:
        told += f", {len(alike)} more by name ({', '.join(alike)})"
    if shared == len(labels):
        return False, f"no, {told}: it was trained on this corpus or on one of the same classes"
    return True, f"yes, {told}, and nothing was trained here"


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


# ---- trainings that differ in their seed ---------------------------------------------------------


def validation_loss(exp_dir: str | os.PathLike, model_file: str) -> float:
    """The validation loss of an experiment's weights, as train.log reports it.

    Args:
        model_file: `latest.pth`, `valid.loss.best.pth` or `Nepoch.pth`, the names of ESPnet.

    Raises:
        DataError: no such loss in the log, or weights of another name: an average of several
            epochs was never validated.
    """
    losses = training_curves(exp_dir).get("loss", {}).get("valid", {})
    if not losses:
        raise DataError(f"{exp_dir}: no validation loss in train.log")
    if model_file == "valid.loss.best.pth":
        return min((v for v in losses.values() if math.isfinite(v)), default=math.nan)
    number = model_file.removesuffix("epoch.pth")
    epoch = max(losses) if model_file == "latest.pth" else int(number) if number.isdigit() else None
    if epoch not in losses:
        raise DataError(
            f"{exp_dir}: the validation loss of {model_file} is not known; trials are "
            "compared by that of valid.loss.best.pth, latest.pth or Nepoch.pth"
        )
    return losses[epoch]


def keep_best(exp_dir: str | os.PathLike, trials: Sequence[str | os.PathLike], model_file: str) -> str:
    """Make exp_dir a link to the trial of the lowest validation loss, the first of equal ones.

    That trial gets TRIALS with the losses of all.

    Args:
        exp_dir: beside the trials; what it linked to before, if anything, is replaced.
        trials: folders of trained experiments.
        model_file: the weights whose loss counts, see `validation_loss`.

    Returns:
        The text of `describe_trials`.

    Raises:
        DataError: as in `validation_loss`; no loss is finite; exp_dir is a folder.
    """
    exp_dir = Path(exp_dir)
    if exp_dir.exists() and not exp_dir.is_symlink():
        raise DataError(f"{exp_dir} is a training of its own; remove it or choose another name")
    losses = {Path(t).name: validation_loss(t, model_file) for t in trials}
    finite = {name: loss for name, loss in losses.items() if math.isfinite(loss)}
    if not finite:
        raise DataError(f"{exp_dir}: no trial has a finite validation loss")
    best = min(finite, key=lambda name: finite[name])
    record = {"kept": best, "model_file": model_file, "validation_loss": losses}
    write_json(exp_dir.with_name(best) / TRIALS, record)
    tmp = exp_dir.with_name(f".tmp-{exp_dir.name}")
    tmp.unlink(missing_ok=True)
    tmp.symlink_to(best)
    os.replace(tmp, exp_dir)
    return describe_trials(exp_dir)


def describe_trials(exp_dir: str | os.PathLike) -> str:
    """In words, what the kept training was chosen from; empty for one that was not chosen."""
    path = Path(exp_dir) / TRIALS
    if not path.is_file():
        return ""
    found = read_fields(path, {"kept": str, "validation_loss": {str: (float, object)}})
    losses = ", ".join(
        f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in found["validation_loss"].items()
    )
    return f"{losses}; kept: {found['kept']}"


def need_gpus(number: int) -> None:
    """Refuse a training on more GPUs than PyTorch finds (DataError)."""
    import torch

    found = torch.cuda.device_count() if number else 0
    if number > found:
        there = f"{found} GPU{'s' * (found > 1)}" if found else "no GPU"
        raise DataError(f"--ngpu {number}: PyTorch finds {there} on this machine; give --ngpu {found}")
