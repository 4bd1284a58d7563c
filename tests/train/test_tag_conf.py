"""The YAMLs of the taggers: they build, in the sizes and with the trainings that they promise."""

from pathlib import Path

import pytest
import torch

from espnet2_ext.build import check_arguments
from espnet2_ext.tasks.tagging import TaggingTask
from espnet2_ext.train.clip_data import TagDrawer

CONF = Path(__file__).parents[2] / "conf"
FULL = {
    "care_cls_768": (768, 96),
    "hts_at_768": (768, 128),
    "hts_at_2048": (2048, 128),
    "cnn14": (2048, 32),
}  # width of the embedding, batch
MINI = sorted(CONF.glob("mini/tag_*.yaml"))


def build(path, device="cpu"):
    args = TaggingTask.get_parser().parse_args(["--config", str(path), "--output_dir", "unused"])
    check_arguments(TagDrawer, args.tag_conf, "tag_conf", ("bank",))
    with torch.device(device):
        return args, TaggingTask.build_model(args)


@pytest.mark.parametrize("name", FULL)
def test_full_sizes(name):
    args, model = build(CONF / f"train_tag_{name}.yaml", "meta")  # shapes only
    assert (model.net.query_dim, args.batch_size) == FULL[name]
    assert model.net.num_classes == 527 and model.fs == 32000 and args.train_bank is None
    assert args.tag_conf["balance"] == "class" and args.tag_conf["mixup_alpha"] >= 0.5


@pytest.mark.parametrize("path", [*MINI, CONF / "debug/train_tag.yaml"], ids=lambda p: p.stem)
def test_small_sizes_take_a_step(path):
    args, model = build(path)
    torch.manual_seed(0)
    speech = 0.1 * torch.randn(2, round(args.tag_conf["segment"] * model.fs))
    label = torch.eye(24)[:2]
    loss, _, _ = model.train()(speech, label=label, mixup=torch.tensor([[0.7], [0.2]]))
    loss.backward()
    assert loss.isfinite() and all(p.grad is not None for n, p in model.named_parameters() if p.requires_grad)


def test_minis_train_alike():
    assert len(MINI) == 3
    names = tuple("tag_conf batch_size num_iters_per_epoch max_epoch optim optim_conf scheduler scheduler_conf".split())
    first, *others = (build(path)[0] for path in MINI)
    for args in others:
        assert all(getattr(args, name) == getattr(first, name) for name in names)
