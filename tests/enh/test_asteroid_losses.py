"""Asteroid's losses as ESPnet criterions: values, order of arguments, permutations, hosts."""

import asteroid.losses as A
import pytest
import torch
from espnet2.tasks.enh import EnhancementTask

from espnet2_ext.enh.asteroid_parts import AsteroidLoss, AsteroidMasker
from espnet2_ext.enh.losses import AllSourcesSolver
from espnet2_ext.errors import DataError

B, S, T = 3, 4, 500


@pytest.fixture
def pair():
    g = torch.Generator().manual_seed(0)
    ref = torch.randn(B, S, T, generator=g)
    return ref, 0.5 * ref + 0.2 * torch.randn(B, S, T, generator=g)


@pytest.mark.parametrize(
    "name",
    [
        "singlesrc_neg_sisdr",
        "singlesrc_neg_snr",
        "multisrc_neg_sisdr",
        "pairwise_neg_sisdr",
        "singlesrc_mse",
        "pairwise_mse",
    ],
)
def test_one_value_an_item_in_espnets_order(pair, name):
    ref, inf = pair
    loss = AsteroidLoss(name)
    assert loss.name == name and loss(ref, inf).shape == (B,)
    plain = name.replace("multisrc", "singlesrc").replace("pairwise", "singlesrc")
    want = torch.stack([getattr(A, plain)(inf[:, s], ref[:, s]) for s in range(S)], 1)
    assert torch.allclose(loss(ref, inf), want.mean(1), atol=1e-4)
    assert torch.allclose(loss(ref[:, 1], inf[:, 1]), want[:, 1], atol=1e-4)  # one source at a time
    if "snr" in name:  # it tells its arguments apart
        assert not torch.allclose(loss(inf, ref), want.mean(1), atol=1e-2)


@pytest.mark.parametrize("name", ["singlesrc_neg_sisdr", "multisrc_neg_sisdr", "pairwise_neg_sisdr"])
def test_pit_finds_the_order(pair, name):
    ref, inf = pair
    order = torch.tensor([2, 0, 3, 1])
    straight = AsteroidLoss(name)(ref, inf)
    loss, perm = AsteroidLoss(name, pit=True).with_order(ref, inf[:, order])
    assert torch.allclose(loss, straight, atol=1e-4)
    back = torch.stack([x[p] for x, p in zip(inf[:, order], perm)])
    assert torch.equal(back, inf)


def test_classes_take_their_arguments(pair):
    ref, inf = pair
    loss = AsteroidLoss("PairwiseNegSDR", {"sdr_type": "sisdr", "zero_mean": False}, name="mine")
    same = AsteroidLoss("SingleSrcNegSDR", {"sdr_type": "sisdr", "zero_mean": False})
    assert loss.name == "mine" and torch.allclose(loss(ref, inf), same(ref, inf), atol=1e-4)
    spectral = AsteroidLoss("SingleSrcMultiScaleSpectral", {"n_filters": [64], "windows_size": [64], "hops_size": [16]})
    assert spectral(ref, inf).shape == (B,)


def test_all_sources_wrapper(pair):
    ref, inf = pair
    wrapper = AllSourcesSolver(AsteroidLoss("pairwise_neg_sisdr", pit=True), 2.0)
    loss, stats, others = wrapper(list(ref.unbind(1)), list(inf.flip(1).unbind(1)))
    assert torch.allclose(loss, AsteroidLoss("multisrc_neg_sisdr")(ref, inf).mean(), atol=1e-4)
    assert stats.keys() == {"pairwise_neg_sisdr"} and wrapper.weight == 2.0
    assert others["perm"].tolist() == [[3, 2, 1, 0]] * B


@pytest.mark.parametrize(
    "conf, wrapper",
    [
        ({"loss": "singlesrc_neg_sisdr"}, "fixed_order"),
        ({"loss": "singlesrc_neg_sisdr"}, "pit"),
        ({"loss": "pairwise_neg_sisdr", "pit": True}, "all_sources"),
    ],
)
def test_in_espnets_own_enhancement_task(conf, wrapper):
    """Its model, not ours; nothing but the name is new."""
    import espnet2_ext.tasks.weak  # noqa: F401  puts the names into ESPnet's tables

    torch.manual_seed(0)
    args = EnhancementTask.get_parser().parse_args(["--output_dir", "unused"])
    args.encoder_conf = args.decoder_conf = {"n_fft": 64, "hop_length": 32}
    args.separator_conf = {"num_spk": 2, "unit": 4, "layer": 1}
    args.criterions = [{"name": "asteroid", "conf": conf, "wrapper": wrapper, "wrapper_conf": {}}]
    model = EnhancementTask.build_model(args)
    ref = torch.randn(2, 2, 400)
    loss, stats, _ = model(
        speech_mix=ref.sum(1), speech_mix_lengths=torch.tensor([400, 400]), speech_ref1=ref[:, 0], speech_ref2=ref[:, 1]
    )
    loss.backward()
    assert stats[conf["loss"]].isfinite().all()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    "wrapper, conf", [("keyed_order", {"loss": "singlesrc_neg_snr"}), ("all_sources", {"loss": "pairwise_neg_snr"})]
)
def test_in_the_query_task(model, batch, wrapper, conf):
    from espnet2_ext.tasks.common import build_criterion

    model.loss_wrappers = [build_criterion({"name": "asteroid", "conf": conf}, wrapper)]
    batch["speech_ref1"][0] = batch["speech_ref1"][1]  # no silence: an SNR has no value there
    loss, stats, _ = model.eval()(**batch)
    assert loss.isfinite() and torch.equal(stats[conf["loss"]], loss.detach())


@pytest.mark.parametrize("name, pit", [("pairwise_neg_sisdr", True), ("singlesrc_mse", False)])
def test_padding_does_not_count(pair, name, pit):
    ref, inf = pair
    inf[0] = inf[0].flip(0)
    lengths, loss = torch.tensor([T, 200, 350]), AsteroidLoss(name, pit=pit)
    value, perm = loss.with_order(ref, inf, lengths)
    alone = [loss.with_order(ref[[i], :, :n], inf[[i], :, :n]) for i, n in enumerate(lengths)]
    assert torch.allclose(value, torch.cat([v for v, _ in alone]), atol=1e-5)
    assert torch.equal(perm, torch.cat([p for _, p in alone]))
    _, stats, _ = AllSourcesSolver(loss)(ref, inf, {"speech_lengths": lengths})
    assert torch.allclose(stats[name], value.mean())


@pytest.mark.parametrize("name", ["LSTMMasker", "TDConvNet"])
def test_padding_changes_no_mask(name):
    conf = {"LSTMMasker": {"hid_size": 4, "n_layers": 1, "dropout": 0}}
    conf["TDConvNet"] = {"n_blocks": 2, "n_repeats": 1, "bn_chan": 4, "hid_chan": 8, "skip_chan": 4}
    net = AsteroidMasker(9, 2, name, conf[name])
    spec, lengths = torch.randn(4, 20, 9, dtype=torch.cfloat), torch.tensor([20, 7, 12, 7])
    masks = net(spec, lengths)
    assert masks.shape == (4, 2, 20, 9)
    for i, n in enumerate(lengths.tolist()):
        assert torch.allclose(masks[i, :, :n], net(spec[[i], :n], lengths[[i]])[0], atol=1e-6)
    masks.sum().backward()
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    "args, message",
    [
        (("singlesrc_neg_sdi",), "no asteroid loss 'singlesrc_neg_sdi'.*singlesrc_neg_sisdr"),
        (("PITLossWrapper",), "no asteroid loss 'PITLossWrapper'.*pit: true"),
        (("SingleSrcPMSQE",), "takes spectra"),
        (("PairwiseNegSDR", {"type": "snr"}), "'PairwiseNegSDR', loss_conf"),
        (("pairwise_mse", {"x": 1}), "takes no loss_conf"),
    ],
)
def test_bad_names_are_refused(args, message):
    with pytest.raises(DataError, match=message):
        AsteroidLoss(*args)
