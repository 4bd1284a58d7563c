"""RESULTS.md in ESPnet's habit, and what it has in common with the page: `Report`.

A report has a section per test set. `query_report` is of one model on its test sets, `class_report` of several models
side by side on the same sets, `tag_report` of a tagger.
"""

import dataclasses
import datetime
import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from espnet2_ext.report.examples import Listening, class_examples, query_examples
from espnet2_ext.report.experiment import (
    Experiment,
    Scored,
    class_set_facts,
    model_facts,
    ordering,
    query_set_facts,
    scored_on,
    scored_sets,
)
from espnet2_ext.report.figures import class_pictures, draw_training, query_pictures
from espnet2_ext.report.tables import Table, class_tables, gain_in_words, query_tables, share
from espnet2_ext.scores.tagging import TAG_FORMULAS, load_tag_scores
from espnet2_ext.train.experiment import facts
from espnet2_ext.util.documents import write_if_new

_CLASS_ROWS = 60  # of RESULTS.md; the page has all


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of RESULTS.md: `level` of its heading, facts by name, tables, a picture beside it."""

    title: str
    level: int
    text: str = ""
    facts: dict[str, str] = dataclasses.field(default_factory=dict)
    picture: str = ""
    tables: Sequence[Table] = ()


class Kind(NamedTuple):
    """What differs between reports of queries and of classes.

    title: of the page.  text: of a test set's `Scored`, in words.  facts: of a set's summary.  tables: of its
    `Scored`, at most so many classes.  pictures, examples: of its `Scored`, written into a folder.  model: facts of an
    experiment.
    """

    title: str
    text: Callable[[Sequence[Scored]], str]
    facts: Callable[[dict], dict[str, str]]
    tables: Callable[[Sequence[Scored], int | None], list[Table]]
    pictures: Callable[[Sequence[Scored], Path], dict[str, Path]]
    examples: Callable[[Sequence[Scored], Path, str | None], list[Listening]]
    model: Callable[[Experiment], dict[str, str]]


QUERIES = Kind(
    "Separated by an example",
    gain_in_words,
    query_set_facts,
    query_tables,
    query_pictures,
    query_examples,
    lambda e: facts(e.folder),
)
CLASSES = Kind(
    "Separated by class", ordering, class_set_facts, class_tables, class_pictures, class_examples, model_facts
)


@dataclasses.dataclass(frozen=True)
class Report:
    """What is written of scored test sets.

    folder: gets RESULTS.md.  sections: of it.  date: of the scores, seconds since 1970.
    kind, sets (name -> scores of its models), experiments: for the page.
    """

    folder: Path
    sections: list[Section]
    formulas: dict[str, str]
    versions: dict[str, str]
    date: float
    kind: Kind = QUERIES
    sets: dict[str, list[Scored]] = dataclasses.field(default_factory=dict)
    experiments: Sequence[Experiment] = ()

    @property
    def name(self) -> str:
        return self.folder.resolve().name


def query_report(exp_dir: str | os.PathLike, inference_dirs: Sequence[str] | None = None) -> Report:
    """The report of a model that separates by queries.

    Args:
        inference_dirs: scored folders; None: every scored `inference_*` of the experiment.
    Raises:
        DataError: nothing has been scored.
    """
    experiment = Experiment("", Path(exp_dir))
    return _separation_report(Path(exp_dir), QUERIES, scored_sets(exp_dir, inference_dirs), [experiment])


def class_report(out_dir: str | os.PathLike, experiments: Sequence[Experiment], names: Sequence[str]) -> Report:
    """The report of models that separate by classes, side by side.

    Args:
        names: of test sets; the outputs lie in the experiments' folders `inference_NAME`.
    Raises:
        DataError: an experiment that has not been scored, or on other mixtures than the first.
    """
    sets = {name: scored_on(experiments, name) for name in names}
    return _separation_report(Path(out_dir), CLASSES, sets, experiments)


def _separation_report(folder: Path, kind: Kind, sets: dict, experiments: Sequence[Experiment]) -> Report:
    models = {e.label: kind.model(e) for e in experiments}
    sections = [Section(folder.resolve().name, 2, facts=models.pop("", {}))]
    for name, scored in sets.items():
        about = kind.facts(scored[0].summary)
        sections.append(Section(name, 3, kind.text(scored), about, tables=kind.tables(scored, _CLASS_ROWS)))
    sections += [Section(f"Labels: {label}", 3, facts=found) for label, found in models.items()]
    everything = [s for scored in sets.values() for s in scored]
    date = max((s.folder / "scores" / "summary.json").stat().st_mtime for s in everything)
    summary = everything[0].summary
    return Report(folder, sections, summary["formulas"], summary["versions"], date, kind, sets, experiments)


def tag_report(exp_dir: str | os.PathLike, folders: Sequence[str | os.PathLike]) -> Report:
    """The report of a tagger from the scores in `folders`; also draws training.png.

    Raises:
        DataError: a folder that has not been scored.
    """
    exp_dir = Path(exp_dir)
    scores = {Path(f).name: load_tag_scores(f) for f in folders}
    date = max((Path(f) / "scores.json").stat().st_mtime for f in folders)
    picture = draw_training(exp_dir, exp_dir)
    name = exp_dir.resolve().name
    section = Section(name, 2, "", facts(exp_dir), picture.name if picture else "", tag_tables(scores))
    return Report(exp_dir, [section], TAG_FORMULAS, next(iter(scores.values()))["versions"], date)


def write_results(report: Report, *, git: bool = False) -> Path:
    """Write RESULTS.md; left alone when nothing changed.

    Args:
        git: name the commit of this package. It is that of the report, not of the training, so that the same scores
            give another text after a commit.
    """
    lines = ["# RESULTS", "", "## Environments"]
    lines += fact_lines(environment(report.date, report.versions) | (_git() if git else {}))
    for section in report.sections:
        lines += section_lines(section)
    lines += ["", "## Formulas", "", *(f"- `{name}`: {text}" for name, text in report.formulas.items())]
    text = "\n".join(lines) + "\n"
    path = report.folder / "RESULTS.md"
    write_if_new(path, text)
    return path


def section_lines(section: Section) -> list[str]:
    """Markdown of a section."""
    lines = ["", f"{'#' * section.level} {section.title}"]
    if section.text:
        lines += ["", section.text]
    if section.facts:
        lines += ["", *fact_lines(section.facts)]
    if section.picture:
        lines += ["", f"![{Path(section.picture).stem}]({section.picture})"]
    for table in section.tables:
        lines += ["", *table_lines(table, section.level + 1)]
    return lines


def table_lines(table: Table, level: int) -> list[str]:
    """Title, note and Markdown of a table."""
    return [f"{'#' * level} {table.title}", "", table.note, "", *markdown(table)]


def fact_lines(values: dict[str, str]) -> list[str]:
    """A list of names and values."""
    return [f"- {name}: `{value}`" for name, value in values.items()]


def markdown(table: Table, *, figures: bool = True) -> list[str]:
    """Lines of a Markdown table; `figures`, all columns but the first, stand to the right."""
    rule = ["---", *["---:" if figures else "---"] * (len(table.columns) - 1)]
    rows = [table.columns, rule, *table.rows]
    return ["|" + "|".join(cell.replace("|", "\\|") for cell in row) + "|" for row in rows]


def environment(date: float, versions: dict[str, str]) -> dict[str, str]:
    """Date of the scores (seconds since 1970) and versions."""
    when = datetime.datetime.fromtimestamp(date).astimezone()
    shown = ("espnet", "espnet2_ext", "torch")
    return {
        "date": when.strftime("%a %b %d %H:%M:%S %Z %Y"),
        "python version": platform.python_version(),
        "espnet version": f"espnet {versions['espnet']}",
        "espnet2_ext version": f"espnet2_ext {versions['espnet2_ext']}",
        "pytorch version": f"pytorch {versions['torch']}",
        "scoring packages": ", ".join(f"{k} {v}" for k, v in versions.items() if k not in shown),
    }


def _git() -> dict[str, str]:
    """Hash and date of the commit that this package lies in; empty without git."""
    command = ["git", "-C", str(Path(__file__).parent), "log", "-1", "--format=%H%n%cd"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    lines = done.stdout.splitlines()
    if done.returncode != 0 or len(lines) != 2:
        return {}
    return {"Git hash": lines[0], "Commit date": lines[1]}


# ---- taggers -------------------------------------------------------------------------------------


def tag_tables(scores: dict[str, dict]) -> list[Table]:
    """A row per test set, then a table of its classes for each, the lowest average precision first.

    Args:
        scores: name of the set -> content of scores.json.
    """
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
    made = [Table("Tagging", "mAP is the mean over the classes that occur.", columns, rows)]
    for name, s in scores.items():
        order = sorted(s["classes"].values(), key=lambda c: (c["ap"], c["name"]))
        rows = [[c["name"], str(c["clips"]), share(c["ap"])] for c in order]
        note = "The class with the lowest average precision first."
        made.append(Table(f"Classes of {name}", note, ["class", "clips", "average precision"], rows))
    return made
