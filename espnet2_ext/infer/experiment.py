"""The bundle of a finished experiment, with what it was trained on and what it scored."""

import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from espnet2_ext.data.tables import file_digest
from espnet2_ext.errors import DataError
from espnet2_ext.infer.pack import write_bundle

SCORES = ("sdr", "sdr_gain", "clean_sdr", "silence_sdr")


def pack_experiment(
    exp_dir: str | Path,
    model_file: str | Path,
    train_bank: str | Path,
    inference_dirs: Sequence[str | Path],
    out: str | Path,
) -> bool:
    """Write the bundle `out`, unless one of the same weights and scores is there; True if written.

    Args:
        exp_dir: holds `config.yaml`; its name is the model's.
        model_file: weights.
        train_bank: clip bank of the training; its `labels.tsv` goes along.
        inference_dirs: scored outputs, whose mean scores go along.

    Raises:
        DataError: a file that is not there or not what it should be; see `write_bundle`.
    """
    exp_dir, train_bank, out = Path(exp_dir), Path(train_bank), Path(out)
    files = [exp_dir / "config.yaml", Path(model_file), train_bank / "labels.tsv"]
    for path in files:
        if not path.is_file():
            raise DataError(f"{path}: no such file")
    info = {
        "name": exp_dir.absolute().name,
        "trained_on": trained_on(train_bank),
        "results": {Path(d).name: results(Path(d)) for d in inference_dirs},
    }
    text = json.dumps([info, [file_digest(f) for f in files]])
    info["made_of"] = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    if made_of(out) == info["made_of"]:
        return False
    write_bundle(*files, out, info)
    return True


def trained_on(bank: Path) -> dict:
    """Number and hash of the clips of a bank."""
    about = read_json(bank / "bank.json")
    return {
        "set": bank.name,
        "clips": about["clips"],
        "hours": round(about["seconds"] / 3600, 2),
        "manifest_hash": about["manifest_hash"],
    }


def results(inference_dir: Path) -> dict:
    """Mean scores of a test set in dB, by protocol; None where a mean has no value."""
    summary = read_json(inference_dir / "scores" / "summary.json")
    found = {"targets": summary["keys"], "list_hash": summary["list"].get("list_hash")}
    found["unprocessed"] = {"sdr": _mean(summary["mixture"], "sdr")}
    for protocol, scores in summary["protocols"].items():
        found[protocol] = {name: _mean(scores, name) for name in SCORES if name in scores}
    return found


def _mean(scores: dict, name: str) -> float | None:
    value = scores[name]["mean"]
    return None if value is None else round(value, 2) + 0.0


def made_of(bundle: Path) -> str | None:
    """The digest of what a bundle was made of; None where there is no whole one."""
    try:
        with zipfile.ZipFile(bundle) as z:
            return yaml.safe_load(z.read("bundle.yaml")).get("made_of")
    except (FileNotFoundError, zipfile.BadZipFile, KeyError, yaml.YAMLError, AttributeError):
        return None


def read_json(path: Path) -> dict:
    """A JSON file; DataError, naming it, where it is not there or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except ValueError as e:
        raise DataError(f"{path}: {e}") from None
