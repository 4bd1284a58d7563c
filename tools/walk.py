#!/usr/bin/env python3
"""How far one must walk through the code to follow a command, and how large the code is.

    tools/walk.py                       all three walks and the size, as a table
    tools/walk.py separate --verbose    one walk, with the functions in the order of their first call
    tools/walk.py --check               exit status 1 when a limit is passed

A walk runs a command in a fresh process under a profiler (`sys.setprofile`, also in every thread) and notes each
function of the package `espnet2_ext` when it is called for the first time. It counts

    files      files of the package that have such a function
    functions  functions and methods, each once, a nested `def` as one of its own; not lambdas and not generator
               expressions; not what runs while a module is imported: its top level and class bodies, and functions
               called from there
    moves      changes of file from one function to the next, in the order of the first calls
    back       those moves that lead to a file that was seen before; the others enter a new file, so that
               moves = files - 1 + back

The walks, each in one process and on the results of the recipe's quick form (`./run.sh --quick true`):

    separate   `espnet2-ext separate` of a mixture of 2 s with one query and a bundle
    inference  `qsep-inference` over the rendered test set, with the bundle
    scoring    `scores.score.score` of such outputs without tags and without ESPnet's own scoring

Before query, weak and tag shared one mechanism these were 29 / 157 / 86 (58 back), 27 / 157 / 80 (54) and
10 / 61 / 31 (22). The limits are hardly more than what is reached (processors differ by some functions):
CI checks them, and whoever needs more raises them here. The aims were 20 files (25 back), 18 (25) and 8 (10), 170 files
and 25,000 lines in all. The size counts files that git tracks or would track: Python files of the package other than
`__init__.py`; lines of Python and bash in package, recipes, tools and CI; files of code in the largest folder.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import CodeType, FrameType

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "espnet2_ext"
RECIPE = ROOT / "egs2/audioset_qsep"
BUNDLE = "exp/quick/qsep_*/*.zip"  # in the recipe, as the next
TEST_SET = "dump/quick/test_pairs"
LIMITS = {"separate": (42, 110), "inference": (41, 92), "scoring": (17, 31)}  # walk: (files, moves back)
MAX_FILES, MAX_LINES, MAX_ROOM = 198, 41310, 16


def main() -> None:
    """Print the table; with --check, end with status 1 when a limit is passed."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("walks", nargs="*", metavar="WALK", help=f"{', '.join(LIMITS)} (default: all)")
    p.add_argument("--recipe", type=Path, default=RECIPE, help="recipe whose quick form has run (%(default)s)")
    p.add_argument("--verbose", action="store_true", help="list the functions in the order of their first call")
    p.add_argument("--check", action="store_true", help="exit status 1 when a limit is passed")
    p.add_argument("--record", type=Path, help=argparse.SUPPRESS)  # of the process that takes the walk
    a = p.parse_args()
    if unknown := set(a.walks) - LIMITS.keys():
        p.error(f"unknown walk {', '.join(unknown)}")
    if a.record:
        record(a.walks[0], a.recipe, a.record)
        return
    lines = [f"{'walk':<12}{'files':>10}{'functions':>10}{'moves':>8}{'back':>10}"]
    excess = []
    for walk in a.walks or LIMITS:
        calls = take(walk, a.recipe)
        counts = count(file for file, _ in calls)
        most = dict(zip(("files", "back"), LIMITS[walk]))
        excess += [f"{walk}: {counts[k]} {k}, limit {n}" for k, n in most.items() if counts[k] > n]
        files, back = (f"{counts[k]}/{n}" for k, n in most.items())
        lines.append(f"{walk:<12}{files:>10}{len(calls):>10}{counts['moves']:>8}{back:>10}")
        if a.verbose:
            lines += [f"    {file:<36}{name}" for file, name in calls]
    if not a.walks:
        lines.append("")
        for text, number, limit in size():
            lines.append(f"{text:<50}{number:>7,}/{limit:,}")
            excess += [f"{text}: {number}, limit {limit}"] if number > limit else []
    print("\n".join(lines))
    for text in excess:
        print(f"over the limit: {text}", file=sys.stderr)
    sys.exit(bool(excess) if a.check else 0)


def count(files: Iterable[str]) -> dict[str, int]:
    """Files, moves and moves back of a sequence of files, one per function."""
    seen: set[str] = set()
    moves = back = 0
    last = ""
    for file in files:
        if last and file != last:
            moves += 1
            back += file in seen
        seen.add(file)
        last = file
    return {"files": len(seen), "moves": moves, "back": back}


def take(walk: str, recipe: Path) -> list[tuple[str, str]]:
    """(file, function) in the order of the first calls, from a process of its own."""
    with tempfile.TemporaryDirectory() as tmp:
        out = Path(tmp, "calls.json")
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, walk, "--recipe", str(recipe.resolve()), "--record", str(out)]
        done = subprocess.run(command, env=env, cwd=tmp, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"walk {walk} failed:\n{done.stdout}{done.stderr}")
        return [(file, name) for file, name in json.loads(out.read_text())]


def record(walk: str, recipe: Path, out: Path) -> None:
    """Take a walk in this process and write its calls."""
    bundle = next(recipe.glob(BUNDLE), None)
    if bundle is None or not (recipe / TEST_SET).is_dir():
        sys.exit(f"{recipe}: no {BUNDLE} or {TEST_SET}; first run: ./run.sh --quick true")
    os.chdir(recipe)  # the lists of the test set have paths relative to it
    calls: list[tuple[str, str]] = []
    WALKS[walk](bundle, out.parent, calls)
    out.write_text(json.dumps(calls))


def walk_separate(bundle: Path, tmp: Path, calls: list) -> None:
    """Two seconds of noise, with other noise as the query."""
    import numpy as np
    import soundfile

    for name in ("mix", "query"):
        noise = 0.1 * np.random.default_rng(len(name)).standard_normal(64000)
        soundfile.write(tmp / f"{name}.wav", noise, 32000)
    from espnet2_ext.cli.main import main

    with profiled(calls):
        argv = ["separate", f"{tmp}/mix.wav", "--query", f"{tmp}/query.wav", "--bundle", str(bundle)]
        main([*argv, "-o", f"{tmp}/out.wav"])


def walk_inference(bundle: Path, tmp: Path, calls: list) -> None:
    """Every protocol and pass of the test set."""
    infer = command("qsep-inference")
    with profiled(calls):
        infer(["--data_dir", TEST_SET, "--output_dir", f"{tmp}/outputs", "--bundle", str(bundle)])


def walk_scoring(bundle: Path, tmp: Path, calls: list) -> None:
    """Scores of outputs that are made first."""
    options = ["--data_dir", TEST_SET, "--output_dir", f"{tmp}/outputs", "--bundle", str(bundle)]
    command("qsep-inference")([*options, "--no_tags"])
    from espnet2_ext.scores.score import score

    with profiled(calls):
        score(TEST_SET, f"{tmp}/outputs", espnet_keys=0, num_workers=1)


WALKS: dict[str, Callable[[Path, Path, list], None]] = {
    "separate": walk_separate,
    "inference": walk_inference,
    "scoring": walk_scoring,
}


def command(name: str) -> Callable[[list[str]], None]:
    """The function of a command of `espnet2-ext`."""
    import importlib

    from espnet2_ext.cli.main import find

    module, _, function = find(name).partition(":")
    return getattr(importlib.import_module(module), function)


@contextlib.contextmanager
def profiled(calls: list[tuple[str, str]]) -> Iterator[None]:
    """While open, append (file, function) of each function of the package at its first call."""
    top = f"{PACKAGE}{os.sep}"
    seen: set[CodeType] = set()

    def note(frame: FrameType, event: str, _arg: object) -> None:
        code = frame.f_code
        if event != "call" or code in seen or not code.co_filename.startswith(top):
            return
        if _imports(frame, top):
            return
        seen.add(code)
        if not code.co_name.startswith("<"):  # <lambda>, <genexpr>
            calls.append((code.co_filename.removeprefix(top), getattr(code, "co_qualname", code.co_name)))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def _imports(frame: FrameType | None, top: str) -> bool:
    """Whether a module of the package is being imported further up the stack."""
    while frame:
        if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(top):
            return True
        frame = frame.f_back
    return False


def size() -> list[tuple[str, int, int]]:
    """(what, number, limit) of the size of the code."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    files = [path for name in sorted({n for n in names if n}) if _is_code(path := ROOT / name)]
    ours = [p for p in files if p.is_relative_to(PACKAGE) and p.name != "__init__.py"]
    counted = [p for p in files if p.relative_to(ROOT).parts[0] in ("espnet2_ext", "egs2", "tools", ".ci")]
    lines = sum(p.read_text(encoding="utf-8").count("\n") for p in counted)
    room, most = Counter(p.parent for p in files if p.name != "__init__.py").most_common(1)[0]
    return [
        ("files of the package, without __init__.py", len(ours), MAX_FILES),
        ("lines of Python and bash", lines, MAX_LINES),
        (f"files in the largest folder, {room.relative_to(ROOT)}", most, MAX_ROOM),
    ]


def _is_code(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    return path.suffix in (".py", ".sh") or path.parent.name == ".ci"


if __name__ == "__main__":
    main()
