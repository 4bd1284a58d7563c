"""A table of mixtures drawn from a clip bank, once, with a seed; and what it holds: the paper's Tables II and III."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from espnet2_ext.core.mixing.events import KNOWN, EventDrawer, clip_activity, frame_activity, with_ids
from espnet2_ext.data.bank.bank import ClipBank, bank_digest
from espnet2_ext.data.bank.per_clip import bank_loudness
from espnet2_ext.data.mixtures.event_table import MixtureTable, same_table, write_table
from espnet2_ext.errors import DataError
from espnet2_ext.util.files import write_text
from espnet2_ext.util.locks import holding
from espnet2_ext.util.tables import write_tsv

_GOLDEN = (5**0.5 - 1) / 2

log = logging.getLogger(__name__)


def parse_known(text: str) -> dict[str, float]:
    """Shares of the label types: `strong`, or `strong:0.1,frame:0.3,clip:0.6`.

    Raises:
        DataError: an unknown type, or shares that do not add up to 1.
    """
    shares = {}
    for item in text.split(","):
        name, _, share = item.partition(":")
        try:
            value = float(share or 1)
        except ValueError:
            value = -1.0
        if name not in KNOWN or name in shares or not 0 <= value <= 1:
            raise DataError(f"known {text!r}: expected {', '.join(KNOWN)}, or shares of them")
        shares[name] = value
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise DataError(f"known {text!r}: the shares add up to {sum(shares.values()):g}, not 1")
    return shares


def known_of(shares: dict[str, float], seed: int, i: int) -> str:
    """Label type of mixture `i`: evenly spread, so that any run of mixtures is near the shares."""
    place = (np.random.default_rng(seed).random() + i * _GOLDEN) % 1
    ends = np.cumsum(list(shares.values()))
    return list(shares)[min(int(np.searchsorted(ends, place, side="right")), len(ends) - 1)]


@holding("folder")
def draw_table(
    bank: ClipBank,
    folder: str | os.PathLike,
    mixtures: int,
    seed: int,
    classes: Sequence[str],
    *,
    known: str = "strong",
    n_fft: int = 512,
    hop: int = 128,
    work: Mapping | None = None,
    **rules,
) -> MixtureTable:
    """Draw a table into `folder`, unless the same of the same bank is up to date.

    Mixture i depends on the bank, the rules, `seed` and i only. Beside the table lie its counts,
    `statistics.tsv` and `statistics.md`.

    Args:
        mixtures: how many. classes: see `EventDrawer`, as for `rules`. known: see `parse_known`.
        n_fft, hop: frames of the labels, in samples.
        work: `num_workers` and `scheduler` of `map_parts`, for the loudness of the bank.

    Raises:
        DataError: as `EventDrawer` and `parse_known`; fewer than one mixture.
    """
    if mixtures < 1:
        raise DataError(f"mixtures must be 1 or more; got {mixtures}")
    shares = parse_known(known)
    rules = {k: list(v) if isinstance(v, (list, tuple)) else v for k, v in rules.items()}
    key = {
        "fs": bank.fs,
        "classes": list(classes),
        "mixtures": mixtures,
        "seed": seed,
        "n_fft": n_fft,
        "hop": hop,
        "bank_hash": bank_digest(bank),
        "settings": {"known": known, **rules},
    }
    if (table := same_table(folder, key, ["statistics.md"])) is not None:
        log.info("%s: up to date, skipped", folder)
        return table
    levels = bank_loudness(bank, **(work or {}))
    drawer = EventDrawer(bank, levels, classes, **rules)
    for name, counts in drawer.left_out.items():
        if any(counts.values()):
            left = ", ".join(f"{n} {why}" for why, n in counts.items() if n)
            log.info("%s: clips of %s left out: %s", bank.path, name, left)
    width = max(6, len(str(mixtures - 1)))
    drawn = (
        drawer.draw(np.random.default_rng([seed, i]), f"m{i:0{width}d}", known_of(shares, seed, i))
        for i in range(mixtures)
    )
    del key["mixtures"]
    write_table(folder, (with_ids(m, bank) for m in drawn), **key)
    table = MixtureTable(folder)
    write_statistics(folder, count(table))
    return table


class Statistics(NamedTuple):
    """Shares counted over all mixtures of a table, whatever may be used of their labels.

    Attributes:
        classes: K names. frame_prior, clip_prior: [K] share of frames (mixtures) with the class.
        frame_sources, clip_sources: [K + 1] share of frames (mixtures) with 0 to K classes.
        known: label type -> number of mixtures. events: mean number of labelled events.
    """

    classes: Sequence[str]
    frame_prior: np.ndarray
    clip_prior: np.ndarray
    frame_sources: np.ndarray
    clip_sources: np.ndarray
    known: dict[str, int]
    events: float


def count(table: MixtureTable) -> Statistics:
    """Count a table."""
    n, num_classes = len(table), len(table.classes)
    info = table.info["n_fft"], table.info["hop"]
    frames, clips = np.zeros(num_classes + 1), np.zeros(num_classes + 1)
    in_frames, in_clips, events = np.zeros(num_classes), np.zeros(num_classes), 0
    known: dict[str, int] = {}
    for mixture in map(table.row, range(n)):
        active, present = frame_activity(mixture, num_classes, *info), clip_activity(mixture, num_classes)
        frames += np.bincount(active.sum(axis=1).astype(int), minlength=num_classes + 1)
        clips[int(present.sum())] += 1
        in_frames += active.sum(axis=0, dtype=np.float64)
        in_clips += present
        events += sum(e.cls >= 0 for e in mixture.events)
        known[mixture.known] = known.get(mixture.known, 0) + 1
    total = frames.sum()
    return Statistics(table.classes, in_frames / total, in_clips / n, frames / total, clips / n, known, events / n)


def as_markdown(s: Statistics) -> str:
    """Tables II and III as text."""
    numbers = [str(i) for i in range(len(s.classes) + 1)]
    types = ", ".join(f"{n} {name}" for name, n in s.known.items())
    return "\n\n".join(
        [
            f"{sum(s.known.values())} mixtures ({types}), {s.events:.2f} labelled events each",
            "Prior probability of activity of each class (Table II gives that of the frames)",
            _table(["", *s.classes], [["frame", *s.frame_prior], ["clip", *s.clip_prior]]),
            "Share of frames and of clips with that many sources (Table III)",
            _table(["", *numbers], [["frame", *s.frame_sources], ["clip", *s.clip_sources]]),
        ]
    )


def _table(head: list[str], rows: list[list]) -> str:
    lines = [head, ["---"] * len(head)]
    lines += [[name, *(f"{v:.3f}" for v in values)] for name, *values in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_statistics(folder: str | os.PathLike, s: Statistics) -> None:
    """Write `statistics.tsv` (table, name, value) and `statistics.md` into a table's folder."""
    rows = [("frame_prior", k, v) for k, v in zip(s.classes, s.frame_prior.tolist(), strict=True)]
    rows += [("clip_prior", k, v) for k, v in zip(s.classes, s.clip_prior.tolist(), strict=True)]
    rows += [("frame_sources", i, v) for i, v in enumerate(s.frame_sources.tolist())]
    rows += [("clip_sources", i, v) for i, v in enumerate(s.clip_sources.tolist())]
    rows += [("known", name, n) for name, n in s.known.items()]
    write_tsv(Path(folder) / "statistics.tsv", ("table", "name", "value"), [*rows, ("events", "mean", s.events)])
    write_text(Path(folder) / "statistics.md", as_markdown(s) + "\n")
