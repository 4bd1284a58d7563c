"""Fuzzing: one damaged input for one reader, in a process of its own."""

import os
import shutil
from pathlib import Path
from random import Random

import soundfile
from children import Child, Outcome
from damage import ODD_NAMES, place
from mutate import mutate
from readers import KINDS, Kind, write_seeds
from sandbox import Sandbox
from world import words

LIMIT = 30.0  # seconds; a whole input of these sizes takes 0.02 to 1
MEGABYTES = 700  # above the process that has imported everything


class Fuzz:
    """Case n of a seed damages one file of kind n modulo their number.

    Args:
        world, work: the project, and a folder for scratch. keep: gets the input and the log of a FAULT.
    """

    def __init__(self, world: Path, work: Path, keep: Path, seed: int):
        self.world, self.work, self.keep, self.seed = world, work, keep, seed
        self.box: Sandbox | None = None

    def __call__(self, n: int) -> list[tuple[str, str, Outcome]]:
        """Kind, damage and outcome of case `n`."""
        kind, r = KINDS[n % len(KINDS)], Random(f"{self.seed} {n}")
        if self.box is None:  # one for each lane
            self.box = Sandbox(self.world, self.work / f"fuzz{os.getpid()}")
        path, damage = self._damage(kind, r)
        log = self.work / f"fuzz{os.getpid()}.log"
        child = Child(self._work(kind, path), self.box.path, log, MEGABYTES)
        outcome = child.outcome(LIMIT)
        if outcome.what == "accepted" and (wrong := self._wrong(kind, path)):
            outcome = outcome._replace(what="FAULT", text=f"wrong result: {wrong}")
        if left := child.session():
            child.end()
            outcome = outcome._replace(what="FAULT", text=f"{len(left)} processes outlive the command")
        if outcome.what == "FAULT":
            self._keep(n, path, log)
        self.box.restore()
        return [(kind.name, damage, outcome)]

    def _damage(self, kind: Kind, r: Random) -> tuple[Path, str]:
        path = self.box.path / kind.file
        if r.random() < 0.04:
            return path, place(path, r)
        name = ""
        if kind.odd_names and r.random() < 0.08:  # the content stays good
            name = r.choice(ODD_NAMES)
            suffix = os.fsencode(path.suffix)
            odd = os.fsdecode(os.fsencode(path.parent) + b"/" + name[: 255 - len(suffix)] + suffix)
            os.rename(path, odd)
            return Path(odd), "name"
        data, damage = mutate(path.read_bytes(), kind.form, r)
        path.write_bytes(data)
        return path, damage

    def _work(self, kind: Kind, path: Path):
        if callable(kind.work):
            return lambda: kind.work(Path(os.path.relpath(path, self.box.path)))
        given = os.path.relpath(path, self.box.path)
        return [word.replace("FILE", given) for word in words(kind.work)]

    def _wrong(self, kind: Kind, path: Path) -> str:
        """What is wrong with an accepted result, where that can be known."""
        if not isinstance(kind.work, str) or not kind.work.startswith("separate "):
            return ""
        outs = [p for p in (self.box.path / "new").glob("*") if p.suffix in (".wav", ".flac", ".w64")]
        if not outs:
            return "nothing was written"
        for out in outs:
            with open(out, "rb") as f:  # its name may be one that libsndfile cannot take
                x, fs = soundfile.read(f, always_2d=True)
            if not (x == x).all():
                return f"{out.name} holds NaN"
            if kind.work.startswith("separate in/"):
                if (len(x), fs) != (6400, 8000):
                    return f"{out.name} has {len(x)} samples at {fs} Hz"
        return ""

    def _keep(self, n: int, path: Path, log: Path) -> None:
        to = self.keep / f"fuzz-{self.seed}-{n}"
        to.mkdir(parents=True, exist_ok=True)
        shutil.copy(log, to / "log")
        if path.is_file() and not path.is_symlink():
            shutil.copy(path, os.fsencode(to) + b"/" + os.fsencode(path.name)[:200])


def make(part: str, a, top: Path, work: Path) -> tuple[Fuzz, int]:
    """What does case n, and the number of cases."""
    seeds = Child(lambda: write_seeds(top), top, work / "log").outcome(60)  # coders leave threads behind
    if seeds.what != "accepted":
        raise SystemExit(f"the project for the tests: {seeds.text}")
    return Fuzz(top, work, a.keep, a.seed), a.inputs
