"""Seeded damage: to the bytes of a file, to its text, to the values of YAML and JSON, to arrays, zips and places."""

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import yaml

NUMBERS = [
    "0",
    "-1",
    "1e309",
    "nan",
    "inf",
    "99999999999999999999999",
    "0x10",
    "1_000",
    "2147483648",
    "-0.0",
    "1e-320",
    "",
]
TEXTS = [
    "",
    " ",
    "\t",
    "../../../tmp/x",
    "/etc/passwd",
    "a\nb",
    "\0",
    "é" * 130,
    "x" * 5000,
    "%s{0}$HOME",
    "-rf",
    "null",
    "~",
]
VALUES = [
    None,
    True,
    -1,
    0,
    10**30,
    1e309,
    float("nan"),
    "",
    "x",
    "../../x",
    [],
    {},
    [[]],
    [None],
    {"a": {"b": []}},
    "1e3",
]
ODD_NAMES = [
    b"caf\xe9",
    b"\xff\xfe",
    b"new\nline",
    b"-dash",
    b"a b",
    b"x" * 240,
    b"x" * 251,
    b"#hash%s{}",
    "日本語".encode(),
]
ALIASES = "".join(f"{c}: &{c} [{', '.join([f'*{p}'] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi"))
SPECIAL = ("folder", "loop", "dangling", "fifo", "missing", "zero", "null", "unreadable")


# ---- bytes ---------------------------------------------------------------------------------------


def _at(data: bytes, r: Random) -> int:
    """A place; every second one is in the head, where a format says what it is."""
    end = len(data) if r.random() < 0.5 else min(len(data), 128)
    return r.randrange(end) if end else 0


def flip(data: bytes, r: Random) -> bytes:
    out = bytearray(data)
    for _ in range(r.choice((1, 1, 2, 8))):
        if out:
            out[_at(data, r)] ^= 1 << r.randrange(8)
    return bytes(out)


def cut(data: bytes, r: Random) -> bytes:
    return data[: _at(data, r)]


def remove(data: bytes, r: Random) -> bytes:
    a = _at(data, r)
    return data[:a] + data[a + r.choice((1, 2, 7, 64, 4096)) :]


def insert(data: bytes, r: Random) -> bytes:
    a = _at(data, r)
    return (
        data[:a]
        + r.choice((b"\0", b"\xff" * 4, b"\r\n", b"\xef\xbb\xbf", r.randbytes(r.choice((1, 16, 999)))))
        + data[a:]
    )


def double(data: bytes, r: Random) -> bytes:
    a = _at(data, r)
    b = min(len(data), a + r.choice((1, 32, 512, 1 << 20)))
    return data[:b] + data[a:b] * r.choice((1, 3)) + data[b:]


def swap(data: bytes, r: Random) -> bytes:
    a, b = sorted((_at(data, r), _at(data, r)))
    n = min(r.choice((1, 4, 50)), b - a)
    return data[:a] + data[b : b + n] + data[a + n : b] + data[a : a + n] + data[b + n :]


def number(data: bytes, r: Random) -> bytes:
    """A header's field of 1 to 8 bytes becomes an extreme."""
    a, width = _at(data, r), r.choice((1, 2, 4, 8))
    value = r.choice(
        (0, 1, (1 << 8 * width) - 1, 1 << 8 * width - 1, (1 << 8 * width - 1) - 1, r.getrandbits(8 * width))
    )
    return data[:a] + value.to_bytes(width, r.choice(("little", "big"))) + data[a + width :]


def noise(data: bytes, r: Random) -> bytes:
    a = _at(data, r)
    return data[:a] + r.randbytes(min(64, len(data) - a)) + data[a + 64 :]


def other(data: bytes, r: Random) -> bytes:
    """The bytes of another format, whole or behind the own head."""
    alien = r.choice(
        (
            b"",
            b"\0" * 512,
            b"{}",
            b"[]",
            b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0data",
            b"PK\x05\x06" + b"\0" * 18,
            b"\x80\x02}q\0.",
            b"\x93NUMPY\x01\0v\0{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999,), }".ljust(128) + b"\n",
            b"\x1f\x8b\x08\0\0\0\0\0",
            b"<html><body>404 Not Found</body></html>",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
            "ein Text über ä, ö, ü\n".encode("latin-1"),
            b"a\tb\tc\n1\t2\t3\n",
        )
    )
    return alien if r.random() < 0.7 else data[:16] + alien


BYTES = [flip, flip, cut, remove, insert, double, swap, number, number, noise, other]


# ---- text ----------------------------------------------------------------------------------------


def coding(data: bytes, r: Random) -> bytes:
    text = data.decode("utf-8", "replace")
    name = r.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1", "cp1252", "utf-7"))
    extra = "" if name.startswith("utf") else "é"
    return (text.replace("e", extra) if extra else text).encode(name, "replace")


def lines(data: bytes, r: Random) -> bytes:
    """Lines that are lost, doubled, exchanged, of other ends, or of another delimiter."""
    rows = data.split(b"\n")
    a, b = r.randrange(len(rows)), r.randrange(len(rows))
    how = r.randrange(9)
    if how == 0:
        del rows[a]
    elif how == 1:
        rows.insert(b, rows[a])
    elif how == 2:
        rows[a], rows[b] = rows[b], rows[a]
    elif how == 3:
        rows.insert(a, r.choice((b"", b" ", b"#", b"\t\t", b'"', b"\0")))
    elif how == 4:
        rows[a] = rows[a] * 3000
    elif how == 5:
        return b"\n".join(rows[:1])
    end, old, new = ((b"\r\n", b"", b""), (b"\r", b"", b""), (b"\n", b"\t", b","), (b"\n", b",", b";"))[how % 4]
    if how > 5:
        rows = [v.replace(old, new) if old else v for v in rows]
    return (end if how > 5 else b"\n").join(rows)


def field(data: bytes, r: Random) -> bytes:
    """A field becomes a number, a text or a path that it should not be; or is gone, or there twice."""
    rows = data.decode("utf-8", "replace").split("\n")
    n = r.randrange(len(rows))
    mark = next((m for m in "\t, :" if m in rows[n]), " ")
    fields = rows[n].split(mark)
    k = r.randrange(len(fields))
    how = r.randrange(5)
    if how == 0:
        del fields[k]
    elif how == 1:
        fields.insert(k, fields[k])
    else:
        fields[k] = r.choice(NUMBERS if how < 4 else TEXTS)
    rows[n] = mark.join(fields)
    return "\n".join(rows).encode("utf-8", "replace")


TEXT = [coding, coding, lines, lines, field, field, field]


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
    new = [
        lambda: x[:-1] if x.ndim else x[None],
        lambda: x[..., None],
        lambda: np.zeros(0, x.dtype),
        lambda: np.concatenate([x, x]) if x.ndim else x,
        lambda: np.full_like(wide, np.nan),
        lambda: np.full_like(wide, 1e30),
        lambda: x[::-1] if x.ndim else -wide,
        lambda: np.array([{"a": 1}, None], object),
        lambda: np.array(["text", "é"]),
        lambda: np.asarray(wide, "c16"),
        lambda: np.asfortranarray(wide),
        lambda: wide.astype(">i4", casting="unsafe"),
        lambda: np.zeros(2, [("a", "<i4"), ("b", "S3")]),
        lambda: -np.abs(wide) - 7,
    ]
    with np.errstate(all="ignore"):
        out = io.BytesIO()
        np.save(out, r.choice(new)())
    return out.getvalue()


def header(data: bytes, r: Random) -> bytes:
    """A `.npy` that promises something else than it holds."""
    shape = r.choice(
        ("(99999999999,)", "(1 << 40, 1)", "(-1,)", "(2**62,2**62)", "()", "(0, 9999999999999)", "[3]", "('a',)")
    )
    descr = r.choice(("'<f8'", "'|O'", "'<U99999999'", "'<M8[D]'", "'evil'", "[('a','<f8')]*9", "'<f4'"))
    text = f"{{'descr': {descr}, 'fortran_order': {r.choice(('False', 'True', '3'))}, 'shape': {shape}, }}".encode()
    text = text.ljust(r.choice((118, 116, 4000))) + b"\n"
    return b"\x93NUMPY" + bytes([r.choice((1, 1, 2, 3, 9)), 0]) + len(text).to_bytes(2, "little") + text + data[128:]


def member(data: bytes, r: Random) -> bytes:
    """A member of a zip damaged by what suits it, gone, new, twice, or another's content; the zip itself stays whole."""
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


# ---- places --------------------------------------------------------------------------------------


def place(path: Path, r: Random) -> str:
    """Put something that is no regular file in the place of `path`; its name."""
    how = r.choice(SPECIAL)
    path.unlink()
    if how in ("folder", "unreadable"):  # root reads everything else
        path.mkdir()
    elif how == "fifo":
        os.mkfifo(path)
    elif how != "missing":
        path.symlink_to({"loop": path.name, "dangling": "nowhere", "zero": "/dev/zero", "null": "/dev/null"}[how])
    return how
