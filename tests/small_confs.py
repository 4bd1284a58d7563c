"""A shipped YAML's model with every part in its smallest size, and a batch for it."""

from pathlib import Path

import torch

from espnet2_ext.tasks.qsep import QSepTask
from espnet2_ext.tasks.tagging import TaggingTask

CONF = Path(__file__).parent.parent / "conf"
CLASSES = 3
SMALL = {
    "care_sep": dict(
        dim=8,
        image_channels=4,
        depths=[1, 1, 1],
        heads=[1, 2, 2],
        connector_depth=1,
        connector_heads=2,
        window=4,
        drop_path=0.0,
    ),
    "query_unet": dict(widths=[2, 4]),
    "hts_at": dict(spec_size=64, dim=8, depths=[1, 1, 1, 1], heads=[1, 2, 2, 2], window=4, drop_path=0.0),
    "cnn14": dict(widths=[2, 2, 2, 2, 2, 4]),
    "mask_blstm": dict(hidden=8, layers=1),
    "mask_conv": dict(channels=[2, 2, 2], hidden=8),
    "rnn": dict(hidden=8, layers=1),
    "crnn": dict(channels=[2, 2, 2], hidden=8),
}
SMALL["care_cls"] = SMALL["care_sep"]


def shrink(args, *parts):
    """Make `args.PART_conf` small for each of `parts`, by the class that `args.PART` names."""
    for part in parts:
        conf = getattr(args, f"{part}_conf")
        few = {"num_classes": CLASSES} if conf.get("num_classes") else {}
        setattr(args, f"{part}_conf", {**conf, **SMALL.get(getattr(args, part), {}), **few})
    return args


def parse(task, path, *more):
    return task.get_parser().parse_args(["--config", str(CONF / path), "--output_dir", "unused", *more])


def small_separator(path, *more):
    """The shrunken model of a separator's YAML, with more options."""
    torch.manual_seed(0)
    return QSepTask.build_model(shrink(parse(QSepTask, path, *more), "extractor", "query_net"))


def small_tagger(path, *more):
    torch.manual_seed(0)
    return TaggingTask.build_model(shrink(parse(TaggingTask, path, *more), "query_net"))


def separation_batch(samples=9600):
    """Two mixtures with two queries each."""
    g = torch.Generator().manual_seed(1)
    ref1, ref2 = 0.1 * torch.randn(2, 2, samples, generator=g)
    labels = torch.eye(CLASSES)[:2]
    return {
        "speech_mix": ref1 + ref2,
        "speech_ref1": ref1,
        "speech_ref2": ref2,
        "enroll_ref1": ref1,
        "enroll_ref2": ref2,
        "label1": labels,
        "label2": labels,
        "label_mix": labels,
    }


def without_gradient(model):
    """Names of the trained parameters that got no gradient at all: several processes would wait."""
    return [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
