"""Bundles of weak-label models: one file with all that using one needs."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from espnet2_ext.data.tables import Label, file_digest
from espnet2_ext.errors import DataError
from espnet2_ext.infer.experiment import made_of, read_json
from espnet2_ext.infer.pack import label_table, write_members
from espnet2_ext.infer.weak_weights import build_weak_model


def write_weak_bundle(
    train_config: str | Path, model_file: str | Path, out: str | Path, info: dict | None = None
) -> dict:
    """Make a bundle, after building the model from what goes into it.

    Args:
        train_config: the experiment's `config.yaml`, which names the classes.
        model_file: weights, or a Lightning checkpoint.
        out: the bundle, ending in `.zip`.
        info: further entries of bundle.yaml, such as `name`, `trained_on` and `results`.

    Returns:
        What went into bundle.yaml.

    Raises:
        DataError: another ending; see `build_weak_model`.
    """
    if Path(out).suffix != ".zip":
        raise DataError(f"{out}: the name of a bundle must end in .zip")
    model = build_weak_model(train_config, model_file)
    names = list(model.class_names)
    labels = label_table(Label(i, n, n.replace("_", " ")) for i, n in enumerate(names))
    about = {
        "task": "weak",
        "name": Path(model_file).absolute().parent.name,
        "residual": bool(model.residual),
        **(info or {}),
        "classes": len(names),
    }
    return write_members(out, model, Path(train_config).read_bytes(), labels, about)


def pack_weak(exp_dir: str | Path, model_file: str, tests: Sequence[str], out: str | Path) -> bool:
    """Write the bundle of a scored experiment, unless the same is there; True if written.

    Args:
        exp_dir: with `config.yaml`, weights `model_file` and outputs `inference_TEST`.
        tests: test sets, whose mean scores go along.

    Raises:
        DataError: a file that is not there or not what it should be.
    """
    exp_dir = Path(exp_dir)
    files = [exp_dir / "config.yaml", exp_dir / model_file]
    for path in files:
        if not path.is_file():
            raise DataError(f"{path}: no such file")
    info = {"name": exp_dir.absolute().name, "results": {t: results(exp_dir / f"inference_{t}") for t in tests}}
    text = json.dumps([info, [file_digest(f) for f in files]])
    info["made_of"] = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    if made_of(Path(out)) == info["made_of"]:
        return False
    write_weak_bundle(*files, out, info)
    return True


def results(inference_dir: Path) -> dict:
    """Mean SI-SDR gain of a test set in dB, class by class and over all."""
    summary = read_json(inference_dir / "scores" / "summary.json")
    found = {"mixtures": summary["keys"], "table_hash": summary["table"]["table_hash"]}
    figures = {**summary["scores"], "overall": summary["overall"]}
    gains = {name: f["gain"]["mean"] for name, f in figures.items()}
    return found | {"si_sdr_gain": {n: None if g is None else round(g, 2) + 0.0 for n, g in gains.items()}}
