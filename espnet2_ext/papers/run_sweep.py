"""Runs the cells of a sweep one after the other through their recipe's run.sh, and writes the sweep's table."""

import contextlib
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from espnet2_ext.errors import DataError
from espnet2_ext.papers.experiments import Notes, Trained, find_trained
from espnet2_ext.papers.fill import fill, fill_figure, number
from espnet2_ext.papers.measured import Scores, over_seeds, read_scores
from espnet2_ext.papers.sweep import Run, Sweep
from espnet2_ext.papers.tables import find_table
from espnet2_ext.recipe import steps
from espnet2_ext.report.results import markdown
from espnet2_ext.report.tables import NONE, PROTOCOL_NOTE, Table
from espnet2_ext.train.experiment import training_of
from espnet2_ext.util.files import write_text

COLUMNS = {  # of the table of all cells: those that some cell has are shown
    "mixture-SDR": "sdr",
    "gain": "sdr_gain",
    "SI-SDR": "si_sdr",
    "SI-SDR gain": "si_sdr_gain",
    "clean-SDR": "clean_sdr",
    "silence-SDR": "silence_sdr",
    "mAP": "map",
    "input SI-SDR": "input.overall",
    "ΔSI-SDR": "gain.overall",
}


def shell_line(sweep: Sweep, run: Run) -> str:
    """A run as it would be typed in the project's top folder."""
    return f"(cd {shlex.quote(str(sweep.recipe))} && {shlex.join(sweep.command(run))})"


def run_sweep(sweep: Sweep, runs: Sequence[Run], *, max_minutes: float | None = None) -> None:
    """Do those `runs` that are not done; the table is rewritten after each.

    A cell that fails is reported and the others go on, but for those that need it; so it does where the
    table cannot be written.

    Raises:
        DataError: at the end, naming the cells that failed or were not run for it, or why there is no table.
    """
    begin, notes, failed = time.monotonic(), Notes(sweep), {}
    sweep.configs.write()
    for position, run in enumerate(runs, 1):
        where = f"[{position}/{len(runs)}] {run.name}"
        needs = [sweep.needed(run, name).name for name in run.cell.needs]
        if notes.is_done(run):
            print(f"{where}: done already", flush=True)
        elif lost := [name for name in needs if name in failed]:
            failed[run.name] = f"needs {', '.join(lost)}"
            print(f"{where}: not run, {failed[run.name]}", flush=True)
        elif max_minutes is not None and time.monotonic() - begin > 60 * max_minutes:
            print(f"{where}: not started after {max_minutes:g} minutes; run again to resume", flush=True)
            break
        else:
            print(f"{where}: {shell_line(sweep, run)}", flush=True)
            started, identity = time.monotonic(), notes.start(run)
            if status := _start(sweep, run):
                failed[run.name] = f"status {status}, {_log(sweep, run)}"
                continue
            notes.add(run, identity, time.monotonic() - started)
            with contextlib.suppress(DataError):  # reported at the end
                write_sweep_table(notes)
            print(f"{where}: done in {time.monotonic() - started:.0f} s", flush=True)
    try:
        print(write_sweep_table(notes))
    except DataError as e:
        failed["the table"] = str(e)
    if failed:
        raise DataError("failed: " + "; ".join(f"{k} ({v})" for k, v in failed.items()))


def _log(sweep: Sweep, run: Run) -> Path:
    return sweep.recipe / sweep.expdir / "log" / f"{run.name}.log"


def _start(sweep: Sweep, run: Run) -> int:
    """Run one cell to its end, output to its log; its status. Ends with all that it started."""
    try:
        steps.run(sweep.command(run), log_file=_log(sweep, run), show=None, cwd=sweep.recipe)
    except steps.StepFailed as e:
        print(f"{run.name}: {e}", flush=True)
        return e.status
    return 0


# ---- the table -----------------------------------------------------------------------------------


def write_sweep_table(notes: Notes) -> Path:
    """Write `sweep_NAME.md` beside the notes, from what the cells that are finished left.

    A cell that was run by another command, or with other YAMLs, than it would be now is left out.

    Raises:
        DataError: a file of notes or scores that is broken, by name.
    """
    sweep, folder = notes.sweep, notes.path.parent
    folder.mkdir(parents=True, exist_ok=True)  # of a sweep that has not begun
    notes.refresh()
    runs = {(r.cell.name, r.seed): r for r in sweep.runs()}
    done = [
        t
        for t in find_trained([folder])
        if t.sweep == sweep.path.stem and (t.name, t.seed) in runs and notes.is_done(runs[t.name, t.seed])
    ]
    finished = {runs[t.name, t.seed].name for t in done}
    lines = [
        f"# {sweep.title}",
        "",
        f"`{sweep.path.name}` in `{sweep.recipe.name}`: {len(finished)} of {len(runs)} trainings finished.",
    ]
    if others := sorted(notes.runs.keys() - finished):
        lines += ["", f"Left out, as run by another command or with other YAMLs: {', '.join(others)}."]
    if done:
        lines += [*_scores(sweep, done), *_cost(sweep, notes, done)]
    for paper, numbers in sweep.tables.items():
        for key in numbers:
            table = find_table(paper, str(key))
            table = table._replace(sweeps=(*table.sweeps, sweep.path.stem))
            lines += ["", *(fill_figure if table.files else fill)(table, done)]
    path = notes.path.with_suffix(".md")
    write_text(path, "\n".join(lines) + "\n")
    return path


def _scores(sweep: Sweep, done: Sequence[Trained]) -> list[str]:
    """One table for each test set and protocol: cells by metrics, means over seeds."""
    found: dict[tuple, dict[tuple, list[Scores]]] = {}
    for t in done:
        for s in read_scores(t.folder):
            place = (s.test, s.mean_events or "", s.protocol or "")
            found.setdefault(place, {}).setdefault((t.name, t.label), []).append(s)
    lines = []
    for (test, events, protocol), cells in sorted(found.items()):
        title = f"{test}{f', lambda {events}' * bool(events)}"
        if protocol:
            title += f", query `{protocol}`: {PROTOCOL_NOTE[protocol]}"
        lines += ["", f"## Scores: {title}", ""]
        data = sorted({s.data for scores in cells.values() for s in scores})
        lines += [*(f"- data: `{d}`" for d in data), ""]
        lines += markdown(_score_table(sweep, cells))
    return lines


def _score_table(sweep: Sweep, cells: dict[tuple, list[Scores]]) -> Table:
    every = [s for scores in cells.values() for s in scores]
    metrics = {k: m for k, m in COLUMNS.items() if any(m in s.values for s in every)}
    medians = any(s.values.get("gain.overall") for s in every)
    rows = []
    for (name, label), scores in _ordered(sweep, cells):
        row = [f"{sweep.cells[name].title} {label}".strip()]
        for m in metrics.values():
            row.append(_mean(scores, m, "mean"))
        rows.append([*row, *([_mean(scores, "gain.overall", "median")] if medians else [])])
    return Table("", "", ["", *metrics, *(["median"] if medians else [])], rows)


def _mean(scores: Sequence[Scores], metric: str, stat: str) -> str:
    spread = over_seeds([s.values.get(metric, {}).get(stat) for s in scores])
    return number(spread, metric) or NONE


def _ordered(sweep: Sweep, cells: dict[tuple, list]) -> list[tuple]:
    order = list(sweep.cells)
    known = [item for item in cells.items() if item[0][0] in order]
    return sorted(known, key=lambda item: order.index(item[0][0]))


def _cost(sweep: Sweep, notes: Notes, done: Sequence[Trained]) -> list[str]:
    """Parameters, time, steps and clips of every training."""
    columns = ["", "seed", "parameters", "training", "steps", "clips seen", "whole cell"]
    by_cell: dict[tuple, list[Trained]] = {}
    for t in done:
        by_cell.setdefault((t.name, t.label), []).append(t)
    rows = []
    for (name, label), members in _ordered(sweep, by_cell):
        for t in sorted(members, key=lambda t: t.seed):
            cost = training_of(t.folder)
            whole = notes.runs[Run(sweep.cells[name], t.seed).name].seconds
            rows.append(
                [
                    f"{sweep.cells[name].title} {label}".strip(),
                    str(t.seed),
                    cost.parameters or NONE,
                    _time(cost.seconds),
                    *(NONE if n is None else str(n) for n in (cost.steps, cost.clips)),
                    _time(whole),
                ]
            )
    note = (
        "Training: the steps alone, as the trainer's log says; whole cell: with preparation, "
        "inference and scores, as far as not done before."
    )
    return ["", "## Cost", "", note, "", *markdown(Table("", "", columns, rows))]


def _time(seconds: float | None) -> str:
    if seconds is None:
        return NONE
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"
