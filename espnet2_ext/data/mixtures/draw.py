"""A table of mixtures drawn from a clip bank, once, with a seed."""

import logging
import os
from collections.abc import Sequence

import numpy as np

from espnet2_ext.core.mixing.events import KNOWN, EventDrawer, with_ids
from espnet2_ext.data.bank.bank import ClipBank, bank_digest
from espnet2_ext.data.bank.loudness import bank_loudness
from espnet2_ext.data.mixtures.event_table import MixtureTable, same_table, write_table
from espnet2_ext.data.mixtures.stats import count, write_statistics
from espnet2_ext.errors import DataError

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
    num_workers: int | None = None,
    scheduler: str | None = None,
    **rules,
) -> MixtureTable:
    """Draw a table into `folder`, unless the same of the same bank is up to date.

    Mixture i depends on the bank, the rules, `seed` and i only. Beside the table lie its counts,
    `statistics.tsv` and `statistics.md`.

    Args:
        mixtures: how many. classes: see `EventDrawer`, as for `rules`. known: see `parse_known`.
        n_fft, hop: frames of the labels, in samples.
        num_workers, scheduler: for the loudness of the bank, see `map_parts`.

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
    levels = bank_loudness(bank, num_workers=num_workers, scheduler=scheduler)
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
