"""Find faults: broken inputs, kills, flipped bits, hostile bundles, full disks, limits, two runs at once.

    python tests/faults/run.py --seed 0 --table faults.md

prints how many were tried, accepted, refused and are a FAULT: a traceback, hang, crash, silent damage, or a file lost,
doubled or left over. A case is decided by the seed and its number: `--only fuzz --case 17` does one again. The status
is 1 with a FAULT.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

PARTS = ("fuzz", "kills", "flips", "hostile", "disk", "limits", "twice")
SHORT = {"inputs": 150, "kills": 24, "flips": 24}


def options() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    p.add_argument("--only", default=",".join(PARTS), help="parts, with commas between (%(default)s)")
    p.add_argument("--short", action="store_true", help="a few of each, in less than two minutes")
    p.add_argument("--inputs", type=int, default=3400, help="damaged inputs (%(default)s)")
    p.add_argument("--kills", type=int, default=340, help="killed commands (%(default)s)")
    p.add_argument("--flips", type=int, default=170, help="flipped bits (%(default)s)")
    p.add_argument("--jobs", type=int, default=2, help="cases at a time (%(default)s)")
    p.add_argument("--case", type=int, help="only this case of the parts")
    p.add_argument("--table", type=Path, help="write the table there as well, as Markdown")
    p.add_argument(
        "--keep", type=Path, default=Path(tempfile.gettempdir()) / "faults", help="for inputs and logs of a FAULT"
    )
    return p


def table(found: dict[tuple[str, str], Counter], seconds: float, a: argparse.Namespace) -> str:
    """Markdown: a line for each part, then for each kind."""
    parts: dict[str, Counter] = defaultdict(Counter)
    for (part, _), counts in found.items():
        parts[part] += counts
    total: Counter = sum(parts.values(), Counter())
    groups = (
        [*parts.items(), ("**all**", total)],
        [(f"{part}: {kind}", counts) for (part, kind), counts in found.items()],
    )
    lines = [f"Seed {a.seed}, {seconds / 60:.0f} min."]
    for group in groups:
        lines += ["", "| | tried | accepted | refused | FAULT |", "|---|--:|--:|--:|--:|"]
        for name, counts in group:
            shown = (sum(counts.values()), counts["accepted"], counts["refused"], counts["FAULT"])
            lines.append(f"| {name} | " + " | ".join(map(str, shown)) + " |")
    return "\n".join(lines)


def main() -> None:
    p = options()
    a = p.parse_args()
    if a.short:
        p.set_defaults(**SHORT)
        a = p.parse_args()
    begin = time.monotonic()
    import children

    children.load()
    import world

    found: dict[tuple[str, str], Counter] = defaultdict(Counter)
    a.keep.mkdir(parents=True, exist_ok=True)
    base = "/dev/shm" if Path("/dev/shm").is_dir() and not a.short else None
    with tempfile.TemporaryDirectory(prefix="faults", dir=base, ignore_cleanup_errors=True) as work:
        top = Path(work) / "world"
        world.build(top)
        for part in a.only.split(","):
            for kind, detail, outcome in cases(part, a, top, Path(work)):
                found[part, kind][outcome.what] += 1
                if outcome.what == "FAULT":
                    print(f"FAULT {kind} {detail}: {outcome.text}", flush=True)
    text = table(found, time.monotonic() - begin, a)
    print(text)
    if a.table:
        a.table.write_text(text + "\n")
    sys.exit(any(counts["FAULT"] for counts in found.values()))


def cases(part: str, a: argparse.Namespace, top: Path, work: Path):
    """Yield (kind, what was done, outcome) of a part."""
    import importlib

    import children

    module = importlib.import_module(part if part in ("fuzz", "kills", "flips", "hostile") else "disk")
    do, number = module.make(part, a, top, work)
    todo = range(number) if a.case is None else [a.case]
    done = Counter()
    for i, results in children.lanes(len(todo), lambda i: do(todo[i]), a.jobs):
        for kind, detail, outcome in results:
            done[outcome.what] += 1
            yield kind, f"(--only {part} --case {todo[i]}, {detail})", outcome
    print(f"{part}: {dict(done)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
