"""Writing bundles: see `espnet2_ext.infer.bundle` for what is in one.

A bundle is made of an experiment's files (`write_bundle`), of a scored experiment with its scores (`pack_experiment`),
or of weights converted from a published checkpoint (`bundle_weights`).
"""

import importlib.metadata
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from espnet2_ext import __version__
from espnet2_ext.core.checkpoints import writing
from espnet2_ext.data.tables import Label, parse_labels, read_labels, write_labels
from espnet2_ext.errors import DataError, refusing
from espnet2_ext.infer.bundle import FORMAT, read_config
from espnet2_ext.infer.query_separator import check_classes
from espnet2_ext.infer.weights import built_model, fill, model_of_exp
from espnet2_ext.registry import plugins_of
from espnet2_ext.util.documents import dump_yaml, mapping, parse_yaml, read_bytes, read_fields
from espnet2_ext.util.files import atomic_path, digest, file_digest, verified_text
from espnet2_ext.util.locks import holding
from espnet2_ext.util.zips import BROKEN, open_zip, read_member

META = {"files": {"model_file": "model.pth"}, "yaml_files": {"train_config": "config.yaml"}}
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
SCORES = ("sdr", "sdr_gain", "clean_sdr", "silence_sdr")


@holding("out", file=True)
def write_bundle(
    train_config: str | Path,
    model_file: str | Path,
    labels: str | Path | None,
    out: str | Path,
    info: Mapping | None = None,
) -> dict:
    """Make a bundle, after building the model from what goes into it.

    Args:
        train_config: the experiment's `config.yaml`.
        model_file: weights, for example `valid.loss.ave.pth`; of weak labels also a Lightning checkpoint.
        labels: the labels.tsv of the training data; None for weak labels, whose configuration names the classes.
        out: the bundle, ending in `.zip`.
        info: further entries of bundle.yaml: `name`, `trained_on` (such as the manifest hash), `results`, `agreement`
            (cosine below which queries are said to disagree).

    Returns:
        What went into bundle.yaml.

    Raises:
        BundleError: parts that do not fit; a training checkpoint in place of the weights.
        DataError: another ending of `out`; no labels for a query separator.
    """
    if Path(out).suffix != ".zip":
        raise DataError(f"{out}: the name of a bundle must end in .zip")
    config = read_config(train_config)
    task = "weak" if "label_type" in config else "qsep"
    if task == "qsep" and labels is None:
        raise DataError("--labels: the labels.tsv of the training data is needed for this model")
    model = model_of_exp(train_config, model_file, task)
    about = {"task": task, "name": Path(model_file).absolute().parent.name}
    if task == "weak":
        about["residual"] = bool(model.residual)
        names = enumerate(model.class_names)
        table = label_table(Label(i, name, name.replace("_", " ")) for i, name in names)
    else:
        table = read_bytes(verified_text(labels))
    classes = parse_labels(table, str(labels))
    if task == "qsep":
        check_classes(model, classes, str(labels))
    return _write(out, model, config, table, {**about, **(info or {}), "classes": len(classes)})


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


def label_table(labels: Iterable[Label]) -> bytes:
    """A `labels.tsv` of these classes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.tsv"
        write_labels(path, labels)
        return path.read_bytes()


# ---- a scored experiment -------------------------------------------------------------------------


def pack_experiment(
    exp_dir: str | Path,
    model_file: str | Path,
    outputs: Mapping[str, str | Path],
    out: str | Path,
    train_bank: str | Path | None = None,
) -> bool:
    """Write the bundle `out`, unless one of the same weights and scores exists; True if written.

    Args:
        exp_dir: holds `config.yaml`; its name is the model's.
        model_file: weights.
        outputs: name to folder of scored outputs, whose mean scores go along.
        train_bank: clip bank of a query separator's training; its `labels.tsv` goes along.

    Raises:
        DataError: a missing or broken file; see `write_bundle`.
    """
    exp_dir, out = Path(exp_dir), Path(out)
    files = [exp_dir / "config.yaml", Path(model_file)]
    files += [] if train_bank is None else [Path(train_bank) / "labels.tsv"]
    for path in files:
        if not path.is_file():
            raise DataError(f"{path}: no such file")
    info: dict = {"name": exp_dir.absolute().name}
    if train_bank is not None:
        info["trained_on"] = trained_on(Path(train_bank))
    info["results"] = {name: results(Path(folder)) for name, folder in outputs.items()}
    info["made_of"] = digest(info, [file_digest(f) for f in files])
    if made_of(out) == info["made_of"]:
        return False
    config, weights, *labels = files
    write_bundle(config, weights, labels[0] if labels else None, out, info)
    return True


def made_of(bundle: Path) -> str | None:
    """The digest of what a bundle was made of; None where there is no whole one."""
    try:
        with open(bundle, "rb") as file, open_zip(file) as z:
            return mapping(parse_yaml(read_member(z, "bundle.yaml"), bundle), bundle).get("made_of")
    except (FileNotFoundError, KeyError, *BROKEN):
        return None


def trained_on(bank: Path) -> dict:
    """Number and hash of the clips of a bank."""
    about = read_fields(bank / "bank.json", {"clips": int, "seconds": float, "manifest_hash": str})
    return {
        "set": bank.name,
        "clips": about["clips"],
        "hours": round(about["seconds"] / 3600, 2),
        "manifest_hash": about["manifest_hash"],
    }


def results(inference_dir: Path) -> dict:
    """Mean scores of a test set in dB: of queries by protocol, of classes by class; None where a mean has no value."""
    path = inference_dir / "scores" / "summary.json"
    with refusing(f"{path}: is not the scores of a test set"):
        return _results(read_fields(path, {}))


def _results(summary: dict) -> dict:
    if "protocols" not in summary:
        figures = {**summary["scores"], "overall": summary["overall"]}
        found = {"mixtures": summary["keys"], "table_hash": summary["table"]["table_hash"]}
        return found | {"si_sdr_gain": {name: _mean(scores, "gain") for name, scores in figures.items()}}
    found = {"targets": summary["keys"], "list_hash": summary["list"].get("list_hash")}
    found["unprocessed"] = {"sdr": _mean(summary["mixture"], "sdr")}
    for protocol, scores in summary["protocols"].items():
        found[protocol] = {name: _mean(scores, name) for name in SCORES if name in scores}
    return found


def _mean(scores: dict, name: str) -> float | None:
    value = scores[name]["mean"]
    return None if value is None else round(value, 2) + 0.0


# ---- the file ------------------------------------------------------------------------------------


def _write(out: str | Path, model: nn.Module, config: dict, labels: bytes, info: dict) -> dict:
    """Write a bundle of a built model; returns what went into bundle.yaml: `info` and more.

    Files and folders of the training are left out of its configuration: they are of the machine that trained.
    """
    info = {
        "format": FORMAT,
        **info,
        "fs": int(model.fs),
        "parameters": sum(p.numel() for p in model.parameters()),
        "versions": {"espnet2_ext": __version__, **_versions()},
    }
    kept = {k: v for k, v in config.items() if k not in PLACES}
    if plugins := plugins_of(kept):
        info["plugins"] = plugins
    versions = {k: v for k, v in info["versions"].items() if k != "espnet2_ext"}
    members = {
        "meta.yaml": _dump({**META, "timestamp": time.time(), "python": sys.version, **versions}),
        "config.yaml": _dump(kept),
        "labels.tsv": labels,
        "bundle.yaml": _dump(info),
    }
    _write_zip(Path(out), members, model.state_dict())
    return info


def _versions() -> dict[str, str]:
    """Versions of PyTorch and, where it is installed, ESPnet."""
    found = {"torch": str(torch.__version__)}
    try:
        return {"espnet": importlib.metadata.version("espnet"), **found}
    except importlib.metadata.PackageNotFoundError:
        return found


def _dump(content: dict) -> bytes:
    return dump_yaml(content, indent=4).encode()


def _write_zip(out: Path, members: dict[str, bytes], state: dict[str, Tensor]) -> None:
    """Write a zip as ESPnet's `pack` does: members stored as they are, `meta.yaml` first."""
    # a view would take what it is a view of along
    state = {k: v.clone() if v.untyped_storage().nbytes() > v.nbytes else v for k, v in state.items()}
    with atomic_path(out) as part, zipfile.ZipFile(part, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        with tempfile.TemporaryFile(dir=out.parent) as weights, archive.open("model.pth", "w", force_zip64=True) as f:
            with writing(out):
                torch.save(state, weights)
            weights.seek(0)
            shutil.copyfileobj(weights, f, 1 << 20)
