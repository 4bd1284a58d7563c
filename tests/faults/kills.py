"""Kills at random moments of every stage: after some of them the command is run to its end, and what it has made must
be bit for bit what an undisturbed run makes, with nothing lost, doubled or left over."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import ClassVar

from children import ROOT, Child, Outcome, lanes
from sandbox import Sandbox
from states import difference, state
from world import STAGES, Stage, words

PATIENCE = 10.0  # seconds in which a stopped command, or one whose worker was killed, has to end with all its workers
LIMIT = 180.0
LEFT_OUT = ("own-weak", "scan-weak", "archive-weak", "archive-valid", "draw-valid", "draw-mix", "musdb-scan")
SELDOM = ("qsep-report", "weak-report", "make-mini")  # take seconds; every fifth round of theirs
SIGNALS = ["kill"] * 4 + ["kill all"] * 2 + ["term"] * 3 + ["int"] * 4 + ["kill worker"] * 4
# what the kernel or a user does: to the command alone, to the command and its workers, to one worker


class Kills:
    """Case n of a seed: a stage, killed once to six times, then run to its end.

    Attributes:
        expected: stage -> what it makes, and the seconds it takes; of all objects.
    """

    expected: ClassVar[dict] = {}

    def __init__(self, world: Path, work: Path, keep: Path, seed: int):
        self.world, self.work, self.keep, self.seed = world, work, keep, seed
        self.stages = [s for s in STAGES if s.name not in LEFT_OUT]
        self.box: Sandbox | None = None

    def prepare(self, cases: int) -> "Kills":
        """Run every stage undisturbed, twice; where there are few cases, a stage for each."""
        self.stages = Random(self.seed).sample(self.stages, min(cases, len(self.stages)))
        todo = [n for n, stage in enumerate(self.stages) if stage.name not in self.expected]
        for i, found in lanes(len(todo), lambda i: self._undisturbed(todo[i]), os.cpu_count() or 1):
            self.expected[self.stages[todo[i]].name] = found
        return self

    def _undisturbed(self, n: int) -> tuple[dict[str, str], float]:
        stage, states = self.stages[n], []
        for _ in range(2):
            self._begin(stage)
            outcome = Child(words(stage.command), self.box.path, self.log).outcome(LIMIT)
            if outcome.what != "accepted":
                raise RuntimeError(f"{stage.name}: {outcome.text}")
            states.append(self._state())
        if wrong := difference(*states):
            raise RuntimeError(f"{stage.name} is not the same twice: {wrong}")
        return states[0], outcome.seconds

    def _begin(self, stage: Stage) -> None:
        if self.box is None:
            self.box = Sandbox(self.world, self.work / f"kill{os.getpid():07d}")
            self.log = self.work / f"kill{os.getpid()}.log"
        self.box.restore()
        self.box.without(stage.makes)

    def _state(self) -> dict[str, str]:
        """Of all that the stage has made or changed; what it has made as it was in the project is in it as well."""
        return state(self.box.path, self.box.changed())

    def __call__(self, n: int) -> list[tuple[str, str, Outcome]]:
        """Kind, how and outcome of each kill (refused: it was stopped); the last stands for the state at the end."""
        r = Random(f"{self.seed} kill {n}")
        stage = self.stages[n % len(self.stages)]
        if stage.name in SELDOM and n // len(self.stages) % 5:
            stage = r.choice([s for s in self.stages if s.name not in SELDOM])
        self._begin(stage)
        expected, seconds = self.expected[stage.name]
        workers = r.choice((1, 1, 2)) if "WORKERS" in stage.command else 1
        command, plain = words(stage.command, workers), r.random() < 0.04  # plain: it may be stopped while it imports
        seconds += (0.7 if workers > 1 else 0.0) + (4.0 if plain else 0.0)
        found, number = [], r.choice((1, 2, 4, 6))
        for _ in range(number + 4):
            how = r.choice(SIGNALS if workers > 1 else SIGNALS[:13])
            outcome = self._kill(command, how, r.uniform(0, seconds), plain)
            if outcome.what == "accepted":  # it was done before: strike sooner
                if found:
                    break
                self._begin(stage)
                seconds = min(seconds, outcome.seconds)
                continue
            found.append((stage.name, how, outcome))
            if outcome.what == "FAULT":
                shutil.copy(self.log, self.keep / f"kill-{self.seed}-{n}.log")
                return found
            if len(found) == number:
                break
        end = Child(command, self.box.path, self.log).outcome(LIMIT)
        wrong = f"the rerun: {end.text}" if end.what != "accepted" else difference(self._state(), expected)
        if wrong:
            kind, how, outcome = found.pop() if found else (stage.name, "", end)
            found.append((kind, how, outcome._replace(what="FAULT", text=wrong)))
        return found

    def _kill(self, command: list[str], how: str, moment: float, plain: bool) -> Outcome:
        """Start a command and stop it at a moment; `accepted`: it was done before, `refused`: it was stopped."""
        child = Child(in_process(command) if plain else command, self.box.path, self.log, 8000 if plain else 3000)
        if child.wait(moment):
            return child.outcome(0)
        mine, others = child.pid, child.session()[1:]
        number = {"term": signal.SIGTERM, "int": signal.SIGINT}.get(how, signal.SIGKILL)
        workers = [pid for pid in others if not is_tracker(pid)]
        hit = {"kill": [mine], "kill worker": workers[-1:], "kill all": [mine, *others], "int": [mine, *others]}
        for pid in hit.get(how, [mine]):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        if how == "kill worker":  # may be replaced, or have been of no use any more
            soon = child.wait(PATIENCE)
            outcome = child.outcome(LIMIT)
            if not soon and outcome.what == "refused":
                outcome = outcome._replace(what="FAULT", text=f"after more than {PATIENCE:g} s: {outcome.text}")
        else:
            outcome = child.outcome(PATIENCE)
        if outcome.text.startswith(f"crash: {number.name}"):  # of what it was sent
            outcome = outcome._replace(what="refused")
        if child.status in (130, 143, -signal.SIGTERM, -signal.SIGINT) and "Traceback" not in self.log.read_text(
            errors="replace"
        ):
            outcome = outcome._replace(what="refused")
        if plain and how == "int" and is_pythons_own(self.log.read_text(errors="replace")):
            outcome = outcome._replace(what="accepted")  # too early, as others come too late: it is not counted
        until = time.monotonic() + PATIENCE
        while (left := child.session()) and time.monotonic() < until:
            time.sleep(0.02)
        if left:
            names = subprocess.run(
                ["ps", "-o", "args=", "-p", ",".join(map(str, left))], capture_output=True, text=True
            )
            child.end()
            return outcome._replace(what="FAULT", text=f"outlives the command by {PATIENCE:g} s: {names.stdout[:200]}")
        return outcome


def is_tracker(pid: int) -> bool:
    """Whether a process is Python's own register of semaphores, which does no work; killed, it says so itself."""
    try:
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def is_pythons_own(log: str) -> bool:
    """Whether Ctrl-C met Python's own start: a log that begins with its traceback, in which nothing of ours is."""
    begins = log.startswith(("Traceback (most recent", "Fatal Python error", "Exception ignored"))
    return begins and "KeyboardInterrupt" in log and f'File "{ROOT}/espnet2_ext/' not in log


def in_process(command: list[str]) -> Callable[[], None]:
    """Runs a command of espnet2-ext in a new process."""
    line = [sys.executable, "-m", "espnet2_ext", *command]
    return lambda: os.execve(sys.executable, line, {**os.environ, "PYTHONPATH": str(ROOT)})


def make(part: str, a, top: Path, work: Path) -> tuple[Kills, int]:
    """What does case n, and the number of cases: about two kills each."""
    return Kills(top, work, a.keep, a.seed).prepare(a.kills // 2), a.kills // 2
