"""A training step does not wait for the device: no value is read on the host, nothing is copied to the device."""

import copy
import traceback

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from weak_corpus import model_args

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


@pytest.mark.parametrize("lengths", [(4000, 4000, 4000), (4000, 3000, 1000)])
def test_a_query_step_reads_nothing(model, batch, lengths):
    batch["speech_mix_lengths"] = lengths
    batch["enroll_ref1_lengths"] = tuple(n // 2 for n in lengths)
    assert reads(model.train(), batch) == []


def test_a_weak_step_of_whole_mixtures_reads_nothing():
    model = WeakLabelTask.build_model(model_args("--frame_prior", 0.2, 0.5, 0.4))
    mix, lengths = torch.randn(2, 2000), torch.tensor([2000, 2000])
    frame = torch.ones(2, model.encoder(mix, lengths)[0].shape[1], 3)
    batch = {"speech_mix": mix, "speech_mix_lengths": lengths, "label_kind": torch.ones(2, 1, dtype=torch.int)}
    assert reads(model.train(), batch | {"frame_label": frame, "clip_label": frame.amax(1)}) == []
