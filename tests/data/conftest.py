"""A folder with recordings of one's own, and tables of them are in `own_tables`."""

from pathlib import Path

import pytest
from sounds import noise, write


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
