import pytest

from espnet2_ext.errors import BundleError, DataError
from espnet2_ext.util import documents

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"a: [1, 2", ":2: is not valid YAML"),
        (b"a: \xe9", r"is not UTF-8 text \(byte 3, line 1\)"),
        ("a: 1".encode("utf-16"), "UTF-16 text"),
        (b"a: 1\nb: \0", "byte of zero, line 2"),
        (b"[" * 150 + b"]" * 150, "nested more than 100 deep"),
        (b"[" * 100_000, "is not valid YAML"),
        (b"&a [*a]", "holds itself"),
        (BOMB.encode(), "aliases stand for more"),
        (b"d: 2001-99-99", "is not valid YAML"),
        (b"!!python/object/apply:os.system [ls]", "is not valid YAML"),
        (b"{[1]: 2, {a: 1}: 3}", "is not valid YAML"),
        (b"n: " + b"9" * 5000, "is not valid YAML"),
    ],
)
def test_yaml_that_is_refused(data, words):
    with pytest.raises(BundleError, match=f"^x.yaml.*{words}"):
        documents.parse_yaml(data, "x.yaml", BundleError)


def test_yaml_with_aliases_and_a_byte_order_mark_is_read():
    assert documents.parse_yaml(b"\xef\xbb\xbfa: &a [1, 2]\nb: *a\n", "x") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"{", "not valid JSON"), (b"[" * 100_000, "not valid JSON"), (b"\xff", "not UTF-8"), (b"9" * 5000, "not valid")],
)
def test_json_that_is_refused(data, words):
    with pytest.raises(DataError, match=f"^x.json: .*{words}"):
        documents.parse_json(data, "x.json")


def test_files_and_mappings(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        documents.read_json(tmp_path / "none.json")
    with pytest.raises(DataError, match="is a folder"):
        documents.read_yaml(tmp_path)
    documents.write_json_lines(tmp_path / "x.jsonl", [{"a": 1}, {"b": "é"}])
    assert list(documents.read_json_lines(tmp_path / "x.jsonl")) == [(1, {"a": 1}), (2, {"b": "é"})]
    documents.write_json(tmp_path / "x.json", {"a": [1, None]})
    assert documents.read_json(tmp_path / "x.json") == {"a": [1, None]}
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n[2]\n')
    with pytest.raises(DataError, match=r"x.jsonl:2: should hold `key: value` lines, not \[2\]"):
        list(documents.read_json_lines(tmp_path / "x.jsonl"))
    with pytest.raises(DataError, match=r"x: should hold `key: value` lines"):
        documents.mapping({1: 2}, "x")
