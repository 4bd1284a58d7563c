"""A folder with recordings of one's own, and tables of them are in `own_tables`."""

from pathlib import Path

import pytest
from own_tables import FRAMES, GOOD, table
from sounds import noise, write

from espnet2_ext.data.bank.archive import archive, scan
from espnet2_ext.data.bank.shards import Settings
from espnet2_ext.data.corpora.own_recordings import prepare_own_sounds


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to write tables in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    top = tmp_path_factory.mktemp("recorded")
    return [write(top / f"r{n}.wav", noise(25600, n)) for n in range(11)]


@pytest.fixture
def recordings(here, recorded):
    """The same folder with eleven recordings of 1.6 s."""
    for path in map(Path, recorded):
        (here / path.name).symlink_to(path)
    return here


@pytest.fixture
def banked(recordings):
    """Lists and bank of recordings with clip and with frame labels."""
    frames = FRAMES + "r8.wav,,,,train\nr9.wav,0.2,1.605,cat,valid\nr10.wav,0,1,dog,test\n"
    tables = [table(GOOD), table(frames, "events.csv")]
    prepare_own_sounds(tables, "data", allow_unlabelled=True)
    scan("data/train", num_workers=1)
    archive("data/train", "dump/train", settings=Settings(fs=16000), num_workers=1)
    return recordings
