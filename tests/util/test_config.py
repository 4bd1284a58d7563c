"""Configurations that include others."""

from collections.abc import Sequence
from typing import Literal

import pytest

from espnet2_ext.build import check_arguments
from espnet2_ext.errors import DataError
from espnet2_ext.util.config import merge, read_config, set_value


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_without_include_is_as_it_stands(tmp_path):
    assert read_config(put(tmp_path / "a.yaml", "x: 1\ny: [2, {z: 3.0e-4}]\n")) == {"x": 1, "y": [2, {"z": 3e-4}]}


def test_mappings_are_merged_and_all_else_is_replaced(tmp_path):
    put(tmp_path / "base/a.yaml", "conf: {x: 1, deep: {y: 2, z: 3}}\nlist: [1, 2]\nonly: here\n")
    path = put(tmp_path / "b.yaml", "include: base/a.yaml\nconf: {deep: {z: 4}}\nlist: [5]\n")
    assert read_config(path) == {"conf": {"x": 1, "deep": {"y": 2, "z": 4}}, "list": [5], "only": "here"}


def test_later_files_take_precedence_and_paths_are_seen_from_each_file(tmp_path):
    put(tmp_path / "base/deep/c.yaml", "x: 1\ny: 1\nz: 1\n")
    put(tmp_path / "base/a.yaml", "include: deep/c.yaml\ny: 2\nz: 2\n")
    put(tmp_path / "base/b.yaml", "z: 3\n")
    path = put(tmp_path / "d.yaml", "include: [base/a.yaml, base/b.yaml]\n")
    assert read_config(path) == {"x": 1, "y": 2, "z": 3}
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe/conf").symlink_to("..")  # as conf/ of a recipe
    assert read_config(tmp_path / "recipe/conf/d.yaml") == read_config(path)


def test_an_anchor_of_yaml_is_not_changed_with_what_stands_for_it(tmp_path):
    put(tmp_path / "a.yaml", "one: &x {k: 1}\ntwo: *x\n")
    path = put(tmp_path / "b.yaml", "include: a.yaml\none: {k: 2}\n")
    assert read_config(path) == {"one": {"k": 2}, "two": {"k": 1}}


@pytest.mark.parametrize(
    "text, message",
    [
        ("include: none.yaml\n", "none.yaml: no such file"),
        ("include: .\n", "is a folder"),
        ("include: a.yaml\n", "a.yaml: includes itself"),
        ("include: 3\n", "a.yaml: include: expected a path or a list of paths, got 3"),
        ("[1]\n", r"a.yaml: should hold `key: value` lines, not \[1\]"),
        ("x: [\n", "a.yaml:2: is not valid YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_config(put(tmp_path / "a.yaml", text))


def test_merge_leaves_its_arguments_alone():
    base, over = {"a": {"b": 1}}, {"a": {"c": [2]}}
    merged = merge(base, over)
    merged["a"]["c"].append(3)
    assert base == {"a": {"b": 1}} and over == {"a": {"c": [2]}}


def test_set_value_reaches_into_lists():
    config = {"a": [{"b": 1}]}
    set_value(config, "a.0.b", 2)
    assert config == {"a": [{"b": 2}]}
    with pytest.raises(DataError, match="a.1.b leads nowhere"):
        set_value(config, "a.1.b", 2)


def network(
    dim: int,
    rate: float = 1.0,
    depths: Sequence[int] = (1,),
    name: "str | None" = None,
    betas: tuple[float, float] = (0.9, 0.99),
    mode: Literal["a", "b"] = "a",
    odd: int = None,
    conf: dict | None = None,
    on: bool = False,
    free=None,
):
    """Takes arguments of many types."""


GOOD = {"dim": 3, "rate": 2, "depths": [1, 2], "name": None, "betas": [0, 0.5], "mode": "b", "odd": None, "on": True}


def test_arguments_of_their_types():
    check_arguments(network, GOOD | {"conf": {"a": 1}, "free": [{}], "depths": (1,)}, "net_conf")


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ([], "should hold `key: value` lines"),
        ({"width": 1}, "unknown key 'width'; it takes: dim, rate"),
        ({"given": 1}, "unknown key 'given'"),
        ({"dim": "x"}, "key dim: expected a whole number, not 'x'"),
        ({"dim": 1.0}, "key dim: expected a whole number, not 1.0"),
        ({"dim": True}, "key dim: expected a whole number, not True"),
        ({"dim": 10**30}, "key dim: expected a whole number"),
        ({"rate": "1e-3"}, "key rate: expected a number, not '1e-3'; YAML writes it 1.0e-3"),
        ({"rate": float("nan")}, "key rate: expected a number, not nan"),
        ({"rate": float("inf")}, "key rate: expected a number, not inf"),
        ({"depths": 1}, "key depths: expected a list, each a whole number, not 1"),
        ({"depths": [1, "a"]}, "key depths: expected a list, each a whole number"),
        ({"name": 3}, "key name: expected text or null, not 3"),
        ({"betas": [1]}, "key betas: expected a list"),
        ({"mode": "c"}, "key mode: expected"),
        ({"on": 1}, "key on: expected true or false, not 1"),
        ({"conf": [1]}, "key conf: expected keys with values or null"),
    ],
)
def test_arguments_of_other_types_are_named(conf, words):
    with pytest.raises(DataError, match=f"^net_conf: {words}"):
        check_arguments(network, conf, "net_conf", {"given"})


def test_keys_that_are_no_text_are_named(tmp_path):
    (tmp_path / "a.yaml").write_text("a: {b: {1: 2}}\n")
    with pytest.raises(DataError, match="a.yaml: key a: key b: should hold"):
        read_config(tmp_path / "a.yaml")
