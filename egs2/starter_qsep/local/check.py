"""The model on a fixed list of sounds that are made here: `python local/check.py MODEL.zip`.

Prints the line of the bundle's facts that tests/recipe/test_model_in_the_package.py compares with. With `--sounds
FOLDER` it writes what the README links to: for each mixture of EXAMPLES the mixture, the query and the outcome.
"""

import argparse
from pathlib import Path

import numpy as np
import soundfile
import torch

from espnet2_ext.core.metrics import sdr_gain
from espnet2_ext.data.synth.procedural import make_sound
from espnet2_ext.infer.query_separator import Separator

PAIRS = (("bell", "rainfall"), ("birds", "engine"), ("siren", "crackle"), ("ticking", "wind"))
PAIRS += (("whistling", "stream"), ("footsteps", "hum"), ("animal", "hiss"), ("alarm", "thunder"))
EXAMPLES = (1, 3, 4)  # of PAIRS; the first sound of each is asked for
SECONDS = 4.0


def sound(name: str, *place: int) -> np.ndarray:
    x = make_sound(name, SECONDS, np.random.default_rng([2026, *place])).astype(np.float32)
    return 0.1 * x / np.sqrt(np.mean(np.square(x, dtype=np.float64)))


def mixtures(separator: Separator):
    """For each of PAIRS: mixture `[T]`, and queries, estimates and references, two of `[T]` each."""
    for i, names in enumerate(PAIRS):
        refs = [sound(name, i, k, 0) for k, name in enumerate(names)]
        queries = [sound(name, i, k, 1) for k, name in enumerate(names)]  # another draw of the kind
        mix = refs[0] + refs[1]
        vectors = np.stack([separator.embed_one(query, separator.fs) for query in queries])
        yield mix, queries, separator.separate(mix, separator.fs, vectors), refs


def gains(separator: Separator) -> np.ndarray:
    """SDR gain in dB of both targets of each mixture."""
    found = []
    for mix, _, estimates, refs in mixtures(separator):
        est, ref, both = (torch.from_numpy(np.stack(x)) for x in (estimates, refs, [mix, mix]))
        found += sdr_gain(est=est, ref=ref, mix=both).tolist()
    return np.array(found)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("bundle")
    p.add_argument("--sounds", type=Path, help="folder for the examples, as MP3")
    a = p.parse_args()
    separator = Separator.from_bundle(a.bundle)
    found = gains(separator)
    print(f"check: {{targets: {len(found)}, sdr_gain: {found.mean():.2f}}}")
    if a.sounds:
        for i, (mix, queries, estimates, _) in enumerate(mixtures(separator)):
            if i in EXAMPLES:
                stem = "_over_".join(PAIRS[i])
                for what, x in (("mixture", mix), ("query", queries[0]), ("estimate", estimates[0])):
                    loud = 0.7 * x / np.abs(mix if what == "estimate" else x).max()
                    soundfile.write(a.sounds / f"{stem}_{what}.mp3", loud, separator.fs)
                print(f"# {stem}: gain {found[2 * i]:.1f} dB")


if __name__ == "__main__":
    main()
