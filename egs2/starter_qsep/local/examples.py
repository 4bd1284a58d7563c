"""Mixture, query, target and estimate of three pairs of sounds made by formula, as MP3: what README links to.

python local/examples.py ../../docs/sounds
"""

import sys
from pathlib import Path

import numpy as np
import soundfile

from espnet2_ext.core.metrics import sdr_gain
from espnet2_ext.data.synth.procedural import make_sound
from espnet2_ext.infer.query_separator import Separator

PAIRS = {"bell": "rainfall", "birds": "engine", "siren": "wind"}  # what is asked for, and what it is mixed with
SECONDS = 5.0


def sound(name: str, number: int) -> np.ndarray:
    """float32 [T] at 32 kHz, -20 dBFS."""
    x = make_sound(name, SECONDS, np.random.default_rng([7, number, *name.encode()]))
    return np.float32(0.1 / np.sqrt(np.mean(np.square(x, dtype=np.float64)))) * x


def main() -> None:
    out, separator = Path(sys.argv[1]), Separator.from_bundle()
    for name, other in PAIRS.items():
        target, query = sound(name, 0), sound(name, 1)
        mix = target + sound(other, 0)
        estimate = separator.separate(mix, separator.fs, separator.embed_one(query, separator.fs)[None])[0]
        gain = float(sdr_gain(est=estimate, ref=target, mix=mix))
        print(f"{name} with {other}: {gain:.1f} dB")
        for what, x in {"mixture": mix, "query": query, "target": target, "estimate": estimate}.items():
            x = x / max(1.0, np.abs(x).max() / 0.97)
            soundfile.write(out / f"{name}_{what}.mp3", x, separator.fs, format="MP3")


if __name__ == "__main__":
    main()
