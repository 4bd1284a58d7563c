"""`activity.npz`: what a model's classifier hears in the recordings of a folder.

Arrays: keys `[N]`; classes `[K]`; clip `[N, K]`, the probability that a class is heard anywhere;
frame `[sum of L', K]`, the frames of all recordings one after another, and indptr `[N + 1]`, where
each begins; time_pool, n_fft, hop and fs: frame l stands for `time_pool` frames of the STFT, from
frame l * time_pool on; these have `n_fft` samples at `fs` Hz and lie `hop` samples apart, the first
centred on sample 0.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from espnet2_ext.util.files import atomic_path


def save_activity(path: Path, keys: Sequence[str], heard: Sequence, told: dict) -> None:
    """Write one part: `heard` holds an `Activity` (or None, without a classifier) for each key.

    `told` is what else is to be known of the part; it goes along as JSON.
    """
    arrays = {"told": np.array(json.dumps(told))}
    if heard and heard[0] is not None:
        arrays |= {
            "keys": np.array(keys),
            "clip": np.stack([h.clip for h in heard]),
            "frame": np.concatenate([h.frame for h in heard]),
            "lengths": np.array([len(h.frame) for h in heard]),
        }
    with open(path, "wb") as f:
        np.savez(f, **arrays)


def join_activity(parts: Sequence[Path], path: Path) -> dict:
    """Join parts into `path`, where they hold activity; returns what they told, summed up."""
    loaded = []
    for part in parts:
        with np.load(part) as z:
            loaded.append(dict(z))
    tolds = [json.loads(str(part.pop("told"))) for part in loaded]
    told = tolds[0] | {"clipped": sum(t["clipped"] for t in tolds), "archives": {}}
    for one in tolds:
        told["archives"] |= one["archives"]
    if "keys" in loaded[0]:
        arrays = {name: np.concatenate([part[name] for part in loaded]) for name in loaded[0]}
        arrays["indptr"] = np.concatenate([[0], np.cumsum(arrays.pop("lengths"))])
        arrays["classes"] = np.array(told["outputs"][: arrays["clip"].shape[1]])
        about = {name: np.int64(told[name]) for name in ("time_pool", "n_fft", "hop", "fs")}
        with atomic_path(path) as tmp, open(tmp, "wb") as f:
            np.savez(f, **arrays, **about)
    return told
