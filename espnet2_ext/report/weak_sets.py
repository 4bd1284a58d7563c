"""Several experiments scored on the same test sets, side by side: one a label type."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from espnet2_ext.errors import DataError
from espnet2_ext.report.experiment import load_rows, load_summary
from espnet2_ext.train.experiment import config_of, facts
from espnet2_ext.train.trials import told_trials

PAPER_ORDER = ("strong", "frame", "clip")  # from the most that is known to the least


class Experiment(NamedTuple):
    """label: what it was trained on, or another name; folder: with config.yaml."""

    label: str
    folder: Path


class Scored(NamedTuple):
    """What one experiment scored on a test set. folder: its outputs; rows: of scores.jsonl."""

    label: str
    folder: Path
    summary: dict
    rows: list[dict]


def parse_experiments(texts: Sequence[str]) -> list[Experiment]:
    """Read `LABEL=FOLDER`.

    Raises:
        DataError: another form, or a label that is there twice.
    """
    found: list[Experiment] = []
    for text in texts:
        label, sign, folder = text.partition("=")
        if not sign or not label or not folder or label in {e.label for e in found}:
            raise DataError(f"--experiment {text!r}: expected LABEL=FOLDER with a label of its own")
        found.append(Experiment(label, Path(folder)))
    return found


def scored_on(experiments: Sequence[Experiment], name: str) -> list[Scored]:
    """The scores of all experiments on test set `name` (their folders `inference_NAME`).

    Raises:
        DataError: one that has not been scored, or on other mixtures or classes than the first.
    """
    found = []
    for e in experiments:
        folder = e.folder / f"inference_{name}"
        if not (folder / "scores" / "summary.json").is_file():
            raise DataError(f"{folder}: no scores/summary.json; run the scoring first")
        found.append(Scored(e.label, folder, load_summary(folder), load_rows(folder)))
    first = found[0].summary
    for s in found[1:]:
        for what in ("classes", "table"):
            if s.summary[what] != first[what]:
                raise DataError(
                    f"{s.folder}: scored on other mixtures than {found[0].folder} ({what}); score both on one set"
                )
    return found


def model_facts(experiment: Experiment) -> dict[str, str]:
    """What an experiment is: label type, networks, strategy, size, training data."""
    config = config_of(experiment.folder)
    found = {"experiment": str(experiment.folder)}
    for name in ("label_type", "separator", "strategy", "classifier"):
        if config.get(name) is not None and not (
            name in ("strategy", "classifier") and config.get("label_type") == "strong"
        ):
            found[name.replace("_", " ")] = str(config[name])
    found |= facts(experiment.folder)
    if told := told_trials(experiment.folder):
        found["trials by validation loss"] = told
    if (table := config.get("train_table")) and (Path(table) / "table.json").is_file():
        info = json.loads((Path(table) / "table.json").read_text(encoding="utf-8"))
        found["training mixtures"] = f"{info['mixtures']} ({info['events']} events)"
        found["training table hash"] = info["table_hash"]
    return found


def set_facts(scored: Scored) -> dict[str, str]:
    """Counts, settings and hashes of a test set, as text."""
    s, table = scored.summary, scored.summary["table"]
    overall = s["overall"]
    found = {
        "data": s["data_dir"],
        "mixtures": f"{s['keys']} ({table['events']} events), {s['seconds'] / 3600:.2f} h, {s['fs']} Hz",
        "scored sources": f"{overall['input']['count']} (left out: {overall['silent']['count']} "
        f"silent, {s['alone']} alone in their mixture)",
    }
    if table.get("settings"):
        found["settings"] = ", ".join(f"{k} {_plain(v)}" for k, v in table["settings"].items())
    for name in ("seed", "bank_hash", "table_hash"):
        if table.get(name) is not None:
            found[name.replace("_", " ")] = str(table[name])
    return found


def _plain(value) -> str:
    if isinstance(value, (list, tuple)):
        return " to ".join(map(str, value)) if value else "none"
    return str(value)


def ordering(scored: Sequence[Scored]) -> str:
    """Which labels gave more, by the mean gain over all sources, in words."""
    means = {s.label: s.summary["overall"]["gain"]["mean"] for s in scored}
    known = {label: v for label, v in means.items() if v is not None}
    if not known:
        return "No source was scored: there are no isolated sounds to compare with, or none sounds beside another."
    ranked = sorted(known, key=lambda label: -known[label])
    text = " > ".join(f"{label} {known[label]:.2f}".replace("-0.00", "0.00") for label in ranked)
    text = f"Mean SI-SDR improvement over all sources, as measured: {text} dB"
    expected = [label for label in PAPER_ORDER if label in known]
    if len(expected) > 1:
        same = [label for label in ranked if label in expected] == expected
        text += f" ({'the order' if same else 'not the order'} of the paper: "
        text += " > ".join(expected) + ")"
    return text + "."
