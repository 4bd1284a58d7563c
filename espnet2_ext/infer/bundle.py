"""A trained model as one file: a zip in ESPnet's pack format.

Members: `meta.yaml` (ESPnet's table of contents), `config.yaml` (training configuration),
`model.pth` (weights, tensors only), `labels.tsv` (classes) and `bundle.yaml` (what the model is).
`espnet2.main_funcs.pack_funcs.unpack` reads it, and a zip that `python -m espnet2.bin.pack enh
--option labels.tsv --option bundle.yaml` made is read here.
"""

import argparse
import importlib
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from espnet2_ext.data.tables import Label, read_labels
from espnet2_ext.errors import BundleError, DataError
from espnet2_ext.infer.weights import fill, load_state, open_member

FORMAT = 1  # of bundle.yaml
TASKS = {"qsep": "espnet2_ext.tasks.qsep:QSepTask", "weak": "espnet2_ext.tasks.weak:WeakLabelTask"}
KINDS = {"qsep": "its model answers queries, one is needed", "weak": "its model knows classes and takes no query"}


class Bundle(NamedTuple):
    config: dict
    state: dict[str, Tensor]
    labels: list[Label]
    info: dict


# ---- reading -------------------------------------------------------------------------------------


def read_bundle(path: str | Path, weights: bool = True) -> Bundle:
    """Read a bundle; nothing in it is executed. Without `weights` its `state` is empty.

    Raises:
        BundleError: not there, not a bundle, cut off, damaged, made for another task.
    """
    with _open_zip(Path(path)) as archive:
        try:
            meta = _yaml(archive.read("meta.yaml"), f"{path}: meta.yaml")
            model_file = _member(archive, path, meta, "files", "model_file")
            config_file = _member(archive, path, meta, "yaml_files", "train_config")
            names = {Path(n).name: n for n in archive.namelist()}
            for needed in ("bundle.yaml", "labels.tsv"):
                if needed not in names:
                    raise BundleError(
                        f"{path}: holds no {needed}; when packing with ESPnet, add "
                        "--option labels.tsv --option bundle.yaml"
                    )
            config = _yaml(archive.read(config_file), f"{path}: {config_file}")
            info = _yaml(archive.read(names["bundle.yaml"]), f"{path}: bundle.yaml")
            labels = _labels_in(archive.read(names["labels.tsv"]), f"{path}: labels.tsv")
            state = {} if not weights else load_state(open_member(archive, model_file), f"{path}: {model_file}")
        except (zipfile.BadZipFile, EOFError, zlib.error) as e:
            raise BundleError(f"{path}: is damaged ({e})") from e
    _check_info(info, labels, path)
    return Bundle(config, state, labels, info)


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


def _member(archive: zipfile.ZipFile, path, meta: dict, group: str, key: str) -> str:
    name = (meta.get(group) or {}).get(key)
    found = str(name or "").lstrip("/")  # zip drops the leading slash of a path outside the folder
    if found not in archive.namelist():
        raise BundleError(f"{path}: is a packed model of another kind: its meta.yaml names no {key} that is in it")
    return found


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise BundleError(f"{where}: is not UTF-8 text") from e


def _yaml(data: bytes, where: str) -> dict:
    try:
        value = yaml.safe_load(_text(data, where))
    except yaml.YAMLError as e:
        raise BundleError(f"{where}: is not valid YAML ({e})") from e
    if not isinstance(value, dict):
        raise BundleError(f"{where}: should hold `key: value` lines")
    return value


def _check_info(info: dict, labels: list[Label], path) -> None:
    if info.get("format", FORMAT) != FORMAT:
        raise BundleError(
            f"{path}: has format {info['format']}, this espnet2_ext reads {FORMAT}; take a newer espnet2_ext"
        )
    if info.get("task") not in TASKS:
        raise BundleError(f"{path}: is a model for the task {info.get('task')!r}; known: {', '.join(TASKS)}")
    if info.get("classes", len(labels)) != len(labels):
        raise BundleError(f"{path}: bundle.yaml tells of {info['classes']} classes, labels.tsv lists {len(labels)}")


def _labels_in(data: bytes, where: str) -> list[Label]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.tsv"
        path.write_bytes(data)
        try:
            return read_labels(path)
        except DataError as e:
            raise BundleError(str(e).replace(str(path), where)) from e
        except UnicodeDecodeError as e:
            raise BundleError(f"{where}: is not UTF-8 text") from e


# ---- models --------------------------------------------------------------------------------------


def build_from_bundle(path: str | Path, task: str = "qsep") -> tuple[nn.Module, Bundle]:
    """The model of a bundle with its weights.

    Raises:
        BundleError: the two do not fit, or a model for another task than `task`.
    """
    bundle = read_bundle(path, weights=False)
    if bundle.info["task"] != task:
        raise BundleError(f"{path}: {KINDS[bundle.info['task']]}")
    return build_model(bundle.config, lambda: read_bundle(path).state, task, str(path)), bundle


def build_from_exp(
    train_config: str | Path, model_file: str | Path, labels: str | Path | None = None
) -> tuple[nn.Module, list[Label], dict]:
    """The model of an experiment: its `config.yaml` and a file of weights.

    labels: a labels.tsv; None takes the one beside `model_file`, if there is one.
    """
    config = _yaml(read_bytes(train_config), str(train_config))

    def load() -> dict[str, Tensor]:
        if not Path(model_file).is_file():
            raise BundleError(f"{model_file}: no such file")
        with open(model_file, "rb") as f:
            return load_state(f, str(model_file))

    beside = Path(model_file).parent / "labels.tsv"
    if labels is None and beside.exists():
        labels = beside
    classes = [] if labels is None else _labels_in(read_bytes(labels), str(labels))
    model = build_model(config, load, "qsep", str(model_file))
    return model, classes, {"task": "qsep", "name": Path(model_file).absolute().parent.name}


def read_bytes(path: str | Path) -> bytes:
    """Content of a file (BundleError: no such file)."""
    if not Path(path).is_file():
        raise BundleError(f"{path}: no such file")
    return Path(path).read_bytes()


def build_model(config: dict, load: Callable[[], dict[str, Tensor]], task: str, where: str) -> nn.Module:
    """Build the model that `config` describes and `fill` it with what `load` returns."""
    module, _, name = TASKS[task].partition(":")
    task_class = getattr(importlib.import_module(module), name)
    try:
        model = task_class.build_model(argparse.Namespace(**config))
    except (AttributeError, TypeError, ValueError, KeyError) as e:
        raise BundleError(f"{where}: its configuration does not build a {task} model: {e}") from e
    fill(model, load, where)
    return model


@torch.inference_mode()
def check_classes(model: nn.Module, labels: list[Label], where: str) -> tuple[int, bool]:
    """Width E of the model's queries, and whether it tags `labels`; both found by trying.

    An empty list fits every model. A frozen query network may know other classes than those that
    the separator was trained on: its tags then are none of `labels`.

    Raises:
        BundleError: a label list of another size than the tags that the model was trained on.
    """
    was, _ = model.training, model.eval()
    noise = 0.1 * np.random.default_rng(0).standard_normal((1, int(model.fs) // 2))
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    out = model.embed(torch.from_numpy(noise.astype(np.float32)).to(device))
    model.train(was)
    tags = 0 if out.clipwise is None else out.clipwise.shape[1]
    fits = tags in (0, len(labels)) or not labels
    if not fits and not getattr(model, "frozen", False):
        raise BundleError(f"{where}: the label list has {len(labels)} classes, the model tags {tags}")
    return out.embedding.shape[1], tags > 0 and fits
