"""What the report says about an experiment: its configuration, size, training curves and sets."""

import json
import re
from pathlib import Path

from espnet2_ext.errors import DataError

_EPOCH = re.compile(r"(\d+)epoch results: (.*)")
_STAGE = re.compile(r"\[(\w+)\] ([^\[]*)")
_VALUE = re.compile(r"(\w+)=(-?(?:[\d.]+(?:e[+-]?\d+)?|nan|inf))(?=,|\s*$)")
_PARAMETERS = re.compile(r"Total Number of model parameters: (.+)")


def scored_sets(exp_dir: str | Path, inference_dirs: list[str] | None = None) -> list[Path]:
    """Folders with scores/summary.json: those given, or all `inference_*` of the experiment.

    Raises:
        DataError: none, or one that has not been scored.
    """
    if inference_dirs:
        folders = [Path(d) for d in inference_dirs]
    else:
        found = sorted(Path(exp_dir).glob("inference_*/scores/summary.json"))
        folders = [path.parents[1] for path in found]
    for folder in folders:
        if not (folder / "scores" / "summary.json").is_file():
            raise DataError(f"{folder}: no scores/summary.json; run the scoring first")
    if not folders:
        raise DataError(f"{exp_dir}: no inference_*/scores/summary.json; run the scoring first")
    return folders


def load_summary(folder: Path) -> dict:
    """scores/summary.json of an inference folder."""
    return json.loads((folder / "scores" / "summary.json").read_text(encoding="utf-8"))


def load_rows(folder: Path) -> list[dict]:
    """scores/scores.jsonl of an inference folder, one row a key."""
    lines = (folder / "scores" / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def facts(exp_dir: str | Path) -> dict[str, str]:
    """Configuration, seed, epochs and parameters of a trained model, as far as its files tell.

    Where a model is scored that was trained elsewhere, `model.json` says which.
    """
    exp_dir, found = Path(exp_dir), {}
    config = exp_dir / "config.yaml"
    if config.is_file():
        import yaml

        values = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
        found["config"] = str(values.get("config") or config)
        found |= {k: str(values[k]) for k in ("seed", "max_epoch") if k in values}
    for log in _logs(exp_dir):
        if match := _PARAMETERS.search(log.read_text(encoding="utf-8", errors="replace")):
            found["parameters"] = match[1].strip()
    told = exp_dir / "model.json"
    if told.is_file():
        found |= json.loads(told.read_text(encoding="utf-8"))["facts"]
    return found


def training_curves(exp_dir: str | Path) -> dict[str, dict[str, dict[int, float]]]:
    """Name -> stage (train, valid) -> epoch -> value, from the epochs' results in train*.log.

    An epoch that was run twice, after a stop, counts as it was run last.
    """
    curves: dict = {}
    for log in _logs(Path(exp_dir)):
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if not (result := _EPOCH.search(line)):
                continue
            for stage, text in _STAGE.findall(result[2]):
                for name, value in _VALUE.findall(text):
                    values = curves.setdefault(name, {}).setdefault(stage, {})
                    values[int(result[1])] = float(value)
    return {
        name: {stage: dict(sorted(values.items())) for stage, values in stages.items()}
        for name, stages in curves.items()
    }


def _logs(exp_dir: Path) -> list[Path]:
    """train.log and its rotated predecessors, the oldest first."""
    return sorted(exp_dir.glob("train*.log"), key=lambda f: (f.stat().st_mtime, f.name))
