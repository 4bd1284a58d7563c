"""What is made once: records, keys, and folders held by one process."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from espnet2_ext.util.files import digest, file_digest, made, make_once, read_record, write_record


@dataclass(frozen=True)
class Limits:
    low: float = 0.5


def test_the_same_key_is_made_once(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    calls, record, file = [], tmp_path / "a/bank.json", tmp_path / "a/index"

    def make():
        assert not record.exists()  # whoever is stopped here starts again
        calls.append(1)
        file.parent.mkdir(exist_ok=True)
        file.touch()
        return {"clips": 3}

    key = {"version": 1, "shape": (2, 3), "path": Path("x")}
    for _ in range(2):
        assert make_once(record, key, make, [file])["clips"] == 3
    assert len(calls) == 1 and f"{record}: up to date, skipped" in caplog.text
    make_once(record, key, make, [file], redo=True)
    file.unlink()
    make_once(record, key, make, [file])
    make_once(record, {**key, "version": 2}, make, [file])
    assert len(calls) == 4
    assert json.loads(record.read_text()) == {"version": 2, "shape": [2, 3], "path": "x", "clips": 3}


def test_a_record_that_cannot_be_read_is_none(tmp_path):
    record = tmp_path / "a.json"
    for text in ("", "[1]", "{"):
        record.write_text(text)
        assert read_record(record) == {} and made(record, {"version": 1}) is None
    assert made(record, {}) is None  # nothing is known of it
    write_record(record, {"version": None})
    assert made(record, {"version": None}) and made(record, {"other": None}) is None


def test_digests_rest_on_plain_values_alone(tmp_path):
    assert digest(1, {"b": Path("x"), "a": np.arange(2)}) == digest(1, {"a": [0, 1], "b": "x"})
    assert digest(Limits()) == digest({"low": 0.5}) != digest({"low": 0.25})
    with pytest.raises(TypeError, match="not of object"):
        digest(object())
    (tmp_path / "a").write_bytes(b"")
    assert file_digest(tmp_path / "a") == "cae66941d9efbd404e4d88758ea67670"  # blake2b-128 of nothing
