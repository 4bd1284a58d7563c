import pytest

from espnet2_ext.errors import BundleError, DataError
from espnet2_ext.util import documents

MERGES = "a: &a {k0: 0}\n" + "".join(f"b{i}: &b{i} {{k{i}: 0, <<: *a}}\n" for i in range(9)) + "c: {<<: ["
MERGES += ", ".join("{" + ", ".join(f"m{i}_{k}: 0" for k in range(300)) + "}" for i in range(150)) + "]}\n"
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
        (b"!!timestamp 2001-99-99", "is not valid YAML"),
        (b"a: !!set {b}", "holds something else than texts"),
        (MERGES.encode(), "merges too many keys"),
        (b"!!python/object/apply:os.system [ls]", "is not valid YAML"),
        (b"{[1]: 2, {a: 1}: 3}", "is not valid YAML"),
        (b"n: " + b"9" * 5000, "is not valid YAML"),
    ],
)
def test_yaml_that_is_refused(data, words):
    with pytest.raises(BundleError, match=f"^x.yaml.*{words}"):
        documents.parse_yaml(data, "x.yaml", BundleError)


def test_yaml_with_aliases_and_a_byte_order_mark_is_read():
    assert documents.parse_yaml("d: 2001-99-99\nn: 1.50", "x", decimals=False) == {"d": "2001-99-99", "n": "1.50"}
    assert documents.parse_yaml(b"\xef\xbb\xbfa: &a [1, 2]\nb: *a\n", "x") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", "not valid JSON"),
        (rb'"\ud800"', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\xff", "not UTF-8"),
        (b"9" * 5000, "not valid"),
    ],
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


FIELDS = {"fs": int, "names": [str], "share?": float, "about?": ({"n": int, str: str}, None)}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "expected keys with values, got"),
        ({"names": []}, "key fs: is missing"),
        ({"fs": True, "names": []}, "key fs: expected a whole number, got True"),
        ({"fs": 1.0, "names": []}, "key fs: expected a whole number, got 1.0"),
        ({"fs": 1, "names": "ab"}, "key names: expected a list, got 'ab'"),
        ({"fs": 1, "names": ["a", 2]}, "key names.1: expected text, got 2"),
        ({"fs": 1, "names": [], "share": float("nan")}, "key share: expected a number, got nan"),
        ({"fs": 1, "names": [], "about": 3}, "key about: expected keys with values or nothing, got 3"),
        ({"fs": 1, "names": [], "about": {"n": 1, "x": 2}}, "key about.x: expected text, got 2"),
    ],
)
def test_values_of_another_shape_are_named(value, words):
    with pytest.raises(BundleError, match=f"^x.json: {words}"):
        documents.check(value, FIELDS, "x.json", BundleError)


def test_values_of_a_shape(tmp_path):
    value = {"fs": 1, "names": ["a"], "share": 1, "about": {"n": 1, "x": "y"}, "more": [None]}
    assert documents.check(value, FIELDS, "x") is value
    documents.write_json(tmp_path / "x.json", value | {"about": None})
    assert documents.read_fields(tmp_path / "x.json", FIELDS)["about"] is None
    with pytest.raises(DataError, match="key gone: is missing; make it again"):
        documents.read_fields(tmp_path / "x.json", {"gone": int}, hint="make it again")


def test_a_text_that_is_there_keeps_its_time(tmp_path):
    documents.write_if_new(tmp_path / "a", "x")
    before = (tmp_path / "a").stat().st_mtime_ns
    documents.write_if_new(tmp_path / "a", "x")
    assert (tmp_path / "a").stat().st_mtime_ns == before
    documents.write_if_new(tmp_path / "a", "y")
    assert documents.read_text(tmp_path / "a") == "y"
