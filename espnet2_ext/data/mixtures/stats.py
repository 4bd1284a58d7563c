"""What a table of mixtures holds: the paper's Tables II and III, counted."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from espnet2_ext.core.mixing.events import clip_activity, frame_activity
from espnet2_ext.data.mixtures.event_table import MixtureTable
from espnet2_ext.data.tables import write_tsv
from espnet2_ext.util.files import write_text

COLUMNS = ("table", "name", "value")


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
    kinds = ", ".join(f"{n} {kind}" for kind, n in s.known.items())
    return "\n\n".join(
        [
            f"{sum(s.known.values())} mixtures ({kinds}), {s.events:.2f} labelled events each",
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
    rows += [("known", kind, n) for kind, n in s.known.items()]
    write_tsv(Path(folder) / "statistics.tsv", COLUMNS, [*rows, ("events", "mean", s.events)])
    write_text(Path(folder) / "statistics.md", as_markdown(s) + "\n")
