"""What is made once: records, keys, and folders held by one process."""

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from espnet2_ext.errors import DataError
from espnet2_ext.util.documents import read_json
from espnet2_ext.util.files import digest, file_digest, made, make_once, read_record, verified, write_record


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
    assert read_record(record) == {"version": 2, "shape": [2, 3], "path": "x", "clips": 3}


def test_a_record_that_cannot_be_read_is_none(tmp_path):
    record = tmp_path / "a.json"
    for text in ("", "[1]", "{"):
        record.write_text(text)
        assert read_record(record) == {} and made(record, {"version": 1}) is None
    assert made(record, {}) is None  # nothing is known of it
    write_record(record, {"version": None})
    assert made(record, {"version": None}) and made(record, {"other": None}) is None


@pytest.fixture
def result(tmp_path):
    for name in ("a.tsv", "in/b.npy", "c.ark"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"what {name} holds")
    write_record(
        tmp_path / "r.json", {"version": 1}, {"n": 0.5}, [tmp_path / n for n in ("a.tsv", "in/b.npy", "c.ark")]
    )
    return tmp_path


@pytest.mark.parametrize("name", ["a.tsv", "in/b.npy", "r.json"])
def test_any_flipped_bit_is_noticed(result, name):
    record, path = result / "r.json", result / name
    whole, ignored = path.read_bytes(), 0
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            verified(result / "in/b.npy" if name == "r.json" else path, record)
            assert name == "r.json" and read_record(record).items() >= {"version": 1, "n": 0.5}.items()
            ignored += 1
        except DataError as e:
            assert f"{path}: changed since it was made" in str(e)
            assert made(record, {"version": 1}) is None
    assert ignored <= 8 * len('"checksums": "":')  # without those names a record is one without checksums
    path.write_bytes(whole)
    assert made(record, {"version": 1}) == {"version": 1, "n": 0.5} == read_json(record)


def test_what_is_known_of_a_file(result, caplog):
    record = result / "r.json"
    assert verified(result / "other", record) == result / "other"  # made by somebody else
    assert verified(result / "a.tsv", result / "none.json") == result / "a.tsv"
    record.write_text('{"version": 1, "n": 0.5}')  # of an earlier version
    (result / "a.tsv").write_text("anything")
    assert verified(result / "a.tsv", record) and made(record, {"version": 1}) == {"version": 1, "n": 0.5}


@pytest.mark.parametrize("name, words", [("a.tsv", "removed since"), ("c.ark", "removed since"), ("c.ark", "changed")])
def test_a_result_whose_files_changed_is_made_again(result, name, words, caplog):
    if words == "changed":
        (result / name).write_text("cut")
    else:
        (result / name).unlink()
    assert made(result / "r.json", {"version": 1}) is None and f"{result / name}: {words}" in caplog.text


def test_a_file_is_read_once_for_its_checksum(result, monkeypatch):
    past = time.time() - 60
    os.utime(result / "a.tsv", (past, past))
    reads = []
    monkeypatch.setattr("builtins.open", lambda *a, real=open, **k: reads.append(a[0]) or real(*a, **k))
    for _ in range(3):
        verified(result / "a.tsv", result / "r.json")
    assert [os.fspath(r) for r in reads].count(str(result / "a.tsv")) == 1
    (result / "a.tsv").write_text("what a.tsv holdz")
    with pytest.raises(DataError, match="a.tsv: changed"):
        verified(result / "a.tsv", result / "r.json")


def test_digests_rest_on_plain_values_alone(tmp_path):
    assert digest(1, {"b": Path("x"), "a": np.arange(2)}) == digest(1, {"a": [0, 1], "b": "x"})
    assert digest(Limits()) == digest({"low": 0.5}) != digest({"low": 0.25})
    with pytest.raises(TypeError, match="not of object"):
        digest(object())
    (tmp_path / "a").write_bytes(b"")
    assert file_digest(tmp_path / "a") == "cae66941d9efbd404e4d88758ea67670"  # blake2b-128 of nothing


def test_a_pipe_is_not_waited_for(tmp_path, result, caplog):
    (result / "a.tsv").unlink()
    os.mkfifo(result / "a.tsv")
    assert made(result / "r.json", {"version": 1}) is None and f"{result / 'a.tsv'}: changed" in caplog.text
    os.mkfifo(tmp_path / "pipe")
    assert read_record(tmp_path / "pipe") == {}
    with pytest.raises(DataError, match="pipe: is not a regular file"):
        file_digest(tmp_path / "pipe")
