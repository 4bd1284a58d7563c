"""The STFT and its inverse."""

import pytest
import torch

from espnet2_ext.core.layers.spectrum import STFT


@pytest.mark.parametrize("length", [1, 300, 1023, 1024, 5000])
def test_stft_gives_the_waveform_back(length):
    stft = STFT(1024, 320)
    x = torch.randn(2, length)
    spec = stft(x)
    assert spec.shape == (2, length // 320 + 1, 513)
    assert torch.allclose(stft.inverse(spec, length), x, atol=1e-5)


def test_stft_of_a_clip_does_not_depend_on_its_batch():
    stft = STFT(1024, 320)
    x = torch.randn(1, 5000)
    longer = torch.nn.functional.pad(x, (0, 3000))
    frames = int(stft.frames(torch.tensor(5000)))
    assert torch.equal(stft(longer)[:, :frames], stft(x))
