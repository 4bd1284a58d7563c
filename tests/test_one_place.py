"""Each kind of file is opened in one place: read from the syntax trees, so a lazy import counts as well."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = [path for top in ("espnet2_ext", "egs2", "tools") for path in sorted((ROOT / top).rglob("*.py"))]

# what opens a file of a kind: the files of ours that may
PLACES = {
    "json.load json.loads": {
        "util/documents",
        "util/files",
        "tools/walk",
    },  # files: records, which are read forgivingly
    "yaml": {"util/documents"},
    "csv": {"util/tables"},
    "np.load np.save np.savez np.savez_compressed np.memmap np.lib.format.open_memmap": {"util/binary"},
    "zipfile": {"util/binary", "infer/bundle", "infer/pack"},  # pack writes
    "pickle marshal shelve": {"core/unpickle", "core/weights"},
    "torch.load": {"train/checkpoints"},  # ESPnet's own, looked at while it reads
    "fcntl": {"util/locks"},
    "h5py": {"audio/optional"},
    "av": {"audio/optional"},
    "tarfile": {"audio/read"},
    "wave": {"data/synth/embedded", "tools/separate_onnx"},
    "soundfile.SoundFile": {"audio/sound", "audio/streams"},
    "soundfile.read soundfile.info soundfile.blocks": {"bench/data"},  # beside ours, for its time
    # sounds that are made for a benchmark, an embedded corpus or a page
    "soundfile.write": {"audio/flac", "bench/data", "data/synth/musdb18", "data/synth/urbansound8k", "tools/walk"}
    | {"egs2/starter_qsep/local/check"},
}


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def used(tree: ast.Module) -> set[str]:
    """Names of modules that are imported, and of functions `module.name` that occur."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not any(alias.asname for alias in node.names if alias.name in PLACES), "imported under another name"
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module.partition(".")[0], *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Attribute):
            found.add(dotted(node))
    return found


@pytest.fixture(scope="module")
def users() -> dict[str, set[str]]:
    found = defaultdict(set)
    for path in FILES:
        name = path.relative_to(ROOT).with_suffix("").as_posix().removeprefix("espnet2_ext/")
        for what in used(ast.parse(path.read_text(encoding="utf-8"))):
            found[what.replace("numpy.", "np.")].add(name)
    return found


@pytest.mark.parametrize("names", PLACES)
def test_nothing_else_opens_files_of_a_kind(users, names):
    found = set().union(*(users[name] for name in names.split()))
    assert found <= PLACES[names], f"{names}: use the shared reader or writer"
    assert found == PLACES[names], "take what is no longer needed off the list"
