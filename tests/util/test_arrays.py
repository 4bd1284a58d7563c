import io
import zipfile

import numpy as np
import pytest

from espnet2_ext.errors import DataError
from espnet2_ext.util.binary import read_npy, read_npz, write_npy, write_npz

X = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("x", [X, X.T, X[:0], np.float64(3.0), np.array([b"ab", b"c"])])
def test_npy_as_it_was_written(tmp_path, x, mmap):
    write_npy(tmp_path / "x.npy", x)
    y = read_npy(tmp_path / "x.npy", mmap and np.size(x) > 0)
    assert y.dtype == np.asarray(x).dtype and np.array_equal(x, y)


def npy(x, **changes) -> bytes:
    out = io.BytesIO()
    np.save(out, x, allow_pickle=True)
    data = out.getvalue()
    for old, new in changes.items():
        assert old.encode() in data
        data = data.replace(old.encode(), new.encode())
    return data


BROKEN = [
    b"",
    b"\x93NUMPY\x01",
    b"RIFF" + bytes(40),
    npy(X)[:-1],
    npy(X) + b"x",
    npy(X).replace(b"(3, 4)", b"(9**9,)"),
    npy(X).replace(b"(3, 4), ", b"(3e9,),"),
    npy(X).replace(b"(3, 4), ", b"(-3,-4),"),
    npy(np.array([{}], object)),
    npy(X).replace(b"\x93NUMPY\x01", b"\x93NUMPY\x09"),
]


@pytest.mark.parametrize("data", BROKEN)
def test_broken_npy_is_named(tmp_path, data):
    (tmp_path / "x.npy").write_bytes(data)
    for mmap in (False, True):
        with pytest.raises(DataError, match="x.npy: is not a whole .npy file"):
            read_npy(tmp_path / "x.npy", mmap)


def test_npz(tmp_path):
    path = tmp_path / "x.npz"
    write_npz(path, {"a": X, "names": np.array(["p", "qr"])})
    found = read_npz(path, ["a"])
    assert list(found) == ["a", "names"] and np.array_equal(found["a"], X)
    with pytest.raises(DataError, match="expected the arrays a and b, got .* no b"):
        read_npz(path, ["a", "b"])
    with pytest.raises(DataError, match="y.npz: no such file; run it"):
        read_npz(tmp_path / "y.npz", hint="run it")
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        data = bytearray(whole)
        data[at] ^= 16
        path.write_bytes(data)
        try:
            same = read_npz(path)
        except DataError as e:
            assert str(path) in str(e)
        else:  # a date, a name or a flag of the zip
            assert all(np.array_equal(x, y) for x, y in zip(same.values(), found.values()))
    for data in (b"", whole[:-30], whole[:50], b"PK\x03\x04" + bytes(50)):
        path.write_bytes(data)
        with pytest.raises(DataError, match="x.npz: is not a whole .npz file"):
            read_npz(path)


def test_an_array_that_would_fill_the_memory(tmp_path):
    path, header = tmp_path / "x.npz", npy(X).replace(b"(3, 4), }         ", b"(300000000, 4), }")[:128]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("a.npy", header + bytes(1 << 24))
    with pytest.raises(DataError, match="x.npz: is not a whole .npz file"):
        read_npz(path)
