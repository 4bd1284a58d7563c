"""Files of weights: tensors only, and refused with a reason when they do not fit.

A model's weights are held once while it is loaded: they are read from inside the bundle without a
copy of the file, after the model's first, random ones were let go.
"""

import io
import zipfile
from collections.abc import Callable
from typing import BinaryIO

import torch
from torch import Tensor, nn

from espnet2_ext.core.public.weight_files import UNREADABLE, reason
from espnet2_ext.errors import BundleError

SHOWN = 3  # keys of a kind that a message lists


def load_state(file: BinaryIO, where: str) -> dict[str, Tensor]:
    """Weights by name, loaded with `weights_only`, on the CPU.

    Raises:
        BundleError: not a file of weights, cut off, ESPnet's or Lightning's training checkpoint.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except UNREADABLE as e:
        raise BundleError(f"{where}: is not a whole file of weights ({reason(e)})") from e
    if isinstance(state, dict) and "optimizers" in state:
        raise BundleError(
            f"{where}: is ESPnet's training checkpoint (weights with the optimiser's state, for "
            "resuming); give the weights alone, for example valid.loss.ave.pth or 10epoch.pth"
        )
    if isinstance(state, dict) and "optimizer_states" in state:
        raise BundleError(f"{where}: is a Lightning training checkpoint, not weights alone")
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise BundleError(f"{where}: holds something else than named tensors")
    return state


def check_state(expected: dict[str, Tensor], state: dict[str, Tensor], where: str) -> None:
    """Raise a BundleError that lists missing and unexpected keys and other shapes."""
    missing = [k for k in expected if k not in state]
    unexpected = [k for k in state if k not in expected]
    shapes = [
        f"{k} {list(v.shape)} in place of {list(expected[k].shape)}"
        for k, v in state.items()
        if k in expected and v.shape != expected[k].shape
    ]
    faults = [
        f"{len(keys)} {kind} ({', '.join(keys[:SHOWN])}{', ...' if keys[SHOWN:] else ''})"
        for kind, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if keys
    ]
    if faults:
        raise BundleError(
            f"{where}: these weights are of another model than the configuration's. Keys: {'; '.join(faults)}"
        )


def fill(model: nn.Module, load: Callable[[], dict[str, Tensor]], where: str) -> None:
    """Give `model` the weights that `load` returns, every key and shape checked.

    Its own weights are let go first, so that memory never holds two sets.

    Raises:
        BundleError: from `load`, or that the two do not fit.
    """
    for module in model.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad))
    expected = model.state_dict()
    state = load()
    check_state(expected, state, where)
    model.load_state_dict({k: v.to(expected[k].dtype) for k, v in state.items()}, assign=True)


class _Part(io.RawIOBase):
    """Bytes `start` to `start + size` of a file, as a file."""

    def __init__(self, file: BinaryIO, start: int, size: int):
        self.file, self.start, self.size, self.at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        self.at = max(0, base + offset)
        return self.at

    def readinto(self, buffer) -> int:
        self.file.seek(self.start + self.at)
        view = memoryview(buffer)[: max(0, self.size - self.at)]
        done = self.file.readinto(view)
        self.at += done
        return done


def open_member(archive: zipfile.ZipFile, name: str) -> BinaryIO:
    """A member of a zip as a file that can seek, its checksum checked; not read into memory.

    Raises:
        zipfile.BadZipFile: a wrong checksum.
    """
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        return io.BytesIO(archive.read(name))
    with archive.open(name) as f:
        while f.read(1 << 20):
            pass
    archive.fp.seek(info.header_offset + 26)  # two lengths; after 30 bytes in all the texts follow
    lengths = archive.fp.read(4)
    start = info.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    return io.BufferedReader(_Part(archive.fp, start, info.file_size), 1 << 20)
