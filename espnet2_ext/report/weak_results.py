"""RESULTS.md of several experiments on the same test sets, in ESPnet's habit."""

import os
from collections.abc import Sequence
from pathlib import Path

from espnet2_ext.report.results import environment, markdown
from espnet2_ext.report.weak_sets import Experiment, Scored, model_facts, ordering, scored_on, set_facts
from espnet2_ext.report.weak_tables import set_tables
from espnet2_ext.util.files import write_text

# The commit of the report is not that of the trainings; the same scores give the same text.
AT_REPORT = ("Git hash", "Commit date")


def write_weak_results(out_dir: str | os.PathLike, experiments: Sequence[Experiment], sets: Sequence[str]) -> Path:
    """Write out_dir/RESULTS.md; left alone when nothing changed.

    Args:
        sets: names of test sets; the outputs lie in the experiments' folders `inference_NAME`.
    Raises:
        DataError: an experiment that has not been scored, or on other mixtures than the first.
    """
    out_dir = Path(out_dir)
    scored = {name: scored_on(experiments, name) for name in sets}
    text = "\n".join(lines_of(out_dir.resolve().name, experiments, scored)) + "\n"
    path = out_dir / "RESULTS.md"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    return path


def lines_of(name: str, experiments: Sequence[Experiment], scored: dict[str, list[Scored]]) -> list[str]:
    """Lines of RESULTS.md."""
    everything = [s for found in scored.values() for s in found]
    date = max((s.folder / "scores" / "summary.json").stat().st_mtime for s in everything)
    summaries = {str(s.folder): s.summary for s in everything}
    lines = ["# RESULTS", "", "## Environments"]
    env = environment(date, summaries)
    lines += [f"- {k}: `{v}`" for k, v in env.items() if k not in AT_REPORT]
    lines += ["", f"## {name}"]
    for test, found in scored.items():
        lines += ["", f"### {test}", "", ordering(found), ""]
        lines += [f"- {k}: `{v}`" for k, v in set_facts(found[0]).items()]
        for table in set_tables(found):
            lines += ["", f"#### {table.title}", "", table.note, "", *markdown(table)]
    for experiment in experiments:
        lines += ["", f"### Labels: {experiment.label}", ""]
        lines += [f"- {k}: `{v}`" for k, v in model_facts(experiment).items()]
    formulas = everything[0].summary["formulas"]
    lines += ["", "## Formulas", "", *(f"- `{k}`: {v}" for k, v in formulas.items())]
    return lines
