"""CaRE-SEP: what must hold whatever its weights are."""

import pytest
import torch
from small_nets import CARE, made, spectrum

from espnet2_ext.core.layers.bands import BandProfile
from espnet2_ext.core.nets.care_sep import QUERY_AT, CaREEncoder, CaRESep

DECODER = ("expands", "joins", "decoder", "patch_up", "to_mask")


def make(**kw):
    return made(CaRESep, **CARE | kw)


@pytest.mark.parametrize("mask_type", ["magnitude", "complex"])
@pytest.mark.parametrize("length", [1, 5, 32, 77])
def test_any_length(mask_type, length):
    net = make(mask_type=mask_type)
    spec, frames = spectrum(2, length), torch.tensor([length, max(1, length // 2)])
    masked, out = net(spec, frames, spec, frames)
    assert masked.shape == spec.shape and masked.isfinite().all()
    assert out.embedding.shape == (2, 64) and out.clipwise.shape == (2, 5)
    assert out.framewise.shape[::2] == (2, 5)


def test_magnitude_mask_keeps_the_phase_and_never_amplifies():
    net, spec = make(), spectrum(1, 40)
    mask = net.mask(spec, torch.tensor([40]), torch.randn(1, 1, 64))
    assert mask.dtype == torch.float32 and 0 <= mask.min() and mask.max() <= 1


def test_a_temperature_softens_masks_in_use_and_not_in_training():
    plain, soft, spec = make(), make(temperature=3.0), spectrum(1, 40)
    query = torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(0))
    for net in (plain, soft):
        net.to_mask.weight.data.mul_(20)
    mask, softer = (net.eval().mask(spec, torch.tensor([40]), query) for net in (plain, soft))
    known = (mask - 0.5).abs() < 0.499
    torch.testing.assert_close(softer.logit()[known], mask.logit()[known] / 3, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(*(net.train().mask(spec, torch.tensor([40]), query) for net in (plain, soft)))
    with pytest.raises(ValueError, match="temperature is for"):
        make(mask_type="complex", temperature=2.0)


def test_a_mask_that_reaches_further_leaves_bins_as_they_are_or_out():
    plain, further, spec = make(), make(mask_reach=0.25), spectrum(1, 40)
    query = torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(0))
    for net in (plain, further):
        net.to_mask.weight.data.mul_(20)
    mask, cut = (net.mask(spec, torch.tensor([40]), query) for net in (plain, further))
    torch.testing.assert_close(cut, (1.5 * mask - 0.25).clamp(0, 1))
    assert (cut == 0).any() and (cut == 1).any() and 0 < mask.min() and mask.max() < 1


def test_a_layer_before_the_masks_adds_nothing_at_first_and_sees_query_and_image():
    plain, hidden = make(), CaRESep(**CARE, mask_hidden=6).eval()
    spec, frames = spectrum(2, 40), torch.tensor([40, 29])
    missing, unknown = hidden.load_state_dict(plain.state_dict(), strict=False)
    assert not unknown and all(name.startswith("mask_hidden.") for name in missing)
    both = torch.randn(2, 2, 64, generator=torch.Generator().manual_seed(0))
    before = plain.mask(spec, frames, both)
    torch.testing.assert_close(hidden.mask(spec, frames, both), before, rtol=0, atol=0)

    layer = hidden.mask_hidden
    torch.nn.init.normal_(layer.outer.weight)
    x, image = torch.randn(4, 5, 3, 8), torch.randn(2, 5, 3, 4)
    joined = torch.cat([x, torch.nn.functional.layer_norm(image, (4,)).repeat_interleave(2, 0)], -1)
    inner = torch.nn.functional.gelu(joined @ layer.inner.weight.T + layer.inner.bias)
    torch.testing.assert_close(layer(x, image, both.flatten(0, 1)), x + inner @ layer.outer.weight.T)
    for i in range(2):  # what queries share is worked on once
        torch.testing.assert_close(
            hidden.mask(spec, frames, both)[:, i : i + 1], hidden.mask(spec, frames, both[:, i : i + 1])
        )


def test_a_query_in_context_is_as_without_at_first_and_sees_its_whole_mixture():
    options = CARE | {"query_at": "decoder", "query_profile": True}
    plain, net = made(CaRESep, **options), CaRESep(**options, query_context=6).eval()
    missing, unknown = net.load_state_dict(plain.state_dict(), strict=False)
    assert not unknown and all(name.startswith("context.") for name in missing)
    spec, frames = spectrum(2, 40), torch.tensor([40, 29])
    both = torch.randn(2, 2, net.query_dim, generator=torch.Generator().manual_seed(0))
    before = plain.mask(spec, frames, both)
    torch.testing.assert_close(net.mask(spec, frames, both), before, rtol=0, atol=0)

    layer = net.context
    torch.nn.init.normal_(layer.outer.weight)
    for i in range(2):  # what queries share is worked on once
        torch.testing.assert_close(
            net.mask(spec, frames, both)[:, i : i + 1], net.mask(spec, frames, both[:, i : i + 1])
        )
    image = net.image(spec, frames)
    map_, valid = net.encode(net.tokens(image), (40, 29))[1:]
    own = [
        torch.cat([map_[i, :n].mean((0, 1)), image[i].sum(0).flatten() / f])
        for i, (n, f) in enumerate(zip(valid, (40, 29)))
    ]
    own = torch.stack(own) / (1 + layer.norm.eps) ** 0.5  # running mean 0, variance 1
    query = both.flatten(0, 1)
    inner = torch.cat([query, own.repeat_interleave(2, 0)], 1) @ layer.inner.weight.T + layer.inner.bias
    middle = torch.nn.functional.gelu(torch.nn.functional.gelu(inner) @ layer.middle.weight.T + layer.middle.bias)
    moved = query + torch.nn.functional.pad(middle @ layer.outer.weight.T, (0, net.query_dim - net.width))
    torch.testing.assert_close(net.mask(spec, frames, both), plain.mask(spec, frames, moved.unflatten(0, (2, 2))))


def test_a_query_in_context_needs_a_mixture_that_no_query_has_entered():
    with pytest.raises(ValueError, match="query_context is for query_at decoder, not all"):
        make(query_context=6)


def test_complex_mask_is_bounded():
    net, spec = make(mask_type="complex", mask_bound=1.5), spectrum(1, 40)
    net.to_mask.bias.data.fill_(1e4)
    mask = net.mask(spec, torch.tensor([40]), torch.randn(1, 1, 64))
    assert mask.is_complex() and mask.abs().max() <= 1.5 + 1e-5


def test_a_batch_of_differing_lengths_is_as_each_alone():
    net = make()
    lengths = [61, 40, 9]
    specs = [spectrum(1, n, seed=n) for n in lengths]
    batch = torch.cat([torch.nn.functional.pad(s, (0, 0, 0, 61 - n)) for s, n in zip(specs, lengths)])
    frames, query = torch.tensor(lengths), torch.randn(3, 1, 64)
    together, out = net.mask(batch, frames, query), net.embed(batch, frames)
    for i, n in enumerate(lengths):
        one = torch.tensor([n])
        alone = net.mask(specs[i], one, query[i : i + 1])
        assert torch.allclose(together[i, :, :n], alone[0], atol=1e-4)
        assert torch.allclose(out.embedding[i], net.embed(specs[i], one).embedding[0], atol=1e-4)
        assert torch.allclose(out.clipwise[i], net.embed(specs[i], one).clipwise[0], atol=1e-4)


def test_several_queries_in_one_batch_are_as_one_by_one():
    net, spec = make(), spectrum(2, 50)
    frames, query = torch.tensor([50, 33]), torch.randn(2, 3, 64)
    together = net.mask(spec, frames, query)
    assert together.shape[:2] == (2, 3)
    for q in range(3):
        assert torch.allclose(together[:, q], net.mask(spec, frames, query[:, q : q + 1])[:, 0], atol=1e-5)


def test_loudness_does_not_matter():
    net, spec = make(), spectrum(1, 50)
    frames, query = torch.tensor([50]), torch.randn(1, 1, 64)
    mask = net.mask(spec, frames, query)
    assert torch.allclose(net.mask(1e-3 * spec, frames, query), mask, atol=1e-4)
    level = net.level_of(spec, frames)
    assert torch.allclose(net.mask(spec, frames, query, level), mask, atol=1e-6)
    assert not torch.allclose(net.mask(spec, frames, query, 10 * level), mask, atol=1e-2)


def test_silence_gives_numbers():
    net = make()
    spec, frames = torch.zeros(1, 20, 129, dtype=torch.cfloat), torch.tensor([20])
    masked, out = net(spec, frames, spec, frames)
    assert masked.abs().max() == 0 and out.embedding.isfinite().all()


def test_both_passes_share_the_encoder():
    net, spec = make(), spectrum(1, 40)
    frames = torch.tensor([40])
    for p in net.parameters():
        p.grad = None
    net.embed(spec, frames).embedding.sum().backward()
    by_query = {n for n, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    net.mask(spec, frames, torch.randn(1, 1, 64)).sum().backward()
    by_mask = {n for n, p in net.named_parameters() if p.grad is not None}
    shared = {n for n in by_query & by_mask if n.startswith(("encoder", "connector", "project"))}
    assert len(shared) > 20
    assert not any(".query." in n for n in by_query)  # the embedding pass runs without a query
    for name in ("encoder.0.blocks.0.query", "connector.blocks.1.query", "decoder.2.blocks.0.query"):
        assert f"{name}.weight" in by_mask  # the separation pass has one at every level


@pytest.mark.parametrize("query_at", QUERY_AT)
def test_what_lies_before_the_query_is_done_once(query_at):
    net, spec, frames = make(query_at=query_at), spectrum(2, 50), torch.tensor([50, 33])
    seen = {}
    for name, stage in [("encoder", net.encoder[0]), ("connector", net.connector), ("decoder", net.decoder[0])]:
        stage.register_forward_hook(lambda m, args, out, name=name: seen.update({name: len(out)}))
    query = torch.randn(2, 3, 64)
    together = net.mask(spec, frames, query)
    first = {"all": 0, "connector": 1, "decoder": 2}[query_at]
    assert list(seen.values()) == [2] * first + [6] * (3 - first)
    for q in range(3):
        alone = net.mask(spec, frames, query[:, q : q + 1])[:, 0]
        assert torch.allclose(together[:, q], alone, atol=1e-5)
        assert not torch.allclose(together[:, q], together[:, q - 1], atol=1e-3)


def test_gradient_reaches_the_query():
    net, spec = make(), spectrum(1, 40)
    frames, query = torch.tensor([40]), torch.randn(1, 1, 64, requires_grad=True)
    net.mask(spec, frames, query).sum().backward()
    assert query.grad.abs().max() > 0


def test_encoder_alone_listens_as_the_encoder_within():
    net, spec = make(), spectrum(2, 50)
    alone = CaREEncoder(**CARE).eval()
    missing, unknown = alone.load_state_dict(net.state_dict(), strict=False)
    assert missing == [] and all(".query." in n or n.startswith(DECODER) for n in unknown)
    frames = torch.tensor([50, 21])
    for one, other in zip(alone.embed(spec, frames), net.embed(spec, frames)):
        assert torch.equal(one, other)


def test_windows_repeat_on_the_grid():
    net = make()
    grid = net.grid_frames
    assert grid == 4 * 8 * 4  # bands in a token, three merges, window of 4
    a, b = spectrum(1, 2 * grid), spectrum(1, grid, seed=2)
    for stage in [*net.encoder, net.connector, *net.decoder]:  # no shift: windows are on their own
        for block in stage.blocks:
            block.shift = (0, 0)
    query, level = torch.randn(1, 1, 64), torch.ones(1)
    whole = net.mask(torch.cat([a, b], 1), torch.tensor([3 * grid]), query, level)
    part = net.mask(b, torch.tensor([grid]), query, level)
    assert torch.allclose(whole[:, :, 2 * grid :], part, atol=1e-5)


def test_every_parameter_gets_a_gradient():
    net, spec = make().train(), spectrum(2, 70)
    frames = torch.tensor([70, 40])
    masked, out = net(spec, frames, spec, frames)
    (masked.abs().sum() + out.clipwise.sum()).backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_sizes_of_the_paper():
    for dim, width in ((96, 768), (256, 2048)):
        with torch.device("meta"):
            net = CaRESep(dim=dim, num_classes=527)
        assert net.query_dim == width
        stages = [(s.blocks[0].norm1.normalized_shape[0], len(s.blocks)) for s in net.encoder]
        assert stages == [(dim, 2), (2 * dim, 2), (4 * dim, 6)]
        assert [len(s.blocks) for s in net.decoder] == [6, 2, 2]


@pytest.mark.parametrize(
    "kw, message",
    [
        ({"num_bands": 40}, "multiple of 32: 40"),
        ({"mask_type": "phase"}, "'phase'"),
        ({"depths": (1, 1)}, "differ in number"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(kw, message):
    with pytest.raises(ValueError, match=message):
        make(**kw)


def test_query_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"\[1, Q, 64\], got \[1, 1, 63\]"):
        make().mask(spectrum(1, 8), torch.tensor([8]), torch.randn(1, 1, 63))


def test_normalised_queries_differ_from_the_first_step_on():
    torch.manual_seed(0)
    plain, normed = CaRESep(**CARE), CaRESep(**CARE, query_norm=True)
    normed.load_state_dict(plain.state_dict(), strict=False)
    spec, frames = spectrum(6, 40), torch.full((6,), 40)
    one, two = plain.embed(spec, frames).embedding, normed.embed(spec, frames).embedding
    torch.testing.assert_close(two, (one - one.mean(0)) / (one.var(0, unbiased=False) + 1e-5).sqrt())
    assert one.std(0).mean() < 0.5 < two.std(0).mean()
    with torch.no_grad():
        for _ in range(200):  # in evaluation, by what training has seen
            normed.query_norm(one)
    seen = two * (5 / 6) ** 0.5  # running variances are unbiased
    torch.testing.assert_close(normed.eval().embed(spec, frames).embedding, seen, rtol=0, atol=0.02)
    torch.testing.assert_close(normed.embed(spec[:1], frames[:1]).embedding, normed.embed(spec, frames).embedding[:1])


@pytest.mark.parametrize("query_at", QUERY_AT)
def test_a_querys_profile_goes_to_the_tokens_of_each_band(query_at):
    net = make(query_profile=True, query_at=query_at)
    assert net.query_dim == 64 + 32 * 4 and ("first" in net.profile.into) == (query_at == "all")
    spec, frames = spectrum(2, 50), torch.tensor([50, 33])
    query = net.embed(spec, frames).embedding
    image = net.image(spec, frames)
    mean = torch.stack([image[0, :50].mean(0), image[1, :33].mean(0)]).flatten(1)
    torch.testing.assert_close(query[:, 64:], mean / (1 + 1e-5) ** 0.5)  # statistics of the start: 0 and 1
    both = torch.stack([query, query.flip(0)], 1)
    mask = net.mask(spec, frames, both)
    for i in range(2):
        torch.testing.assert_close(mask[:, i : i + 1], net.mask(spec, frames, both[:, i : i + 1]))
    other = query.clone()
    other[:, 64:68] += 1.0  # the lowest band
    assert (net.mask(spec, frames, other[:, None]) - mask[:, :1]).abs().max() > 1e-3


def test_what_a_profile_adds_by_hand():
    profile = BandProfile(num_bands=4, channels=1, patch_size=2, dim=1, places=("last",)).eval()
    profile.into["last"].weight.data = torch.tensor([[1.0, 10.0]])
    profile.into["last"].bias.data = torch.tensor([0.5])
    x = torch.zeros(1, 3, 2, 1)
    shown = profile.show("last", x, torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 1.0]]))
    assert shown[:, 0, :, 0].tolist() == [[21.5, 43.5], [0.5, 10.5]] and shown.shape == (2, 3, 2, 1)


@pytest.mark.parametrize("frames", [(21, 21), (21, 13)])
@pytest.mark.parametrize("which", ["mask", "embed"])
def test_one_graph_without_breaks(which, frames):
    torch._dynamo.reset()
    sizes = dict(dim=8, image_channels=4, depths=(2,), heads=(1,), connector_depth=1, connector_heads=2)
    net = CaRESep(num_bands=32, num_bins=129, fs=8000, window=4, num_classes=3, drop_path=0.0, **sizes)
    given = torch.randn(2, 21, 129, dtype=torch.complex64), frames
    given += (torch.randn(2, 2, net.query_dim),) if which == "mask" else ()
    found = torch._dynamo.explain(getattr(net, which))(*given)
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons
