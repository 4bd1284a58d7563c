"""Builds a tiny rendered data folder with the outputs of a made-up model."""

import json

import numpy as np
import pytest

from espnet2_ext.audio.read import FlacArkWriter
from espnet2_ext.data.tables import Label, write_labels

FS = 16000
NUM = 16000
LABELS = [Label(0, "/m/a", "Bell"), Label(1, "/m/b", "Wind"), Label(2, "/m/c", "Never | heard")]


@pytest.fixture
def scored(tmp_path):
    """Data folder, inference folder and signals of 3 pairs, one target silent; not scored yet."""
    signals = make_signals(3, silent=("p2-1",))
    write_data(tmp_path / "dump/test", signals)
    inference = tmp_path / "exp/model/inference_test"
    write_outputs(inference, signals)
    return tmp_path / "dump/test", inference, signals


def tone(rng, mid):
    """One second of a class: harmonics for the first, noise for the second."""
    t = np.arange(NUM) / FS
    if mid == "/m/a":
        f = rng.uniform(200, 600)
        x = sum(np.sin(2 * np.pi * f * k * t) / k for k in (1, 2, 3)) * np.exp(-2 * t)
    else:
        x = np.convolve(rng.standard_normal(NUM + 31), np.hanning(32), "valid") / 3
    return (0.2 * x / np.abs(x).max()).astype(np.float32)


def make_signals(pairs, seed=0, silent=()):
    """key -> the signals of a key; `silent`: keys whose target is silence."""
    rng = np.random.default_rng(seed)
    signals = {}
    for n in range(pairs):
        target = {"1": tone(rng, "/m/a"), "2": tone(rng, "/m/b")}
        for side in target:
            if f"p{n}-{side}" in silent:
                target[side] = np.zeros(NUM, np.float32)
        for side, mid in (("1", "/m/a"), ("2", "/m/b")):
            absent = "/m/b" if mid == "/m/a" else "/m/a"
            signals[f"p{n}-{side}"] = {
                "class": mid,
                "wav": target["1"] + target["2"],
                "spk1": target[side],
                "absent": tone(rng, absent),
                "enroll_self": target[side],
                "enroll_other": tone(rng, mid),
                "other": target["2" if side == "1" else "1"],
            }
    return signals


def write_data(path, signals):
    path.mkdir(parents=True)
    for name in ("wav", "spk1", "absent", "enroll_self", "enroll_other"):
        with FlacArkWriter(path, name, FS) as writer:
            for key, s in signals.items():
                writer.write(key, s[name])
    write_labels(path / "labels.tsv", LABELS)
    for name in ("utt2class", "utt2labels"):
        lines = (f"{key} {s['class']}\n" for key, s in signals.items())
        (path / name).write_text("".join(lines))
    info = {
        "pairs": len(signals) // 2,
        "keys": len(signals),
        "fs": FS,
        "seed": 7,
        "bank": "bank",
        "manifest_hash": "aa" * 16,
        "list_hash": "bb" * 16,
    }
    (path / "list.json").write_text(json.dumps(info))


def write_outputs(path, signals, leak=None):
    """Estimates that keep the share `leak` of the other sound (by class), for both protocols."""
    leak = {"/m/a": 0.1, "/m/b": 0.3} if leak is None else leak
    for protocol, worse in (("self", 1.0), ("other", 2.0)):
        for name in ("mixture", "clean", "silence"):
            with FlacArkWriter(path / protocol / name, "spk1", FS) as writer:
                for key, s in signals.items():
                    share = worse * leak[s["class"]]
                    est = {
                        "mixture": s["spk1"] + share * s["other"],
                        "clean": s["spk1"] * np.float32(1 - 1e-3),
                        "silence": share * s["absent"],
                    }
                    writer.write(key, est[name])
        classes = {label.mid: label.index for label in LABELS}
        clipwise = np.full((len(signals), 3), 0.1)
        for row, s in enumerate(signals.values()):
            clipwise[row, classes[s["class"]]] = 0.9
        np.savez(path / protocol / "tags.npz", keys=np.array(list(signals)), clipwise=clipwise)
