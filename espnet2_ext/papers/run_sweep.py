"""Runs the cells of a sweep one after the other through their recipe's run.sh."""

import contextlib
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from espnet2_ext.errors import DataError
from espnet2_ext.papers.sweep import Run, Sweep
from espnet2_ext.papers.sweep_notes import Notes
from espnet2_ext.papers.sweep_table import write_sweep_table

_TAIL = 10  # lines of a log that are shown after a failure
_PATIENCE = 30.0  # seconds that run.sh is given to end what it started


def shell_line(sweep: Sweep, run: Run) -> str:
    """A run as it would be typed in the project's top folder."""
    return f"(cd {shlex.quote(str(sweep.recipe))} && {shlex.join(sweep.command(run))})"


def run_sweep(sweep: Sweep, runs: Sequence[Run], *, max_minutes: float | None = None) -> None:
    """Do those `runs` that are not done; the table is written anew after each.

    A cell that fails is told and the rest goes on, but for what needs it; so it does where the
    table cannot be written.

    Raises:
        DataError: at the end, naming the cells that failed or were not run for it, or why there is
            no table.
    """
    begin, notes, failed = time.monotonic(), Notes(sweep), {}
    sweep.configs.write()
    for number, run in enumerate(runs, 1):
        where = f"[{number}/{len(runs)}] {run.name}"
        needs = [sweep.needed(run, name).name for name in run.cell.needs]
        if notes.is_done(run):
            print(f"{where}: done already", flush=True)
        elif lost := [name for name in needs if name in failed]:
            failed[run.name] = f"needs {', '.join(lost)}"
            print(f"{where}: not run, {failed[run.name]}", flush=True)
        elif max_minutes is not None and time.monotonic() - begin > 60 * max_minutes:
            print(
                f"{where}: not started after {max_minutes:g} minutes; start the same command again to go on", flush=True
            )
            break
        else:
            print(f"{where}: {shell_line(sweep, run)}", flush=True)
            started, identity = time.monotonic(), notes.start(run)
            if status := _start(sweep, run):
                failed[run.name] = f"status {status}, {_log(sweep, run)}"
                continue
            notes.add(run, identity, time.monotonic() - started)
            with contextlib.suppress(DataError):  # told at the end
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
    path, command = _log(sweep, run), sweep.command(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    with_parent = ["setpriv", "--pdeathsig", "TERM"]  # run.sh also ends when this one is killed
    if _works([*with_parent, "true"]):
        command = [*with_parent, *command]
    with open(path, "a", encoding="utf-8") as log:
        log.write(f"\n# {shell_line(sweep, run)}\n")
        log.flush()
        process = subprocess.Popen(
            command, cwd=sweep.recipe, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            status = process.wait()
        except BaseException:
            _stop(process)
            raise
    if status:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]
        print(*lines, f"{run.name}: failed with status {status}; {path}", sep="\n", flush=True)
    return status


def _works(command: Sequence[str]) -> bool:
    try:
        return not subprocess.run(command, capture_output=True).returncode
    except FileNotFoundError:
        return False


def _stop(process: subprocess.Popen) -> None:
    """Ask run.sh to end with all that it started, and wait until it has."""
    for sent, patience in ((signal.SIGTERM, _PATIENCE), (signal.SIGKILL, None)):
        process.send_signal(sent)
        try:
            process.wait(patience)
            return
        except subprocess.TimeoutExpired:
            continue
