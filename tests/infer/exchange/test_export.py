"""ONNX graphs against PyTorch, and the script that runs them with numpy and onnxruntime alone."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from standin import noise

from espnet2_ext.build import build_model
from espnet2_ext.core.layers.padding import hide_padding, on_device
from espnet2_ext.errors import DataError
from espnet2_ext.infer.exchange.export import OPSET, QUERY, SEPARATOR, export, parity
from espnet2_ext.infer.queries import trim_silence
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.util.config import read_config
from espnet2_ext.util.names import shipped

SCRIPT = Path(__file__).parents[3] / "tools/separate_onnx.py"
SMALL = {"depths": [2], "heads": [2], "connector_depth": 1, "window": 4, "query_norm": True, "query_profile": True}
FS, GRID = 32000, 32  # frames


def build(name, **conf):
    config = read_config(shipped("conf") / f"debug/train_qsep_{name}.yaml")
    config["extractor_conf"] |= conf
    torch.manual_seed(0)
    model = build_model(config, "qsep")
    for p in model.parameters():
        if not p.any():  # what begins with adding nothing
            torch.nn.init.normal_(p, std=0.1)
    return Separator(model, device="cpu")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A small untrained model with all that CaRE-SEP can be given, and the folder of its graphs."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    more = {"query_at": "decoder", "query_context": 6, "mask_reach": 0.1, "mask_hidden": 6}
    separator, folder = build("care_sep", **SMALL, **more), tmp_path_factory.mktemp("onnx")
    export(separator, folder)
    return separator, folder


def test_parity_for_several_lengths(exported):
    """One frame, an odd number, one grid, a frame more, and several grids: what is padded changes nothing."""
    separator, folder = exported
    for frames in (2, 13, GRID, GRID + 1, 3 * GRID - 5):
        assert parity(separator, folder, frames).difference < 1e-5, frames


@pytest.mark.parametrize(
    "name, conf",
    [("care_sep", {"query_at": "decoder"}), ("care_sep", {"query_at": "all"}), ("care_components", {"mel_bands": 64})],
)
def test_several_queries_in_a_run(exported, tmp_path, name, conf):
    """Parity, and the script's files are those of our own separator, in the order of the queries."""
    separator = build(name, **SMALL, **conf)
    export(separator, tmp_path, queries=2)
    assert parity(separator, tmp_path, GRID + 1).difference < 1e-5
    for name in ("mix", "q1", "q2"):
        soundfile.write(tmp_path / f"{name}.wav", noise(1.0, FS, 1, seed=len(name) + ord(name[-1])), FS)
    command = [sys.executable, SCRIPT, ".", "mix.wav", "q1.wav", "o1.wav", "q2.wav", "o2.wav"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    mix, q1, q2, *found = (
        soundfile.read(tmp_path / f"{n}.wav", dtype="float32")[0] for n in ("mix", "q1", "q2", "o1", "o2")
    )
    asked = np.concatenate([separator.embed_batch(q[None])[0] for q in (q1, q2)])
    want = separator.separate(mix, FS, asked, separator.plan(chunk=0))
    np.testing.assert_allclose(np.stack(found), want, atol=3e-5)


def test_what_the_files_say(exported):
    separator, folder = exported
    import onnx

    assert sorted(p.name for p in folder.iterdir()) == [QUERY, SEPARATOR]
    for name in (QUERY, SEPARATOR):
        model = onnx.load(folder / name)
        onnx.checker.check_model(model)
        assert {o.domain: o.version for o in model.opset_import}[""] == OPSET
        about = {entry.key: entry.value for entry in model.metadata_props}
        assert (about["fs"], about["hop"], about["grid_frames"]) == (str(FS), str(separator.hop), str(GRID))


def test_the_script_needs_numpy_and_onnxruntime_alone(exported, tmp_path):
    """Stereo, of a length on no grid, silence around the query: our own separator's file, to the last bits of 16."""
    separator, folder = exported
    assert len(SCRIPT.read_text().splitlines()) < 70
    imported = [n for n in ast.walk(ast.parse(SCRIPT.read_text())) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imported for alias in node.names}
    assert names - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}
    for name, channels in (("mix", 2), ("query", 1)):
        sound = noise(1.777, FS, channels, seed=channels)
        if name == "query":
            sound[: FS // 2] = sound[-FS // 3 :] = 0
        soundfile.write(tmp_path / f"{name}.wav", sound, FS, subtype="PCM_16")
    command = [sys.executable, SCRIPT, folder, "mix.wav", "query.wav", "out.wav"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (mix, _), (query, _), (found, fs) = (
        soundfile.read(tmp_path / f"{n}.wav", dtype="float32") for n in ("mix", "query", "out")
    )
    want = separator.separate(
        mix, FS, separator.embed_batch(trim_silence(query, FS)[None])[0], separator.plan(chunk=0)
    )[0]
    assert fs == FS and found.shape == want.shape and np.abs(want).max() > 0.01
    np.testing.assert_allclose(found, want, atol=3e-5)
    for sound, rate, why in (
        (query, 16000, "must be a WAV of 16 bits at 32000 Hz"),
        (0 * query, FS, "is silent, so it cannot serve as a query"),
    ):
        soundfile.write(tmp_path / "query.wav", sound, rate)
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 1 and done.stderr == f"error: query.wav: {why}\n"


def test_what_is_not_exported_is_said(tmp_path):
    with pytest.raises(
        DataError, match="only CaRE-SEP, whose network embeds the queries.*this is QueryUNet with HTSAT"
    ):
        export(build("query_unet"), tmp_path)
    with pytest.raises(DataError, match="has complex masks; only magnitude masks are exported"):
        export(build("care_sep", mask_type="complex"), tmp_path)
    with pytest.raises(DataError, match="0 queries"):
        export(build("care_sep"), tmp_path, queries=0)
    assert not list(tmp_path.iterdir())


def test_lengths_that_are_traced():
    """As tensors they hide what they hide as numbers."""
    x = torch.arange(12.0).reshape(2, 6) + 1
    lengths = torch.tensor([4, 6])
    assert hide_padding(x, lengths.unbind()).tolist() == hide_padding(x, (4, 6)).tolist()
    assert on_device(lengths.unbind(), torch.device("cpu")).tolist() == [4, 6]
