"""A trained model as one file: a zip in ESPnet's pack format.

Members: `meta.yaml` (ESPnet's table of contents), `config.yaml` (training configuration), `model.pth` (weights, tensors
only), `labels.tsv` (classes) and `bundle.yaml` (what the model is, and the version that packed it).
`espnet2.main_funcs.pack_funcs.unpack` reads it, and a zip that `python -m espnet2.bin.pack enh --option labels.tsv
--option bundle.yaml` made is read here. PyTorch is imported only for the weights.
"""

import collections
import contextlib
import io
import pickle
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from espnet2_ext.data.tables import Label, parse_labels
from espnet2_ext.errors import BundleError, DataError
from espnet2_ext.util.documents import mapping, parse_yaml, read_yaml

FORMAT = 1  # of bundle.yaml
KINDS = {"qsep": "its model answers queries, one is needed", "weak": "its model knows classes and takes no query"}
BYTES = {"Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2}  # of PyTorch's storages
BYTES |= {"Char": 1, "Byte": 1, "Bool": 1, "ComplexFloat": 8, "ComplexDouble": 16}


class Bundle(NamedTuple):
    """All of a bundle; `state`: weights by name."""

    config: dict
    state: dict
    labels: list[Label]
    info: dict


@dataclass(frozen=True)
class OpenBundle:
    """A bundle whose weights are still in the file; `path` is what messages call it."""

    path: str
    config: dict
    labels: list[Label]
    info: dict
    archive: zipfile.ZipFile
    model_file: str

    def state(self) -> dict:
        """Weights by name. Raises a BundleError for damaged ones."""
        with _damage(self.path), open_member(self.archive, self.model_file) as f:
            return load_state(f, f"{self.path}: {self.model_file}")

    def sizes(self) -> list[tuple[int, int]]:
        """Numbers and bytes of each tensor of the weights; without PyTorch, where its usual format allows it."""
        with _damage(self.path), contextlib.suppress(ValueError, pickle.UnpicklingError, zipfile.BadZipFile):
            with open_member(self.archive, self.model_file) as f, zipfile.ZipFile(f) as inner:
                [name] = [n for n in inner.namelist() if n.endswith("/data.pkl")]
                return list(_Sizes(io.BytesIO(inner.read(name))).load().values())
        return [(t.numel(), t.numel() * t.element_size()) for t in self.state().values()]


def read_bundle(path: str | Path, weights: bool = True) -> Bundle:
    """Read a bundle; nothing in it is executed. Without `weights` its `state` is empty. See `open_bundle`."""
    with open_bundle(path) as bundle:
        return Bundle(bundle.config, bundle.state() if weights else {}, bundle.labels, bundle.info)


@contextlib.contextmanager
def open_bundle(path: str | Path) -> Iterator[OpenBundle]:
    """Open a bundle and read everything except its weights; nothing in it is executed.

    Raises:
        BundleError: no such file, not a bundle, truncated, damaged, made for another task.
    """
    with _open_zip(Path(path)) as archive:
        with _damage(path):
            meta = _mapping(archive, path, "meta.yaml")
            model_file = _member(archive, path, meta, "files", "model_file")
            config_file = _member(archive, path, meta, "yaml_files", "train_config")
            names = {Path(n).name: n for n in archive.namelist()}
            for needed in ("bundle.yaml", "labels.tsv"):
                if needed not in names:
                    raise BundleError(
                        f"{path}: holds no {needed}; when packing with ESPnet, add "
                        "--option labels.tsv --option bundle.yaml"
                    )
            config = _mapping(archive, path, config_file)
            info = _mapping(archive, path, names["bundle.yaml"])
            _check_info(info, path)
            labels = parse_labels(archive.read(names["labels.tsv"]), f"{path}: labels.tsv")
            if info.get("classes", len(labels)) != len(labels):
                raise BundleError(f"{path}: bundle.yaml has {info['classes']} classes, labels.tsv lists {len(labels)}")
        yield OpenBundle(str(path), config, labels, info, archive, model_file)


def read_config(path: str | Path) -> dict:
    """An experiment's `config.yaml`. Raises a BundleError where it is missing or broken."""
    return mapping(read_yaml(path, BundleError), path, BundleError)


def _mapping(archive: zipfile.ZipFile, path: str | Path, name: str) -> dict:
    where = f"{path}: {name}"
    return mapping(parse_yaml(archive.read(name), where), where)


@contextlib.contextmanager
def _damage(path: str | Path) -> Iterator[None]:
    """What is wrong inside is a BundleError."""
    try:
        yield
    except BundleError:
        raise
    except DataError as e:
        raise BundleError(str(e)) from e
    except (zipfile.BadZipFile, EOFError, zlib.error) as e:
        raise BundleError(f"{path}: is damaged ({e})") from e


def _open_zip(path: Path) -> zipfile.ZipFile:
    if not path.is_file():
        raise BundleError(f"{path}: no such bundle file")
    with open(path, "rb") as f:
        head = f.read(1024)
    if head[:4] != b"PK\x03\x04":
        raise BundleError(f"{path}: is not a model bundle (a zip made by `espnet2-ext pack`)")
    cut = BundleError(f"{path}: is cut off or damaged: its table of contents is missing")
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as e:
        raise cut from e
    names = archive.namelist()
    first = head[30 : 30 + int.from_bytes(head[26:28], "little")].decode("utf-8", "replace")
    if first not in names:  # what was found is the table of the weights, a zip inside the zip
        archive.close()
        raise cut
    if "meta.yaml" not in names:
        archive.close()
        if any(n.endswith("/data.pkl") for n in names):
            with open(path, "rb") as f:
                load_state(f, str(path))  # says so when it is a training checkpoint
            raise BundleError(f"{path}: is a file of weights alone, not a bundle; make one with `espnet2-ext pack`")
        raise BundleError(f"{path}: is a zip, but not a model bundle (it has no meta.yaml)")
    return archive


def _member(archive: zipfile.ZipFile, path: str | Path, meta: dict, group: str, key: str) -> str:
    name = (meta.get(group) or {}).get(key)
    found = str(name or "").lstrip("/")  # zip drops the leading slash of a path outside the folder
    if found not in archive.namelist():
        raise BundleError(f"{path}: is a packed model of another kind: its meta.yaml names no {key} that is in it")
    return found


def _check_info(info: dict, path: str | Path) -> None:
    if info.get("format", FORMAT) != FORMAT:
        raise BundleError(
            f"{path}: has format {info['format']}, this espnet2_ext reads {FORMAT}; take a newer espnet2_ext"
        )
    if info.get("task") not in KINDS:
        raise BundleError(f"{path}: is a model for the task {info.get('task')!r}; known: {', '.join(KINDS)}")


# ---- weights inside the zip ----------------------------------------------------------------------


class _Sizes(pickle.Unpickler):
    """Numbers and bytes of the tensors in a file of weights: nothing is imported, nothing of it is called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda width, offset, size, *rest: (prod(size), prod(size) * width)
        if module == "torch" and name.removesuffix("Storage") in BYTES:
            return BYTES[name.removesuffix("Storage")]
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, pid: tuple) -> int:
        return pid[1]  # ("storage", type, key, device, numbers): here the type is a number's bytes


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


def load_state(file: BinaryIO, where: str) -> dict:
    """Weights by name, loaded with `weights_only`, on the CPU.

    Raises:
        BundleError: not a file of weights, truncated, ESPnet's or Lightning's training checkpoint.
    """
    import torch

    from espnet2_ext.core.public.checkpoint import UNREADABLE, reason

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
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise BundleError(f"{where}: holds something else than named tensors")
    return state
