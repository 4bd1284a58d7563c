"""A separator that is called, and one that is iterated over."""

import gc
import itertools
import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
from standin import noise

from espnet2_ext.build import build_model
from espnet2_ext.data.tables import Label
from espnet2_ext.errors import DataError
from espnet2_ext.infer.queries import save_query
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.infer.vectors.class_queries import measured
from espnet2_ext.util.config import read_config

FS = 16000
ROOT = Path(__file__).parents[3]


@pytest.fixture
def files(wav):
    return {name: wav(f"{name}.wav", noise(2.0, FS, seed=n)) for n, name in enumerate(("mix", "dog", "rain"))}


@pytest.mark.parametrize("shape", [(40000,), (40000, 1), (40000, 2)])
def test_target_and_residual_add_up(separator, shape):
    mix = noise(2.5, FS, 2)[:, : shape[1] if len(shape) > 1 else 1].reshape(shape)
    dog = noise(1, FS, seed=1)[:, 0]
    found = separator(mix, FS, query=dog)
    assert found.target.shape == found.residual.shape == shape and found.fs == FS
    assert found.presence is None and (found.start, found.progress) == (0, 1.0)
    assert (found.target.dtype, found.residual.dtype) == (np.float32, np.float32)
    query = separator.embed_one(dog, FS)[None]
    np.testing.assert_allclose(found.target, separator.separate(mix, FS, query)[0], atol=1e-7)
    np.testing.assert_allclose(found.target + found.residual, mix, atol=1e-7)
    assert np.abs(found.target).max() > 1e-3 < np.abs(found.residual).max()


def test_every_kind_of_query_is_the_command_lines(separator, files, tmp_path, monkeypatch):
    """A file, a span, an array, a folder, a saved vector, a class: as `embed_queries`, which commands use."""
    vectors = [separator.embed_one(files[name]) for name in ("dog", "rain")]
    separator.known = measured([(name, v + d) for name, v in zip(("dog", "rain"), vectors) for d in (-0.01, 0.01)])
    save_query(tmp_path / "q.npy", vectors[0], separator.model_hash)
    (tmp_path / "dogs").mkdir()
    (tmp_path / "dogs/a.wav").write_bytes(files["dog"].read_bytes())
    x = soundfile.read(files["dog"], dtype="float32")[0]
    want = separator(files["mix"], query=files["dog"]).target
    queries = (
        str(files["dog"]),
        f"{files['dog']}@0-2",
        tmp_path / "q.npy",
        tmp_path / "dogs",
        "class:DOG",
        [files["dog"]],
    )
    for query in queries:
        np.testing.assert_allclose(separator(files["mix"], query=query).target, want, atol=1e-6)
    np.testing.assert_allclose(separator(files["mix"], query=x, query_fs=FS).target, want, atol=1e-6)
    mix, fs = soundfile.read(files["mix"], dtype="float32")
    np.testing.assert_array_equal(separator(mix, fs, query=x).target, want)
    assert separator(mix, fs, query=separator.ask(x, fs=FS)).target.tolist() == want.tolist()


def test_modes_and_what_is_kept_out(separator, files):
    mix, names = files["mix"], [files["dog"], files["rain"]]
    each = separator(mix, query=names, mode="each")
    assert each.target.shape == (2, 32000) and each.residual.shape == (32000,)
    for one, name in zip(each.target, names):
        np.testing.assert_allclose(one, separator(mix, query=name).target, atol=1e-6)
    np.testing.assert_allclose(each.target.sum(0) + each.residual, soundfile.read(mix)[0], atol=1e-6)
    assert separator(mix, query=names[:1], mode="each").target.shape == (1, 32000)
    assert separator(mix, query=names, mode="nearest").target.shape == (32000,)
    alone, without = separator(mix, query=names[0]), separator(mix, query=names[0], against=names[1])
    assert np.abs(without.target).sum() < np.abs(alone.target).sum()


def test_parts_progress_and_cancel(separator, files):
    """What is iterated over is what a call gives; one that is left off runs no further chunk."""
    plan = separator.plan(0.5, 0.1)
    whole = separator(files["mix"], query=files["dog"], plan=plan)
    parts = list(separator.stream(files["mix"], query=files["dog"], plan=plan))
    np.testing.assert_array_equal(np.concatenate([p.target for p in parts]), whole.target)
    np.testing.assert_array_equal(np.concatenate([p.residual for p in parts]), whole.residual)
    starts = [p.start for p in parts]
    assert len(parts) > 2 and starts == list(itertools.accumulate([len(p.target) for p in parts[:-1]], initial=0))
    shares = [p.progress for p in parts]
    assert shares == sorted(shares) and shares[-1] == 1.0
    separator.model.calls.clear()
    for part in separator.stream(files["mix"], query=files["dog"], plan=plan):
        assert 0 < part.progress < 1
        break
    assert len(separator.model.calls) == 1


def test_what_cannot_be_used_is_a_line(separator, files, tmp_path):
    for asked, words in (
        ({"mix": files["mix"], "query": tmp_path / "no.wav"}, "no.wav: no such file"),
        ({"mix": tmp_path / "no.wav", "query": files["dog"]}, "no.wav"),
        ({"mix": np.zeros(100), "query": files["dog"]}, "an array needs its rate"),
        ({"mix": files["mix"], "query": np.ones(8)}, "with its rate fs"),
        ({"mix": files["mix"], "query": []}, "no query given"),
        ({"mix": files["mix"], "query": files["dog"], "mode": "best"}, "mode 'best': is none of mean, each, nearest"),
        ({"mix": files["mix"], "query": f"{files['mix']}@1-9"}, "the recording ends at 2.0 s"),
        ({"mix": files["mix"], "query": "class:dog"}, "holds no queries of classes"),
    ):
        with pytest.raises(DataError, match=words):
            separator(**asked)


def rss() -> int:
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_is_flat_over_200_calls(caplog):
    """A real network, mixtures of many lengths: what is kept from call to call does not grow."""
    caplog.set_level(logging.WARNING)
    config = read_config(ROOT / "conf/debug/train_qsep_care_sep.yaml")
    separator = Separator(build_model(config, "qsep"), [Label(k, f"/m/{k}", f"c{k}") for k in range(24)], "cpu")
    mix, dog = noise(0.4, 32000)[:, 0], noise(0.3, 32000, seed=1)[:, 0]
    sizes = []
    for n in range(200):
        separator(mix[: 6400 + 32 * (n % 50)], 32000, query=dog)
        if n in (99, 199):
            gc.collect()
            sizes.append(rss())
    assert sizes[1] - sizes[0] < 4e6, f"{(sizes[1] - sizes[0]) / 1e6:.1f} MB more"
