"""Encoders that make a spectrum, and the decoders that undo them."""

import pytest
import torch
from espnet2.tasks.enh import decoder_choices, encoder_choices, separator_choices
from torch_complex.tensor import ComplexTensor

from espnet2_ext.core.layers.spectrum import STFT
from espnet2_ext.core.nets.care_sep import CaREEncoder
from espnet2_ext.registry import register

register()
PAIRS = [("hann_stft", "hann_stft"), ("sqrt_hann_stft", "sqrt_hann_stft"), ("mel_band_split", "mel_band_merge")]


@pytest.mark.parametrize("encoder, decoder", PAIRS)
def test_decoder_undoes_encoder(encoder, decoder):
    wave, lengths = torch.randn(2, 5000), torch.tensor([5000, 3000])
    encoder, decoder = encoder_choices.get_class(encoder)(), decoder_choices.get_class(decoder)()
    spec, frames = encoder(wave, lengths)
    assert frames.tolist() == [n // encoder.stft.hop + 1 for n in (5000, 3000)]
    out, _ = decoder(spec, lengths)
    assert torch.allclose(out[0], wave[0], atol=1e-5)
    assert torch.allclose(out[1, :3000], wave[1, :3000], atol=1e-5)
    assert out[1, 3000:].abs().max() < 1e-5  # what is past the end is not looked at


@pytest.mark.parametrize("name", [name for name, _ in PAIRS])
def test_channels_are_averaged_and_other_rates_refused(name):
    encoder, stereo = encoder_choices.get_class(name)(), torch.randn(1, 4000, 2)
    lengths = torch.tensor([4000])
    both, _ = encoder(stereo, lengths)
    assert torch.equal(both, encoder(stereo.mean(-1), lengths)[0])
    assert torch.equal(both[0], encoder.spectrum(stereo[0].mean(-1)))
    with pytest.raises(ValueError, match=f"works at {encoder.sample_rate} Hz, got audio at 11025"):
        encoder(stereo, lengths, fs=11025)


def test_frames_of_the_public_separators():
    encoder = encoder_choices.get_class("hann_stft")()
    assert (encoder.stft.n_fft, encoder.stft.hop, encoder.sample_rate) == (2048, 320, 32000)
    assert encoder.output_dim == 1025
    assert torch.allclose(encoder.stft.window, torch.hann_window(2048))


def test_level_is_what_a_network_measures():
    """White noise of a known RMS: the frames' mean energy is as Parseval says."""
    encoder = encoder_choices.get_class("mel_band_split")(num_bands=32)
    wave = 0.3 * torch.randn(1, 320000)
    spec, frames = encoder(wave, torch.tensor([320000]))
    net = CaREEncoder(num_bands=32, num_bins=encoder.output_dim, dim=8, heads=(1, 1, 1), connector_heads=1)
    rms = wave.square().mean(-1).sqrt()
    assert torch.allclose(net.level_of(spec, frames), encoder.level(rms), rtol=0.01)


@pytest.mark.parametrize("encoder, decoder", PAIRS)
def test_decoders_refuse_other_rates_too(encoder, decoder):
    encoder, decoder = encoder_choices.get_class(encoder)(), decoder_choices.get_class(decoder)()
    lengths = torch.tensor([4000])
    spec, _ = encoder(torch.randn(1, 4000), lengths, fs=encoder.sample_rate)
    assert torch.equal(decoder(spec, lengths, fs=encoder.sample_rate)[0], decoder(spec, lengths)[0])
    with pytest.raises(
        ValueError, match=f"works at {encoder.sample_rate} Hz, got audio at 11025 Hz: resample it first"
    ):
        decoder(spec, lengths, fs=11025)


@pytest.mark.parametrize("encoder, decoder", PAIRS)
def test_float64_is_kept_and_half_becomes_float32(encoder, decoder):
    encoder, decoder = encoder_choices.get_class(encoder)(), decoder_choices.get_class(decoder)()
    wave, lengths = torch.randn(1, 5000, dtype=torch.float64), torch.tensor([5000])
    spec, _ = encoder(wave, lengths)
    out, _ = decoder(spec, lengths)
    assert spec.dtype == torch.complex128 and out.dtype == torch.float64
    assert (out - wave).abs().max() < 1e-12
    spec, _ = encoder(wave.bfloat16(), lengths)
    assert spec.dtype == torch.complex64


@pytest.mark.parametrize("encoder, decoder", PAIRS)
def test_espnets_complex_tensors_are_taken(encoder, decoder):
    encoder, decoder = encoder_choices.get_class(encoder)(), decoder_choices.get_class(decoder)()
    lengths = torch.tensor([4000])
    spec, frames = encoder(torch.randn(1, 4000), lengths)
    theirs = ComplexTensor(spec.real, spec.imag)
    assert torch.equal(decoder(theirs, lengths)[0], decoder(spec, lengths)[0])
    masker = separator_choices.get_class("mask_blstm")(encoder.output_dim, num_spk=2, hidden=4, layers=1)
    for ours, masked in zip(masker(spec, frames)[0], masker(theirs, frames)[0], strict=True):
        assert torch.equal(ours, masked)


@pytest.mark.parametrize(
    "n_fft, hop, samples", [(1024, 320, 32000), (512, 128, 16001), (256, 80, 50), (512, 256, 4096)]
)
def test_the_inverse_is_that_of_torch(n_fft, hop, samples):
    stft = STFT(n_fft, hop)
    spec = stft(torch.randn(2, 3, samples)) * torch.rand(n_fft // 2 + 1)
    wanted = torch.istft(spec.flatten(0, 1).mT, n_fft, hop, window=stft.window, length=samples)
    assert torch.equal(stft.inverse(spec, samples).flatten(0, 1), wanted)
