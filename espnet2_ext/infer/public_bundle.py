"""A bundle of weights that were converted from a published checkpoint."""

from pathlib import Path

from espnet2.utils.yaml_no_alias_safe_dump import yaml_no_alias_safe_dump
from torch import Tensor

from espnet2_ext.data.tables import read_labels
from espnet2_ext.errors import BundleError, DataError
from espnet2_ext.infer.bundle import build_model, check_classes
from espnet2_ext.infer.pack import label_table, write_members
from espnet2_ext.infer.weak_weights import read_config
from espnet2_ext.tasks.qsep import QSepTask


def bundle_weights(
    config: str | Path, weights: dict[str, Tensor], labels: str | Path | None, out: str | Path, checkpoint: str
) -> dict:
    """Make a bundle of the separator that the training YAML `config` describes.

    Args:
        weights: of the whole model, by name.
        labels: a labels.tsv of the classes that its query network tags; None: none are told.
        out: the bundle, ending in `.zip`.
        checkpoint: what the bundle tells of the weights' origin.

    Returns:
        What went into bundle.yaml.

    Raises:
        BundleError: a YAML of something else, or of other sizes than the weights.
        DataError: labels of another number than the query network has.
    """
    if "extractor" not in read_config(config):
        raise BundleError(f"{config}: is not a separator's YAML (it has no extractor)")
    args = vars(QSepTask.get_parser().parse_args(["--config", str(config)]))
    try:
        model = build_model(args, lambda: weights, "qsep", checkpoint)
    except BundleError as e:
        raise BundleError(f"{config}: {e}") from e
    classes = read_labels(labels) if labels else []
    _, tags = check_classes(model, classes, str(labels))
    if classes and not tags:
        raise DataError(f"{labels}: its {len(classes)} classes are not as many as the model tags")
    text = yaml_no_alias_safe_dump(args, indent=4, sort_keys=False)
    return write_members(
        out,
        model,
        text.encode(),
        label_table(classes),
        {"task": "qsep", "name": Path(out).stem, "classes": len(classes), "trained_on": {"checkpoint": checkpoint}},
    )
