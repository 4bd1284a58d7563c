"""What is reported: scored test sets, with one model in each or several side by side, and what the models are."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from espnet2_ext.core.mixing.events import KNOWN
from espnet2_ext.data.mixtures.event_table import read_table_info
from espnet2_ext.errors import DataError
from espnet2_ext.scores.summary import CLASS_ROW, CLASS_SUMMARY, QUERY_ROW, QUERY_SUMMARY
from espnet2_ext.train.experiment import config_of, describe_trials, facts
from espnet2_ext.util.documents import check, read_fields, read_json_lines
from espnet2_ext.util.files import verified


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


def load_summary(folder: Path) -> dict:
    """scores/summary.json of an inference folder. Raises a DataError where it has not been scored, or not so."""
    path = folder / "scores" / "summary.json"
    summary = read_fields(path, {}, hint="run the scoring first")
    check(summary, QUERY_SUMMARY if "protocols" in summary else CLASS_SUMMARY, path)
    scores = summary.get("scores")
    if summary.get("protocols", scores) == {} and scores is None or scores and set(summary["classes"]) - set(scores):
        raise DataError(f"{path}: holds no scores; run the scoring again")
    return summary


def load_rows(folder: Path) -> list[dict]:
    """scores/scores.jsonl of an inference folder, one row per key."""
    path = folder / "scores" / "scores.jsonl"
    return [
        check(row, CLASS_ROW if "classes" in row else QUERY_ROW, f"{path}:{number}")
        for number, row in read_json_lines(verified(path, path.with_name("summary.json")))
    ]


def load_scored(folder: str | Path, label: str = "") -> Scored:
    """The scores in an inference folder. Raises a DataError where it has not been scored."""
    folder = Path(folder)
    return Scored(label, folder, load_summary(folder), load_rows(folder))


def scored_sets(exp_dir: str | Path, inference_dirs: Sequence[str] | None = None) -> dict[str, list[Scored]]:
    """Name of the folder -> scores: of the folders given, or of all scored `inference_*` of the experiment.

    Raises:
        DataError: none, or one that has not been scored.
    """
    found = sorted(Path(exp_dir).glob("inference_*/scores/summary.json"))
    folders = [Path(d) for d in inference_dirs] if inference_dirs else [path.parents[1] for path in found]
    if not folders:
        raise DataError(f"{exp_dir}: no inference_*/scores/summary.json; run the scoring first")
    return {folder.name: [load_scored(folder)] for folder in folders}


def scored_on(experiments: Sequence[Experiment], name: str) -> list[Scored]:
    """The scores of all experiments on test set `name` (their folders `inference_NAME`).

    Raises:
        DataError: one that has not been scored, or on other mixtures or classes than the first.
    """
    found = [load_scored(e.folder / f"inference_{name}", e.label) for e in experiments]
    for s in found[1:]:
        for what in ("classes", "table"):
            if s.summary[what] != found[0].summary[what]:
                raise DataError(
                    f"{s.folder}: scored on other mixtures than {found[0].folder} ({what}); score both on one set"
                )
    return found


def parse_experiments(texts: Sequence[str]) -> list[Experiment]:
    """Read `LABEL=FOLDER`.

    Raises:
        DataError: another form, or a duplicated label.
    """
    found: list[Experiment] = []
    for text in texts:
        label, sign, folder = text.partition("=")
        if not sign or not label or not folder or label in {e.label for e in found}:
            raise DataError(f"--experiment {text!r}: expected LABEL=FOLDER with a label of its own")
        found.append(Experiment(label, Path(folder)))
    return found


def model_facts(experiment: Experiment) -> dict[str, str]:
    """What an experiment is: label type, networks, strategy, size, training data."""
    config = config_of(experiment.folder)
    found = {"experiment": str(experiment.folder)}
    names = ["label_type", "extractor" if config.get("extractor") else "separator"]
    if config.get("label_type") != "strong":
        names += ["strategy", "classifier"]
    found |= {name.replace("_", " "): str(config[name]) for name in names if config.get(name) is not None}
    found |= facts(experiment.folder)
    if trials := describe_trials(experiment.folder):
        found["trials by validation loss"] = trials
    if (table := config.get("train_table")) and (Path(table) / "table.json").is_file():
        info = read_table_info(Path(table))
        found["training mixtures"] = f"{info['mixtures']} ({info['events']} events)"
        found["training table hash"] = info["table_hash"]
    return found


def query_set_facts(summary: dict) -> dict[str, str]:
    """Counts, lists and hashes of a test set for queries, as text."""
    info = summary["list"]
    found = {
        "data": summary["data_dir"],
        "targets": f"{summary['keys']} in {info.get('pairs', '–')} mixtures",
        "length": f"{summary['seconds'] / 3600:.2f} h, {summary['fs']} Hz",
    }
    names = ("seed", "bank", "clips", "manifest_hash", "list_hash")
    return found | {name.replace("_", " "): str(info[name]) for name in names if name in info}


def class_set_facts(summary: dict) -> dict[str, str]:
    """Counts, settings and hashes of a test set of class mixtures, as text."""
    table, overall = summary["table"], summary["overall"]
    found = {
        "data": summary["data_dir"],
        "mixtures": f"{summary['keys']} ({table['events']} events), {summary['seconds'] / 3600:.2f} h, "
        f"{summary['fs']} Hz",
        "scored sources": f"{overall['input']['count']} (left out: {overall['silent']['count']} "
        f"silent, {summary['alone']} alone in their mixture)",
    }
    if table.get("settings"):
        found["settings"] = ", ".join(f"{k} {_plain(v)}" for k, v in table["settings"].items())
    names = ("seed", "bank_hash", "table_hash")
    return found | {name.replace("_", " "): str(table[name]) for name in names if table.get(name) is not None}


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
    text = " > ".join(f"{label} {known[label]:z.2f}" for label in ranked)
    text = f"Mean SI-SDR improvement over all sources, as measured: {text} dB"
    expected = [label for label in KNOWN if label in known]
    if len(expected) > 1:
        same = [label for label in ranked if label in expected] == expected
        text += f" ({'the order' if same else 'not the order'} of the paper: "
        text += " > ".join(expected) + ")"
    return text + "."
