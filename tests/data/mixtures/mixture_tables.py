"""A small bank of three classes and small tables, for the tests of mixtures."""

import json

import numpy as np
from sounds import bank_of, noise

from espnet2_ext.core.mixing.events import Event, Mixture
from espnet2_ext.data.bank.bank import bank_digest
from espnet2_ext.data.bank.shards import Limits
from espnet2_ext.data.mixtures.event_table import MixtureTable, write_table
from espnet2_ext.data.tables import Label

FS, CLASSES = 1000, ["horn", "bark"]
NAMES = [*CLASSES, "park"]
RULES = {"seconds": 1.0, "event_seconds": (0.1, 0.8), "mean_events": 2.0, "n_fft": 64, "hop": 16}
MIXTURES = [
    Mixture("b", 16, "strong", (Event(0, "c1", 2, 4, 4, 0.1), Event(1, "c2", 0, 15, 1, 1 / 3))),
    Mixture("a", 16, "frame", (Event(-1, "c3", 0, 0, 16, 1.0), Event(0, None, 0, 0, 16, 1.0))),
    Mixture("ü", 40, "clip", ()),
]


def table(folder, mixtures=MIXTURES, classes=CLASSES):
    write_table(folder, mixtures, fs=FS, classes=classes, n_fft=8, hop=4, seed=1)
    return MixtureTable(folder)


def make_bank(top):
    """Nine clips c0 to c8, n-th of class n % 3 and 0.6 + n / 10 s, with made-up levels."""
    waves = {f"c{n}": (noise(600 + 100 * n, n, 0.5), (NAMES[n % 3],)) for n in range(9)}
    labels = [Label(i, n, n) for i, n in enumerate(NAMES)]
    bank = bank_of(top / "data", waves, labels, FS, dump=top / "bank", limits=Limits(min_seconds=0.1))
    levels = np.linspace(-30, -20, 9)  # at 1 kHz the loudness curve has no meaning
    np.save(bank.path / "loudness.npy", levels)
    about = {"version": 1, "bank": bank_digest(bank), "clips": 9}
    (bank.path / "loudness.json").write_text(json.dumps(about))
    return bank
