"""Mixture tables from one's own recordings, of which only labels are known: what sounds in them, and perhaps when.

`corpora/own_recordings` lists them as clips and writes their labels, `marks.tsv`; here the recordings in the bank and
their labels become mixtures.
"""

import logging
import math
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from espnet2_ext.core.mixing.events import KNOWN, Event, Mixture
from espnet2_ext.data.bank.bank import ClipBank, bank_digest
from espnet2_ext.data.mixtures.event_table import write_table
from espnet2_ext.errors import DataError
from espnet2_ext.util.locks import holding
from espnet2_ext.util.tables import at, number, read_tsv

MARKS = ("clip", "known", "class", "onset", "offset", "where")
SLACK = 0.01  # seconds by which an offset may lie past the end: tables are rounded

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OwnSettings:
    """How recordings become mixtures.

    Attributes:
        seconds: length of a chunk. Chunks do not overlap; a remainder of less than half a chunk is
            left out, unless it is all there is.
        whole_clips: recordings with clip labels are not cut. Where they are, every chunk has all
            labels of its recording, so that it may lack a sound that its label names.
    """

    seconds: float = 4.0
    whole_clips: bool = False

    def __post_init__(self):
        if not 0 < self.seconds < math.inf:
            raise DataError(f"seconds must be positive, not {self.seconds}")


class _Line(NamedTuple):
    known: str
    label: str
    onset: float | None
    offset: float | None
    where: str


@holding("out")
def make_own_table(
    data_dir: str | os.PathLike,
    bank: str | os.PathLike,
    out: str | os.PathLike,
    *,
    settings: OwnSettings | None = None,
    n_fft: int = 512,
    hop: int = 128,
) -> dict:
    """Write the mixture table `out` of the recordings in `data_dir/marks.tsv`, archived as `bank`.

    A mixture holds its recording as sound of no labelled class, and its labels without sound.
    Recordings that the scan left out of the bank are reported.

    Returns:
        `table.json`.

    Raises:
        DataError: with the file and line of the user's own table: an onset or offset past the end
            of its recording. No marks, no recording in the bank.
    """
    settings = settings or OwnSettings()
    data_dir, bank = Path(data_dir), ClipBank(bank)
    marks = _read_marks(data_dir / "marks.tsv")
    rows = {bank.id(i): i for i in range(len(bank))}
    if lacking := [id_ for id_ in marks if id_ not in rows]:
        log.warning(
            "%s: %d of %d recordings are not in %s (see manifest.tsv), the first is %s",
            data_dir,
            len(lacking),
            len(marks),
            bank.path,
            lacking[0],
        )
    classes = [label.mid for label in bank.classes]
    mixtures, cut = [], 0
    for id_, lines in marks.items():
        if id_ in rows:
            made = _mixtures(id_, lines, bank.num_samples(rows[id_]), bank.fs, classes, settings)
            cut += len(made) > 1 and lines[0].known == "clip"
            mixtures += made
    if not mixtures:
        raise DataError(f"{data_dir}: none of its {len(marks)} recordings is in {bank.path}")
    if cut:
        log.warning(
            "%s: %d recordings with clip labels are cut into chunks, which all get the labels of"
            " the whole (whole_clips keeps them whole)",
            data_dir,
            cut,
        )
    return write_table(
        out,
        mixtures,
        fs=bank.fs,
        classes=classes,
        n_fft=n_fft,
        hop=hop,
        settings=asdict(settings),
        bank_hash=bank_digest(bank),
    )


def _read_marks(path: Path) -> dict[str, list[_Line]]:
    marks: dict[str, list[_Line]] = defaultdict(list)
    for line, (id_, known, label, onset, offset, where) in read_tsv(path, MARKS):
        with at(path, line):
            if known not in KNOWN:
                raise DataError(f"known must be one of {', '.join(KNOWN)}")
            times = (number(k, v, 0) if v else None for k, v in (("onset", onset), ("offset", offset)))
            marks[id_].append(_Line(known, label, *times, where))
    return dict(sorted(marks.items()))


def _mixtures(
    id_: str, lines: list[_Line], total: int, fs: int, classes: Sequence[str], settings: OwnSettings
) -> list[Mixture]:
    """The chunks of a recording of `total` samples."""
    if unknown := [v for v in lines if v.label and v.label not in classes]:
        raise DataError(f"{unknown[0].where}: class {unknown[0].label!r} is none of the bank's")
    spans = [(classes.index(v.label), *_span(v, total, fs)) for v in lines if v.label]
    known = lines[0].known
    num = total if known == "clip" and settings.whole_clips else round(settings.seconds * fs)
    mixtures = []
    for n, (start, samples) in enumerate(cuts(total, num)):
        events = [Event(-1, id_, start, 0, samples, 1.0)]
        for cls, first, end in spans:
            a, b = max(first - start, 0), min(end - start, samples)
            if a < b:
                events.append(Event(cls, None, 0, a, b - a, 1.0))
        mixtures.append(Mixture(f"{id_}.{n:04d}", samples, known, tuple(events)))
    return mixtures


def cuts(total: int, num: int) -> list[tuple[int, int]]:
    """First sample and length of the chunks of `num` samples of a recording of `total`."""
    whole, rest = divmod(total, num)
    found = [(n * num, num) for n in range(whole)]
    if rest and (2 * rest >= num or not whole):
        found.append((whole * num, rest))
    return found


def _span(line: _Line, total: int, fs: int) -> tuple[int, int]:
    """First and last-but-one sample of a label; the whole recording where it has no times."""
    if line.onset is None or line.offset is None:
        return 0, total
    if text := past_end(line.onset, line.offset, total / fs):
        raise DataError(f"{line.where}: {text}")
    first = round(line.onset * fs)
    return first, max(min(round(line.offset * fs), total), first + 1)


def past_end(onset: float, offset: float, seconds: float) -> str:
    """What is wrong with a label in a recording of that length; '' where nothing is."""
    for name, value, slack in (("onset", onset, 0.0), ("offset", offset, SLACK)):
        if value > seconds + slack or (name == "onset" and value >= seconds):
            return f"{name} {value:g} s is past the end of the recording, {seconds:.3f} s"
    return ""
