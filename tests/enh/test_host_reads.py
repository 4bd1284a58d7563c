"""A training step does not wait for the device: no value is read on the host, nothing is copied to the device."""

import copy
import traceback
from collections import Counter

import pytest
import torch
from espnet2.train.distributed_utils import DistributedOption
from espnet2.train.reporter import SubReporter
from small_confs import SMALL
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from weak_corpus import HOP, ROOT, model_args

from espnet2_ext.core.nets.care_sep import CaREComponents
from espnet2_ext.tasks.qsep import QSepTask
from espnet2_ext.tasks.qweak import QueryWeakTask
from espnet2_ext.tasks.tagging import TaggingTask
from espnet2_ext.tasks.weak import WeakLabelTask

aten = torch.ops.aten
READS = (aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten._unique2, aten.equal, aten.is_nonzero)


class Made(TorchFunctionMode):
    """Counts tensors that are made of Python's values on the device, which no dispatch mode sees."""

    def __init__(self, found):
        super().__init__()
        self.found = found

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor) and out.device.type == "meta" and out.dim():
            if not any("espnet2/torch_utils" in frame.filename for frame in traceback.extract_stack(limit=4)):
                self.found.append(func.__name__)  # but for the batch's size, which ESPnet makes a tensor
        return out


class HostReads(TorchDispatchMode):
    """Counts what would wait for a device, which `meta` stands for: values read there, copies from and to the host."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __enter__(self):
        self.made = Made(self.found)
        self.made.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.made.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out, name = func(*args, **(kwargs or {})), func.overloadpacket
        given = {x.device.type for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.dim()}
        made = {x.device.type for x in tree_leaves(out) if isinstance(x, torch.Tensor)}
        if "meta" in given and (name in READS or "cpu" in made) or "meta" in made and "cpu" in given:
            self.found.append(str(func))
        return out


def reads(model, batch, steps=2):
    """What the last of some steps on a device reads or copies."""
    model = copy.deepcopy(model).to("meta")
    batch = {k: x if k.endswith("_lengths") else x.to("meta") for k, x in batch.items()}
    for _ in range(steps):
        with HostReads() as mode:
            model(**batch)[0].sum().backward()
    return mode.found


def test_the_count_counts():
    x = torch.ones(3, device="meta")
    with HostReads() as mode:
        x.to("meta") + torch.ones((), device="cpu")
    assert mode.found == []
    with HostReads() as mode:
        torch.arange(3).to("meta")
        torch.tensor([1, 2], device="meta")
    assert len(mode.found) == 2


@pytest.mark.parametrize("components", [False, True])
@pytest.mark.parametrize("lengths", [(4000, 4000, 4000), (4000, 3000, 1000)])
def test_a_query_step_reads_nothing(model, batch, lengths, components):
    if components:
        conf = SMALL["care_sep"] | {"num_bands": 32, "num_classes": 3, "mel_bands": 16, "channels": (4, 6)}
        model.extractor.net = CaREComponents(num_bins=129, fs=8000, **conf)
    batch["speech_mix_lengths"] = lengths
    batch["enroll_ref1_lengths"] = tuple(n // 2 for n in lengths)
    assert reads(model.train(), batch) == []


@pytest.fixture
def autocast_knows_meta(monkeypatch):
    real = torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda kind, *a, **k: real("cpu" if kind == "meta" else kind, *a, **k))


def labelled(task, *more, config="conf/debug/train_weak.yaml", samples=4000):
    """A model and a batch of six whole mixtures."""
    priors = ["--frame_prior", 0.2, 0.5, 0.4, "--clip_prior", 0.5, 0.5, 0.5]
    model = task.build_model(model_args(*priors, *more, config=config, task=task)).train()
    clip = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 0], [0, 1, 1]])
    refs = torch.randn(6, 3, samples) * clip[..., None]
    batch = {"speech_mix": refs.sum(1), "speech_mix_lengths": torch.full((6,), samples), "clip_label": clip}
    batch |= {"frame_label": clip[:, None].repeat(1, samples // HOP + 1, 1)}
    batch |= {f"speech_ref{s}": refs[:, s - 1] for s in (1, 2, 3)}
    if "--remix" in more:
        batch |= {f"partner_{k.removeprefix('speech_')}": x.flip(0) for k, x in batch.items()}
    return model, batch


@pytest.mark.parametrize(
    "more",
    [
        ["--part", "classifier", "--label_type", "clip"],
        ["--part", "classifier", "--label_type", "frame"],
        ["--label_type", "clip"],
        ["--label_type", "frame"],
        ["--label_type", "strong"],
        ["--label_type", "clip", "--strategy", "joint", "--remix", "30"],
    ],
    ids=" ".join,
)
def test_a_weak_step_of_whole_mixtures_reads_nothing(autocast_knows_meta, more):
    assert reads(*labelled(WeakLabelTask, *more)) == []


def test_a_step_of_a_query_models_encoder_reads_nothing(autocast_knows_meta):
    """Its separator's does: which stretches are embedded as queries depends on its tags, which come from the device."""
    given = ["--part", "classifier", "--label_type", "clip"]
    assert reads(*labelled(QueryWeakTask, *given, config="conf/debug/train_qweak.yaml", samples=8000)) == []


@pytest.mark.parametrize("lengths", [(8000, 8000, 8000), (8000, 6000, 4000)])
def test_a_tagging_step_reads_nothing(lengths):
    given = ["--config", str(ROOT / "conf/debug/train_tag.yaml"), "--output_dir", "unused"]
    model = TaggingTask.build_model(TaggingTask.get_parser().parse_args(given)).train()
    batch = {"speech": torch.randn(3, 8000), "speech_lengths": torch.tensor(lengths), "label": torch.eye(3, 24)}
    assert reads(model, batch | {"mixup": torch.rand(3, 1)}) == []


class Items(TorchDispatchMode):
    """Counts numbers that ESPnet's own code takes out of tensors."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket == aten._local_scalar_dense:
            here = next(f for f in traceback.extract_stack()[-2::-1] if "/torch/" not in f.filename)
            self.found[here.name] += "/espnet2/" in here.filename
        return func(*args, **(kwargs or {}))


def test_what_espnets_trainer_reads_in_a_step(model, batch):
    """Each value that is logged, each time with the size of the batch; whether the gradient's norm is finite."""
    given = ["--config", str(ROOT / "conf/debug/train_qsep_care_sep.yaml"), "--output_dir", "unused", "--ngpu", "0"]
    options = QSepTask.trainer.build_options(QSepTask.get_parser().parse_args(given))
    optimizer, reporter = torch.optim.SGD(model.parameters(), 0.1), SubReporter("train", 1, 0)
    with Items() as mode:
        QSepTask.trainer.train_one_epoch(
            model, [(["a", "b", "c"], batch)], [optimizer], [None], None, reporter, None, options, DistributedOption()
        )
    logged = len(model(**batch)[1])
    assert +mode.found == {"to_reported_value": 2 * logged + 2, "train_one_epoch": 1}
