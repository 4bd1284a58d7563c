"""tools/walk.py: what it counts."""

import importlib.util
from pathlib import Path

SPEC = importlib.util.spec_from_file_location("walk", Path(__file__).parents[2] / "tools/walk.py")
walk = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(walk)


def test_moves_lead_to_new_files_or_back():
    counts = walk.count(["a", "a", "b", "a", "c", "b"])
    assert counts == {"files": 3, "moves": 4, "back": 2}
    assert counts["moves"] == counts["files"] - 1 + counts["back"]
    assert walk.count([]) == {"files": 0, "moves": 0, "back": 0}


def test_functions_count_once_and_at_their_first_call():
    from espnet2_ext.util.names import file_name, unique

    calls = []
    with walk.profiled(calls):
        for _ in range(2):
            unique(["a", "b"])
        file_name("a")
    assert calls == [("util/names.py", "unique"), ("util/names.py", "file_name")]


def test_size_has_a_limit_for_each_figure():
    assert [limit for _, _, limit in walk.size()] == [walk.MAX_FILES, walk.MAX_LINES, walk.MAX_ROOM]
    assert all(number > 0 for _, number, _ in walk.size())
