"""Masks of components: what must hold whatever the weights are."""

import pytest
import torch
from small_nets import CARE, made, noise, spectrum

from espnet2_ext.core.nets.care_sep import CaREComponents, CaREEncoder

CONF = CARE | dict(components=3, mel_bands=16, channels=(4, 6), pick_hidden=5, query_context=4)


def make(**kw):
    return made(CaREComponents, **CONF | kw)


def asked(net, items, queries=1):
    return noise(items, queries, net.query_dim, seed=3)


@pytest.mark.parametrize("length", [1, 5, 32, 77])
def test_any_length(length):
    net, spec, frames = make(), spectrum(2, length), torch.tensor([length, max(1, length // 2)])
    mask = net.mask(spec, frames, asked(net, 2, 3))
    assert mask.shape == (2, 3, length, 129) and 0 <= mask.min() and mask.max() <= 1


def test_a_mask_is_the_sum_of_components_that_its_query_weighs():
    net, spec = make(mask_reach=0.0, query_context=0), spectrum(1, 40)
    query, weights = asked(net, 1, 2), torch.tensor([[2.0, 0.0, -1.0, 0.5], [0.0, 0.0, 0.0, -1.0]])
    net.pick[2].weight.data.zero_()
    for row, wanted in enumerate(weights):
        net.pick[2].bias.data.copy_(wanted)
        mask = net.mask(spec, torch.tensor([40]), query)
        one, _, three = components(net, spec)
        logit = (2 * one - three + 0.5) @ net.unet.spread if row == 0 else torch.full((40, 129), -1.0)
        torch.testing.assert_close(mask[0], logit.sigmoid().expand(2, -1, -1), rtol=1e-4, atol=1e-5)


def components(net, spec):
    """`[K, L, N]` of one spectrum, whose level is brought to 1."""
    frames = torch.full(spec.shape[:1], spec.shape[1])
    spec = spec / net.level_of(spec, frames)[:, None, None]
    _, x, _ = net.encode(net.tokens(net.image(spec, frames)), tuple(frames.tolist()))
    hint = net.hint(x).movedim(3, 1).repeat_interleave(net.token_frames // net.unet.step, 2)
    return net.unet.bands(spec.abs(), None, hint)[0]


def test_a_batch_of_differing_lengths_is_as_each_alone():
    net, spec, frames = make(), spectrum(3, 90), torch.tensor([90, 37, 64])
    query = asked(net, 3, 2)
    together = net.mask(spec, frames, query)
    for i, n in enumerate(frames):
        alone = net.mask(spec[i : i + 1, :n], frames[i : i + 1], query[i : i + 1])
        torch.testing.assert_close(together[i : i + 1, :, :n], alone, rtol=1e-4, atol=1e-5)


def test_several_queries_are_as_one_by_one_and_loudness_does_not_matter():
    net, spec, frames = make(), spectrum(2, 50), torch.tensor([50, 40])
    query = asked(net, 2, 3)
    masks = net.mask(spec, frames, query)
    for q in range(3):
        torch.testing.assert_close(masks[:, q : q + 1], net.mask(1e-3 * spec, frames, query[:, q : q + 1]))
    assert net.mask(0 * spec, frames, query).isfinite().all()


def test_what_the_mixture_holds_moves_a_query_from_its_first_step_on():
    net = CaREComponents(**CONF)
    assert net.context is not None and not net.context.outer.weight.any()
    net = make()
    query, spec, frames = asked(net, 1), spectrum(1, 64), torch.tensor([64])
    mask = net.mask(spec, frames, query)
    net.context.outer.weight.data.zero_()
    net.context.outer.bias.data.zero_()
    assert not torch.allclose(net.mask(spec, frames, query), mask, atol=1e-3)


def test_the_encoder_listens_as_it_does_alone():
    net, alone = make(query_norm=False, query_profile=False), CaREEncoder(**CARE).eval()
    alone.load_state_dict({k: v for k, v in net.state_dict().items() if k in alone.state_dict()})
    spec, frames = spectrum(2, 40), torch.tensor([40, 30])
    for own, wanted in zip(net.embed(spec, frames), alone.embed(spec, frames)):
        torch.testing.assert_close(own, wanted)


@pytest.mark.parametrize(
    "kw, message",
    [
        (dict(channels=(4,) * 6, mel_bands=64), "64 frames .* the encoder's 32"),
        (dict(num_bands=64, mel_bands=4), "mel_bands 4: .* 2 bands"),
        (dict(temperature=0.0), "temperature"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(kw, message):
    with pytest.raises(ValueError, match=message):
        make(**kw)
