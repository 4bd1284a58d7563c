"""What the installed package carries, and what it says that it needs."""

import ast
import contextlib
import importlib.metadata
import re
import runpy
import sys
from pathlib import Path

import pytest
import setuptools
from setuptools.dist import Distribution

ROOT = Path(__file__).resolve().parents[2]
# module: its distribution, also where it is not installed
OTHER_NAMES = {
    "distributed": "dask",
    "yaml": "pyyaml",
    "sklearn": "scikit-learn",
    "espnet2": "espnet",
    "dask_jobqueue": "dask-jobqueue",
}


@pytest.fixture(scope="module")
def metadata():
    """Arguments of setup() in setup.py."""
    given = {}
    with contextlib.chdir(ROOT), pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **kwargs: given.update(kwargs))
        runpy.run_path(str(ROOT / "setup.py"))
    return given


def test_every_imported_package_is_declared(metadata):
    declared = metadata["install_requires"] + metadata["extras_require"]["all"]
    names = {re.split(r"[<>=\[; ]", line)[0].lower().replace("_", "-") for line in declared}
    distributions = importlib.metadata.packages_distributions()
    for path in (ROOT / "espnet2_ext").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for top in {m.partition(".")[0] for m in modules} - set(sys.stdlib_module_names) - {"espnet2_ext"}:
                of = [OTHER_NAMES.get(top, top), *distributions.get(top, [])]
                assert names & {n.lower().replace("_", "-") for n in of}, f"{path} imports {top}"


def test_wheel_carries_configurations_recipes_and_types(metadata):
    build = metadata["cmdclass"]["build_py"](Distribution({"name": "x"}))
    carried = {str(p.relative_to(ROOT)) for p in build.carried()}
    assert {str(p.relative_to(ROOT)) for p in (ROOT / "conf").rglob("*.yaml")} <= carried
    assert {"egs2/audioset_qsep/run.sh", "egs2/audioset_qsep/local/data.sh", "egs2/TEMPLATE/common/path.sh"} <= carried
    assert not any(Path(name).parts[2] in ("data", "dump", "exp", "downloads") for name in carried if "egs2" in name)
    assert (ROOT / "espnet2_ext/py.typed").is_file() and "py.typed" in metadata["package_data"]["espnet2_ext"]


def test_every_file_of_the_package_has_a_suffix_that_the_wheel_takes(metadata):
    taken = {Path(p).suffix for p in metadata["package_data"]["espnet2_ext"]} | {".py", ".pyc"}
    others = [p for p in (ROOT / "espnet2_ext").rglob("*") if p.is_file() and p.suffix not in taken]
    assert [p.name for p in others if p.name != "py.typed"] == []


def test_python_3_11_gets_no_package_that_needs_3_12(metadata):
    for name in ("espnet", "torchaudio", "asteroid", "pytorch-lightning"):
        line = next(r for r in metadata["install_requires"] if r.startswith(name))
        assert line.endswith('python_version >= "3.12"'), line
