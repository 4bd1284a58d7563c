"""The bundle of a scored experiment: its scores and its training data go along."""

from collections.abc import Mapping
from pathlib import Path

from espnet2_ext.errors import DataError, refusing
from espnet2_ext.infer.pack import write_bundle
from espnet2_ext.infer.weights import heard_beside
from espnet2_ext.util.binary import BROKEN, open_zip, read_member
from espnet2_ext.util.documents import mapping, parse_yaml, read_fields
from espnet2_ext.util.files import digest, file_digest
from espnet2_ext.util.locks import hold

SCORES = ("sdr", "sdr_gain", "clean_sdr", "silence_sdr")


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
    heard = heard_beside(*files[:2])
    info["made_of"] = digest(info, [file_digest(f) for f in [*files, *[heard] * bool(heard)]])
    with hold(out, files=True):  # the lock of a run that was killed goes, too
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
