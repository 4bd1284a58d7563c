import numpy as np
import pytest
import soundfile

from espnet2_ext.data.bank.archive import Settings, archive
from espnet2_ext.data.bank.bank import ClipBank
from espnet2_ext.data.bank.scan import scan
from espnet2_ext.data.tables import Clip, Label, write_clips, write_labels

FS = 8000


@pytest.fixture(scope="session")
def bank(tmp_path_factory) -> ClipBank:
    """Five clips of each of four classes, noise of 0.6 to 1.2 s."""
    root, rng, clips = tmp_path_factory.mktemp("bank"), np.random.default_rng(0), []
    for i in range(20):
        x = rng.uniform(-0.3, 0.3, int(FS * rng.uniform(0.6, 1.2)))
        soundfile.write(root / f"{i}.wav", x, FS)
        clips.append(Clip(f"clip{i:02d}", (f"/m/{i % 4}",), str(root / f"{i}.wav")))
    write_labels(root / "labels.tsv", [Label(k, f"/m/{k}", f"Class {k}") for k in range(4)])
    write_clips(root / "set" / "clips.tsv", clips)
    scan(root / "set", num_workers=0)
    archive(root / "set", root / "dump", settings=Settings(fs=FS), num_workers=0)
    return ClipBank(root / "dump")
