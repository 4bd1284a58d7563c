"""Which test sets of an experiment were scored, and their scores."""

import json
from pathlib import Path

from espnet2_ext.errors import DataError


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
