"""Of several trainings that differ in their seed, the one of the lowest validation loss."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from espnet2_ext.errors import DataError
from espnet2_ext.train.experiment import training_curves
from espnet2_ext.util.files import write_text

TRIALS = "trials.json"


def validation_loss(exp_dir: str | os.PathLike, model_file: str) -> float:
    """The validation loss of an experiment's weights, as train.log tells it.

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
            "told apart by that of valid.loss.best.pth, latest.pth or Nepoch.pth"
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
        The text of `told_trials`.

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
    told = {"kept": best, "model_file": model_file, "validation_loss": losses}
    write_text(exp_dir.with_name(best) / TRIALS, json.dumps(told, indent=1) + "\n")
    tmp = exp_dir.with_name(f".tmp-{exp_dir.name}")
    tmp.unlink(missing_ok=True)
    tmp.symlink_to(best)
    os.replace(tmp, exp_dir)
    return told_trials(exp_dir)


def told_trials(exp_dir: str | os.PathLike) -> str:
    """In words, what the kept training was chosen from; empty for one that was not chosen."""
    path = Path(exp_dir) / TRIALS
    if not path.is_file():
        return ""
    told = json.loads(path.read_text(encoding="utf-8"))
    losses = ", ".join(f"{name} {loss:g}" for name, loss in told["validation_loss"].items())
    return f"{losses}; kept: {told['kept']}"
