import pytest

from espnet2_ext.util.names import file_name, safe_id, unique


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("dog bark", "dog bark"),
        ("Crash/Smash", "Crash_Smash"),
        ("x/../../y", "x_.._.._y"),
        ("..", "_"),
        ("", "_"),
        (".hidden. ", "hidden"),
        ("a\nb\0c\\d:e", "a_b_c_d_e"),
        ("café", "café"),
        ("con", "_con"),
        ("Console", "Console"),
        ("caf\udce9", "caf_"),
    ],
)
def test_a_file_name_reads_like_its_label(label, name):
    assert file_name(label) == name


def test_long_names_are_cut_and_differ():
    names = {file_name("é" * 200 + end) for end in "ab"}
    assert len(names) == 2 and all(len(n.encode()) <= 100 for n in names)


def test_ids():
    assert safe_id(" a, b/c ") == "a-b-c" and safe_id("...") == "sound"
    assert unique(["a", "b", "a", "a-2"]) == ["a", "b", "a-2", "a-2-2"]
