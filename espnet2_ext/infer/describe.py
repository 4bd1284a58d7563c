"""What a trained model is, written into the folder where it is scored without having been trained there."""

import json
from collections.abc import Sequence
from pathlib import Path

import yaml

from espnet2_ext.data.tables import Label
from espnet2_ext.infer.bundle import read_bundle, read_config
from espnet2_ext.infer.folder import ModelFiles
from espnet2_ext.util.files import write_text

PROTOCOL = (
    "mixture-SDR over both targets of each mixture, as S(c1 + c2, ej) against cj is defined; that "
    "of the first targets alone, each clip once, stands beside it"
)


def describe_model(exp_dir: str | Path, model: ModelFiles, labels: Sequence[Label]) -> dict:
    """Write `config.yaml` and `model.json`, which the report reads, into `exp_dir`.

    Args:
        labels: classes of the test set.

    Returns:
        What `model.json` holds: `zero_shot` (True, False, or None where the model does not tell its
        classes), the model's `name`, `trained_on`, and all of it in words, `facts`.

    Raises:
        DataError: a file that is not there or not what it should be.
    """
    model.digest()  # says which file is missing
    if model.bundle:
        config, _, classes, info = read_bundle(model.bundle, weights=False)
    else:
        config, classes, info = read_config(model.train_config), [], {}
    zero_shot, words = judge(classes, labels)
    facts = {"scored model": str(model.bundle or model.model_file)}
    if "parameters" in info:
        facts["parameters"] = f"{info['parameters'] / 1e6:.2f} M"
    if trained_on := info.get("trained_on"):
        facts["trained on"] = ", ".join(f"{k} {v}" for k, v in dict(trained_on).items())
    facts |= {"zero-shot": words, "scores": PROTOCOL}
    if [v.mid for v in classes] != [v.mid for v in labels]:
        facts["mAP"] = "none: the model's tags are not the test set's classes"
    about = {"zero_shot": zero_shot, "name": info.get("name"), "trained_on": trained_on, "facts": facts}
    write_text(Path(exp_dir) / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    write_text(Path(exp_dir) / "model.json", json.dumps(about, indent=1) + "\n")
    return about


def judge(classes: Sequence[Label], labels: Sequence[Label]) -> tuple[bool | None, str]:
    """Whether a model of `classes` meets a test set of `labels` unprepared, and that in words.

    A model whose classes hold all of the test set's was trained on that corpus, or one like it.
    Classes are told apart by their ids; other corpora's of the same name are counted besides.
    """
    if not classes:
        return None, "not known, as the model does not list its classes; nothing was trained here"
    ids, names = {v.mid for v in classes}, {v.name.casefold() for v in classes}
    shared = sum(v.mid in ids for v in labels)
    told = f"{shared} of the test set's {len(labels)} classes are among the model's {len(classes)}"
    if alike := [v.name for v in labels if v.mid not in ids and v.name.casefold() in names]:
        told += f", {len(alike)} more by name ({', '.join(alike)})"
    if shared == len(labels):
        return False, f"no, {told}: it was trained on this corpus or on one of the same classes"
    return True, f"yes, {told}, and nothing was trained here"
