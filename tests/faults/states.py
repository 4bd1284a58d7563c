"""What a command has made, for a comparison bit for bit of two runs: without times, logs and absolute paths."""

import hashlib
import io
import json
import os
import pickle
import re
import zipfile
from pathlib import Path

IGNORED = re.compile(r"(^|/)(\.lock|plan\.json|logs?|tensorboard|[^/]*\.log|events\.out[^/]*|images|att_ws)(/|$)")
TIMES = re.compile(r"^(time|timestamp|seconds_taken|took|date|written|start|host|pid|real_time_factor)$|_time$|^time_")


def digest(path: Path, top: Path, skip: re.Pattern = TIMES) -> str:
    """Of a file's content as far as it is decided by the command and its inputs; skip: keys of JSON."""
    if path.is_symlink():
        return f"-> {path.readlink()}"
    data = path.read_bytes()
    if not data:
        return "empty"
    if path.suffix in (".pth", ".ckpt"):
        data = _weights(data)
    elif path.suffix == ".zip":
        with zipfile.ZipFile(io.BytesIO(data)) as z:
            members = {n: z.read(n) for n in z.namelist() if n != "meta.yaml"}
        data = b"".join(n.encode() + (_weights(v) if n.endswith(".pth") else v) for n, v in members.items())
    elif path.suffix in (".json", ".jsonl"):
        data = b"\n".join(json.dumps(_without(json.loads(v), skip)).encode() for v in _documents(data, path))
    elif path.suffix in (".md", ".html", ".yaml"):
        data = re.sub(
            rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?|\d+(\.\d+)? (seconds|minutes|hours|s\b|min\b|h\b)", b"@", data
        )
    return hashlib.blake2b(data.replace(str(top).encode(), b"@"), digest_size=12).hexdigest()


def _documents(data: bytes, path: Path) -> list[bytes]:
    return data.splitlines() if path.suffix == ".jsonl" else [data]


def _without(value, skip: re.Pattern):
    if isinstance(value, dict):
        return {k: _without(v, skip) for k, v in value.items() if not skip.search(k)}
    return [_without(v, skip) for v in value] if isinstance(value, list) else value


def _weights(data: bytes) -> bytes:
    """Tensors and plain values of a file of PyTorch; a trainer's record of times is left out."""
    import torch

    try:
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)
    except Exception as e:
        return f"broken: {e}".encode()
    if isinstance(found, dict):
        found = {k: v for k, v in found.items() if k not in ("reporter", "loops", "callbacks")}
    return pickle.dumps(_plain(found))


def _plain(value):
    if hasattr(value, "numpy"):
        return value.detach().numpy().tobytes(), tuple(value.shape), str(value.dtype)
    if isinstance(value, dict):
        return [(str(k), _plain(v)) for k, v in value.items()]
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else repr(value)


def state(top: Path, changed: list[str], skip: re.Pattern = TIMES) -> dict[str, str]:
    """Path -> digest of those of the `changed` paths that are files, less what is of no account."""
    paths = [v for v in changed if not IGNORED.search(v)]
    found = {v: digest(top / v, top, skip) for v in paths if (top / v).is_file() or (top / v).is_symlink()}
    gone = {v: "gone" for v in paths if not os.path.lexists(top / v)}
    return found | gone | {v: "folder" for v in paths if (top / v).is_dir()}


def difference(state: dict[str, str], expected: dict[str, str]) -> str:
    """How a state differs from the expected one: what is left over, lost, or other. Empty where they are the same."""
    left = [v for v in state if v not in expected]
    lost = [v for v in expected if v not in state]
    other = [v for v in state if v in expected and state[v] != expected[v]]
    found = {"left over": left, "lost": lost, "changed": other}
    return "; ".join(f"{what}: {', '.join(sorted(v)[:4])}" for what, v in found.items() if v)
