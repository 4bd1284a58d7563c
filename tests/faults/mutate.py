"""Seeded damage to what is in a file: values of YAML and JSON, arrays, members of zips. `mutate` chooses any damage."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import yaml
from damage import BYTES, TEXT, TEXTS, coding, field, flip, lines

VALUES = json.loads(
    '[null, true, -1, 0, 1e999, NaN, "", "x", "../../x", [], {}, [[]], [null], {"a": {"b": []}}, "1e3"]'
)
VALUES += [10**30, "\ud800"]
ALIASES = "".join(f"{c}: &{c} [{', '.join([f'*{p}'] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi"))


# ---- YAML and JSON -------------------------------------------------------------------------------


def value(data: bytes, r: Random, load: Callable, dump: Callable) -> bytes:
    """One value of another type, one key gone, renamed or new, at any depth."""
    try:
        tree = load(data)
    except Exception:
        return flip(data, r)
    nodes = [tree] if tree and isinstance(tree, (dict, list)) else []
    for node in nodes:
        nodes += [v for v in (node.values() if isinstance(node, dict) else node) if v and isinstance(v, (dict, list))]
    node = r.choice(nodes) if nodes else None
    if node is None:
        return dump(r.choice(VALUES)).encode()
    key = r.choice(list(node)) if isinstance(node, dict) else r.randrange(len(node))
    how = r.randrange(6)
    if how == 0:
        del node[key]
    elif how == 1 and isinstance(node, dict):
        node[r.choice(("unknown", str(key) + "x", "include", 7))] = node.pop(key)
    elif how == 2:
        node[key] = [node[key]]
    else:
        node[key] = r.choice(VALUES)
    return dump(r.choice(VALUES) if how == 5 and r.random() < 0.2 else tree).encode("utf-8", "surrogatepass")


def nesting(data: bytes, r: Random) -> bytes:
    depth = r.choice((50, 2000, 100000))
    bombs = (b"[" * depth, b"{a: " * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth, b"- " * depth)
    more = (
        f"a: &a [x, x]\n{ALIASES}".encode(),
        b"a: &a\n  b: *a\n",
        b"<<: *x\n",
        b"!!python/object/apply:os.system [true]\n",
    )
    plain = (
        b"? {a: b}\n: c\n",
        b"a: 2024-13-45\n",
        b"? [1, 2]\n: 3\n",
        b"1: 2\n3: 4\n",
        b"--- \n...\n---\n",
        b"1" * 5000,
    )
    return r.choice(r.choice((bombs, more, plain)))


def _yaml(data: bytes, r: Random) -> bytes:
    return value(data, r, yaml.safe_load, lambda v: yaml.safe_dump(v, sort_keys=False, allow_unicode=True))


def _json(data: bytes, r: Random) -> bytes:
    return value(data, r, json.loads, json.dumps)


def _json_line(data: bytes, r: Random) -> bytes:
    rows = data.rstrip(b"\n").split(b"\n")
    n = r.randrange(len(rows))
    rows[n] = _json(rows[n], r)
    return b"\n".join(rows) + b"\n"


# ---- arrays and zips -----------------------------------------------------------------------------


def array(data: bytes, r: Random) -> bytes:
    """Another shape, type, order or content of a `.npy`."""
    x = np.load(io.BytesIO(data), allow_pickle=False)
    wide = x.astype("f8") if x.dtype.kind in "iuf" else np.zeros(3)
    row = x if x.ndim else x[None]
    new = [lambda: row[:-1], lambda: x[..., None], lambda: np.zeros(0, x.dtype), lambda: np.concatenate([row, row])]
    new += [lambda: np.full_like(wide, np.nan), lambda: np.full_like(wide, 1e30), lambda: row[::-1], lambda: -wide]
    new += [
        lambda: np.array([{"a": 1}, None], object),
        lambda: np.array(["text", "é"]),
        lambda: np.asarray(wide, "c16"),
    ]
    new += [lambda: wide.astype(">i4", casting="unsafe"), lambda: np.zeros(2, [("a", "<i4"), ("b", "S3")])]
    new += [lambda: -np.abs(wide) - 7, lambda: np.asfortranarray(wide), lambda: np.array(0), lambda: row.astype("S9")]
    with np.errstate(all="ignore"):
        out = io.BytesIO()
        np.save(out, r.choice(new)())
    return out.getvalue()


def header(data: bytes, r: Random) -> bytes:
    """A `.npy` that promises something else than it holds."""
    shape = r.choice("(99999999999,)|(-1,)|(2**62,2**62)|()|(0, 9999999999999)|[3]|('a',)|(1 << 40, 1)".split("|"))
    descr = r.choice("'<f8'|'|O'|'<U99999999'|'<M8[D]'|'evil'|[('a','<f8')]*9|'<f4'".replace("'|O'", "'O'").split("|"))
    text = f"{{'descr': {descr}, 'fortran_order': {r.choice(('False', 'True', '3'))}, 'shape': {shape}, }}".encode()
    text = text.ljust(r.choice((118, 116, 4000))) + b"\n"
    return b"\x93NUMPY" + bytes([r.choice((1, 1, 2, 3, 9)), 0]) + len(text).to_bytes(2, "little") + text + data[128:]


def member(data: bytes, r: Random) -> bytes:
    """A member of a zip that is damaged by what suits it, gone, new, or another's; the zip itself stays whole."""
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        members = {n: z.read(n) for n in z.namelist()}
    name, out = r.choice(list(members)), io.BytesIO()
    how = r.randrange(12)
    if how == 0:
        del members[name]
    elif how == 1:
        members[name] = members[r.choice(list(members))]
    elif how == 2:
        members["extra/" + r.choice(TEXTS)[:200]] = b"x"
    else:
        members[name], _ = mutate(members[name], form_of(name), r)
    compress = zipfile.ZIP_DEFLATED if how == 3 else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", compress) as z:
        for key, content in members.items():
            z.writestr(key.replace("\0", "0") or "_", content)
    return out.getvalue()


FORMS = {
    "sound": BYTES,
    "bytes": BYTES,
    "text": TEXT + BYTES[:6],
    "yaml": [_yaml] * 6 + [nesting, coding, lines, field, *BYTES],
}
FORMS |= {
    "json": [_json] * 6 + [nesting, coding, field, *BYTES],
    "jsonl": [_json_line] * 5 + [nesting, coding, lines, *BYTES],
}
FORMS |= {"npy": [array] * 4 + [header] * 3 + BYTES, "zip": [member] * 9 + BYTES}
SUFFIX = {
    ".tsv": "text",
    ".csv": "text",
    ".scp": "text",
    ".txt": "text",
    ".yaml": "yaml",
    ".json": "json",
    ".jsonl": "jsonl",
}
SUFFIX |= {".npy": "npy", ".npz": "zip", ".zip": "zip", ".pth": "zip", ".ckpt": "zip"}


def form_of(name: str) -> str:
    return SUFFIX.get(Path(name).suffix, "text" if name.endswith(("utt2class", "utt2labels", "ids")) else "bytes")


def mutate(data: bytes, form: str, r: Random) -> tuple[bytes, str]:
    """Damaged bytes, and the name of the damage; now and then twice damaged."""
    how = r.choice(FORMS[form])
    try:
        out = how(data, r)
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, TypeError, OverflowError, UnicodeError):
        how, out = flip, flip(data, r)  # what was damaged before has no parts to choose from
    if r.random() < 0.1:
        out = r.choice(BYTES)(out, r)
    return out, how.__name__.strip("_")
