"""Writing bundles: see `espnet2_ext.infer.bundle` for what is in one."""

import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from espnet2_ext import __version__
from espnet2_ext.data.tables import Label, write_labels
from espnet2_ext.errors import DataError
from espnet2_ext.infer.bundle import FORMAT, build_from_exp, check_classes, read_bytes
from espnet2_ext.util.files import atomic_path

FILES = {"model_file": "model.pth"}
YAML_FILES = {"train_config": "config.yaml"}
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


def write_bundle(
    train_config: str | Path, model_file: str | Path, labels: str | Path, out: str | Path, info: dict | None = None
) -> dict:
    """Make a bundle, after building the model from what goes into it.

    Args:
        train_config: the experiment's `config.yaml`.
        model_file: weights, for example `valid.loss.ave.pth`.
        labels: the labels.tsv of the training data.
        out: the bundle, ending in `.zip`.
        info: further entries of bundle.yaml: `name`, `trained_on` (such as the manifest hash),
            `results`, `agreement` (cosine below which queries are said to disagree).

    Returns:
        What went into bundle.yaml.

    Raises:
        BundleError: parts that do not fit; a training checkpoint in place of the weights.
    """
    if Path(out).suffix != ".zip":
        raise DataError(f"{out}: the name of a bundle must end in .zip")
    model, classes, found = build_from_exp(train_config, model_file, labels)
    check_classes(model, classes, str(labels))
    return write_members(
        out, model, read_bytes(train_config), read_bytes(labels), {**found, **(info or {}), "classes": len(classes)}
    )


def write_members(out: str | Path, model: nn.Module, config: bytes, labels: bytes, info: dict) -> dict:
    """Write a bundle of a built model; returns what went into bundle.yaml: `info` and more.

    What the configuration tells of the training's files and folders stays out: they are of the
    machine that trained, and no part of the model.
    """
    info = {
        "format": FORMAT,
        **info,
        "fs": int(model.fs),
        "parameters": sum(p.numel() for p in model.parameters()),
        "versions": _versions(),
    }
    members = {
        "meta.yaml": yaml.safe_dump(
            {
                "files": FILES,
                "yaml_files": YAML_FILES,
                "timestamp": time.time(),
                "python": sys.version,
                "torch": info["versions"]["torch"],
                "espnet": info["versions"]["espnet"],
            }
        ).encode(),
        "config.yaml": _without_places(config),
        "labels.tsv": labels,
        "bundle.yaml": yaml.safe_dump(info, sort_keys=False, allow_unicode=True).encode(),
    }
    _write_zip(Path(out), members, model.state_dict())
    return info


def label_table(labels: Iterable[Label]) -> bytes:
    """A `labels.tsv` of these classes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.tsv"
        write_labels(path, labels)
        return path.read_bytes()


def _without_places(config: bytes) -> bytes:
    content = yaml.safe_load(config)
    kept = {k: v for k, v in content.items() if k not in PLACES}
    return yaml.safe_dump(kept, indent=4, sort_keys=False, allow_unicode=True).encode()


def _versions() -> dict[str, str]:
    import espnet2

    return {"espnet2_ext": __version__, "espnet": str(espnet2.__version__), "torch": str(torch.__version__)}


def _write_zip(out: Path, members: dict[str, bytes], state: dict[str, Tensor]) -> None:
    from espnet2.main_funcs.pack_funcs import Archiver

    out.parent.mkdir(parents=True, exist_ok=True)
    state = {
        k: v.clone() if v.untyped_storage().nbytes() > v.nbytes else v for k, v in state.items()
    }  # a view would take what it is a view of along
    with (
        tempfile.TemporaryDirectory(dir=out.parent, prefix=".tmp-") as folder,
        atomic_path(out) as part,
        open(Path(folder, "log"), "w") as log,
        contextlib.redirect_stdout(log),
        Archiver(part, "w") as archive,
    ):  # it prints
        torch.save(state, Path(folder, "model.pth"))
        for name, data in members.items():
            archive.addfile(archive.generate_info(name, len(data)), io.BytesIO(data))
        archive.add(Path(folder, "model.pth"), "model.pth")
