"""Bundles of models that were not trained."""

from pathlib import Path

import torch
import yaml

from espnet2_ext.build import build_model
from espnet2_ext.infer.pack import write_bundle


def bundle_of(config: dict, task: str, path: Path, model: torch.nn.Module | None = None) -> Path:
    """The bundle `path` of a model (None: that of `config`, seed 0); of a query model, with labels of its classes."""
    if model is None:
        torch.manual_seed(0)
        model = build_model(config, task)
    top = path.parent
    (top / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(model.state_dict(), top / "model.pth")
    rows = "".join(f"{k}\t/m/{k}\tclass {k}\t\n" for k in range(model.num_classes))
    (top / "labels.tsv").write_text("index\tmid\tname\trelated\n" + rows)
    labels = top / "labels.tsv" if task == "qsep" else None
    write_bundle(top / "config.yaml", top / "model.pth", labels, path, {"name": path.stem})
    return path
