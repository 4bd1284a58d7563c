"""Writing bundles: see `espnet2_ext.infer.bundle` for what is in one.

A bundle is made of an experiment's files (`write_bundle`; with its scores: `infer.scored`), of weights converted from a
published checkpoint (`bundle_weights`), or of another bundle (`rewrite`).
"""

import contextlib
import importlib.metadata
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO

import torch
from torch import Tensor, nn

from espnet2_ext import __version__
from espnet2_ext.build import SHARED
from espnet2_ext.core.weights import writing
from espnet2_ext.data.tables import Label, parse_labels, read_labels, write_labels
from espnet2_ext.errors import BundleError, DataError, PluginError
from espnet2_ext.infer.bundle import CLASS_QUERIES, FORMAT, KINDS, META, open_bundle, read_config
from espnet2_ext.infer.weights import PARTS, built_model, check_classes, check_config, fill, heard_beside, model_of_exp
from espnet2_ext.registry import plugins_of
from espnet2_ext.util import config as configs
from espnet2_ext.util.documents import dump_yaml, read_bytes
from espnet2_ext.util.files import atomic_path, verified_text, write_text
from espnet2_ext.util.locks import holding

HALF, FEW = "half", 1000  # tensors of fewer numbers are small: they stay as they are
SHARED_QUERY = {"query_net": SHARED, "query_grad": True}  # defaults; a training from weak labels knows no others
TAGGING, TAGS = {"extractor_conf", "query_net_conf"}, {"num_classes", "tag_pooling"}  # what a training's classes decide
PLACES = {  # keys of a configuration that name files, folders and hosts of the training
    "config",
    "output_dir",
    "train_bank",
    "valid_bank",
    "valid_pairs",
    "train_table",
    "valid_table",
    "anchor_file",
    "classifier_file",
    "init_param",
    "train_shape_file",
    "valid_shape_file",
    "train_data_path_and_name_and_type",
    "valid_data_path_and_name_and_type",
    "dist_master_addr",
    "dist_init_method",
}


@holding("out", file=True)
def write_bundle(
    train_config: str | Path,
    model_file: str | Path,
    labels: str | Path | None,
    out: str | Path,
    info: Mapping | None = None,
    half: bool = False,
    more: Mapping[str, bytes] | None = None,
) -> dict:
    """Make a bundle, after building the model from what goes into it.

    Args:
        train_config: the experiment's `config.yaml`.
        model_file: weights, for example `valid.loss.ave.pth`; of weak labels also a Lightning checkpoint.
        labels: the labels.tsv of the training data; None for weak labels, whose configuration names the classes.
            A `class_queries.npz` beside the weights of a query model goes along.
        out: the bundle, ending in `.zip`.
        info: further entries of bundle.yaml: `name`, `trained_on` (such as the manifest hash), `results`, `agreement`
            (cosine below which queries are said to disagree).
        half: store the weights in half precision, see `_halved`. more: further members by name, such as `card.md`.

    Returns:
        What went into bundle.yaml.

    Raises:
        BundleError: parts that do not fit; a training checkpoint in place of the weights.
        DataError: another ending of `out`; no labels for a query separator.
    """
    if Path(out).suffix != ".zip":
        raise DataError(f"{out}: the name of a bundle must end in .zip")
    config = read_config(train_config)
    task = task_of(config)
    if "label_type" not in config and labels is None:
        raise DataError("--labels: the labels.tsv of the training data is needed for this model")
    model = model_of_exp(train_config, model_file, task)
    about = {"task": task, "name": Path(model_file).absolute().parent.name}
    heard = heard_beside(train_config, model_file) if task == "qsep" else None
    if task == "weak":
        about["residual"] = bool(model.residual)
    if labels is None:
        names = enumerate(model.class_names if task == "weak" else config["class_names"])
        table = label_table(Label(i, name, name.replace("_", " ")) for i, name in names)
    else:
        table = read_bytes(verified_text(labels))
    if heard:
        more = {CLASS_QUERIES: read_bytes(heard), **(more or {})}
    classes = parse_labels(table, str(labels))
    if task == "qsep":
        check_classes(model, classes, str(labels))
    return _write(out, model, config, table, {**about, **(info or {}), "classes": len(classes)}, half, more)


def task_of(config: Mapping) -> str:
    """What a training's `config.yaml` makes: a model that answers queries (`qsep`), whatever its labels, or `weak`."""
    return "weak" if "label_type" in config and not config.get("extractor") else "qsep"


@holding("out", file=True)
def rewrite(
    bundle: str | Path,
    out: str | Path,
    info: Mapping | None = None,
    half: bool = False,
    more: Mapping[str, bytes] | None = None,
) -> dict:
    """Write the bundle `out` (which may be `bundle` itself): `bundle` with other facts, precision or members.

    Args:
        info: replaces entries of bundle.yaml. half, more: as for `write_bundle`.

    Returns:
        What went into bundle.yaml.

    Raises:
        BundleError: `bundle` is none. DataError: another ending of `out`.
    """
    if Path(out).suffix != ".zip":
        raise DataError(f"{out}: the name of a bundle must end in .zip")
    with open_bundle(bundle) as opened:
        about = {**opened.info, **(info or {})} | ({"precision": HALF} if half else {})
        members = opened.members() | {"bundle.yaml": _dump(about)} | dict(more or {})
        weights = _saving(Path(out), opened.state(), True) if half else opened.copy_weights
        _write_zip(Path(out), members, weights, about.get("precision") == HALF)
    return about


def bundle_weights(
    config: dict, weights: dict[str, Tensor], labels: str | Path | None, out: str | Path, checkpoint: str
) -> dict:
    """Make a bundle of the query separator that `config` describes, with the `weights` of the whole model.

    Args:
        config: all options of a training.
        labels: a labels.tsv of the classes that its query network tags; None: none are named.
        out: the bundle, ending in `.zip`.
        checkpoint: the weights' origin, for bundle.yaml.

    Returns:
        What went into bundle.yaml.

    Raises:
        BundleError: a configuration of other sizes than the weights.
        DataError: labels of another number than the query network has.
    """
    model = built_model(config, "qsep", checkpoint)
    fill(model, lambda: weights, checkpoint)
    classes = read_labels(labels) if labels else []
    if not check_classes(model, classes, str(labels)) and classes:
        raise DataError(f"{labels}: its {len(classes)} classes are not as many as the model tags")
    info = {"task": "qsep", "name": Path(out).stem, "classes": len(classes), "trained_on": {"checkpoint": checkpoint}}
    return _write(out, model, config, label_table(classes), info)


def unpack(bundle: str | Path, config: str | Path, out: str | Path) -> None:
    """Write what a training needs to begin with the model of a bundle: `out/config.yaml`, which is the YAML `config`
    with the bundle's networks, but for their tags, and its weights `out/model.pth`.

    Raises:
        BundleError: not a bundle of a query separator, or one that asks for what a bundle may not.
        DataError: see `util.config.read_config`.
    """
    parts = [name for kind in PARTS["qsep"] for name in (kind, f"{kind}_conf")] + ["query_grad"]
    with open_bundle(bundle) as opened:
        if opened.info["task"] != "qsep":
            raise BundleError(f"{bundle}: {KINDS[opened.info['task']]}; a training by queries cannot begin with it")
        try:
            check_config(opened.config, "qsep")
        except DataError as e:
            raise BundleError(f"{bundle}: {e}") from e
        own = configs.read_config(config)
        taken = {k: v for k, v in opened.config.items() if k in parts and v != SHARED_QUERY.get(k)}
        if "query_net" not in taken:
            taken.pop("query_net_conf", None)
        content = {k: v for k, v in own.items() if k not in parts} | taken
        for name in TAGGING & own.keys() & content.keys():
            network = {k: v for k, v in (content[name] or {}).items() if k not in TAGS}
            content[name] = network | {k: v for k, v in (own[name] or {}).items() if k in TAGS}
        with atomic_path(Path(out) / "model.pth") as tmp, open(tmp, "wb") as f:
            opened.copy_weights(f)
    write_text(Path(out) / "config.yaml", dump_yaml(content))


def label_table(labels: Iterable[Label]) -> bytes:
    """A `labels.tsv` of these classes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.tsv"
        write_labels(path, labels)
        return path.read_bytes()


# ---- the file ------------------------------------------------------------------------------------


def _write(
    out: str | Path,
    model: nn.Module,
    config: dict,
    labels: bytes,
    info: dict,
    half: bool = False,
    more: Mapping[str, bytes] | None = None,
) -> dict:
    """Write a bundle of a built model; returns what went into bundle.yaml: `info` and more.

    Files and folders of the training are left out of its configuration: they are of the machine that trained.
    """
    kept = {k: v for k, v in config.items() if k not in PLACES}
    with contextlib.suppress(PluginError):  # a package of the user's own, which who opens the bundle allows
        check_config(kept, info["task"])  # what could not be opened is not written
    info = {
        "format": FORMAT,
        **info,
        "fs": int(model.fs),
        "parameters": sum(p.numel() for p in model.parameters()),
        **({"precision": HALF} if half else {}),
        "versions": {"espnet2_ext": __version__, **_versions()},
    }
    if plugins := plugins_of(kept):
        info["plugins"] = plugins
    versions = {k: v for k, v in info["versions"].items() if k != "espnet2_ext"}
    members = {
        "meta.yaml": _dump({**META, "timestamp": time.time(), "python": sys.version, **versions}),
        "config.yaml": _dump(kept),
        "labels.tsv": labels,
        "bundle.yaml": _dump(info),
        **(more or {}),
    }
    _write_zip(Path(out), members, _saving(Path(out), model.state_dict(), half), half)
    return info


def _halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in half precision, but for tensors of fewer than `FEW` numbers and what it cannot hold; a model that is
    loaded computes in its own precision."""
    halves = {k: v.half() for k, v in state.items() if v.is_floating_point() and v.numel() >= FEW}
    return {**state, **{k: v for k, v in halves.items() if v.isfinite().all()}}


def _versions() -> dict[str, str]:
    """Versions of PyTorch and, where it is installed, ESPnet."""
    found = {"torch": str(torch.__version__)}
    try:
        return {"espnet": importlib.metadata.version("espnet"), **found}
    except importlib.metadata.PackageNotFoundError:
        return found


def _dump(content: dict) -> bytes:
    return dump_yaml(content, indent=4).encode()


def _write_zip(
    out: Path, members: Mapping[str, bytes], write_weights: Callable[[IO[bytes]], object], small: bool
) -> None:
    """Write a zip as ESPnet's `pack` does, `meta.yaml` first: members stored as they are, or deflated (small)."""
    how = zipfile.ZIP_DEFLATED if small else zipfile.ZIP_STORED
    with atomic_path(out) as part, zipfile.ZipFile(part, "w", how) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        with archive.open("model.pth", "w", force_zip64=True) as f:
            write_weights(f)


def _saving(out: Path, state: Mapping[str, Tensor], half: bool) -> Callable[[IO[bytes]], None]:
    """What writes weights into the zip `out`."""
    # a view would take what it is a view of along
    state = {k: v.clone() if v.untyped_storage().nbytes() > v.nbytes else v for k, v in state.items()}

    def write(f: IO[bytes]) -> None:
        with tempfile.TemporaryFile(dir=out.parent) as weights:
            with writing(out):
                torch.save(_halved(state) if half else state, weights)
            weights.seek(0)
            shutil.copyfileobj(weights, f, 1 << 20)

    return write
