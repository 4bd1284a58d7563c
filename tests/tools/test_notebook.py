"""The notebook runs from its first cell to its last, without a network."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs/first_steps.ipynb"


@pytest.fixture(scope="module")
def notebook():
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_stored_without_outputs(notebook):
    assert NOTEBOOK.stat().st_size < 20_000
    for cell in notebook.cells:
        assert not cell.get("outputs") and not cell.get("execution_count"), cell.source


def test_it_runs(notebook, tmp_path, monkeypatch):
    client = pytest.importorskip("nbclient").NotebookClient
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("ESPNET2_EXT_BUNDLE", raising=False)
    client(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    said = "".join(out.get("text", "") for out in outputs)
    heard = [out for out in outputs if "audio" in out.get("data", {}).get("text/html", "")]
    assert len(heard) == 4  # mixture, example, target, residual
    assert "SDR gain" in said and "100%" in said
    sums, file = (float(x) for x in re.findall(r"by (\S+) at most", said))
    assert sums < 1e-6 and file < 1e-5
