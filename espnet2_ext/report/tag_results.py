"""RESULTS.md of taggers: of one on its test sets, and of the folds of a cross-validation."""

import os
from collections.abc import Sequence
from pathlib import Path

from espnet2_ext.report.figures import draw_training
from espnet2_ext.report.results import environment, markdown
from espnet2_ext.report.tables import NONE, Table
from espnet2_ext.scores.tagging import TAG_FORMULAS, load_tag_scores
from espnet2_ext.train.experiment import facts
from espnet2_ext.util.files import write_text

# The commit of the report is not that of the training; the same scores give the same text.
AT_REPORT = ("Git hash", "Commit date")


def write_tag_results(exp_dir: str | os.PathLike, folders: Sequence[str | os.PathLike]) -> Path:
    """Write exp_dir/RESULTS.md and training.png from the scores in `folders`.

    Raises:
        DataError: a folder that has not been scored.
    """
    exp_dir = Path(exp_dir)
    scores = {Path(f).name: load_tag_scores(f) for f in folders}
    date = max((Path(f) / "scores.json").stat().st_mtime for f in folders)
    env = environment(date, scores)
    lines = ["# RESULTS", "", "## Environments"]
    lines += [f"- {k}: `{v}`" for k, v in env.items() if k not in AT_REPORT]
    lines += ["", f"## {exp_dir.resolve().name}", ""]
    lines += [f"- {k}: `{v}`" for k, v in facts(exp_dir).items()]
    if picture := draw_training(exp_dir, exp_dir):
        lines += ["", f"![training]({picture.name})"]
    lines += ["", *print_table(overall(scores))]
    for name, found in scores.items():
        lines += ["", *print_table(by_class(name, found))]
    lines += ["", "## Formulas", "", *(f"- {k}: {v}" for k, v in TAG_FORMULAS.items())]
    write_text(exp_dir / "RESULTS.md", "\n".join(lines) + "\n")
    return exp_dir / "RESULTS.md"


def print_table(table: Table) -> list[str]:
    """Title, note and Markdown of a table."""
    return [f"### {table.title}", "", table.note, "", *markdown(table)]


def share(value: float | None) -> str:
    """A figure between 0 and 1."""
    return NONE if value is None else f"{value:.4f}"


def overall(scores: dict[str, dict]) -> Table:
    """A row a test set."""
    rows = [
        [
            name,
            share(s["map"]),
            share(s["accuracy"]),
            str(len(s["classes"])),
            str(s["classes_without_clips"]),
            str(s["keys"]),
            f"{s['seconds'] / 3600:.2f}",
            s["manifest_hash"],
        ]
        for name, s in scores.items()
    ]
    columns = ["set", "mAP", "accuracy", "classes", "classes without clips", "clips", "hours", "manifest hash"]
    return Table("Tagging", "mAP is the mean over the classes that occur.", columns, rows)


def by_class(name: str, scores: dict) -> Table:
    """A row a class, the lowest average precision first."""
    order = sorted(scores["classes"].values(), key=lambda c: (c["ap"], c["name"]))
    rows = [[c["name"], str(c["clips"]), share(c["ap"])] for c in order]
    note = "The class with the lowest average precision first."
    return Table(f"Classes of {name}", note, ["class", "clips", "average precision"], rows)


def folds(mean: dict) -> Table:
    """A row a fold of `mean_scores`, and the mean."""
    rows = [[f["folder"], str(f["keys"]), share(f["accuracy"]), share(f["map"])] for f in mean["folds"]]
    spread = [share(mean["std"][n]) for n in ("accuracy", "map")]
    rows.append(["mean", str(mean["keys"]), share(mean["accuracy"]), share(mean["map"])])
    rows.append(["standard deviation", "", *spread])
    note = f"{len(mean['folds'])} folds, each tested with a tagger trained on the others."
    return Table("Cross-validation", note, ["fold", "clips", "accuracy", "mAP"], rows)
