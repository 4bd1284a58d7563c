"""RESULTS.md in ESPnet's habit: environment, then one section a test set with its tables."""

import datetime
import os
import platform
import subprocess
from pathlib import Path

from espnet2_ext.report import tables
from espnet2_ext.report.experiment import load_summary, scored_sets
from espnet2_ext.report.tables import NONE, Table
from espnet2_ext.train.experiment import facts
from espnet2_ext.util.files import write_text

_CLASS_ROWS = 60


def write_results(exp_dir: str | os.PathLike, inference_dirs: list[str] | None = None) -> Path:
    """Write exp_dir/RESULTS.md from the scores of its test sets; left alone when nothing changed.

    Args:
        inference_dirs: folders to report; None: every scored `inference_*` of the experiment.
    Raises:
        DataError: nothing has been scored.
    """
    exp_dir = Path(exp_dir)
    folders = scored_sets(exp_dir, inference_dirs)
    date = max((f / "scores" / "summary.json").stat().st_mtime for f in folders)
    summaries = {folder.name: load_summary(folder) for folder in folders}
    lines = ["# RESULTS", "", "## Environments"]
    lines += [f"- {name}: `{value}`" for name, value in environment(date, summaries).items()]
    lines += ["", f"## {exp_dir.resolve().name}", ""]
    lines += [f"- {name}: `{value}`" for name, value in facts(exp_dir).items()]
    for name, summary in summaries.items():
        lines += ["", f"### {name}", ""]
        lines += [f"- {k}: `{v}`" for k, v in set_facts(summary).items()]
        for table in set_tables(summary, _CLASS_ROWS):
            lines += ["", f"#### {table.title}", "", table.note, "", *markdown(table)]
    formulas = next(iter(summaries.values()))["formulas"]
    lines += ["", "## Formulas", "", *(f"- `{name}`: {text}" for name, text in formulas.items())]
    text = "\n".join(lines) + "\n"
    path = exp_dir / "RESULTS.md"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    return path


def environment(date: float, summaries: dict[str, dict]) -> dict[str, str]:
    """Date of the scores (seconds since 1970), versions, git hash."""
    versions = next(iter(summaries.values()))["versions"]
    when = datetime.datetime.fromtimestamp(date).astimezone()
    env = {
        "date": when.strftime("%a %b %d %H:%M:%S %Z %Y"),
        "python version": platform.python_version(),
        "espnet version": f"espnet {versions['espnet']}",
        "espnet2_ext version": f"espnet2_ext {versions['espnet2_ext']}",
        "pytorch version": f"pytorch {versions['torch']}",
    }
    shown = ("espnet", "espnet2_ext", "torch")
    env["scoring packages"] = ", ".join(f"{k} {v}" for k, v in versions.items() if k not in shown)
    return env | _git()


def set_facts(summary: dict) -> dict[str, str]:
    """Counts, lists and hashes of a test set, as text."""
    info = summary["list"]
    found = {
        "data": summary["data_dir"],
        "targets": f"{summary['keys']} in {info.get('pairs', NONE)} mixtures",
        "length": f"{summary['seconds'] / 3600:.2f} h, {summary['fs']} Hz",
    }
    for name in ("seed", "bank", "clips", "manifest_hash", "list_hash"):
        if name in info:
            found[name.replace("_", " ")] = str(info[name])
    return found


def set_tables(summary: dict, class_rows: int | None = None) -> list[Table]:
    """All tables of a test set, in the order of the report."""
    made = [
        tables.overall(summary),
        tables.first_targets(summary),
        tables.espnet(summary),
        tables.silence(summary),
        tables.tagging(summary),
        tables.classes(summary, class_rows),
    ]
    return [table for table in made if table is not None]


def markdown(table: Table, *, figures: bool = True) -> list[str]:
    """Lines of a Markdown table; `figures`, all columns but the first, stand to the right."""
    rule = ["---", *["---:" if figures else "---"] * (len(table.columns) - 1)]
    rows = [table.columns, rule, *table.rows]
    return ["|" + "|".join(cell.replace("|", "\\|") for cell in row) + "|" for row in rows]


def _git() -> dict[str, str]:
    """Hash and date of the commit that this package lies in; empty without git."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "log", "-1", "--format=%H%n%cd"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    lines = done.stdout.splitlines()
    if done.returncode != 0 or len(lines) != 2:
        return {}
    return {"Git hash": lines[0], "Commit date": lines[1]}
