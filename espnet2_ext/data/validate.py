"""Look through tables of one's own recordings, or through what was prepared, and report all that is
wrong, not only the first."""

import logging
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.bank.shards import Limits, examine
from espnet2_ext.data.corpora.own_clips import split
from espnet2_ext.data.corpora.own_recordings import OwnTables, Problem, Recording, class_problems, read_tables
from espnet2_ext.data.mixtures.event_table import MixtureTable
from espnet2_ext.data.mixtures.from_recordings import SLACK, past_end
from espnet2_ext.data.tables import Clip, read_clips, read_labels
from espnet2_ext.errors import DataError
from espnet2_ext.util.documents import read_json, write_json
from espnet2_ext.util.parallel import map_parts, part_of

log = logging.getLogger(__name__)


def validate(
    paths: Sequence[str | os.PathLike],
    *,
    classes: Sequence[str] = (),
    allow_unlabelled: bool = False,
    shares: tuple[float, float] = (0.1, 0.1),
    seed: int = 0,
    num_workers: int | None = None,
) -> tuple[list[Problem], list[str]]:
    """Problems of what lies at `paths`, and lines that report what it holds.

    Args:
        paths: tables (see `own_recordings`), which are taken together; folders of preparation: a list
            of clips, a bank, a mixture table.
        others: as for `own_recordings.prepare_own_sounds`, which refuses what is refused here but for
            what only the sound shows (`scan` leaves such files out) and a class that its times make
            active all along (the recipe warns when it makes the tables).
    """
    problems: list[Problem] = []
    report: list[str] = []
    folders = [p for p in map(Path, paths) if p.is_dir()]
    for folder in folders:
        _check_folder(folder, problems, report)
    tables = [p for p in map(Path, paths) if not p.is_dir()]
    if tables:
        own = read_tables(tables, classes=classes, allow_unlabelled=allow_unlabelled)
        problems += own.problems
        lengths = _decode(own.recordings, problems, num_workers)
        problems += _past_ends(own.recordings, lengths)
        problems += _always(own, lengths)
        try:
            sets = split(own.recordings, shares, seed, "recording") if own.recordings else {}
            problems += class_problems(sets, own.classes)
        except DataError as e:
            problems.append(Problem("sets", str(e)))
        report += _statistics(own, lengths)
    return problems, report


def _decode(recordings: Sequence[Recording], problems: list[Problem], num_workers: int | None) -> dict[Path, float]:
    """Decode everything; lengths in seconds of what can be used."""
    items = [(str(n), str(r.path)) for n, r in enumerate(recordings)]
    lengths = {}
    with tempfile.TemporaryDirectory() as folder:
        size = part_of(len(items), 64, 1, 64)
        parts = map_parts(
            decode_part, items, Path(folder) / "parts", part_size=size, num_workers=num_workers, desc="recordings"
        )
        found = [line for part in parts for line in read_json(part)]
    for r, (status, detail, seconds) in zip(recordings, found, strict=True):
        if status in ("missing", "corrupt"):
            text = detail if str(r.path) in detail else f"{r.path}: {detail}"
            problems.append(Problem(r.where, text))
            continue
        if status != "ok":
            what = f"{r.path} is {status} ({detail}): the scan will leave it out"
            problems.append(Problem(r.where, what, fatal=False))
        elif detail:
            problems.append(Problem(r.where, f"{r.path}: {detail}", fatal=False))
        lengths[r.path] = seconds
    return lengths


def decode_part(items: Sequence[tuple[str, str]], path: Path) -> None:
    """Write status, detail and seconds of some files, (number, path) each, as JSON."""
    found = []
    for number, source in items:
        entry = examine(Clip(number, (), source), Limits())
        found.append((entry.status, entry.detail, entry.samples / entry.rate if entry.rate else 0))
    write_json(path, found)


def _past_ends(recordings: Iterable[Recording], lengths: dict[Path, float]) -> Iterator[Problem]:
    for r in recordings:
        for mark in r.marks:
            if mark.onset is not None and r.path in lengths:
                if text := past_end(mark.onset, mark.offset, lengths[r.path]):
                    yield Problem(mark.where, text)


def _always(own: OwnTables, lengths: dict[Path, float]) -> Iterator[Problem]:
    """Classes that are active all the time, by their times where those are known."""
    if not any(r.known == "frame" for r in own.recordings):
        return  # then the tables alone decide, see `class_problems`
    usable = [r for r in own.recordings if r.path in lengths]
    for name in own.classes:
        if usable and all(_covers(r, name, lengths[r.path]) for r in usable):
            yield Problem(
                "classes",
                f"class {name!r} is active all the time in every recording"
                " (its prior is 1): times without it are needed",
            )
        elif usable and all(name in r.labels for r in usable):
            yield Problem(
                "classes",
                f"class {name!r} is in every recording, so that it cannot be learned from clip labels",
                fatal=False,
            )


def _covers(recording: Recording, name: str, seconds: float) -> bool:
    """Whether a class is active from begin to end."""
    if recording.known == "clip":
        return name in recording.labels
    reached = 0.0
    for mark in sorted((m for m in recording.marks if m.label == name), key=lambda m: m.onset):
        if mark.onset > reached + SLACK:
            return False
        reached = max(reached, mark.offset)
    return reached >= seconds - SLACK


def _statistics(own: OwnTables, lengths: dict[Path, float]) -> Iterator[str]:
    known = Counter(r.known for r in own.recordings)
    types = ", ".join(f"{n} with {kind} labels" for kind, n in known.items())
    yield f"{len(own.recordings)} recordings ({types}), {sum(lengths.values()):.1f} s"
    having = Counter(label for r in own.recordings for label in r.labels)
    seconds: dict[str, float] = defaultdict(float)
    for r in own.recordings:
        for mark in r.marks:
            if mark.onset is not None:
                seconds[mark.label] += mark.offset - mark.onset
    for name in own.classes:
        times = f", {seconds[name]:.1f} s marked" if seconds[name] else ""
        yield f"class {name}: in {having[name]} recordings{times}"


def _check_folder(folder: Path, problems: list[Problem], report: list[str]) -> None:
    """Check a folder of preparation, by what lies in it."""
    checks = {"bank.json": _check_bank, "mixtures.tsv": _check_table, "clips.tsv": _check_clips}
    found = [check for name, check in checks.items() if (folder / name).is_file()]
    if not found:
        problems.append(Problem(str(folder), f"holds none of {', '.join(checks)}"))
    for check in found:
        try:
            report.append(f"{folder}: {check(folder, problems)}")
        except DataError as e:
            where, _, text = str(e).partition(": ")
            problems.append(Problem(where, text))


def _check_bank(folder: Path, problems: list[Problem]) -> str:
    bank = ClipBank(folder)
    return f"a bank of {len(bank)} clips at {bank.fs} Hz, {bank.num_classes} classes"


def _check_table(folder: Path, problems: list[Problem]) -> str:
    table = MixtureTable(folder)
    whole = (table.info.get("settings") or {}).get("whole", False)  # whole songs are for tests
    priors = table.info["frame_prior"], table.info["clip_prior"]
    for name, frame, clip in zip(table.classes, *priors):
        if frame == 0:
            problems.append(Problem(str(folder), f"class {name} never occurs", not whole))
        elif frame == 1:
            what = f"class {name} is active all the time (its prior is 1)"
            problems.append(Problem(str(folder), what, not whole))
        elif clip == 1:
            what = f"class {name} is in every mixture: it cannot be learned from clip labels"
            problems.append(Problem(str(folder), what, fatal=False))
    return f"{len(table)} mixtures of {', '.join(table.classes)}"


def _check_clips(folder: Path, problems: list[Problem]) -> str:
    labels = folder.parent / "labels.tsv"
    having = Counter({label.mid: 0 for label in read_labels(labels)})
    clips = 0
    for clip in read_clips(folder / "clips.tsv"):
        clips += 1
        for mid in clip.labels:
            if mid not in having:
                what = f"clip {clip.id}: unknown class {mid!r}, which {labels} lacks"
                problems.append(Problem(str(folder / "clips.tsv"), what))
            having[mid] += 1
    problems += [Problem(str(folder / "clips.tsv"), f"class {mid} never occurs") for mid, n in having.items() if not n]
    return f"{clips} clips"
