"""ESPnet's own separation class with our task and a fixed order of outputs."""

import argparse
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from espnet2.bin import enh_inference

from espnet2_ext.infer.bundle import read_config
from espnet2_ext.infer.weights import model_of_exp


class _Task:
    """What `SeparateSpeech` needs of a task."""

    @staticmethod
    def build_model_from_file(train_config, model_file, device):
        model = model_of_exp(train_config, model_file, "weak").to(device)
        model.num_spk = len(model.class_names) + bool(model.residual)
        model.ref_channel, model.categories, model.always_forward_in_48k = 0, {}, False  # as ESPnet's model has them
        return model, argparse.Namespace(**read_config(train_config))


class WeakSeparateSpeech(enh_inference.SeparateSpeech):
    """`espnet2.bin.enh_inference.SeparateSpeech` for weak-label models; its options are the same.

    Three things differ. The model is that of `WeakLabelTask`, and every key of its weights is
    checked. Seconds (`segment_size`, `hop_size`) are counted at the model's rate. Segments are put
    together without a search for a permutation: output s is class s, and where a class is silent
    such a search would swap it with another.

    Raises:
        BundleError: weights of another model.
    """

    def __init__(self, train_config: str | Path, model_file: str | Path, **options):
        # ESPnet's constructor takes the task from its module; it asks it for a model and no more.
        with mock.patch.object(enh_inference, "EnhancementTask", _Task):
            super().__init__(train_config, model_file, **options)

    def __call__(self, speech_mix: np.ndarray | torch.Tensor, fs: int | None = None, **kwargs) -> list[np.ndarray]:
        """Separate `[B, T]` (at the model's rate) into S arrays `[B, T]`."""
        return super().__call__(speech_mix, fs or int(self.enh_model.fs), **kwargs)

    def cal_permumation(self, ref_wavs, enh_wavs, criterion="si_snr") -> torch.Tensor:
        """The order as it is, `[B, S]`: ref_wavs is `[S, B, T]`."""
        return torch.arange(len(ref_wavs)).repeat(ref_wavs.shape[1], 1)
