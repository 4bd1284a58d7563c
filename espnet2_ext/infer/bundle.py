"""A trained model as one file: a zip in ESPnet's pack format.

Members: `meta.yaml` (ESPnet's table of contents), `config.yaml` (training configuration), `model.pth` (weights, tensors
only), `labels.tsv` (classes) and `bundle.yaml` (what the model is, and the version that packed it); where somebody made
them, `card.md` (a model card) and `class_queries.npz` (what the model heard, see `vectors.class_queries`).
`espnet2.main_funcs.pack_funcs.unpack` reads it, and a zip that `python -m espnet2.bin.pack enh --option labels.tsv
--option bundle.yaml` made is read here. PyTorch is imported only for the weights.

A bundle is somebody else's data: see SECURITY.md. Nothing in it is executed or unpacked to disk, and its sizes are
compared with the file before anything is allocated.
"""

import contextlib
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from espnet2_ext.core.weights import Sizes, load_weights, tensor_sizes
from espnet2_ext.data.tables import Label, parse_labels
from espnet2_ext.errors import BundleError, DataError
from espnet2_ext.infer.vectors.class_queries import ARRAYS, ClassQueries
from espnet2_ext.util.binary import BROKEN, open_member, open_zip, read_member, read_npz
from espnet2_ext.util.documents import decode, dump_yaml, mapping, parse_yaml, read_yaml
from espnet2_ext.util.files import digest, verified_text
from espnet2_ext.util.names import STARTER, bundle_file

FORMAT = 1  # of bundle.yaml
META = {"files": {"model_file": "model.pth"}, "yaml_files": {"train_config": "config.yaml"}}
CARD, CLASS_QUERIES = "card.md", "class_queries.npz"
KINDS = {"qsep": "its model answers queries, one is needed", "weak": "its model knows classes and takes no query"}
MOST_TEXT, MOST_PARTS = 1 << 20, 50_000  # bytes of a text in a bundle; lines and values in it
MOST_DIRECTORY = 1 << 20  # bytes of the table of contents
MOST_NAMES, MOST_UNPACKED = 1 << 20, 1 << 26  # bytes that `info` looks at: of tensors' names, of compressed weights
OUTSIDE = re.compile(r"^/|^[A-Za-z]:|\\|(^|/)\.\.(/|$)")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
REQUIREMENT = re.compile(r"[A-Za-z0-9][\w.-]*(==[\w.+!-]+)?")


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
    config_file: str
    model_file: str

    def state(self) -> dict:
        """Weights by name. Raises a BundleError for damaged ones."""
        with _damage(self.path), open_member(self.archive, self.model_file) as f:
            return load_weights(f, f"{self.path}: {self.model_file}", BundleError)

    def copy_weights(self, to: IO[bytes]) -> None:
        """Write the file of the weights, as it is, to an open file."""
        with _damage(self.path), self.archive.open(self.model_file) as f:
            shutil.copyfileobj(f, to, 1 << 20)

    def sizes(self) -> Sizes | None:
        """Sizes of the weights, without PyTorch; None where that would take a second, or much memory."""
        info = self.archive.getinfo(self.model_file)
        if info.compress_type != zipfile.ZIP_STORED and info.file_size > MOST_UNPACKED:
            return None
        with _damage(self.path), open_member(self.archive, self.model_file) as f:
            return tensor_sizes(f, f"{self.path}: {self.model_file}", BundleError, MOST_NAMES)

    def stored(self) -> tuple[int, int]:
        """How many tensors the weights are, and how many numbers the file holds for them."""
        with _damage(self.path), open_member(self.archive, self.model_file, check=False) as f:
            sizes = tensor_sizes(f, f"{self.path}: {self.model_file}", BundleError)
        return (sizes.tensors, sizes.stored) if sizes else (0, 0)

    def card(self) -> str:
        """The model card, without control characters; empty where there is none."""
        if not (name := _named(self.archive, self.path, CARD)):
            return ""
        with _damage(self.path):
            text = decode(_text(self.archive, self.path, name), f"{self.path}: {name}")
        return "".join(c for c in text if c == "\n" or not CONTROL.match(c))

    def class_queries(self) -> ClassQueries | None:
        """What a query model heard; None where nobody measured it."""
        if not (name := _named(self.archive, self.path, CLASS_QUERIES)):
            return None
        where = f"{self.path}: {name}"
        if self.archive.getinfo(name).file_size > MOST_UNPACKED:
            raise BundleError(f"{where}: is larger than {MOST_UNPACKED} bytes")
        with _damage(self.path), open_member(self.archive, name) as f:
            found = ClassQueries.of_arrays(read_npz(f, ARRAYS, where=where), where)
        _check_classes(found.names, where)
        return found

    def members(self) -> dict[str, bytes]:
        """All but the weights, under the names that `pack` gives."""
        meta = _mapping(self.archive, self.path, "meta.yaml") | META
        names = {n: _named(self.archive, self.path, n) for n in ("labels.tsv", "bundle.yaml", CARD, CLASS_QUERIES)}
        names = {"config.yaml": self.config_file, **names}
        with _damage(self.path):
            kept = {name: read_member(self.archive, member) for name, member in names.items() if member}
        return {"meta.yaml": dump_yaml(meta, indent=4).encode(), **kept}

    @property
    def model_hash(self) -> str:
        """Hex digits that stand for the model: for its configuration and its weights."""
        return _hash((i.CRC, i.file_size) for i in map(self.archive.getinfo, (self.config_file, self.model_file)))

    def about(self) -> dict:
        """What bundle.yaml says of the model, with `path` and `model_hash`."""
        return {**self.info, "path": self.path, "model_hash": self.model_hash}


def hash_of_files(*files: str | Path) -> str:
    """Hex digits that stand for a model, of its `config.yaml` and its weights."""
    found = []
    for file in files:
        crc = size = 0
        with open(file, "rb") as f:
            while block := f.read(1 << 20):
                crc, size = zlib.crc32(block, crc), size + len(block)
        found.append((crc, size))
    return _hash(found)


def _hash(sums: Iterable[tuple[int, int]]) -> str:
    return digest(list(sums))[:16]


def read_bundle(path: str | Path, weights: bool = True) -> Bundle:
    """Read a bundle; nothing in it is executed. Without `weights` its `state` is empty. See `open_bundle`."""
    with open_bundle(path) as bundle:
        return Bundle(bundle.config, bundle.state() if weights else {}, bundle.labels, bundle.info)


@contextlib.contextmanager
def open_bundle(path: str | Path) -> Iterator[OpenBundle]:
    """Open a bundle and read everything except its weights; nothing in it is executed.

    Args:
        path: a file, or `starter` for the model in the package.

    Raises:
        BundleError: no such file, not a bundle, truncated, damaged, made for another task.
    """
    path = bundle_file(path)
    with _open_zip(Path(path)) as archive:
        with _damage(path):
            _check_names(archive, path)
            meta = _mapping(archive, path, "meta.yaml")
            model_file = _member(archive, path, meta, "files", "model_file")
            config_file = _member(archive, path, meta, "yaml_files", "train_config")
            info = _mapping(archive, path, _option(archive, path, "bundle.yaml"))
            _check_info(info, path)
            config = _mapping(archive, path, config_file)
            table = _option(archive, path, "labels.tsv")
            labels = parse_labels(_text(archive, path, table), f"{path}: labels.tsv")
            if info.get("classes", len(labels)) != len(labels):
                raise BundleError(f"{path}: bundle.yaml has {info['classes']} classes, labels.tsv lists {len(labels)}")
            _check_classes([label.name for label in labels], f"{path}: labels.tsv")
            _check_classes(config.get("class_names") or [], f"{path}: {config_file}: class_names")
        yield OpenBundle(str(path), config, labels, info, archive, config_file, model_file)


def read_config(path: str | Path) -> dict:
    """An experiment's `config.yaml`. Raises a BundleError where it is missing or broken."""
    return mapping(read_yaml(verified_text(path, BundleError), BundleError), path, BundleError)


def _mapping(archive: zipfile.ZipFile, path: str | Path, name: str) -> dict:
    where = f"{path}: {name}"
    return mapping(parse_yaml(_text(archive, path, name), where), where)


def _text(archive: zipfile.ZipFile, path: str | Path, name: str) -> bytes:
    if (size := archive.getinfo(name).file_size) > MOST_TEXT:
        raise BundleError(f"{path}: {name}: has {size} bytes, a text in a bundle at most {MOST_TEXT}")
    data = read_member(archive, name)
    if sum(data.count(c) for c in (b",", b"[", b"{", b"\n")) > MOST_PARTS:
        raise BundleError(f"{path}: {name}: holds more than {MOST_PARTS} lines and values")
    return data


@contextlib.contextmanager
def _damage(path: str | Path) -> Iterator[None]:
    """What is wrong inside is a BundleError."""
    try:
        yield
    except BundleError:
        raise
    except DataError as e:
        raise BundleError(str(e)) from e
    except BROKEN as e:
        raise BundleError(f"{path}: is damaged ({e})") from e


@contextlib.contextmanager
def _open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    if not path.is_file():
        lacks = "; this espnet2_ext was installed without its model" if str(path) == bundle_file(STARTER) else ""
        raise BundleError(f"{path}: no such bundle file{lacks}")
    with open(path, "rb") as f:
        head = f.read(1024)
        if head[:4] != b"PK\x03\x04":
            raise BundleError(f"{path}: is not a model bundle (a zip made by `espnet2-ext pack`)")
        try:
            archive = open_zip(f, MOST_DIRECTORY)
        except BROKEN as e:
            raise BundleError(f"{path}: is cut off or damaged: {e}") from e
        names = archive.namelist()
        first = head[30 : 30 + int.from_bytes(head[26:28], "little")].decode("utf-8", "replace")
        if first not in names:  # what was found is the table of the weights, a zip inside the zip
            raise BundleError(f"{path}: is cut off or damaged: its table of contents is missing")
        if "meta.yaml" not in names:
            if any(n.endswith("/data.pkl") for n in names):
                load_weights(f, path, BundleError)  # says so when it is a training checkpoint
                raise BundleError(f"{path}: is a file of weights alone, not a bundle; make one with `espnet2-ext pack`")
            raise BundleError(f"{path}: is a zip, but not a model bundle (it has no meta.yaml)")
        yield archive


def _check_names(archive: zipfile.ZipFile, path: str | Path) -> None:
    """Refuse members that a tool which unpacks the bundle would write, or look for, elsewhere."""
    for info in archive.infolist():
        name = info.orig_filename
        if OUTSIDE.search(name) or CONTROL.search(name) or stat.S_ISLNK(info.external_attr >> 16):
            raise BundleError(f"{path}: its member {name!r} is a link, or not a name inside the bundle")


def _member(archive: zipfile.ZipFile, path: str | Path, meta: dict, group: str, key: str) -> str:
    members = meta.get(group)
    name = members.get(key) if isinstance(members, dict) else None
    found = str(name or "").lstrip("/")  # zip drops the leading slash of a path outside the folder
    if found not in archive.namelist():
        raise BundleError(f"{path}: is a packed model of another kind: its meta.yaml names no {key} that is in it")
    return found


def _option(archive: zipfile.ZipFile, path: str | Path, name: str) -> str:
    """As `_named`, of a member that must be there."""
    if not (found := _named(archive, path, name)):
        raise BundleError(
            f"{path}: holds no {name}; when packing with ESPnet, add --option labels.tsv --option bundle.yaml"
        )
    return found


def _named(archive: zipfile.ZipFile, path: str | Path, name: str) -> str:
    """The member that is called `name`, in whatever folder ESPnet's `pack` put it; empty where there is none."""
    found = [n for n in archive.namelist() if Path(n).name == name]
    if len(found) > 1:
        raise BundleError(f"{path}: holds {len(found)} files {name}")
    return found[0] if found else ""


def _check_info(info: dict, path: str | Path) -> None:
    if info.get("format", FORMAT) != FORMAT:
        raise BundleError(
            f"{path}: has format {info['format']!r}, this espnet2_ext reads {FORMAT}; take a newer espnet2_ext"
        )
    if info.get("task") not in list(KINDS):
        raise BundleError(f"{path}: is a model for the task {info.get('task')!r}; known: {', '.join(KINDS)}")
    plugins = info.get("plugins", [])
    if not isinstance(plugins, list) or not all(isinstance(p, str) and REQUIREMENT.fullmatch(p) for p in plugins):
        raise BundleError(f"{path}: bundle.yaml: plugins: should be a list of NAME==VERSION, not {plugins!r}")
    if isinstance(agreement := info.get("agreement", 0), bool) or not isinstance(agreement, int | float):
        raise BundleError(f"{path}: bundle.yaml: agreement: should be a number, not {agreement!r}")


def _check_classes(names: Any, where: str) -> None:
    """Refuse names of classes that are no texts, empty, or hold control characters: they are shown and name files."""
    for name in names if isinstance(names, list) else [names]:
        if not isinstance(name, str) or not name or CONTROL.search(name) or len(name) > 1000:
            raise BundleError(f"{where}: {str(name)[:80]!r} is not a name of a class")
