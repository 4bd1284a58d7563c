"""What the embedded AudioSet plays: its classes and the General MIDI sounds that stand for them, from `voices.yaml`."""

import functools
from dataclasses import dataclass
from pathlib import Path

from espnet2_ext.util.documents import read_yaml


@dataclass(frozen=True)
class Voice:
    """How one class sounds and moves.

    Attributes:
        mid, name: AudioSet's identifier and display name.
        styles: names in `score.STYLES`; a clip draws one.
        programs: General MIDI programs (drum kits when `drum`); a clip draws one.
        keys: lowest and highest key, or the drum keys in use when `drum`.
        grid: shortest and longest time unit in seconds; a clip draws one.
        steps: time units from one beat to the next; a beat draws one.
        hold: range of a note's length as a share of the time to the next beat.
        cents: largest detuning of a whole clip.
        vibrato: largest depth, as a value of the modulation controller (0 to 127).
        volume: value of the volume controller; lower where loud strokes meet and would clip.
        drum: keys name instruments of a kit, not pitches.
        also: mid of a parent class that some of the clips carry as a second label.
    """

    mid: str
    name: str
    styles: tuple[str, ...]
    programs: tuple[int, ...]
    keys: tuple[int, ...]
    grid: tuple[float, float] = (0.11, 0.19)
    steps: tuple[int, ...] = (1, 2, 3, 4)
    hold: tuple[float, float] = (0.7, 1.0)
    cents: float = 40.0
    vibrato: int = 0
    volume: int = 127
    drum: bool = False
    also: str = ""


@functools.cache
def all_voices() -> tuple[Voice, ...]:
    """Every class that can be played, in the order of AudioSet's class list."""
    rows = ({k: tuple(v) if isinstance(v, list) else v for k, v in row.items()} for row in _read()["voices"])
    return tuple(Voice(**row) for row in rows)


def branches() -> tuple[tuple[str, str, list[str]], ...]:
    """The ontology above and between these classes: mid, name, mids of the children."""
    return tuple((mid, name, children.split()) for mid, name, children in _read()["branches"])


@functools.cache
def _read() -> dict:
    return read_yaml(Path(__file__).with_suffix(".yaml"))
