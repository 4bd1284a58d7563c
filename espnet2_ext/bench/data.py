"""How fast a clip bank gives crops and rendered pairs, against what training needs."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from espnet2_ext.core.mixing.pair_drawer import PairDrawer
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.train.qsep_data import QSepPreprocessor

CROP = 2.0  # seconds
NEED_HEADER = ["training of", "pairs/s needed", "pairs/s a core", "cores needed"]


def bench_data(path: str | Path, seconds: float = 3.0) -> dict:
    """Random 2 s crops, and training pairs as the loader's workers make them, on one core.

    Args:
        path: a clip bank.
        seconds: of CPU time for each of the two.

    Returns:
        `clips`, `pairs`: how many in a second of CPU time (`a_core`) and of wall time (`wall`).
    """
    bank = ClipBank(path)
    num, rng = round(CROP * bank.fs), np.random.default_rng(0)

    def crop() -> None:
        i = int(rng.integers(len(bank)))
        bank.read(i, int(rng.integers(max(1, bank.num_samples(i) - num + 1))), num)

    drawer, preprocess = PairDrawer(bank, segment=CROP), QSepPreprocessor(True, bank)

    def pair() -> None:
        preprocess("pair", {"pair": drawer.draw(rng)})

    return {
        "bank": str(path),
        "format": bank.info["format"],
        "bank_clips": len(bank),
        "clips": rate(crop, seconds),
        "pairs": rate(pair, seconds),
    }


def rate(call: Callable, seconds: float) -> dict[str, float]:
    """Calls in a second of CPU time (`a_core`) and of wall time (`wall`), over so many seconds."""
    for _ in range(5):
        call()
    count, wall, cpu = 0, time.perf_counter(), time.process_time()
    while count < 5 or time.process_time() - cpu < seconds:
        call()
        count += 1
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"a_core": count / cpu, "wall": count / wall}


def need(data: dict, rows: list[dict], train_batch: int, steps: float | None) -> list[list]:
    """For each model: mixtures that its training takes in a second, and the cores that make them.

    Args:
        rows: of `bench_model`.
        train_batch: mixtures in a measured training step.
        steps: steps a second, of the YAML's own batch size; None: from the measured step.
    """
    table = []
    for row in rows:
        if steps is not None:
            pairs = steps * row["batch_size"]
        elif "train" in row:
            pairs = train_batch / row["train"]["s"]
        else:
            continue
        table.append(
            [f"{row['model']} {row['variant']}", pairs, data["pairs"]["a_core"], pairs / data["pairs"]["a_core"]]
        )
    return table
