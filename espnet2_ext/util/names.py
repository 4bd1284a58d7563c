"""Identifiers from file names: no blanks, no two alike."""

import re
from collections.abc import Iterable


def safe_id(text: str) -> str:
    """Letters, digits, `_`, `.` and `+` stay; a run of anything else becomes one `-`."""
    return re.sub(r"[^\w.+]+", "-", text).strip("-.") or "sound"


def unique(names: Iterable[str]) -> list[str]:
    """The names in their order, made different where two are equal by a number at the end."""
    taken: dict[str, None] = {}
    for name in names:
        new, number = name, 1
        while new in taken:
            number += 1
            new = f"{name}-{number}"
        taken[new] = None
    return list(taken)
