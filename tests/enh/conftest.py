"""A tiny model."""

import pytest
import torch
from small_confs import SMALL

from espnet2_ext.core.layers.spectrum import MelBandMergeDecoder, MelBandSplitEncoder
from espnet2_ext.core.nets.care_sep import CaRESep
from espnet2_ext.enh.adapt import as_espnets
from espnet2_ext.enh.espnet_model_qsep import ESPnetQSepModel
from espnet2_ext.enh.losses import KeyedOrderSolver
from espnet2_ext.registry import espnet_class

WaveL1Loss, QuerySDRLoss, TaggingLoss = (espnet_class("criterion", n) for n in ("wave_l1", "neg_sdr", "tagging"))
STFT = dict(sample_rate=8000, n_fft=256, hop_length=80, num_bands=32)
NET = SMALL["care_sep"] | dict(num_bands=32, num_classes=3)


@pytest.fixture
def model():
    torch.manual_seed(0)
    encoder = as_espnets("encoder", MelBandSplitEncoder)(**STFT)
    decoder = as_espnets("decoder", MelBandMergeDecoder)(**STFT)
    wrappers = [
        KeyedOrderSolver(WaveL1Loss(), 10.0),
        KeyedOrderSolver(QuerySDRLoss(), 1.0),
        KeyedOrderSolver(TaggingLoss(), 2.0),
    ]
    return ESPnetQSepModel(encoder, as_espnets("extractor", CaRESep)(encoder.output_dim, **NET), decoder, wrappers)


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(1)
    ref1, ref2 = torch.randn(2, 3, 4000, generator=g)
    ref1[0] = 0.0  # the first query asks for a sound that is not there
    return {
        "speech_mix": ref1 + ref2,
        "speech_ref1": ref1,
        "speech_ref2": ref2,
        "speech_mix_lengths": torch.tensor([4000, 4000, 4000]),
        "enroll_ref1": torch.randn(3, 3000, generator=g),
        "enroll_ref2": torch.randn(3, 2000, generator=g),
        "label1": torch.eye(3),
        "label2": torch.eye(3),
    }
