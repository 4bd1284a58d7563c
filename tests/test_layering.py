"""The import arrows: read from the syntax trees, so a lazy import counts as one too."""

import ast
import functools
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "espnet2_ext"
FILES = sorted(PACKAGE.rglob("*.py"))
LEAVES = {"errors", "util", "__init__"}  # everybody may use them; they import none of ours but each other
OTHERS = {"core": {"torch", "numpy"}, "util": {"numpy", "yaml", "tqdm", "dask", "distributed"}}  # and nothing else
ESPNET = {"espnet", "espnet2", "espnet3"}
ASTEROID = {"asteroid", "asteroid_filterbanks", "lightning", "pytorch_lightning"}
HOSTS = ESPNET | ASTEROID
MEET = "asteroid_"  # files so named stand between ESPnet and Asteroid; nowhere else do both meet

# layer: (layers of ours that it may import, hosts that it may import)
ARROWS = {
    "core": ({"core"}, set()),
    "audio": ({"audio"}, set()),
    "data": ({"core", "audio", "data"}, set()),
    "enh": ({"core", "enh"}, {"espnet2"}),
    "registry": ({"core", "enh"}, {"espnet2"}),
    "build": ({"core", "enh", "registry"}, {"espnet2"}),
    "train": ({"core", "data", "registry", "build", "train"}, {"espnet2"}),
    "tasks": ({"core", "data", "enh", "registry", "build", "train", "tasks"}, {"espnet2"}),
    "asteroid_ext": ({"core"}, {"asteroid", "pytorch_lightning"}),
    "infer": ({"core", "audio", "data", "registry", "build", "infer"}, {"espnet2"}),
    "app": ({"audio", "infer", "app"}, set()),
    "scores": ({"core", "audio", "data", "scores"}, {"espnet2"}),
    "report": ({"core", "audio", "data", "train", "scores", "report"}, set()),
    "papers": ({"data", "train", "scores", "report", "recipe", "papers"}, set()),  # recipe: experiments' names
    "bench": ({"core", "audio", "data", "build", "train", "tasks", "infer", "bench"}, {"espnet2"}),
    "recipe": ({"recipe"}, set()),
}
TOP = {"__main__": {"cli"}, "cli": set(ARROWS) | {"cli"}, "bin": set(ARROWS) | {"cli", "bin"}}
ARROWS |= {name: (ours, {"espnet2"}) for name, ours in TOP.items()}
# Optional, slow to import or seldom used: imported where they are used, not with the module.
LAZY = {"h5py", "dask", "distributed", "dask_jobqueue"}
LAZY |= {"matplotlib", "museval", "pretty_midi", "midirenderer"}

UNFORMATTED: set[str] = set()  # names of files with numeric tables that need `fmt: off`
MAX_ROOM = 16  # files in a folder


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(nodes) -> list[tuple[int, str]]:
    found = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(path):
    ours, hosts = ARROWS.get(layer(path), (set(), set()))
    assert layer(path) in ARROWS.keys() | LEAVES, f"{layer(path)} has no place in ARROWS"
    for line, name in imports(ast.walk(parsed(path))):
        top, *rest = name.split(".")
        where = f"{path.relative_to(ROOT)}:{line} imports {name}"
        if top == "espnet2_ext":
            assert rest and rest[0] in ours | LEAVES | {"__version__"}, where
            nets = rest[:2] == ["core", "nets"]
            assert not (nets and layer(path) in {"data", "report"}), where
        elif top in ASTEROID and path.name.startswith(MEET):
            assert layer(path) in {"enh", "asteroid_ext"}, where
        elif top in HOSTS:
            assert top in hosts, where
        elif layer(path) in OTHERS or layer(path) in LEAVES:
            assert top in OTHERS.get(layer(path), set()) | sys.stdlib_module_names, where


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_and_optional_packages_are_imported_where_used(path):
    for line, name in imports(parsed(path).body):
        assert name.split(".")[0] not in LAZY, f"{path.relative_to(ROOT)}:{line} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_espnet_and_asteroid_meet_in_files_named_so(path):
    nodes = parsed(path)
    tops = {name.split(".")[0] for _, name in imports(ast.walk(nodes))}
    if tops & ESPNET and tops & ASTEROID:
        assert path.name.startswith(MEET), path
        at_import = {name.split(".")[0] for _, name in imports(nodes.body)}
        assert not at_import & ASTEROID, f"{path}: Asteroid is imported where it is used"


def test_core_works_without_espnet_asteroid_and_lightning():
    modules = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in FILES]
    core = [m.removesuffix(".__init__") for m in modules if m.startswith("espnet2_ext.core")]
    blocked = sorted(HOSTS | {"soundfile", "scipy", "librosa"})
    code = f"import importlib, sys\nfor m in {blocked}: sys.modules[m] = None\n"
    code += f"for m in {core}: importlib.import_module(m)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_small_units():
    long = [p for p in FILES if len(p.read_text(encoding="utf-8").splitlines()) > 300]
    assert not long, f"files of more than 300 lines: {long}"


def test_no_formatting_is_switched_off():
    marked = [p for p in FILES if re.search(r"# fmt: (off|skip)", p.read_text(encoding="utf-8"))]
    assert [p.name for p in marked if p.name not in UNFORMATTED] == []


def test_rooms_are_small():
    rooms = Counter(p.parent for top in (PACKAGE, ROOT / "tests") for p in top.rglob("*.py") if p.name != "__init__.py")
    assert {room: n for room, n in rooms.items() if n > MAX_ROOM} == {}
