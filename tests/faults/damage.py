"""Seeded damage to the bytes of a file, to its text, and to its place."""

import os
from pathlib import Path
from random import Random

NUMBERS = ["", *"0 -1 1e309 nan inf 99999999999999999999999 0x10 1_000 2147483648 -0.0 1e-320 1,5 ١".split()]
TEXTS = [
    *"../../../tmp/x /etc/passwd %s{0}$HOME -rf null ~ : # &a *a".split(),
    "",
    " ",
    "a\tb",
    "\0",
    "é" * 130,
    "x" * 5000,
]
ODD_NAMES = [*b"caf\xe9 \xff\xfe -dash #hash%s{} \xe6\x97\xa5".split(), b"new\nline", b"a b", b"x" * 240, b"x" * 251]
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
    alien = r.choice(ALIEN)
    return alien if r.random() < 0.7 else data[:16] + alien


ALIEN = [b"", b"\0" * 512, b"{}", b"[]", b"PK\x05\x06" + b"\0" * 18, b"\x80\x02}q\0.", b"\x1f\x8b\x08\0\0\0\0\0"]
ALIEN += [b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0data", b"a\tb\tc\n1\t2\t3\n"]
ALIEN += [b"<html><body>404 Not Found</body></html>", "Text über ä, ö, ü\n".encode("latin-1"), b"fLaC\0\0\0\x22"]
ALIEN += [b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", b"\xff\xfb\x90\0" * 100, b"OggS\0\2"]
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
