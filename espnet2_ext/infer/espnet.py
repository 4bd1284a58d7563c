"""ESPnet's own separation classes with our models and a fixed order of outputs.

Importing this module puts our names into ESPnet's tables, so that its own `SeparateSpeech` builds our models, too.
"""

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self
from unittest import mock

import numpy as np
import torch
from espnet2.bin import enh_inference, enh_tse_inference
from torch import nn

from espnet2_ext.infer.bundle import open_bundle, read_config
from espnet2_ext.infer.exchange.hub import located
from espnet2_ext.infer.weights import model_of_bundle, model_of_exp
from espnet2_ext.registry import register

register()


class _Ours:
    """In front of a `SeparateSpeech`: the model is ours, and every key of its weights is checked.

    Segments are put together without a search for a permutation, which would swap outputs where one is silent.
    """

    kind: str  # of its models
    host: tuple[Any, str]  # where ESPnet's constructor takes its task from

    def __init__(self, train_config: str | Path, model_file: str | Path, **options):
        self._begin(model_of_exp(train_config, model_file, self.kind), read_config(train_config), options)

    @classmethod
    def from_pretrained(cls, model_tag: str | Path, **options) -> Self:
        """From a bundle file, a folder with one, `starter`, or a repository `OWNER/NAME` of huggingface.co.

        Raises:
            BundleError: there is none, or it is for another task.
        """
        with open_bundle(located(model_tag)) as bundle:
            model, config = model_of_bundle(bundle, cls.kind), bundle.config
        made = cls.__new__(cls)
        made._begin(model, config, options)
        return made

    def _begin(self, model: nn.Module, config: dict, options: dict) -> None:
        def build(train_config, model_file, device):  # all that the constructor asks of its task
            return model.to(device), argparse.Namespace(**config)

        with mock.patch.object(*self.host, SimpleNamespace(build_model_from_file=build)):
            super().__init__(**options)

    def cal_permumation(self, ref_wavs, enh_wavs, criterion="si_snr") -> torch.Tensor:
        """The order as it is, `[B, S]`: ref_wavs is `[S, B, T]`."""
        return torch.arange(len(ref_wavs)).repeat(ref_wavs.shape[1], 1)


class WeakSeparateSpeech(_Ours, enh_inference.SeparateSpeech):
    """`espnet2.bin.enh_inference.SeparateSpeech` for weak-label models; its options are the same.

    Output s is class s. Seconds (`segment_size`, `hop_size`) are counted at the model's rate.

    Raises:
        BundleError: weights of another model.
    """

    kind, host = "weak", (enh_inference, "EnhancementTask")

    def _begin(self, model: Any, config: dict, options: dict) -> None:
        model.num_spk = len(model.class_names) + bool(model.residual)
        model.ref_channel, model.categories, model.always_forward_in_48k = 0, {}, False  # as ESPnet's model has them
        super()._begin(model, config, options)

    def __call__(self, speech_mix: np.ndarray | torch.Tensor, fs: int | None = None, **kwargs) -> list[np.ndarray]:
        """Separate `[B, T]` (at the model's rate) into S arrays `[B, T]`."""
        return super().__call__(speech_mix, fs or int(self.enh_model.fs), **kwargs)


class QuerySeparateSpeech(_Ours, enh_tse_inference.SeparateSpeech):
    """`espnet2.bin.enh_tse_inference.SeparateSpeech` for models that answer queries; its options are the same.

    Any number of queries is answered. Seconds (`segment_size`, `hop_size`) are counted at the model's rate.

    Raises:
        BundleError: weights of another model.
    """

    kind, host = "qsep", (enh_tse_inference, "TSETask")

    def _begin(self, model: Any, config: dict, options: dict) -> None:
        model.num_spk, model.ref_channel, model.share_encoder = 1, 0, False  # as ESPnet's model has them
        super()._begin(model, config, options)

    @torch.no_grad()
    def __call__(self, speech_mix: np.ndarray | torch.Tensor, fs: int | None = None, **kwargs) -> list[np.ndarray]:
        """Separate `[B, T]` for queries `enroll_ref1`, `enroll_ref2`, ... `[B, T']` into as many arrays `[B, T]`, all
        at the model's rate."""
        waves = {k: torch.as_tensor(v, dtype=getattr(torch, self.dtype)) for k, v in kwargs.items()}
        queries = {k: self.enh_model.embed(wave.to(self.device)).embedding for k, wave in waves.items()}
        self.num_spk = len(queries)
        return super().__call__(speech_mix, fs or int(self.enh_model.fs), **queries)
