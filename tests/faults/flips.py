"""One bit flipped in what was prepared once, then the command that reads it for training, inference or scoring: it
must notice (an error or a warning that names a file), or its result must be what it is without the flip."""

import os
import re
import shutil
from pathlib import Path
from random import Random

from children import Child, Outcome, lanes
from sandbox import Sandbox
from states import TIMES, difference, state
from world import COMMANDS, words

LIMIT = 120.0
TOLD = re.compile(
    r"(WARNING|ERROR|error:).*(damaged|checksum|changed|corrupt|cannot be read|not whole|again|anew|fall)", re.I
)
DIGESTS = re.compile(f"{TIMES.pattern}|hash|digest|stamp|sum|^(model|anchors)$")


class Flips:
    """Case n of a seed: a reader, one of its files, one bit.

    Attributes:
        expected: by reader, what it makes without a flip.
    """

    def __init__(self, world: Path, work: Path, keep: Path, seed: int):
        self.world, self.work, self.keep, self.seed = world, work, keep, seed
        self.readers = [(r["command"], r["files"].split()) for r in COMMANDS["flips"]]
        self.made = {"qsep-scoring": "exp/qsep/inference_test/scores", "weak-scoring": "exp/weak/inference_test/scores"}
        self.box: Sandbox | None = None
        self.expected = dict(lanes(len(self.readers), lambda n: self._run(n)[1], os.cpu_count() or 1))

    def _run(self, n: int, flip=None) -> tuple[Outcome, dict[str, str]]:
        if self.box is None or not self.box.path.name.endswith(f"{os.getpid():07d}"):
            self.box = Sandbox(self.world, self.work / f"flip{os.getpid():07d}")
            self.log = self.work / f"flip{os.getpid()}.log"
        command = self.readers[n][0]
        self.box.restore()
        self.box.without(self.made.get(command.split()[0], "exp/tag/tagging_test/scores.json new"))
        path = flip(self.box.path) if flip else None
        outcome = Child(words(command), self.box.path, self.log).outcome(LIMIT)
        if flip is None and outcome.what != "accepted":
            raise RuntimeError(f"{command}: {outcome.text}")
        found = state(self.box.path, [v for v in self.box.changed() if v != path], DIGESTS)
        was = state(self.world, [v for v in found if (self.world / v).exists()], DIGESTS)
        return outcome, {v: d for v, d in found.items() if was.get(v) != d and v != path}

    def __call__(self, n: int) -> list[tuple[str, str, Outcome]]:
        """Kind, file and outcome: `refused` where it is noticed, `accepted` where it does not matter."""
        r = Random(f"{self.seed} flip {n}")
        reader = n % len(self.readers)
        command, patterns = self.readers[reader]
        about = []

        def flip(top: Path) -> str:
            files = sorted(p for p in top.glob(r.choice(patterns)) if p.is_file())
            path = r.choice(files)
            data, at = bytearray(path.read_bytes()), 0
            at, bit = r.randrange(len(data)), r.randrange(8)
            data[at] ^= 1 << bit
            path.resolve().write_bytes(data)
            about.append(f"{path.resolve().relative_to(top.resolve())} byte {at} of {len(data)} bit {bit}")
            return str(path.resolve().relative_to(top.resolve()))

        outcome, found = self._run(reader, flip)
        expected = {v: d for v, d in self.expected[reader].items() if v != about[0].split()[0]}
        if outcome.what == "accepted" and (wrong := difference(found, expected)):
            log = self.log.read_text("utf-8", "replace")
            if any(TOLD.search(line) for line in log.splitlines()):
                outcome = outcome._replace(what="refused")
            else:
                outcome = outcome._replace(what="FAULT", text=f"silent: {wrong}")
        if outcome.what == "FAULT":
            shutil.copy(self.log, self.keep / f"flip-{self.seed}-{n}.log")
        name = re.sub(r"\d+", "0", Path(about[0].split()[0]).name)
        return [(f"{command.split()[0]} {name}", about[0], outcome)]


def make(part: str, a, top: Path, work: Path) -> tuple[Flips, int]:
    """What does case n, and the number of cases."""
    return Flips(top, work, a.keep, a.seed), a.flips
