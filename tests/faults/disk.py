"""A disk that fills up, calls to the file system that fail, few and small files allowed, no GPU, no scheduler, and two
runs at once in one folder: a message and a status, and a rerun that ends where an undisturbed one does."""

import builtins
import ctypes
import errno
import io
import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from random import Random

from children import Child, Outcome
from kills import LEFT_OUT, LIMIT, Kills, in_process
from sandbox import Sandbox
from states import difference
from world import words

CALLS = ["os.fsync", "os.replace", "os.mkdir", "os.open", "os.scandir", "os.unlink", "builtins.open", "write"]
CODES = [errno.EACCES, errno.EIO, errno.EROFS, errno.ESTALE, errno.ENOSPC, errno.EDQUOT, errno.EMFILE]
READING = (errno.ESTALE, errno.EMFILE)  # what opening a file to read it may say that is no fault of the file
SLOW = (*LEFT_OUT, "qsep-report", "weak-report", "make-mini")
NO_HELP = {
    "no GPU": "qsep-train --config conf/qsep.yaml --output_dir new QSEP_DATA --ngpu 1",
    "no GPU to tag": "tag-train --config conf/tag.yaml --output_dir new TAG_DATA --ngpu 2",
    "no such device": "separate in --query sounds/bell/0.wav --bundle q.zip -o new/ --device cuda:7",
    "no scheduler": "scan data/train --redo --scheduler tcp://127.0.0.1:9",
    "a scheduler that is none": "archive data/train new --scheduler nowhere:x",
    "output is a file": "archive data/train own.csv WORKERS",
    "output in a file": "render-lists --list lists/test.tsv --bank dump/test --out own.csv/x WORKERS",
    "no output folder can be made": "qsep-train --config conf/qsep.yaml --output_dir own.csv/x QSEP_DATA",
    "workers minus one": "scan data/train --redo --num_workers -1",
    "many workers": "scan data/train --redo --num_workers 64",
}
OTHERWISE = {  # the same folder, other options
    "scan": "scan data/train data/valid data/test --min_seconds 0.6 --max_bad_share 1 WORKERS",
    "archive": "archive data/train dump/train --fs 16000 --clips_per_shard 3 WORKERS",
    "draw-lists": "draw-lists --bank dump/valid --out lists/valid.tsv --num_pairs 6 --segment 0.25 --seed 1",
    "draw-mixtures": "draw-mixtures --bank dump/train --out mix/train --mixtures 5 --seed 1 WORKERS DRAWN",
    "qsep-train": "qsep-train --config conf/qsep.yaml --output_dir exp/qsep QSEP_DATA --seed 1",
    "qsep-inference": "qsep-inference --data_dir dump/pairs --output_dir exp/qsep/inference_test Q_MODEL --no_tags",
}


class Disk(Kills):
    """Case n of a seed. part: disk, limits or twice."""

    def __init__(self, part: str, *where):
        super().__init__(*where)
        self.part = part
        self.stages = [s for s in self.stages if s.name not in SLOW]

    def __call__(self, n: int) -> list[tuple[str, str, Outcome]]:
        r = Random(f"{self.seed} {self.part} {n}")
        stage = self.stages[n % len(self.stages)]
        command = words(stage.command)
        if self.part == "twice":
            return self._twice(r, stage, command)
        if self.part == "limits" and n < len(NO_HELP):
            name = list(NO_HELP)[n]
            self._begin(stage)
            line = words(NO_HELP[name])
            child = Child(in_process(line) if "GPU" in name else line, self.box.path, self.log, 9000)
            return [(name, "", child.outcome(100.0))]
        if self.part == "disk" and r.random() < 0.5 and os.geteuid() == 0:
            outcome, what = self._full(r, stage, command), "full"
        else:
            setup = self._failing(r) if self.part == "disk" else self._limited(r)
            self._begin(stage)
            outcome, what = Child(command, self.box.path, self.log, 3000, setup).outcome(LIMIT), setup.__doc__
            if outcome.what != "FAULT":
                outcome = self._again(stage, command, outcome)
        if outcome.what == "FAULT":
            shutil.copy(self.log, self.keep / f"{self.part}-{self.seed}-{n}.log")
        return [(what.partition(":")[0], f"{stage.name} {what}", outcome)]

    def _again(self, stage, command: list[str], outcome: Outcome) -> Outcome:
        """The first outcome, or why the rerun is a fault."""
        text = self.log.read_bytes()
        end = Child(command, self.box.path, self.log).outcome(LIMIT)
        wrong = end.text if end.what != "accepted" else difference(self._state(), self.expected[stage.name][0])
        self.log.write_bytes(text + b"\n--- rerun\n" + self.log.read_bytes())
        return outcome._replace(what="FAULT", text=f"the rerun: {wrong} (first: {outcome.text})") if wrong else outcome

    def _full(self, r: Random, stage, command: list[str]) -> Outcome:
        """On a disk of its own that fills up, and is then given room."""
        mount = self.work / f"full{os.getpid()}"
        mount.mkdir(exist_ok=True)
        libc = ctypes.CDLL(None, use_errno=True)
        self._begin(stage)
        box = self.box
        size = sum(
            -(-p.stat().st_size // 4096) * 4096 for p in box.path.rglob("*") if p.is_file() and not p.is_symlink()
        )
        makes = sum((self.world / v).stat().st_size for v in self.expected[stage.name][0] if (self.world / v).is_file())
        if libc.mount(b"tmpfs", os.fsencode(mount), b"tmpfs", 0, b"size=1g"):
            raise OSError(ctypes.get_errno(), "mount")
        try:
            self.box = Sandbox(self.world, mount / f"kill{os.getpid():07d}")
            self.box.without(stage.makes)
            room = r.randrange(max(makes, 8192) + 8192)
            if libc.mount(
                b"tmpfs", os.fsencode(mount), b"tmpfs", 32, b"size=%d" % (size + room + (1 << 20))
            ):  # 32: remount
                raise OSError(ctypes.get_errno(), "remount")
            fill(mount / "fill", room)
            outcome = Child(command, self.box.path, self.log).outcome(LIMIT)
            libc.mount(b"tmpfs", os.fsencode(mount), b"tmpfs", 32, b"size=1g")
            (mount / "fill").unlink()
            return outcome if outcome.what == "FAULT" else self._again(stage, command, outcome)
        finally:
            libc.umount2(os.fsencode(mount), 2)
            self.box = box

    def _failing(self, r: Random) -> Callable[[], None]:
        """A setup after which the n-th of some call fails, and perhaps all that follow."""
        name = r.choice(CALLS)
        code = r.choice({"os.unlink": CODES[:4], "os.scandir": CODES[1:4]}.get(name, CODES))
        number, lasting = int(2 ** r.uniform(0, 7)), r.random() < 0.3
        count = 0

        def failing(real: Callable) -> Callable:
            def call(*args, **kwargs):
                nonlocal count
                count += "site-packages" not in str(args[:1])
                if count == number or (lasting and count > number):
                    raise OSError(code, os.strerror(code), str(args[0]) if args else None)
                return real(*args, **kwargs)

            return call

        def setup() -> None:
            if name == "write":

                class Failing(io.FileIO):
                    write = failing(io.FileIO.write)

                real = io.open

                def opened(file, mode="r", buffering=-1, encoding=None, *more, **kwargs):
                    if "w" not in mode and "a" not in mode and "x" not in mode:
                        return real(file, mode, buffering, encoding, *more, **kwargs)
                    raw = io.BufferedWriter(Failing(file, mode.replace("b", "").replace("t", "")))
                    return raw if "b" in mode else io.TextIOWrapper(raw, encoding, newline=kwargs.get("newline"))

                builtins.open = io.open = opened
            elif name == "builtins.open":
                real, fails = io.open, failing(io.open)

                def chosen(file, mode="r", *more, **kwargs):
                    return (fails if code in READING or "r" not in mode else real)(file, mode, *more, **kwargs)

                builtins.open = io.open = chosen
            else:
                setattr(os, name[3:], failing(getattr(os, name[3:])))

        setup.__doc__ = f"{name} {errno.errorcode[code]}: number {number}{' and on' if lasting else ''}"
        return setup

    def _limited(self, r: Random) -> Callable[[], None]:
        """A setup after which few files can be open, or no file can be long."""
        files, size = r.randrange(0, 40), int(2 ** r.uniform(14, 18))
        is_files = r.random() < 0.5

        def setup() -> None:
            if is_files:
                now = max(map(int, os.listdir("/proc/self/fd")))
                resource.setrlimit(resource.RLIMIT_NOFILE, (now + 1 + files,) * 2)
            else:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        setup.__doc__ = f"open files: {files}" if is_files else f"size of files: {size}"
        return setup

    def _twice(self, r: Random, stage, command: list[str]) -> list[tuple[str, str, Outcome]]:
        """Two at once: each does it, or is refused with a message; in the end it is the work of one of them."""
        self._begin(stage)
        other = words(OTHERWISE[stage.name]) if stage.name in OTHERWISE and r.random() < 0.6 else command
        both = [Child(command, self.box.path, self.log)]
        both[0].wait(r.uniform(0, 0.7) * self.expected[stage.name][1])
        both.append(Child(other, self.box.path, self.log.with_suffix(".2")))
        outcomes = [child.outcome(LIMIT) for child in both]
        found = next((o for o in outcomes if o.what == "FAULT"), outcomes[1])
        done = [c for c, o in zip((command, other), outcomes) if o.what == "accepted"]
        if found.what != "FAULT":
            if not done:
                found = found._replace(what="FAULT", text=f"neither is done: {outcomes[0].text}; {outcomes[1].text}")
            elif other is command:
                found = self._again(stage, command, found)
            else:
                found = self._one_of(stage, command, other, found)
        return [(stage.name, f"{'with other options' * (other is not command)}", found)]

    def _one_of(self, stage, command: list[str], other: list[str], found: Outcome) -> Outcome:
        """That the folder is what one of two commands makes alone, or both one after the other."""
        states, wrong = self._state(), []
        for line in ([command], [other], [command, other], [other, command]):
            self._begin(stage)
            for words_ in line:
                Child(words_, self.box.path, self.log).outcome(LIMIT)
            wrong.append(difference(states, self._state()))
        return found if "" in wrong else found._replace(what="FAULT", text=f"a mixture of both: {min(wrong, key=len)}")


def fill(path: Path, room: int) -> None:
    """Write until only `room` bytes are left on the disk."""
    with open(path, "wb", buffering=0) as f:
        try:
            while f.write(bytes(4096)):
                pass
        except OSError:
            f.truncate(max(0, f.tell() - room))


def make(part: str, a, top: Path, work: Path) -> tuple[Disk, int]:
    """What does case n, and the number of cases."""
    number = 12 if a.short else {"disk": 150, "limits": 80, "twice": 60}[part]
    return Disk(part, top, work, a.keep, a.seed).prepare(number), number
