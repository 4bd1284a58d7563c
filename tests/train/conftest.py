import numpy as np
import pytest
from sounds import bank_of, numbered

from espnet2_ext.data.bank.bank import ClipBank


@pytest.fixture(scope="session")
def bank(tmp_path_factory) -> ClipBank:
    """Five clips of each of four classes, noise of 0.6 to 1.2 s."""
    rng, waves = np.random.default_rng(0), {}
    for i in range(20):
        waves[f"clip{i:02d}"] = rng.uniform(-0.3, 0.3, int(8000 * rng.uniform(0.6, 1.2))), (f"/m/{i % 4}",)
    return bank_of(tmp_path_factory.mktemp("bank"), waves, numbered(4))
