"""The reader of `torch.save`'s files: as PyTorch reads them, and what is refused before it costs anything."""

import re
import resource
import time
import zipfile
from collections import OrderedDict, defaultdict

import pytest
import torch
from torch import nn

from espnet2_ext.core.weights import load, load_weights, not_finite, tensor_sizes
from espnet2_ext.errors import DataError

BOTH = pytest.mark.parametrize("new_format", [True, False])


class Stranger(dict):
    """Nothing that a reader of weights knows."""

    def __reduce__(self):
        return (exec, ("raise SystemExit",))


def save(path, value, new_format=True):
    torch.save(value, path, _use_new_zipfile_serialization=new_format)
    return path


def many():
    """Tensors of all kinds."""
    x = torch.randn(3, 4)
    kinds = [torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.int8, torch.bool, torch.complex64]
    state = {"x": x, "row": x[1], "turned": x.t(), "none": torch.zeros(0), "one": torch.tensor(3.5)}
    return state | {str(k): torch.arange(5).to(k) for k in kinds} | {"wide": torch.ones(1).expand(4)}


@BOTH
def test_what_pytorch_reads(tmp_path, new_format):
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    for state in (many(), net.state_dict(), dict(net.named_parameters())):
        path = save(tmp_path / "a.pth", state, new_format)
        found, theirs = load_weights(path), torch.load(path, weights_only=True)
        assert list(found) == list(theirs)
        for name, value in theirs.items():
            assert torch.equal(found[name], value) and found[name].dtype == value.dtype
            assert found[name].stride() == value.stride()
        with open(path, "rb") as f:
            sizes = tensor_sizes(f, path)
        assert sizes[:2] == (len(state), sum(v.numel() for v in state.values()))


@BOTH
def test_objects_beside_the_tensors_are_not_made(tmp_path, new_format):
    content = {"x": torch.ones(2), "a": Stranger(), "b": defaultdict(list, {1: [2]}), (1, "k"): OrderedDict(c=1.5)}
    found = load(save(tmp_path / "a.pth", content, new_format))
    assert found["x"].tolist() == [1, 1] and found[1, "k"] == {"c": 1.5} and not isinstance(found["b"], dict)


@BOTH
def test_every_way_to_be_cut_off_is_told_with_the_file(tmp_path, new_format):
    whole = save(tmp_path / "a.pth", {f"k{i}": torch.zeros(2) for i in range(3)}, new_format).read_bytes()
    for at in range(0, len(whole) - 1, 53 if new_format else 1):
        (tmp_path / "cut.pth").write_bytes(whole[:at])
        with pytest.raises(DataError, match="cut.pth: is not a whole file of weights"):
            load(tmp_path / "cut.pth")


def test_a_flipped_bit_is_found(tmp_path):
    path = save(tmp_path / "a.pth", {"x": torch.arange(100.0)})
    data = bytearray(path.read_bytes())
    data[data.index(torch.tensor(50.0).numpy().tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="a.pth: is not a whole file of weights .*Bad CRC-32"):
        load_weights(path)


@pytest.mark.parametrize(
    "value, message",
    [
        ([1, 2], "something else than named tensors"),
        ({"x": 1}, "something else than named tensors"),
        ({}, "something else than named tensors"),
        ({"x": Stranger()}, "something else than named tensors"),
        ({"model": {}, "optimizers": []}, "ESPnet's training checkpoint"),
        ({"state_dict": {"loss.x": torch.ones(1)}}, "no weight whose name begins with 'model.'"),
    ],
)
def test_what_is_no_state_is_told(tmp_path, value, message):
    with pytest.raises(DataError, match=message):
        load_weights(save(tmp_path / "a.pth", value))


def test_of_lightning_the_model_is_taken(tmp_path):
    state = {"model.x": torch.ones(1), "loss.y": torch.ones(1)}
    assert list(load_weights(save(tmp_path / "a.ckpt", {"state_dict": state, "epoch": 1}))) == ["x"]


def test_values_that_are_not_finite():
    state = {
        "a": torch.tensor([1, float("nan")]),
        "b": torch.tensor(float("inf")),
        "c": torch.ones(2),
        "d": torch.arange(3),
    }
    assert not_finite(state) == ["a", "b"] and not_finite(state, ["a", "c"]) == ["a"]


# ---- hostile files -------------------------------------------------------------------------------


def zipped(path, pkl, **parts):
    with zipfile.ZipFile(path, "w", parts.pop("compress", 0)) as z:
        z.writestr("a/data.pkl", pkl)
        for name, data in parts.items():
            z.writestr(f"a/data/{name}", data)
    return path


def tensor(count=4, offset=0, shape=(4,), strides=(1,), kind="FloatStorage"):
    """The pickle of {"x": a tensor of storage 0}."""

    def text(x):
        return b"X" + len(x).to_bytes(4, "little") + x.encode()

    def number(n):
        return b"\x8a\x10" + n.to_bytes(16, "little", signed=True)

    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text("0") + text("cpu") + number(count) + b"tQ"
    sizes = b"".join(b"(" + b"".join(map(number, n)) + b"t" for n in (shape, strides))
    made = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + sizes + b"\x89}tR"
    return b"\x80\x02}" + text("x") + made + b"s."


DEEP = b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"Ns."  # a mapping with a key whose hash would end the process


@pytest.mark.parametrize(
    "pkl",
    [
        tensor(count=1 << 40),
        tensor(count=8),
        tensor(shape=(5,)),
        tensor(offset=1),
        tensor(shape=(1 << 62, 1 << 62), strides=(0, 0), offset=4),
        tensor(shape=(-4,)),
        tensor(strides=(-1,)),
        tensor(strides=(1, 1)),
        tensor(kind="NoStorage"),
        DEEP,
        b"\x80\x02r\xff\xff\xff\x7f.",  # an index that asks for 16 GB
        b"\x80\x02\x8e\xff\xff\xff\xff\xff\xff\xff\x00.",  # bytes that are not there
        b"\x80\x02(" + b"]" * 1000 + b"t.",
        b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00exit\x85R.",
        b"",
    ],
)
def test_hostile_pickles_cost_nothing(tmp_path, pkl):
    path = zipped(tmp_path / "a.pth", pkl, **{"0": bytes(16)})
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(DataError, match=re.escape(f"{path}: ")):
        load_weights(path)
    assert time.process_time() - begin < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB


def test_the_same_pickle_without_a_lie_is_read(tmp_path):
    path = zipped(tmp_path / "a.pth", tensor(), **{"0": torch.arange(4.0).numpy().tobytes()})
    assert load_weights(path)["x"].tolist() == [0, 1, 2, 3]


def test_hostile_zips_cost_nothing(tmp_path):
    bomb = zipped(tmp_path / "a.pth", tensor(count=1 << 24), compress=8, **{"0": bytes(1 << 26)})
    with pytest.raises(DataError, match="more numbers are declared than the file has bytes"):
        load_weights(bomb)
    zipped(bomb, tensor(), more=bytes(1 << 26), compress=8, **{"0": bytes(16)})
    with pytest.raises(DataError, match="a part larger than the file"):
        load_weights(bomb)
    with pytest.warns(UserWarning), zipfile.ZipFile(zipped(bomb, tensor(), **{"0": bytes(16)}), "a") as z:
        z.writestr("a/data/0", bytes(16))
    with pytest.raises(DataError, match="two parts have one name"):
        load_weights(bomb)
