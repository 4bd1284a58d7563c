"""Builds a tiny rendered folder of class mixtures with the outputs of made-up models."""

import json

import numpy as np

from espnet2_ext.audio.read import FlacArkWriter
from espnet2_ext.core.mixing.events import Event, Mixture, clip_activity, frame_activity
from espnet2_ext.data.mixtures.event_table import write_table
from espnet2_ext.data.outputs import Activity, write_activity

FS, NUM, HOP, N_FFT, POOL = 16000, 12800, 128, 512, 4
CLASSES = ["bell", "dog_bark", "wind"]
# classes of each mixture; the last one holds one class alone
ACTIVE = [(0, 1), (0, 1, 2), (1, 2), (0, 2), (0, 1), (1, 2), (2,)]
KEYS = [f"m{n}" for n in range(len(ACTIVE))]


def make_sources(rest: bool = False) -> dict[str, np.ndarray]:
    """key -> [K + 1, T] sources; the last one is the unlabelled sound."""
    t = np.arange(NUM) / FS
    found = {}
    for n, (key, active) in enumerate(zip(KEYS, ACTIVE)):
        rng = np.random.default_rng(n)
        sounds = [
            np.sin(2 * np.pi * (300 + 40 * n) * t),
            np.sign(np.sin(2 * np.pi * 90 * t)),
            rng.standard_normal(NUM),
            rng.standard_normal(NUM),
        ]
        x = 0.05 * np.stack(sounds).astype(np.float32)
        x[[k not in active for k in range(3)] + [not rest]] = 0
        x[0, : NUM // 2] = 0  # the bell sounds in the second half
        found[key] = x
    return found


def write_data(path, sources: dict, known: str = "strong") -> None:
    names = ["wav", "spk1", "spk2", "spk3"]
    rest = any(x[3].any() for x in sources.values())
    for s, name in enumerate([*names, *(["rest"] if rest else [])], -1):
        with FlacArkWriter(path, name, FS, 24) as ark:
            for key, x in sources.items():
                ark.write(key, x.sum(0) if s < 0 else x[s])
    write_table(
        path / "mixtures",
        mixtures(known),
        fs=FS,
        classes=CLASSES,
        n_fft=N_FFT,
        hop=HOP,
        seed=3,
        settings={"mean_events": 2.0},
        bank_hash="aa" * 16,
    )
    (path / "list.json").write_text(json.dumps({"mixtures": len(sources)}))


def mixtures(known: str = "strong") -> list[Mixture]:
    found = []
    for key, active in zip(KEYS, ACTIVE):
        starts = {k: NUM // 2 if k == 0 else 0 for k in active}
        events = [Event(k, f"c{k}", 0, at, NUM - at, 1.0) for k, at in starts.items()]
        found.append(Mixture(key, NUM, known, tuple(events)))
    return found


def write_outputs(path, sources: dict, leak: float, residual: bool = False, wrong: int = 0) -> None:
    """Estimates: reference plus `leak` times the rest; where a class is silent, leak * mixture.

    wrong: mixtures (the first ones) in which the classifier hears everything everywhere.
    """
    outputs = [*CLASSES, *(["rest"] if residual else [])]
    for s in range(len(outputs)):
        with FlacArkWriter(path, f"spk{s + 1}", FS, 24) as ark:
            for key, x in sources.items():
                ark.write(key, x[s] + leak * (x.sum(0) - x[s]))
    frames, clips = [], []
    for n, mixture in enumerate(mixtures()):
        frame = frame_activity(mixture, 3, N_FFT, HOP)
        frame = np.pad(frame, ((0, -len(frame) % POOL), (0, 0))).reshape(-1, POOL, 3).max(1)
        clip = clip_activity(mixture, 3)
        frame, clip = (np.where(x > 0, 0.9, 0.9 if n < wrong else 0.2) for x in (frame, clip))
        frames.append(frame.astype(np.float32))
        clips.append(clip.astype(np.float32))
    sizes = {"fs": FS, "hop": HOP, "n_fft": N_FFT, "time_pool": POOL}
    indptr = np.cumsum([0, *map(len, frames)])
    arrays = {"frame": np.concatenate(frames), "indptr": indptr, "clip": np.stack(clips)}
    write_activity(path / "activity.npz", Activity(np.array(KEYS), classes=np.array(CLASSES), **arrays, **sizes))
    (path / "about.json").write_text(json.dumps({"outputs": outputs, **sizes, "clipped": 0}))
