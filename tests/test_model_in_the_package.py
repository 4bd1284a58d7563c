"""The model in the package, on a fixed list of sounds that are made here."""

import numpy as np
import pytest

from espnet2_ext.core.metrics import sdr_gain
from espnet2_ext.data.synth.procedural import make_sound
from espnet2_ext.infer.bundle import open_bundle
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.util.names import MODELS

PAIRS = (("bell", "rainfall"), ("birds", "engine"), ("siren", "crackle"), ("ticking", "wind"))
PAIRS += (("whistling", "stream"), ("footsteps", "hum"), ("animal", "hiss"), ("alarm", "thunder"))
SECONDS = 4.0


def sound(name, *place):
    x = make_sound(name, SECONDS, np.random.default_rng([2026, *place])).astype(np.float32)
    return 0.1 * x / np.sqrt(np.mean(np.square(x, dtype=np.float64)))


def gains(separator):
    """SDR gain in dB of both targets of each mixture, asked for with another draw of their kind."""
    found = []
    for i, names in enumerate(PAIRS):
        refs = [sound(name, i, k, 0) for k, name in enumerate(names)]
        mix = refs[0] + refs[1]
        query = np.stack([separator.embed_one(sound(name, i, k, 1), separator.fs) for k, name in enumerate(names)])
        for est, ref in zip(separator.separate(mix, separator.fs, query), refs):
            found.append(float(sdr_gain(est=est[None], ref=ref[None], mix=mix[None])))
    return np.array(found)


@pytest.mark.skipif(not (MODELS / "starter.zip").is_file(), reason="this version of the package carries no model")
def test_it_does_what_its_card_says():
    with open_bundle("starter") as bundle:
        known = bundle.info["check"]
    found = gains(Separator.from_bundle())
    assert len(found) == known["targets"] == 2 * len(PAIRS)
    assert found.mean() == pytest.approx(known["sdr_gain"], abs=0.05)
